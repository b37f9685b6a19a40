"""A real Milvus server on loopback: milvus-lite's, in a process of its own, which tests may kill and start again.

Tests that do a server no harm run against another one when `TEST_MILVUS_URI` names it.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from kb.milvus_rows import MilvusConfig

INSTALLED = importlib.util.find_spec("pymilvus") is not None and importlib.util.find_spec("milvus_lite") is not None
needs_milvus = pytest.mark.skipif(not INSTALLED, reason="needs the extra `milvus` and milvus-lite")


class GivenServer:
    """A server that runs already; each test makes collections of its own there."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def config(self, *, timeout: float = 5.0) -> MilvusConfig:
        """Of a new collection."""
        return MilvusConfig(self.uri, f"kb_{uuid.uuid4().hex[:12]}", timeout=timeout)

    def kill(self) -> None:
        """Leave it running: it isn't ours."""


def shared_milvus(folder: Path) -> GivenServer:
    """The server that `TEST_MILVUS_URI` names, else one of our own."""
    uri = os.environ.get("TEST_MILVUS_URI", "")
    return GivenServer(uri) if uri else MilvusServer(folder)


class MilvusServer(GivenServer):
    """A server that keeps its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{self._port}")
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self._folder / "data"), "--host", "127.0.0.1",
                   "--port", str(self._port)]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError((self._folder / "server.log").read_text())

    def kill(self) -> None:
        """As a crash does: kill -9."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Have it take connections and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
