"""Follow-ups that an LLM rewrites before they are searched for, through the real client against a scripted server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chat.accounting import WITHOUT_REWRITE
from chat.llm.openai import OpenAIClient, OpenAIConfig
from chat.pipeline import TurnRequest
from chat.plan import PipelineConfig
from chat.rewrite import LONGEST, Rewriter
from chat.types import Action, Message, Usage
from kb.types import Hit
from tests.conversation import FAQS, Conversation, config
from tests.fakes import FakeRetriever, ScriptedLLM, WordCounter
from tests.unit.chat.llm.raw_server import Answer, RawServer, Request, raw_server

CALIBRATED = replace(config(min_similarity=0.0), calibrated_static=True)
OPEN, FOLLOW_UP, ALONE = "When are you open?", "And on Sundays?", "When are you open on Sundays?"


class Searched(FakeRetriever):
    """Remembers what was searched for; its first hit may answer alone."""

    def __init__(self) -> None:
        super().__init__(FAQS)
        self.queries: list[str] = []

    def search(self, query: str, *, k: int = 3, min_similarity: float = -1.0, previous: str | None = None) -> tuple[Hit, ...]:
        self.queries.append(query)
        return tuple(Hit(hit.faq, hit.similarity, confidence=0.9, alone="always")
                     for hit in super().search(query, k=k, min_similarity=min_similarity, previous=previous))


def says(text: str, *, tokens: tuple[int, int] | None = (20, 7), finish: str = "stop") -> Answer:
    """An answer of the server, with its usage."""

    async def answer(request: Request) -> None:
        await request.begin_stream()
        await request.token(text)
        await request.token(None, finish)
        if tokens is not None:
            await request.event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
                                 "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}})
        await request.event("[DONE]")

    return answer


async def refuses(request: Request) -> None:
    await request.refuse(400, {"error": {"message": "no"}})


async def is_silent(request: Request) -> None:
    await request.begin_stream()
    await request.gone.wait()


@asynccontextmanager
async def rewriting(*answers: Answer, timeout: float = 5.0) -> AsyncIterator[tuple[Rewriter, RawServer]]:
    async with raw_server(*answers) as server:
        client = OpenAIClient(OpenAIConfig("m", server.base_url, max_retries=0))
        try:
            yield Rewriter(client, WordCounter(), timeout), server
        finally:
            await client.aclose()


def chat(rewriter: Rewriter | None, retriever: Searched, options: PipelineConfig | None = None) -> Conversation:
    return Conversation(retriever, llm=ScriptedLLM(["Nine to five [hours]."]), rewriter=rewriter, config=options or config())


@pytest.mark.asyncio
async def test_a_follow_up_is_searched_for_as_the_llm_rewrote_it_and_answered_as_it_was_asked() -> None:
    retriever = Searched()
    async with rewriting(says(ALONE)) as (rewriter, server):
        conversation = chat(rewriter, retriever)
        first, second = await conversation.ask(OPEN), await conversation.ask(FOLLOW_UP)
    assert retriever.queries[0] == OPEN
    assert ALONE in retriever.queries
    assert FOLLOW_UP not in retriever.queries
    [request] = server.requests
    asked = request.body["messages"][-1]["content"]
    assert asked.index(OPEN) < asked.index("Nine to five [hours].") < asked.index(FOLLOW_UP)
    assert (request.body["temperature"], request.body["max_tokens"]) == (0, 100)
    assert (second.query, second.state.query, second.degraded) == (FOLLOW_UP, FOLLOW_UP, ())
    assert isinstance(conversation.llm, ScriptedLLM)
    assert ALONE not in "".join(message.content for message in conversation.llm.prompts[1])
    assert "rewrite" in second.latency_ms
    assert "rewrite" not in first.latency_ms


@pytest.mark.asyncio
async def test_its_tokens_are_the_turns_and_lessen_what_is_saved() -> None:
    plain = chat(None, Searched())
    async with rewriting(says(ALONE, tokens=(200, 7))) as (rewriter, _):
        rewritten = chat(rewriter, Searched())
        for conversation in (plain, rewritten):
            await conversation.ask(OPEN)
        without, with_ = await plain.ask(FOLLOW_UP), await rewritten.ask(FOLLOW_UP)
    # what is found, and so the prompt, differs; but by the overhead the turn costs more than its answer
    answer = with_.counterfactuals[0]
    assert with_.decision.action is Action.FETCH
    assert (without.saved_tokens, with_.saved_tokens) == (0, -207)
    assert (with_.usage.input_tokens - answer.input_tokens, with_.usage.output_tokens - answer.output_tokens) == (200, 7)
    [alone] = [other for other in with_.counterfactuals if other.baseline == WITHOUT_REWRITE]
    assert (with_.usage.input_tokens - alone.input_tokens, with_.usage.output_tokens - alone.output_tokens) == (200, 7)
    assert not any(other.baseline == WITHOUT_REWRITE for other in without.counterfactuals)


@pytest.mark.asyncio
async def test_a_static_answer_to_a_rewritten_query_costs_the_rewriting() -> None:
    async with rewriting(says(OPEN, tokens=(30, 5))) as (rewriter, _):
        conversation = chat(rewriter, Searched(), config(static_threshold=0.9))
        conversation.messages = [Message("user", "hi"), Message("assistant", "Hello.")]
        turn = await conversation.ask("opening hours?")
    assert (turn.decision.action, turn.usage) == (Action.STATIC, Usage(30, 5, source="server"))


@pytest.mark.asyncio
@pytest.mark.parametrize(("answer", "spent"), [
    (refuses, False), (is_silent, True), (says("", tokens=None), True), (says("  \n"), True), (says(ALONE, finish="length"), True),
    (says(f'"{FOLLOW_UP}"'), True),
], ids=["refused", "silent", "nothing", "blank", "cut", "the query again"])
async def test_what_is_no_other_question_leaves_the_query_as_it_is(answer: Answer, spent: bool) -> None:
    retriever = Searched()
    async with rewriting(answer, timeout=0.5) as (rewriter, _):
        conversation = chat(rewriter, retriever)
        await conversation.ask(OPEN)
        turn = await conversation.ask(FOLLOW_UP)
    assert FOLLOW_UP in retriever.queries
    assert turn.degraded == ()
    assert ((turn.saved_tokens or 0) < 0) == spent


@pytest.mark.asyncio
async def test_first_queries_long_ones_and_a_front_ends_own_prompts_are_not_rewritten() -> None:
    async with rewriting(says(ALONE)) as (rewriter, server):
        conversation = chat(rewriter, Searched())
        await conversation.ask(OPEN)
        await conversation.ask("x" * (LONGEST + 1))
        background = TurnRequest((*conversation.messages, Message("user", "Give it a title")), "local", "c1", background=True)
        async for _ in conversation.pipeline().run(background):
            pass
    assert server.requests == []


@pytest.mark.asyncio
async def test_a_calibration_is_not_about_rewritten_words() -> None:
    async with rewriting(says(OPEN)) as (rewriter, _):
        answered = [chat(used, Searched(), CALIBRATED) for used in (None, rewriter)]
        actions = []
        for conversation in answered:
            conversation.messages = [Message("user", "hi"), Message("assistant", "Hello.")]
            actions.append((await conversation.ask("open when?")).decision.action)
    assert actions == [Action.STATIC, Action.FETCH]
