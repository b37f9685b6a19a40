"""The official SDK against the running service: sync, async and streamed."""

import asyncio
from collections.abc import Callable

import openai
import pytest

from chat.types import Action
from tests.e2e.conftest import Service
from tests.fakes import ScriptedLLM

Start = Callable[..., Service]


def client(service: Service, **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="anything", **options)  # type: ignore[arg-type]


def ask(sdk: openai.OpenAI, *texts: str, **options: object) -> openai.types.chat.ChatCompletion:
    """A conversation of user, assistant, user, … texts."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return sdk.chat.completions.create(model="fetchgate", messages=messages, **options)  # type: ignore[call-overload,no-any-return]


def test_a_whole_answer_has_text_usage_and_what_the_gate_did(start: Start) -> None:
    service = start()
    with client(service) as sdk:
        done = ask(sdk, "how much is the late fee?")
    assert done.choices[0].message.content == "It is ₹450 [fee-late]."
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.usage.prompt_tokens == sum(len(m.content.split()) for m in service.llm.prompts[0])
    added = done.model_extra["fetchgate"]  # type: ignore[index]
    assert added["action"] == "FETCH"
    assert [c["id"] for c in added["citations"]] == ["fee-late"]
    assert done.id == service.log.turns[0].id
    annotation = done.choices[0].message.annotations[0]  # type: ignore[index]
    assert annotation.url_citation.url == "https://bank.example/fees"
    assert done.choices[0].message.content[annotation.url_citation.start_index : annotation.url_citation.end_index] == "[fee-late]"


def test_a_stream_gives_role_text_finish_and_only_then_usage(start: Start) -> None:
    service = start()
    with client(service) as sdk:
        chunks = list(sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": "late fee?"}],
                                                  stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "It is ₹450 [fee-late]."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(c.usage is None for c in chunks[:-1])
    assert {(c.id, c.object, c.model) for c in chunks} == {(chunks[0].id, "chat.completion.chunk", "fetchgate")}


def test_a_stream_without_usage_asked_for_has_none(start: Start) -> None:
    with client(start()) as sdk:
        chunks = list(sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": "late fee?"}], stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert all("usage" not in chunk.to_dict() for chunk in chunks)


def test_the_stream_helper_assembles_the_same_answer(start: Start) -> None:
    with (
        client(start()) as sdk,
        sdk.chat.completions.stream(model="fetchgate", messages=[{"role": "user", "content": "late fee?"}]) as stream,
    ):
        stream.until_done()
        done = stream.get_final_completion()
    assert done.choices[0].message.content == "It is ₹450 [fee-late]."


def test_the_async_client_serves_many_at_once(start: Start) -> None:
    service = start()

    async def all_at_once() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="x") as sdk:
            asked = [sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": f"late fee {n}?"}])
                     for n in range(8)]
            return [done.choices[0].message.content for done in await asyncio.gather(*asked)]

    assert asyncio.run(all_at_once()) == ["It is ₹450 [fee-late]."] * 8
    assert len({turn.conversation_id for turn in service.log.turns}) == 8


def test_models_are_listed_and_found_and_an_unknown_one_is_not(start: Start) -> None:
    with client(start()) as sdk:
        assert [model.id for model in sdk.models.list()] == ["fetchgate"]
        assert sdk.models.retrieve("fetchgate").owned_by == "fetchgate"
        with pytest.raises(openai.NotFoundError, match="expected fetchgate"):
            sdk.models.retrieve("org/other")


def test_options_reach_the_llm(start: Start) -> None:
    service = start()
    with client(service) as sdk:
        done = ask(sdk, "late fee?", max_completion_tokens=2, temperature=0.3, top_p=0.9, stop=["\n"], seed=5)
    assert done.choices[0].finish_reason == "length"
    sampling = service.llm.samplings[0]
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.stop, sampling.seed) == (2, 0.3, 0.9, ("\n",), 5)


def test_a_conversation_is_recognised_by_its_transcript_alone(start: Start) -> None:
    service = start(answers=("It is ₹450 [fee-late].", "Once a year [fee-late]."), actions=(Action.FETCH, Action.NO_FETCH))
    with client(service) as sdk:
        first = ask(sdk, "how much is the late fee?").choices[0].message.content or ""
        second = ask(sdk, "how much is the late fee?", first, "can you waive it?").choices[0].message.content or ""
        ask(sdk, "how much is the late fee?", first, "can you waive it?", second, "thanks")
    assert len({turn.conversation_id for turn in service.log.turns}) == 1
    assert service.policy.states[1].previous_actions == (Action.FETCH,)
    assert service.policy.states[2].previous_actions == (Action.FETCH, Action.NO_FETCH)
    assert "waived once a year" in service.llm.prompts[1][1].content


def test_a_conversation_that_began_elsewhere_has_unknown_actions(start: Start) -> None:
    service = start()
    with client(service) as sdk:
        ask(sdk, "how much is the late fee?", "Somebody else's answer.", "can you waive it?")
    assert service.policy.states[0].previous_actions == (None,)


@pytest.mark.parametrize("named", [
    {"extra_headers": {"X-Conversation-Id": "c-1"}},
    {"extra_headers": {"X-OpenWebUI-Chat-Id": "c-1"}},
    {"metadata": {"conversation_id": "c-1"}},
    {"extra_body": {"session_id": "c-1"}},
])
def test_a_conversation_can_be_named(start: Start, named: dict[str, object]) -> None:
    service = start()
    with client(service) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(
            model="fetchgate", messages=[{"role": "user", "content": "late fee?"}], **named)  # type: ignore[call-overload]
    assert raw.headers["x-fetchgate-conversation-id"] == "c-1"
    assert raw.headers["x-fetchgate-action"] == "FETCH"
    assert raw.headers["x-fetchgate-policy-version"] == "scripted:1"
    assert service.log.turns[0].conversation_id == "c-1"


def test_background_prompts_of_a_front_end_are_answered_and_marked(start: Start) -> None:
    service = start()
    with client(service) as sdk:
        ask(sdk, "make a title", extra_headers={"X-OpenWebUI-Task": "title_generation"})
    assert service.log.turns[0].background


def test_an_llm_that_fails_is_retried_by_the_sdk_and_then_an_error(start: Start) -> None:
    service = start(llm=ScriptedLLM(("a b c",), fail_after=0))
    with client(service, max_retries=1) as sdk, pytest.raises(openai.InternalServerError, match="LLM can't answer") as failure:
        ask(sdk, "late fee?", timeout=30)
    assert failure.value.status_code == 503
    assert failure.value.response.headers["retry-after"] == "1"
    assert len(service.llm.prompts) == 2
    assert service.log.turns == []


def test_a_stream_that_breaks_raises_in_the_client_and_is_logged_as_broken(start: Start) -> None:
    service = start(llm=ScriptedLLM(("a b c",), fail_after=2))
    with client(service) as sdk, pytest.raises(openai.APIError, match="LLM can't answer"):
        list(sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": "late fee?"}], stream=True))
    assert [(turn.answer, turn.finish_reason) for turn in service.log.turns] == [("a b", "error")]
