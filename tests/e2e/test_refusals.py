"""Refusals as the official SDK sees them, whole and streamed, and as the log and the command line show them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from chat.filters import PatternFilter
from chat.guard import Guard
from chat.log.store import SqlConversationLog
from chat.prompt import INSTRUCTIONS, POST_PROMPT
from chat.types import Turn
from tests.e2e.conftest import Service
from tests.real_service import real_service

Start = Callable[..., Service]
PATTERNS = PatternFilter(kept_secret=(INSTRUCTIONS, POST_PROMPT))
GUARD = Guard(PATTERNS)
HARM = "how do I clone a credit card?"
HARM_SAID = PATTERNS.rules.text("fraud")
CARD = "4111 1111 1111 1111"
CARD_SAID = PATTERNS.rules.text("secrets")
LEAK = f"The number on file is {CARD}, as you asked."


def messages(*texts: str) -> list[ChatCompletionMessageParam]:
    """User, assistant, user, …"""
    return [{"role": "assistant", "content": text} if n % 2 else {"role": "user", "content": text} for n, text in enumerate(texts)]


def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="anything", max_retries=0)


@pytest.mark.parametrize(("asked", "answer", "said", "refusal", "finish"), [
    (HARM, "never", HARM_SAID, {"where": "input", "category": "fraud"}, "stop"),
    ("what is my number?", LEAK, CARD_SAID, {"where": "output", "category": "secrets"}, "content_filter"),
])
def test_a_whole_refusal_is_an_ordinary_completion_that_says_so_in_every_place(
    start: Start, asked: str, answer: str, said: str, refusal: dict[str, str], finish: str
) -> None:
    service = start(answers=(answer,), guard=GUARD)
    with client(service) as sdk:
        done = sdk.chat.completions.create(model="fetchgate", messages=messages(asked))
    choice = done.choices[0]
    assert (choice.message.content, choice.message.refusal, choice.finish_reason) == (said, said, finish)
    assert done.model_extra is not None
    assert done.model_extra["fetchgate"]["refusal"] == refusal
    turn = service.log.turns[0]
    assert (turn.id, turn.answer, turn.finish_reason) == (done.id, said, finish)
    assert CARD not in repr(turn)
    if refusal["where"] == "input":
        assert service.llm.prompts == []
        assert done.usage is not None
        assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (0, 0, 0)


def test_a_stream_never_sends_what_is_refused_and_ends_as_the_protocol_has_it(start: Start) -> None:
    service = start(answers=(LEAK,), guard=GUARD)
    with client(service) as sdk:
        chunks = list(sdk.chat.completions.create(model="fetchgate", messages=messages("my number?"), stream=True,
                                                  stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    assert text == f"The number on file is \n\n{CARD_SAID}"
    assert CARD not in "".join(chunk.to_json() for chunk in chunks)
    assert [choice.finish_reason for choice in choices][-1] == "content_filter"
    assert choices[-1].delta.refusal == CARD_SAID
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0, "the LLM was paid for what is not shown"
    assert service.log.turns[0].answer == text


def test_a_refused_query_streams_its_refusal_through_the_helper(start: Start) -> None:
    with client(start(guard=GUARD)) as sdk, sdk.chat.completions.stream(model="fetchgate", messages=messages(HARM)) as stream:
        stream.until_done()
        message = stream.get_final_completion().choices[0].message
    assert (message.content, message.refusal) == (HARM_SAID, HARM_SAID)


def test_the_helper_raises_over_an_answer_that_was_cut_as_it_does_with_every_server(start: Start) -> None:
    service = start(answers=(LEAK,), guard=GUARD)
    with client(service) as sdk, sdk.chat.completions.stream(model="fetchgate", messages=messages("my number?")) as stream:
        stream.until_done()
        with pytest.raises(openai.ContentFilterFinishReasonError):
            stream.get_final_completion()


def test_an_ordinary_answer_has_no_refusal_in_any_place(start: Start) -> None:
    with client(start(guard=GUARD)) as sdk:
        done = sdk.chat.completions.create(model="fetchgate", messages=messages("how much is the late fee?"))
    assert (done.choices[0].message.refusal, done.choices[0].finish_reason) == (None, "stop")
    assert done.model_extra is not None
    assert done.model_extra["fetchgate"]["refusal"] is None


def test_the_conversation_goes_on_after_a_refusal_without_its_exchange(start: Start) -> None:
    service = start(guard=GUARD)
    with client(service) as sdk:
        sdk.chat.completions.create(model="fetchgate", messages=messages(HARM))
        sdk.chat.completions.create(model="fetchgate", messages=messages(HARM, HARM_SAID, "how much is the late fee?"))
    first, second = service.log.turns
    assert first.conversation_id == second.conversation_id, "recognised by its transcript"
    assert second.state.previous_queries == ()
    assert "clone" not in "".join(message.content for message in service.llm.prompts[0])


def test_the_real_service_refuses_by_default_and_its_log_shows_it(tmp_path: Path, helpdesk_index: Path) -> None:
    with (
        real_service(tmp_path, "--kb", str(helpdesk_index)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as sdk,
    ):
        refused = sdk.chat.completions.create(model="fetchgate", messages=messages(HARM))
        answered = sdk.chat.completions.create(model="fetchgate", messages=messages("my card was stolen, how do I block it?"))
    assert refused.choices[0].message.refusal == HARM_SAID
    assert answered.choices[0].message.refusal is None
    [database] = tmp_path.rglob("log.db")
    assert refused.model_extra is not None
    conversation = refused.model_extra["fetchgate"]["conversation_id"]
    shown = subprocess.run([str(Path(sys.executable).parent / "fetchgate"), "log", "show", conversation, "--json", "--db", str(database)],
                           capture_output=True, text=True, check=True)
    [row] = json.loads(shown.stdout)
    assert row["refusal"] == {"where": "input", "category": "fraud", "filter": PATTERNS.version}
    with SqlConversationLog(str(database)) as log:
        turns = [turn for turn in log.turns() if isinstance(turn, Turn)]
    assert [turn.refusal is None for turn in turns] == [False, True]
