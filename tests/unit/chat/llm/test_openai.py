"""The client for OpenAI-compatible servers, against a server that says what no real one should."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from chat.errors import LLMError
from chat.llm.faults import told_to_wait
from chat.llm.openai import OpenAIClient, OpenAIConfig
from chat.ports import Chunk
from chat.types import Message, Sampling, Usage
from tests.unit.chat.llm.raw_server import Request, raw_server

QUESTION = (Message("system", "Answer."), Message("user", "How much is the late fee?"))
KEY = "sk-very-secret-0123456789"
USAGE = {"prompt_tokens": 21, "completion_tokens": 2, "total_tokens": 23, "prompt_tokens_details": {"cached_tokens": 16}}

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def client(base_url: str, **options: Any) -> AsyncIterator[OpenAIClient]:
    """A client that doesn't retry, with limits that no good answer reaches, unless the test says otherwise."""
    chosen = {"model": "m", "api_key": KEY, "max_retries": 0, "first_token_timeout": 30.0, "total_timeout": 60.0, **options}
    opened = OpenAIClient(OpenAIConfig(base_url=base_url, **chosen))
    try:
        yield opened
    finally:
        await opened.aclose()


async def answer(llm: OpenAIClient, sampling: Sampling = Sampling(), messages: Sequence[Message] = QUESTION) -> list[Chunk]:  # noqa: B008
    return [chunk async for chunk in llm.stream(messages, sampling)]


async def failure(llm: OpenAIClient) -> tuple[LLMError, str]:
    """The error, and the text that came before it."""
    said = ""
    with pytest.raises(LLMError) as caught:  # what was said before the error counts too
        async for chunk in llm.stream(QUESTION, Sampling()):
            said += chunk.text
    assert KEY not in f"{caught.value!r} {caught.value}"
    return caught.value, said


async def good_answer(request: Request) -> None:
    await request.begin_stream()
    await request.event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    await request.token("It is ")
    await request.token("₹450.")
    await request.token(None, "stop")
    await request.event({"id": "c", "created": 1, "model": "m", "choices": [], "usage": USAGE})
    await request.event("[DONE]")


async def hang(request: Request) -> None:
    await request.gone.wait()


async def test_an_answer_is_streamed_and_its_usage_is_the_servers() -> None:
    async with raw_server(good_answer) as server, client(server.base_url) as llm:
        assert await answer(llm) == [
            Chunk("It is "), Chunk("₹450."), Chunk("", "stop", Usage(21, 2, cached_input_tokens=16, source="server")),
        ]


async def test_only_the_options_that_are_set_are_sent() -> None:
    async with raw_server(good_answer) as server, client(server.base_url) as llm:
        await answer(llm)
        await answer(llm, Sampling(max_tokens=5, temperature=0.0, top_p=0.5, stop=("\n",), seed=3))
    bare, full = (request.body for request in server.requests)
    messages = [{"role": message.role, "content": message.content} for message in QUESTION]
    assert bare == {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": messages}
    assert full == bare | {"max_tokens": 5, "temperature": 0.0, "top_p": 0.5, "stop": ["\n"], "seed": 3}
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_max_tokens_goes_by_its_newer_name_where_that_is_configured() -> None:
    async with raw_server(good_answer) as server, client(server.base_url, max_tokens_field="max_completion_tokens") as llm:
        await answer(llm, Sampling(max_tokens=5))
    assert server.requests[0].body["max_completion_tokens"] == 5
    assert "max_tokens" not in server.requests[0].body


async def test_an_organisation_in_the_environment_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-someone")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/elsewhere")
    async with raw_server(good_answer) as server, client(server.base_url, api_key="") as llm:
        await answer(llm)
    assert "openai-organization" not in server.requests[0].headers


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": None, "completion_tokens": None}, {}])
async def test_a_stream_without_usage_leaves_it_to_be_counted(usage: object) -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("Yes.", usage=usage)
        await request.token(None, "length")
        await request.event("[DONE]")

    async with raw_server(answers) as server, client(server.base_url) as llm:
        assert await answer(llm) == [Chunk("Yes."), Chunk("", "length", None)]


