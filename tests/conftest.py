"""What all tests share: no network but loopback, no environment of the developer's, FAQs and sessions small enough to read."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
for name in [name for name in os.environ if name.startswith(("FETCHGATE_", "OPENAI_"))]:
    del os.environ[name]
os.environ["FETCHGATE_HOLDBACK"] = "0"  # or one conversation in twenty would not be the policy's
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores Ctrl-C, and programs it starts would too

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another host fails, and can't spend anybody's money."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}; only loopback is open")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def shared_data() -> Path:
    """Real public data beside the checkout; tests that need it are skipped where it isn't."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets in {SHARED_DATA}, which aren't part of the project")
    return SHARED_DATA
