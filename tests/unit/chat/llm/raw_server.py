"""An HTTP server on loopback that answers as a test says, byte by byte: also what no real server should say.

Leaves out everything of HTTP that the SDK doesn't need; each connection serves one request.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Request"], Awaitable[None]]
EVENT_STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"


@dataclass
class Request:
    """One request, and the way to answer it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has closed the connection."""

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        await self.writer.drain()

    async def begin_stream(self) -> None:
        """Headers of a stream that ends where the connection does."""
        await self.send(f"{EVENT_STREAM}\r\n")

    async def begin_chunked(self) -> None:
        """Headers of a stream whose end is marked, so that one that breaks off is seen to."""
        await self.send(f"{EVENT_STREAM}Transfer-Encoding: chunked\r\n\r\n")

    async def event(self, data: object) -> None:
        await self.send(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n")

    async def token(self, text: str | None, finish: str | None = None, **fields: object) -> None:
        """One chunk of a chat completion."""
        delta = {} if text is None else {"content": text}
        await self.event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                          "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields})

    async def refuse(self, status: int, error: object, **headers: str) -> None:
        """A whole response that isn't a stream."""
        body = error if isinstance(error, str) else json.dumps(error)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        lines += f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n"
        await self.send(f"HTTP/1.1 {status} X\r\n{lines}\r\n{body}")


@dataclass
class RawServer:
    """Where it listens, and what it was asked."""

    base_url: str
    requests: list[Request] = field(default_factory=list)


@asynccontextmanager
async def raw_server(*answers: Answer) -> AsyncIterator[RawServer]:
    """Answers the requests in turn; the last answer is for all that follow."""
    served = RawServer("")
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            request = await _read(reader, writer)
            served.requests.append(request)
            watching = asyncio.create_task(_watch(reader, request.gone))
            handlers.add(watching)
            await answers[min(len(served.requests), len(answers)) - 1](request)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is what some tests are about
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    served.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first.split(" ")[1], headers, json.loads(body), writer)


async def _watch(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    try:
        while await reader.read(1024):
            pass
    except ConnectionError:
        pass
    gone.set()