async def test_text_end_and_usage_may_come_in_one_chunk_and_without_done() -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("Yes.", "eos", usage={"prompt_tokens": 3, "completion_tokens": 1})

    async with raw_server(answers) as server, client(server.base_url) as llm:
        assert await answer(llm) == [Chunk("Yes."), Chunk("", "stop", Usage(3, 1))]


@pytest.mark.parametrize("error", [
    {"error": {"message": "Unrecognized request argument supplied: stream_options", "param": None}},
    {"error": {"message": "no such option", "param": "stream_options.include_usage"}},
    {"detail": "extra fields not permitted"},
    "not even JSON",
])
async def test_a_server_that_refuses_stream_options_is_asked_once_without_and_never_again_with(error: object) -> None:
    async def refuses(request: Request) -> None:
        await request.refuse(400, error)

    async with raw_server(refuses, good_answer) as server, client(server.base_url) as llm:
        assert (await answer(llm))[0] == Chunk("It is ")
        await answer(llm)
    assert ["stream_options" in request.body for request in server.requests] == [True, False, False]


async def test_a_refusal_that_names_another_option_is_not_asked_again() -> None:
    async def refuses(request: Request) -> None:
        await request.refuse(400, {"error": {"message": "the prompt is too long", "param": "messages"}})

    async with raw_server(refuses) as server, client(server.base_url) as llm:
        error, _ = await failure(llm)
    assert len(server.requests) == 1
    assert not error.retryable
    assert "too long" in str(error)


@pytest.mark.parametrize(("status", "what_to_check"), [
    (400, "the length of the prompt"), (401, "API key"), (403, "may use this model"), (404, "base URL"), (413, "too long"),
    (418, "settings"),
])
async def test_a_refusal_says_what_to_check_and_never_the_key(status: int, what_to_check: str) -> None:
    async def refuses(request: Request) -> None:
        await request.refuse(status, {"error": {"message": f"key {KEY} and\nmodel m are wrong", "param": "model"}})

    async with raw_server(refuses) as server, client(server.base_url) as llm:
        error, _ = await failure(llm)
    assert not error.retryable
    assert error.retry_after is None
    assert what_to_check in str(error)
    assert f"status {status}" in str(error)
    assert "key … and model m are wrong" in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_an_overloaded_or_failing_server_is_worth_another_try_when_it_says_so(status: int) -> None:
    async def fails(request: Request) -> None:
        await request.refuse(status, {"error": {"message": "later"}}, Retry_After="7")

    async with raw_server(fails) as server, client(server.base_url) as llm:
        error, _ = await failure(llm)
    assert error.retryable
    assert error.retry_after == 7.0


async def test_the_sdk_tries_again_as_often_as_configured_and_then_the_answer_comes() -> None:
    async def busy(request: Request) -> None:
        await request.refuse(429, {"error": {"message": "busy"}}, Retry_After_Ms="1")

    async with raw_server(busy, busy, good_answer) as server, client(server.base_url, max_retries=2) as llm:
        assert (await answer(llm))[-1].finish_reason == "stop"
    assert [request.headers["x-stainless-retry-count"] for request in server.requests] == ["0", "1", "2"]


async def test_a_retry_after_beyond_the_callers_patience_is_passed_on_at_once() -> None:
    async def busy(request: Request) -> None:
        await request.refuse(429, {"error": {"message": "busy"}}, Retry_After="100")

    async with raw_server(busy) as server, client(server.base_url, max_retries=2, first_token_timeout=20.0) as llm:
        error, _ = await asyncio.wait_for(failure(llm), 15)
    assert (error.retryable, error.retry_after, len(server.requests)) == (True, 100.0, 1)


async def test_no_server_at_the_address_is_worth_another_try() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{closed.getsockname()[1]}/v1") as llm:
            error, _ = await failure(llm)
    assert error.retryable
    assert "reached" in str(error)


