"""A real `fetchgate serve`, as a process of its own on a free port, for tests that reach it over HTTP.

Leaves out what it is asked: browser tests, documentation and the container's test do that.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO
from urllib.parse import urlsplit

ANNOUNCED = re.compile(r"Chat at (http://\S+)/\s*$")
START_LIMIT = 90.0
"""Seconds until the address must be announced; the encoder loads within them."""
STOP_LIMIT = 30.0
KEPT_LINES = 60
"""Lines of standard error that an error shows."""
FETCHGATE = (str(Path(sys.executable).parent / "fetchgate"),)


@contextmanager
def real_service(
    tmp_path: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = FETCHGATE,
    start_limit: float = START_LIMIT,
) -> Iterator[str]:
    """The URL, without a slash at its end, of a `fetchgate serve` that has `tmp_path` for its working and its data folder.

    At the end it gets SIGTERM and must exit with 0. `env` is added to this process's environment, less its own settings.
    Raises: AssertionError, with the end of its standard error, when it doesn't start or doesn't stop well.
    """
    with service_process(tmp_path, *options, env=env, command=command, start_limit=start_limit) as (url, process, said):
        yield url
        assert process.poll() is None, f"fetchgate serve ended by itself with {process.returncode}:\n{said.tail}"
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"fetchgate serve still runs {STOP_LIMIT:.0f} s after SIGTERM:\n{said.tail}") from None
        said.end()
        assert code == 0, f"fetchgate serve: expected exit code 0 after SIGTERM, got {code}:\n{said.tail}"


@contextmanager
def service_process(
    tmp_path: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = FETCHGATE,
    start_limit: float = START_LIMIT,
) -> "Iterator[tuple[str, subprocess.Popen[str], _Said]]":
    """As `real_service`, for tests that end it themselves: its URL, process and what it says; killed at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FETCHGATE_", "OPENAI_"))}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *options], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        env={**inherited, **offline, "FETCHGATE_HOLDBACK": "0", "FETCHGATE_DATA_DIR": str(tmp_path), **(env or {})},
    )
    assert process.stderr is not None
    said = _Said(process.stderr)
    try:
        yield said.address(start_limit), process, said
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        said.end()
        process.stderr.close()


class _Said:
    """Standard error of a process, read to its end so that the process never waits for us."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._address: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._drain, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def tail(self) -> str:
        return "".join(self._lines)

    def address(self, limit: float) -> str:
        """The announced URL, waited for."""
        try:
            url = self._address.get(timeout=limit)
        except Empty:
            raise AssertionError(f"fetchgate serve announced no address within {limit:.0f} s:\n{self.tail}") from None
        assert url is not None, f"fetchgate serve ended before it announced an address:\n{self.tail}"
        assert urlsplit(url).port, f"fetchgate serve: expected an address with a port, got {url}"
        return url

    def end(self) -> None:
        """Wait until the last line is read."""
        self._thread.join(STOP_LIMIT)

    def _drain(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line)
            if found := ANNOUNCED.search(line):
                self._address.put(found[1])
        self._address.put(None)
