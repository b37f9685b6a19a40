#!/bin/sh
# The page's tests drive a real Chromium. Where there is none, Debian and Ubuntu get theirs by apt; elsewhere, say how.
set -eu
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-color-emoji fonts-dejavu-core >/dev/null
else
    echo "The chat page's tests need Chromium: install it (Debian: apt-get install chromium), else they are skipped." >&2
fi
