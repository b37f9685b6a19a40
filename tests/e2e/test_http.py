"""What goes over the wire: the error envelope on every path, limits, retries, streams byte by byte, headers."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import httpx2 as httpx
import pytest

from chat.errors import LogError
from chat.plan import PipelineConfig
from chat.ports import Chunk
from chat.types import Message, Sampling
from service.keys import create_key
from service.turns import Limits
from tests.e2e.conftest import Service
from tests.fakes import ScriptedLLM

Start = Callable[..., Service]
ASK: dict[str, Any] = {"model": "fetchgate", "messages": [{"role": "user", "content": "late fee?"}]}


def post(service: Service, body: object = ASK, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{service.url}/v1/chat/completions", content=content, timeout=30,
                      headers={"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}})


def error_of(response: httpx.Response) -> dict[str, Any]:
    envelope = response.json()
    assert set(envelope) == {"error"}
    assert set(envelope["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return dict(envelope["error"])


@pytest.mark.parametrize(("body", "param"), [
    (b"", None),
    (b"\x00\xff\xfe", None),
    (b"{not json", None),
    (b"[1, 2]", None),
    ({"model": "fetchgate"}, "messages"),
    ({"model": "fetchgate", "messages": []}, "messages"),
    ({"model": "fetchgate", "messages": "hello"}, "messages"),
    ({"model": "fetchgate", "messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    ({"model": "fetchgate", "messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"model": "fetchgate", "messages": [{"role": "user", "content": "   "}]}, "messages"),
    ({"model": "fetchgate", "messages": [{"role": "assistant", "content": "x"}]}, None),
    ({"model": "fetchgate", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
    ({**ASK, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]},
     "messages.0.content"),
    ({**ASK, "n": 2}, "n"),
    ({**ASK, "logprobs": True}, "logprobs"),
    ({**ASK, "tool_choice": "required"}, "tool_choice"),
    ({**ASK, "response_format": {"type": "json_schema", "json_schema": {"strict": True}}}, "response_format"),
    ({**ASK, "temperature": 9}, "temperature"),
    ({**ASK, "max_tokens": 0}, "max_tokens"),
    ({**ASK, "metadata": {"conversation_id": "x" * 500}}, "metadata.conversation_id"),
])
def test_a_bad_request_is_a_400_that_names_what_is_wrong(start: Start, body: object, param: str | None) -> None:
    service = start()
    response = post(service, body)
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert response.headers["x-should-retry"] == "false"
    assert service.log.turns == []


def test_other_paths_methods_and_models_are_errors_of_the_same_form(start: Start) -> None:
    service = start()
    for response, status in [
        (httpx.get(f"{service.url}/v1/nothing"), 404),
        (httpx.get(f"{service.url}/v1/chat/completions"), 405),
        (httpx.get(f"{service.url}/static/none.js"), 404),
        (post(service, {**ASK, "model": "gpt-4o"}), 404),
    ]:
        assert response.status_code == status
        error_of(response)


def test_unknown_fields_text_parts_and_tool_messages_are_taken(start: Start) -> None:
    service = start()
    parts = [{"type": "text", "text": "late"}, {"type": "text", "text": "fee?"}]
    response = post(service, {**ASK, "frequency_penalty": 0.5, "user": "u", "tools": [], "surprise": {"a": 1}, "messages": [
        {"role": "developer", "content": "Be brief.", "name": "x"}, {"role": "tool", "content": "result", "tool_call_id": "t"},
        {"role": "user", "content": parts}]})
    assert response.status_code == 200
    assert service.log.turns[0].query == "late\nfee?"
    assert "Be brief." in service.llm.prompts[0][0].content


@pytest.mark.parametrize("text", ["‮مرحبا كيف حالك؟", "👩‍👩‍👧‍👦🏽" * 50, "\u0000\u2028\u2029", "a" * 999])
def test_any_text_is_answered_and_logged_as_it_came(start: Start, text: str) -> None:
    service = start()
    response = post(service, {**ASK, "messages": [{"role": "user", "content": f"{text}?"}]})
    assert response.status_code == 200
    assert service.log.turns[0].query == f"{text}?".strip()


def test_a_body_or_a_question_that_is_too_long_is_refused_with_the_limit(start: Start) -> None:
    service = start()
    too_large = post(service, b'{"messages": "' + b"x" * 2**21 + b'"}')
    assert too_large.status_code == 413
    assert "1048576" in error_of(too_large)["message"]
    chunked = httpx.post(f"{service.url}/v1/chat/completions", content=(b"x" * 2**16 for _ in range(20)))
    assert chunked.status_code == 413
    error_of(chunked)
    too_long = post(service, {**ASK, "messages": [{"role": "user", "content": "x" * 1001}]})
    assert too_long.status_code == 400
    assert "1000" in error_of(too_long)["message"]


def test_a_conversation_of_100_000_turns_is_answered(start: Start) -> None:
    service = start(max_body_bytes=2**24)
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(200_000)]
    response = post(service, {**ASK, "messages": [*messages, {"role": "user", "content": "late fee?"}]})
    assert response.status_code == 200
    assert len(service.llm.prompts[0]) == 6, "system, two exchanges, and the question"


def test_a_stream_is_server_sent_events_that_end_with_done(start: Start) -> None:
    service = start()
    response = post(service, {**ASK, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert all(chunk["id"] and chunk["created"] and chunk["model"] and isinstance(chunk["choices"], list) for chunk in chunks)
    assert chunks[0]["fetchgate"]["action"] == "FETCH"
    assert chunks[-1]["fetchgate"]["usage"]["saved_tokens"] == 0
    assert chunks[-1]["fetchgate"]["shown"]


def test_an_error_in_mid_stream_is_an_event_and_the_end(start: Start) -> None:
    service = start(llm=ScriptedLLM(("a b c",), fail_after=2))
    events = post(service, {**ASK, "stream": True}).text.split("\n\n")
    assert "error" in json.loads(events[-2].removeprefix("data: "))
    assert "[DONE]" not in events[-2]
    assert events[-1] == ""


def test_an_unforeseen_failure_tells_the_client_nothing_of_the_inside(start: Start) -> None:
    class Broken(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            raise ZeroDivisionError("secret detail")
            yield Chunk("")

    response = post(start(llm=Broken()))
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_keys_are_asked_for_when_configured_and_keep_conversations_apart(start: Start) -> None:
    (key, hashed), (other, other_hashed) = create_key(), create_key()
    service = start(keys=(hashed, other_hashed))
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {key}"}):
        refused = post(service, **headers)
        assert refused.status_code == 401
        error_of(refused)
    assert post(service, authorization=f"Bearer {key}", x_conversation_id="same").status_code == 200
    first = service.log.turns[0].answer
    follow_up = {**ASK, "messages": [*ASK["messages"], {"role": "assistant", "content": first}, {"role": "user", "content": "why?"}]}
    assert post(service, follow_up, authorization=f"Bearer {other}", x_conversation_id="same").status_code == 200
    assert service.policy.states[1].previous_actions == (None,), "another key's turn must stay unknown"
    assert {turn.owner for turn in service.log.turns} == {hashed.lookup, other_hashed.lookup}


def test_a_retry_gets_the_same_answer_and_is_logged_once(start: Start) -> None:
    service = start(answers=("one", "two"))
    first = post(service, x_stainless_retry_count="0")
    again = post(service, x_stainless_retry_count="1")
    assert first.json() == again.json()
    assert len(service.log.turns) == 1
    assert post(service, x_stainless_retry_count="0").json()["id"] != first.json()["id"], "the same words on purpose are a new turn"


def test_a_retry_while_the_first_try_runs_waits_for_it(start: Start) -> None:
    class Slow(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            gate.wait_called.set()
            await asyncio.to_thread(gate.open.wait)
            async for chunk in super().stream(messages, sampling):
                yield chunk

    class Gate:
        wait_called = threading.Event()
        open = threading.Event()

    gate = Gate()
    service = start(llm=Slow(("one", "two")))
    found: list[httpx.Response] = []
    first = threading.Thread(target=lambda: found.append(post(service, x_stainless_retry_count="0")))
    first.start()
    assert gate.wait_called.wait(10)
    second = threading.Thread(target=lambda: found.append(post(service, x_stainless_retry_count="1")))
    second.start()
    gate.open.set()
    first.join(20)
    second.join(20)
    assert found[0].json() == found[1].json()
    assert len(service.log.turns) == 1


def test_an_idempotency_key_gives_the_same_answer_also_as_a_stream_and_refuses_another_body(start: Start) -> None:
    service = start(answers=("one", "two"))
    body = {**ASK, "stream": True}
    first = post(service, body, idempotency_key="k")
    again = post(service, body, idempotency_key="k")
    assert (first.status_code, first.text) == (again.status_code, again.text)
    assert first.headers["x-fetchgate-conversation-id"] == again.headers["x-fetchgate-conversation-id"]
    reused = post(service, {**body, "temperature": 0}, idempotency_key="k")
    assert reused.status_code == 422
    assert error_of(reused)["code"] == "idempotency_key_reused"
    assert len(service.log.turns) == 1


def test_a_failure_is_not_remembered_as_the_answer(start: Start) -> None:
    service = start(llm=ScriptedLLM(("a b",), fail_after=0))
    assert post(service, idempotency_key="k").status_code == 503
    service.llm.fail_after = None
    assert post(service, idempotency_key="k").status_code == 200


def test_more_turns_at_once_than_allowed_are_told_to_come_again(start: Start) -> None:
    release = threading.Event()
    entered = threading.Event()

    class Held(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            entered.set()
            await asyncio.to_thread(release.wait)
            yield Chunk("done", "stop")

    service = start(llm=Held(), limits=Limits(1000, 1))
    held = threading.Thread(target=lambda: post(service))
    held.start()
    assert entered.wait(10)
    busy = post(service, {**ASK, "messages": [{"role": "user", "content": "another"}]})
    release.set()
    held.join(20)
    assert busy.status_code == 503
    assert error_of(busy)["code"] == "busy"
    assert busy.headers["retry-after"]
    assert post(service, {**ASK, "messages": [{"role": "user", "content": "now?"}]}).status_code == 200


def test_a_client_that_goes_away_frees_its_place_and_is_logged(start: Start) -> None:
    class Endless(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            while True:
                yield Chunk("word ")
                await asyncio.sleep(0.01)

    service = start(llm=Endless(), limits=Limits(1000, 1))
    with httpx.stream("POST", f"{service.url}/v1/chat/completions", json={**ASK, "stream": True}) as response:
        assert next(response.iter_lines())
    deadline = time.monotonic() + 10
    while not service.log.turns and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [turn.finish_reason for turn in service.log.turns] == ["cancelled"]


def test_a_log_that_fails_is_told_to_the_client_and_to_readiness(start: Start) -> None:
    service = start()
    assert httpx.get(f"{service.url}/health/ready").status_code == 200
    service.log.error = LogError("disk full")
    answer = post(service).json()
    assert answer["choices"][0]["message"]["content"]
    assert answer["fetchgate"]["degraded"] == ["not_logged"]
    ready = httpx.get(f"{service.url}/health/ready")
    assert ready.status_code == 503
    assert list(ready.json()["failing"]) == ["log"]
    assert httpx.get(f"{service.url}/health/live").status_code == 200


def test_a_static_answer_needs_no_llm(start: Start) -> None:
    service = start(config=PipelineConfig(static_threshold=0.2))
    added = post(service, {**ASK, "messages": [{"role": "user", "content": "How much is the late fee?"}]}).json()
    assert added["choices"][0]["message"]["content"] == "The late fee is ₹450. It can be waived once a year. [fee-late]"
    assert added["fetchgate"]["action"] == "STATIC"
    assert added["usage"]["total_tokens"] == 0
    assert added["fetchgate"]["usage"]["saved_tokens"] > 0
    assert service.llm.prompts == []


def test_open_streams_finish_when_the_server_is_told_to_stop(start: Start) -> None:
    class Slow(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            for n in range(10):
                yield Chunk(f"{n} ")
                await asyncio.sleep(0.05)
            yield Chunk("end", "stop")

    service = start(llm=Slow())
    with httpx.stream("POST", f"{service.url}/v1/chat/completions", json={**ASK, "stream": True}, timeout=20) as response:
        lines = response.iter_lines()
        next(lines)
        service.server.should_exit = True
        rest = "\n".join(lines)
    assert "data: [DONE]" in rest
    assert service.log.turns[0].answer == "0 1 2 3 4 5 6 7 8 9 end"


def test_the_page_and_its_files_are_served_under_a_strict_policy(start: Start) -> None:
    service = start()
    page = httpx.get(service.url)
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert httpx.get(f"{service.url}/static/texts.json").json().keys() == {"en", "vi"}
    described = httpx.get(f"{service.url}/v1/kb").json()
    assert described["faqs"] == 3
    assert described["examples"]


def test_request_ids_are_kept_when_sane_and_made_otherwise(start: Start) -> None:
    service = start()
    assert httpx.get(f"{service.url}/health/live", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert httpx.get(f"{service.url}/health/live", headers={"x-request-id": "a b<"}).headers["x-request-id"] not in ("a b<", "")