async def test_a_connection_that_nobody_accepts_times_out() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):  # the line of one that waits to be accepted is full now
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with client(f"http://127.0.0.1:{full.getsockname()[1]}/v1", connect_timeout=0.2) as llm:
            error, _ = await asyncio.wait_for(failure(llm), 10)
    assert error.retryable
    assert "connection" in str(error)


async def test_a_server_that_hangs_before_the_first_token_times_out_once_for_all_tries() -> None:
    async with raw_server(hang) as server, client(server.base_url, first_token_timeout=0.3, max_retries=2) as llm:
        error, said = await asyncio.wait_for(failure(llm), 10)
        assert error.retryable
        assert "a first token from the LLM within 0.3 s" in str(error)
        assert said == ""
        await asyncio.wait_for(server.requests[0].gone.wait(), 10)
    assert len(server.requests) == 1


async def test_a_role_is_no_token() -> None:
    async def begins_only(request: Request) -> None:
        await request.begin_stream()
        await request.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        await request.gone.wait()

    async with raw_server(begins_only) as server, client(server.base_url, first_token_timeout=0.3) as llm:
        error, _ = await asyncio.wait_for(failure(llm), 10)
    assert "a first token" in str(error)


async def test_reasoning_beside_the_text_is_a_token() -> None:
    async def thinks(request: Request) -> None:
        await request.begin_stream()
        await request.event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]})
        await request.gone.wait()

    async with raw_server(thinks) as server, client(server.base_url, first_token_timeout=0.3) as llm:
        error, said = await asyncio.wait_for(failure(llm), 10)
    assert "the next token" in str(error)
    assert said == ""


async def test_a_server_that_falls_silent_in_the_middle_times_out() -> None:
    async def stalls(request: Request) -> None:
        await request.begin_stream()
        await request.token("It is ")
        await request.gone.wait()

    async with raw_server(stalls) as server, client(server.base_url, first_token_timeout=0.3) as llm:
        error, said = await asyncio.wait_for(failure(llm), 10)
    assert (said, error.retryable) == ("It is ", True)
    assert "the next token" in str(error)


async def test_an_answer_that_never_ends_is_ended_by_the_total_limit() -> None:
    async def drips(request: Request) -> None:
        await request.begin_stream()
        while not request.gone.is_set():
            await request.token("on ")
            await asyncio.sleep(0.01)

    async with raw_server(drips) as server, client(server.base_url, total_timeout=0.4) as llm:
        error, said = await asyncio.wait_for(failure(llm), 10)
    assert error.retryable
    assert "a whole answer from the LLM within 0.4 s" in str(error)
    assert said.startswith("on on ")


@pytest.mark.parametrize("garbage", [
    "{not json", "[1, 2]", '"text"', "17", '{"choices": "none"}', '{"choices": [{"delta": {"content": 5}}]}', '{"choices": [7]}',
])
async def test_garbage_in_the_stream_is_worth_another_try(garbage: str) -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("It is ")
        await request.event(garbage)

    async with raw_server(answers) as server, client(server.base_url) as llm:
        error, said = await failure(llm)
    assert (said, error.retryable) == ("It is ", True)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"data: \xff\xfe\n\n", b'{"choices": [{"message": {}}]}'])
async def test_a_body_that_is_no_stream_is_worth_another_try(body: bytes) -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.send(body)

    async with raw_server(answers) as server, client(server.base_url) as llm:
        error, said = await failure(llm)
    assert (said, error.retryable) == ("", True)


async def test_a_stream_that_ends_without_saying_why_is_worth_another_try() -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("It is ")
        await request.event("[DONE]")

    async with raw_server(answers) as server, client(server.base_url) as llm:
        error, said = await failure(llm)
    assert (said, error.retryable) == ("It is ", True)
    assert "say why it ended" in str(error)


async def half_a_stream(request: Request) -> None:
    await request.begin_chunked()
    data = 'data: {"choices": [{"index": 0, "delta": {"content": "It is "}}]}\n\n'
    await request.send(f"{len(data):x}\r\n{data}\r\n")
    await request.send("ff\r\ndata: {")


