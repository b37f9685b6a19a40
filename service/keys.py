"""API keys: random, shown once, kept as a hash with a lookup prefix, compared in constant time.

Without keys the server takes any bearer token and listens on loopback only. Leaves out scopes and expiry.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

PREFIX = "fg-"
LOOKUP_CHARS = 8
LOCAL_OWNER = "local"
"""Owner of every conversation when no keys are configured."""


@dataclass(frozen=True, slots=True)
class HashedKey:
    """What is kept of a key."""

    lookup: str
    """Its first characters, by which it is found; also the owner's id in the log."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.lookup}:{self.sha256}"


def create_key() -> tuple[str, HashedKey]:
    """A new key, to be shown once, and what to keep of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, HashedKey(key[: len(PREFIX) + LOOKUP_CHARS], _hash(key))


def parse_keys(text: str) -> tuple[HashedKey, ...]:
    """Hashed keys from `lookup:sha256` entries, separated by commas. Raises: ValueError on a malformed entry."""
    keys = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        lookup, _, digest = entry.partition(":")
        if not lookup.startswith(PREFIX) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("api_keys: expected entries like fg-…:<64 hex digits>, as `fetchgate keys create` prints them, "
                             f"got one that begins with {entry[:8]!r}")
        keys.append(HashedKey(lookup, digest))
    return tuple(keys)


def owner_of(key: str, keys: tuple[HashedKey, ...]) -> str | None:
    """The owner that a key speaks for; None when it is unknown. Without configured keys every caller is local."""
    if not keys:
        return LOCAL_OWNER
    digest = _hash(key)
    found = None
    for candidate in keys:
        if hmac.compare_digest(candidate.sha256, digest):
            found = candidate.lookup
    return found


def _hash(key: str) -> str:
    # a plain hash is enough: the key has 256 random bits, so there is no dictionary to try
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
