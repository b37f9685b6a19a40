"""Uvicorn, told to say where it listens once it does, and to let open streams end when it is asked to stop."""

import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


class AnnouncingServer(uvicorn.Server):
    """Calls back with its address when it takes requests."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce the address, with the port that the system gave if it was 0."""
        await super().startup(sockets)
        if self.started and self.servers and self.servers[0].sockets:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/")


def run(app: FastAPI, host: str, port: int, *, grace: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; open streams get `grace` seconds to finish then."""
    config = uvicorn.Config(app, host, port, log_config=None, timeout_graceful_shutdown=grace, server_header=False)
    # uvicorn stops at these signals, then raises them again for whoever had a handler before; being told to stop is no failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    AnnouncingServer(config, announce).run()