async def test_a_stream_that_breaks_in_the_middle_is_worth_another_try() -> None:
    async with raw_server(half_a_stream) as server, client(server.base_url) as llm:
        error, said = await failure(llm)
    assert (said, error.retryable) == ("It is ", True)
    assert "broke off" in str(error)


async def test_what_breaks_after_the_answer_is_whole_costs_only_the_usage() -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("Yes.")
        await request.token(None, "stop")
        await request.event("{not json")

    async with raw_server(answers) as server, client(server.base_url) as llm:
        assert await answer(llm) == [Chunk("Yes."), Chunk("", "stop", None)]


@pytest.mark.parametrize("event", [{"error": {"message": f"overloaded {KEY}"}}, {"error": "overloaded"}])
async def test_an_error_within_the_stream_is_worth_another_try(event: object) -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("It is ")
        await request.event(event)

    async with raw_server(answers) as server, client(server.base_url) as llm:
        error, said = await failure(llm)
    assert (said, error.retryable) == ("It is ", True)


async def test_an_answer_that_the_servers_filter_cut_is_no_answer() -> None:
    async def answers(request: Request) -> None:
        await request.begin_stream()
        await request.token("It is ")
        await request.token(None, "content_filter")

    async with raw_server(answers) as server, client(server.base_url) as llm:
        error, _ = await failure(llm)
    assert not error.retryable


async def test_a_reader_who_goes_away_closes_the_stream() -> None:
    async def drips(request: Request) -> None:
        await request.begin_stream()
        await request.token("It is ")
        await request.gone.wait()

    async with raw_server(drips) as server, client(server.base_url) as llm:
        stream = llm.stream(QUESTION, Sampling())
        assert await anext(stream) == Chunk("It is ")
        assert not server.requests[0].gone.is_set()
        await stream.aclose()
        await asyncio.wait_for(server.requests[0].gone.wait(), 10)


async def test_a_cancelled_reader_closes_the_stream() -> None:
    async with raw_server(hang) as server, client(server.base_url) as llm:
        reading = asyncio.create_task(answer(llm))
        while not server.requests:
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(server.requests[0].gone.wait(), 10)


async def test_many_answers_stream_at_once() -> None:
    async with raw_server(good_answer) as server, client(server.base_url) as llm:
        answers = await asyncio.gather(*(answer(llm) for _ in range(20)))
    assert all(chunks == answers[0] for chunks in answers)


async def test_a_closed_client_says_so() -> None:
    async with raw_server(good_answer) as server, client(server.base_url) as llm:
        await llm.aclose()
        error, _ = await failure(llm)
    assert error.retryable
    assert server.requests == []


async def test_text_that_is_no_unicode_is_refused() -> None:
    async with raw_server(good_answer) as server, client(server.base_url) as llm:
        with pytest.raises(LLMError, match="surrogate") as caught:
            await answer(llm, messages=[Message("user", "half \ud83d")])
    assert not caught.value.retryable


@pytest.mark.parametrize(("field", "value"), [
    ("model", " "), ("base_url", "127.0.0.1:8000"), ("base_url", "http://"), ("api_key", f"{KEY}\n"), ("api_key", "schlüssel"),
    ("connect_timeout", 0.0), ("first_token_timeout", -1.0), ("total_timeout", float("nan")), ("max_retries", -1),
])
async def test_a_setting_that_makes_no_sense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected") as caught:
        OpenAIConfig(**{"model": "m", "api_key": KEY, field: value})  # type: ignore[arg-type]
    assert KEY not in str(caught.value)


async def test_the_key_does_not_stand_in_a_settings_text() -> None:
    assert KEY not in repr(OpenAIConfig("m", api_key=KEY))


@pytest.mark.parametrize(("headers", "seconds"), [
    ({}, None), ({"retry-after": "3"}, 3.0), ({"retry-after": "0.5"}, 0.5), ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after": "soon"}, None), ({"retry-after": "-4"}, None), ({"retry-after": "inf"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
])
async def test_retry_after_is_read_as_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert told_to_wait(headers) == seconds


async def test_retry_after_may_be_a_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = told_to_wait({"retry-after": in_a_minute})
    assert seconds is not None
    assert 50 < seconds <= 60
