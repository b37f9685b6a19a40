"""The OpenAI client against a server that misbehaves: slow, silent, garbage, half a stream, too many requests."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest

from chat.errors import LLMError
from chat.llm.openai import OpenAIClient, OpenAIConfig
from chat.ports import Chunk
from chat.types import Message, Sampling

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(content: str = "", finish: str = "null", usage: str = "null") -> bytes:
    choice = f'{{"index": 0, "delta": {{"content": "{content}"}}, "finish_reason": {finish}}}'
    head = '"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"'
    return f'data: {{{head}, "choices": [{choice}], "usage": {usage}}}\n\n'.encode()


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A raw server on loopback that reads a request and lets `answer` write what it likes."""
    ready, loop, address = Event(), asyncio.new_event_loop(), list[str]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await answer(await reader.readexactly(length), writer)
        finally:
            writer.close()

    async def main() -> None:
        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        ready.set()
        await stop.wait()
        listening.close()
        handling = asyncio.all_tasks() - {asyncio.current_task()}
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)

    stop = asyncio.Event()
    thread = Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def ask(url: str, **options: Any) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        client = OpenAIClient(OpenAIConfig("m", url, **{"max_retries": 0, **options}))
        try:
            return [chunk async for chunk in client.stream([Message("user", "hi")], Sampling())]
        finally:
            await client.aclose()

    return asyncio.run(collect())


def saying(*parts: bytes) -> Answer:
    async def answer(body: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


def status(line: str, headers: str = "", body: str = '{"error": {"message": "no"}}') -> Answer:
    return saying(f"HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n{body}".encode())


async def silent(body: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def test_a_good_stream_gives_text_reason_and_cached_tokens() -> None:
    usage = '{"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 4}}'
    with server(saying(HEAD, event("a "), event("b"), event("", '"stop"', usage), b"data: [DONE]\n\n")) as url:
        chunks = ask(url)
    assert "".join(chunk.text for chunk in chunks) == "a b"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.input_tokens, chunks[-1].usage.cached_input_tokens) == (9, 4)


def test_a_server_that_counts_nothing_leaves_usage_unknown() -> None:
    with server(saying(HEAD, event("a"), event("", '"length"'), b"data: [DONE]\n\n")) as url:
        last = ask(url)[-1]
    assert (last.finish_reason, last.usage) == ("length", None)


@pytest.mark.parametrize(("answer", "retryable", "after"), [
    (status("429 Too Many Requests", "retry-after: 17\r\n"), True, 17.0),
    (status("503 Unavailable"), True, None),
    (status("400 Bad Request"), False, None),
    (status("401 Unauthorized"), False, None),
    (status("404 Not Found"), False, None),
    (saying(HEAD, b"data: {not json\n\n"), True, None),
    (saying(HEAD, b"\x00\xff\xfe garbage\n\n"), True, None),
    (saying(HEAD, event("half an ans")), True, None),
    (saying(HEAD, event("half"), b"data: [DONE]\n\n"), True, None),
    (saying(HEAD, b'data: {"error": {"message": "overloaded"}}\n\n'), True, None),
    (saying(b""), True, None),
])
def test_every_fault_is_an_error_that_says_whether_to_try_again(answer: Answer, retryable: bool, after: float | None) -> None:
    with server(answer) as url, pytest.raises(LLMError) as failure:
        ask(url, api_key="sk-secret-key")
    assert (failure.value.retryable, failure.value.retry_after) == (retryable, after)
    assert "sk-secret-key" not in str(failure.value)


def test_a_silent_server_is_given_up_on_after_the_time_for_a_first_token() -> None:
    with server(silent) as url, pytest.raises(LLMError, match="first token") as failure:
        ask(url, first_token_timeout=0.2)
    assert failure.value.retryable


def test_a_server_that_falls_silent_in_mid_answer_is_given_up_on_too() -> None:
    async def stalls(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + event("begun"))
        await writer.drain()
        await asyncio.sleep(30)

    with server(stalls) as url, pytest.raises(LLMError) as failure:
        ask(url, total_timeout=0.4, first_token_timeout=0.3)
    assert failure.value.retryable


def test_a_server_that_knows_no_stream_options_is_asked_again_without() -> None:
    async def old(body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"stream_options" in body:
            await status("400 Bad Request", body='{"error": {"message": "unknown field stream_options"}}')(body, writer)
        else:
            await saying(HEAD, event("ok"), event("", '"stop"'), b"data: [DONE]\n\n")(body, writer)

    with server(old) as url:
        assert "".join(chunk.text for chunk in ask(url)) == "ok"
