"""Every way in which a turn breaks off or goes without something: what the reader is told, and what the log holds then."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

import pytest

from chat.errors import InvalidRequestError, LLMError, LogError
from chat.pipeline import KB_UNAVAILABLE, LLM_UNAVAILABLE, STATIC_MODEL, TextDelta, TurnFinished, TurnRequest, TurnStarted
from chat.ports import Chunk, LoggedExchange
from chat.types import Action, Message, Sampling, Turn, Usage
from kb.errors import EmbedderError
from tests.conversation import FAQS, Conversation, config
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedLLM, ScriptedPolicy

OPEN = "When are you open?"
SUNDAYS = "Are you open on Sundays?"


class FlakyLog(InMemoryLog):
    """A log that can't be read, or can't be written."""

    def __init__(self, *, read: bool = True, write: bool = True) -> None:
        super().__init__()
        self.read, self.write = read, write

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        if not self.read:
            raise LogError("the log can't be read")
        return super().recent(owner, conversation_id, limit=limit)

    def append(self, turn: Turn) -> None:
        if not self.write:
            raise LogError("the log can't be written")
        super().append(turn)


@dataclass
class ChunkLLM:
    """Streams these chunks; an exception among them is raised."""

    chunks: Sequence[Chunk | BaseException]
    model: str = "chunks"
    closed: bool = False

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
        try:
            for chunk in self.chunks:
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
        finally:
            self.closed = True


def turns(chat: Conversation) -> list[Turn]:
    return cast(InMemoryLog, chat.log).turns


# Parts that fail


@pytest.mark.asyncio
async def test_a_policy_that_fails_fetches_and_the_turn_says_so() -> None:
    chat = Conversation(policy=ScriptedPolicy(error=ValueError("NaN")))
    started, *_, finished = await chat.events(OPEN)
    assert isinstance(started, TurnStarted)
    assert isinstance(finished, TurnFinished)
    assert started.degraded == finished.turn.degraded == ("policy_failed",)
    assert (finished.turn.decision.action, finished.turn.fetched) == (Action.FETCH, ("hours",))


@pytest.mark.asyncio
async def test_a_knowledge_base_that_fails_is_told_at_the_start_of_the_answer() -> None:
    chat = Conversation(llm=ScriptedLLM(["I don't know."]))
    retriever = FakeRetriever(FAQS)
    retriever.error = EmbedderError("the encoder is gone")
    chat.retriever = retriever
    turn = await chat.ask(OPEN)
    assert turn.answer == KB_UNAVAILABLE + "I don't know."
    assert turn.answer.count(KB_UNAVAILABLE) == 1
    assert (turn.degraded, turn.state.evidence, turn.hits, turn.shown) == (("kb_unavailable",), None, (), ())
    assert turn.saved_tokens == 0


@pytest.mark.asyncio
async def test_the_note_is_told_even_when_the_llm_says_nothing() -> None:
    retriever = FakeRetriever(FAQS)
    retriever.error = OSError("disk")
    chat = Conversation(llm=ChunkLLM([Chunk("", "stop")]), retriever=retriever)
    assert (await chat.ask(OPEN)).answer == KB_UNAVAILABLE


@pytest.mark.asyncio
async def test_a_log_that_cannot_be_read_makes_past_actions_unknown_and_is_told() -> None:
    log = FlakyLog()
    chat = Conversation(log=log, llm=ScriptedLLM(["Nine."]))
    await chat.ask(OPEN)
    log.read = False
    turn = await chat.ask(SUNDAYS)
    assert (turn.degraded, turn.state.previous_actions) == (("log_unavailable",), (None,))
    assert len(log.turns) == 2


@pytest.mark.asyncio
async def test_a_turn_that_cannot_be_written_is_answered_and_the_reader_is_told() -> None:
    log = FlakyLog(write=False)
    started, *_, finished = await Conversation(log=log).events(OPEN)
    assert isinstance(started, TurnStarted)
    assert isinstance(finished, TurnFinished)
    assert started.degraded == ()
    assert (finished.turn.degraded, finished.turn.answer) == (("not_logged",), "I don't know.")
    assert log.turns == []


@pytest.mark.asyncio
async def test_a_log_that_is_gone_altogether_is_told_twice() -> None:
    chat = Conversation(log=FlakyLog(read=False, write=False), messages=[Message("user", "q"), Message("assistant", "a")])
    assert (await chat.ask(OPEN)).degraded == ("log_unavailable", "not_logged")


@pytest.mark.asyncio
async def test_an_llm_that_fails_before_its_first_token_is_an_error_before_any_event() -> None:
    chat = Conversation(llm=ScriptedLLM(fail_after=0))
    with pytest.raises(LLMError, match="scripted LLM failed") as raised:
        await anext(chat.pipeline().run(chat.request(OPEN)))
    assert raised.value.retryable
    assert raised.value.retry_after is not None
    assert turns(chat) == [], "nothing was answered"


@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("action", [Action.FETCH, Action.NO_FETCH])
@pytest.mark.asyncio
async def test_an_llm_that_fails_before_its_first_token_gives_way_to_a_certain_faq(threshold: float, action: Action) -> None:
    options = config(fallback_threshold=threshold)
    chat = Conversation(llm=ScriptedLLM(fail_after=0), config=options, policy=ScriptedPolicy([action]))
    started, delta, finished = await chat.events(OPEN)
    assert isinstance(started, TurnStarted)
    assert isinstance(finished, TurnFinished)
    assert (started.model, started.degraded) == (STATIC_MODEL, ("llm_unavailable",))
    assert delta == TextDelta(f"{LLM_UNAVAILABLE}Nine to five. [hours]")
    turn = finished.turn
    assert (turn.degraded, turn.decision.action) == (("llm_unavailable",), action)
    assert (turn.model, turn.finish_reason) == (STATIC_MODEL, "stop")
    assert (turn.cited, turn.usage, turn.saved_tokens) == (("hours",), Usage(0, 0, source="none"), 0)


@pytest.mark.asyncio
async def test_an_faq_below_the_fallback_threshold_does_not_stand_in_for_the_llm() -> None:
    chat = Conversation(llm=ScriptedLLM(fail_after=0), config=config(fallback_threshold=0.51))
    with pytest.raises(LLMError):
        await chat.ask(SUNDAYS)
    assert turns(chat) == []


@pytest.mark.asyncio
async def test_a_server_that_only_opened_its_stream_has_not_begun_to_answer() -> None:
    llm = ChunkLLM([Chunk(""), Chunk(""), LLMError("gone", retryable=True)])
    chat = Conversation(llm=llm, config=config(fallback_threshold=0.9))
    turn = await chat.ask(OPEN)
    assert (turn.degraded, turn.answer) == (("llm_unavailable",), f"{LLM_UNAVAILABLE}Nine to five. [hours]")


@pytest.mark.asyncio
async def test_an_llm_that_fails_in_mid_stream_raises_after_its_deltas_and_what_was_said_is_logged_once() -> None:
    chat = Conversation(llm=ScriptedLLM(["one two three four"], fail_after=2), config=config(fallback_threshold=0.0))
    seen = []
    with pytest.raises(LLMError):
        async for event in chat.pipeline().run(chat.request(OPEN)):
            seen.append(event)
    assert seen[1:] == [TextDelta("one"), TextDelta(" two")]
    (turn,) = turns(chat)
    assert (turn.answer, turn.finish_reason, turn.model, turn.degraded) == ("one two", "error", "scripted", ())
    assert turn.usage == Usage(93, 2, source="local"), "the server's count never came"
    assert turn.saved_tokens == 0


@pytest.mark.asyncio
async def test_an_llm_that_breaks_its_promise_is_logged_as_an_error_too() -> None:
    chat = Conversation(llm=ChunkLLM([Chunk("one"), RuntimeError("a bug")]))
    with pytest.raises(RuntimeError, match="a bug"):
        await chat.ask(OPEN)
    assert [(turn.answer, turn.finish_reason) for turn in turns(chat)] == [("one", "error")]


@pytest.mark.parametrize("reason", ["cancelled", "error"])
@pytest.mark.asyncio
async def test_an_llm_that_ends_by_itself_with_a_bad_reason_is_logged_once(reason: str) -> None:
    chat = Conversation(llm=ChunkLLM([Chunk("one"), Chunk("", reason)]))  # type: ignore[arg-type]
    turn = await chat.ask(OPEN)
    assert turns(chat) == [turn]
    assert (turn.finish_reason, turn.degraded) == (reason, ())


# The reader goes away


@pytest.mark.asyncio
async def test_a_reader_who_leaves_during_a_static_answer_leaves_it_whole_in_the_log() -> None:
    chat = Conversation(config=config(static_threshold=0.9))
    async with aclosing(chat.pipeline().run(chat.request(OPEN))) as events:
        await anext(events)
        await anext(events)
    assert [(turn.answer, turn.finish_reason) for turn in turns(chat)] == [("Nine to five. [hours]", "stop")]


@pytest.mark.asyncio
async def test_a_reader_who_leaves_after_two_deltas_leaves_one_cancelled_turn() -> None:
    llm = ChunkLLM([Chunk("one"), Chunk(" two"), Chunk(" three"), Chunk("", "stop", Usage(9, 3))])
    chat = Conversation(llm=llm)
    events = chat.pipeline().run(chat.request(OPEN))
    seen = [await anext(events) for _ in range(3)]
    await events.aclose()
    assert seen[1:] == [TextDelta("one"), TextDelta(" two")]
    (turn,) = turns(chat)
    assert (turn.answer, turn.finish_reason) == ("one two", "cancelled")
    assert turn.usage == Usage(93, 2, source="local")
    assert llm.closed, "the upstream stream is closed with it"


@pytest.mark.asyncio
async def test_a_turn_whose_task_is_cancelled_is_logged_as_cancelled_once() -> None:
    waiting = asyncio.Event()

    class Stalling(ChunkLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            yield Chunk("one")
            waiting.set()
            await asyncio.Event().wait()

    chat = Conversation(llm=Stalling([]))
    task = asyncio.create_task(chat.ask(OPEN))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(turn.answer, turn.finish_reason) for turn in turns(chat)] == [("one", "cancelled")]


@pytest.mark.asyncio
async def test_a_reader_who_leaves_right_after_the_start_is_logged_with_nothing_said() -> None:
    chat = Conversation()
    events = chat.pipeline().run(chat.request(OPEN))
    assert isinstance(await anext(events), TurnStarted)
    await events.aclose()
    assert [(turn.answer, turn.finish_reason) for turn in turns(chat)] == [("", "cancelled")]


@pytest.mark.asyncio
async def test_a_reader_who_leaves_after_the_finish_leaves_one_whole_turn() -> None:
    chat = Conversation()
    async with aclosing(chat.pipeline().run(chat.request(OPEN))) as events:
        async for event in events:
            if isinstance(event, TurnFinished):
                break
    assert [turn.finish_reason for turn in turns(chat)] == ["stop"]


@pytest.mark.asyncio
async def test_a_reader_who_leaves_while_the_turn_waits_to_be_stored_does_not_take_it_along() -> None:
    gate, busy = threading.Event(), ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(busy)
    chat = Conversation(config=config(static_threshold=0.9))
    events = chat.pipeline().run(chat.request(OPEN))
    await anext(events)
    await anext(events)
    busy.submit(gate.wait)  # every thread is taken: the turn must wait for one
    finish = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    finish.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish
    assert turns(chat) == []
    gate.set()
    await loop.run_in_executor(None, int)  # after the store, in the only thread
    assert [turn.finish_reason for turn in turns(chat)] == ["stop"]


@pytest.mark.asyncio
async def test_a_cancelled_turn_that_cannot_be_logged_disturbs_nobody() -> None:
    chat = Conversation(log=FlakyLog(write=False))
    events = chat.pipeline().run(chat.request(OPEN))
    await anext(events)
    await events.aclose()
    assert turns(chat) == []


# Requests that can't be answered


@pytest.mark.parametrize("messages", [
    (),
    (Message("system", "be kind"),),
    (Message("user", ""),),
    (Message("user", " \n\t "),),
    (Message("user", "q"), Message("assistant", "a")),
])
@pytest.mark.asyncio
async def test_a_request_without_a_query_is_refused_before_any_event_and_names_the_parameter(
    messages: tuple[Message, ...],
) -> None:
    chat = Conversation()
    with pytest.raises(InvalidRequestError) as raised:
        await anext(chat.pipeline().run(TurnRequest(messages, "local", "c1")))
    assert raised.value.param == "messages"
    assert (turns(chat), cast(ScriptedLLM, chat.llm).prompts) == ([], [])
