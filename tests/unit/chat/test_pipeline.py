"""One turn from request to log: its events in order, what is remembered for the next one, and every way to break off."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

import pytest

from chat.errors import InvalidRequestError, LLMError, LogError
from chat.pipeline import KB_UNAVAILABLE, LLM_UNAVAILABLE, STATIC_MODEL, TextDelta, TurnFinished, TurnRequest, TurnStarted
from chat.ports import Chunk, LoggedExchange
from chat.prompt import PROMPT_VERSION, PromptSettings
from chat.types import ALWAYS_FETCH, Action, Counterfactual, Message, Price, Sampling, Turn, Usage
from kb.errors import EmbedderError
from kb.types import Faq
from tests.conversation import FAQS, HOURS, NOON, RETURNS, Conversation, config, texts
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedLLM, ScriptedPolicy

OPEN = "When are you open?"
SUNDAYS = "Are you open on Sundays?"
HOURS_BLOCK = '<faqs>\n<faq id="hours">'


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


def prompts(chat: Conversation) -> list[tuple[Message, ...]]:
    return cast(ScriptedLLM, chat.llm).prompts


# A turn that goes well


@pytest.mark.asyncio
async def test_a_turn_is_one_start_then_text_then_one_finish() -> None:
    chat = Conversation(llm=ScriptedLLM(["Nine to five [hours]."]))
    events = await chat.events(OPEN)
    started, *deltas, finished = events
    assert isinstance(started, TurnStarted)
    assert isinstance(finished, TurnFinished)
    assert deltas == [TextDelta("Nine"), TextDelta(" to"), TextDelta(" five"), TextDelta(" [hours].")]
    assert (started.turn_id, started.created_at, started.decision) == (finished.turn.id, NOON, finished.turn.decision)
    assert (started.model, started.degraded) == ("scripted", ())
    assert finished.cited == (HOURS,)


@pytest.mark.asyncio
async def test_the_log_holds_the_turn_that_the_reader_got_and_every_field_of_it() -> None:
    bare = PromptSettings(history_turns=0)
    chat = Conversation(llm=ScriptedLLM(["Nine to five [hours]."]), config=config(baselines={"bare": bare}))
    turn = await chat.ask(OPEN)
    assert turns(chat) == [turn]
    assert turn.id.startswith("chatcmpl-")
    assert (turn.conversation_id, turn.owner, turn.created_at) == ("c1", "local", NOON)
    assert (turn.query, turn.answer, turn.state.query) == (OPEN, "Nine to five [hours].", OPEN)
    assert (turn.hits, turn.fetched, turn.shown, turn.cited) == ((("hours", 1.0),), ("hours",), ("hours",), ("hours",))
    assert turn.usage == Usage(91, 4, cached_input_tokens=0, source="server")
    assert turn.counterfactuals == tuple(Counterfactual(name, 91, 4, "same_answer") for name in (ALWAYS_FETCH, "bare"))
    assert (turn.model, turn.prompt_version, turn.kb_version) == ("scripted", PROMPT_VERSION, "fake-kb")
    assert (turn.finish_reason, turn.degraded, turn.background) == ("stop", (), False)
    assert (turn.transcript_mac, turn.price) == (None, None)


@pytest.mark.asyncio
async def test_every_stage_has_a_latency_and_they_fit_together() -> None:
    latency = (await Conversation().ask(OPEN)).latency_ms
    assert set(latency) == {"recall", "retrieve", "decide", "prompt", "first_token", "generate", "total"}
    assert all(milliseconds >= 0.0 for milliseconds in latency.values())
    planning = sum(latency[stage] for stage in ("recall", "retrieve", "decide", "prompt"))
    assert planning <= latency["first_token"] <= latency["total"]
    assert latency["first_token"] + latency["generate"] == pytest.approx(latency["total"])


@pytest.mark.asyncio
async def test_two_turns_have_two_ids() -> None:
    chat = Conversation()
    assert (await chat.ask(OPEN)).id != (await chat.ask(OPEN)).id


@pytest.mark.asyncio
async def test_many_turns_at_once_do_not_meet() -> None:
    log = InMemoryLog()
    chats = [Conversation(llm=ScriptedLLM([f"answer {n}"]), log=log) for n in range(20)]
    answered = await asyncio.gather(*(chat.ask(OPEN) for chat in chats))
    assert [turn.answer for turn in answered] == [f"answer {n}" for n in range(20)]
    assert len(log.turns) == len({turn.id for turn in log.turns}) == 20


@pytest.mark.asyncio
async def test_sampling_goes_to_the_llm_and_its_limit_shows_in_the_finish_reason() -> None:
    chat = Conversation(llm=ScriptedLLM(["one two three"]))
    request = replace(chat.request(OPEN), sampling=Sampling(max_tokens=2, seed=7))
    events = [event async for event in chat.pipeline().run(request)]
    assert cast(ScriptedLLM, chat.llm).samplings == [Sampling(max_tokens=2, seed=7)]
    assert isinstance(events[-1], TurnFinished)
    assert (events[-1].turn.answer, events[-1].turn.finish_reason) == ("one two", "length")


@pytest.mark.asyncio
async def test_a_background_prompt_and_the_transcripts_hash_are_kept_with_the_turn() -> None:
    chat = Conversation(llm=ScriptedLLM(["A title"]))
    request = replace(chat.request("Name this chat"), background=True, sign_transcript=lambda answer: f"signed: {answer}")
    async for _ in chat.pipeline().run(request):
        pass
    assert [(turn.background, turn.transcript_mac) for turn in turns(chat)] == [(True, "signed: A title")]


@pytest.mark.asyncio
async def test_the_price_is_the_llms_at_the_time_of_the_turn() -> None:
    dear, cheap = Price(2.0, None, 8.0, "USD", "2026-01-01"), Price(1.0, None, 4.0, "USD", "2026-11-01")
    chat = Conversation(prices={"scripted": dear, "another": cheap})
    assert (await chat.ask(OPEN)).price == dear
    chat.prices = {"scripted": cheap}
    assert (await chat.ask(OPEN)).price == cheap
    assert [turn.price for turn in turns(chat)] == [dear, cheap]


@pytest.mark.asyncio
async def test_one_info_record_a_turn_tells_figures_and_no_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    turn = await Conversation(llm=ScriptedLLM(["Nine to five [hours]."])).ask(OPEN)
    (record,) = [record for record in caplog.records if record.name == "chat.pipeline"]
    figures = {
        "turn_id": turn.id, "action": "FETCH", "behavior_prob": 1.0, "similarity": 1.0, "input_tokens": 91, "output_tokens": 4,
        "policy_version": "scripted:1",
    }
    assert figures.items() <= vars(record).items()
    assert "open" not in str(vars(record))
    assert "Nine" not in str(vars(record))


# What the next turn remembers


@pytest.mark.asyncio
async def test_a_skip_after_a_fetch_finds_the_faq_in_its_history_from_the_log() -> None:
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=ScriptedLLM(["Nine to five [hours].", "No."]))
    await chat.ask(OPEN)
    turn = await chat.ask(SUNDAYS)
    assert (turn.fetched, turn.shown) == ((), ("hours",))
    history, now = prompts(chat)[1][1].content, prompts(chat)[1][-1].content
    assert history.startswith(HOURS_BLOCK)
    assert "<faqs>" not in now
    assert turn.state.previous_actions == (Action.FETCH,)


@pytest.mark.asyncio
async def test_a_citation_of_an_earlier_turns_faq_counts_for_this_one() -> None:
    llm = ScriptedLLM(["Nine.", "Closed [hours] [returns]."])
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=llm)
    await chat.ask(OPEN)
    assert (await chat.ask(SUNDAYS)).cited == ("hours",)


@pytest.mark.parametrize("edited", ["Nine to six [hours].", ""])
@pytest.mark.asyncio
async def test_an_edited_answer_is_shown_as_the_client_has_it_and_its_turn_is_unknown(edited: str) -> None:
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=ScriptedLLM(["Nine to five [hours].", "No."]))
    await chat.ask(OPEN)
    chat.messages[-1] = Message("assistant", edited)
    turn = await chat.ask(SUNDAYS)
    assert turn.state.previous_actions == (None,)
    assert (turn.shown, turn.counterfactuals[0].input_tokens - turn.usage.input_tokens) == ((), 14)
    assert texts(prompts(chat)[1])[1:3] == [f"<question>\n{OPEN}\n</question>", edited]


@pytest.mark.asyncio
async def test_a_regenerated_answer_leaves_the_dropped_one_out_of_the_history() -> None:
    policy = ScriptedPolicy([Action.FETCH, Action.NO_FETCH, Action.NO_FETCH])
    chat = Conversation(policy=policy, llm=ScriptedLLM(["first", "second", "third"]))
    await chat.ask(OPEN)
    del chat.messages[:]
    await chat.ask(OPEN)  # the client asked for another answer, and keeps that one
    turn = await chat.ask(SUNDAYS)
    assert turn.state.previous_actions == (Action.NO_FETCH,)
    assert turn.shown == ()
    assert "first" not in "".join(texts(prompts(chat)[2]))


@pytest.mark.asyncio
async def test_an_exchange_from_elsewhere_is_unknown_and_rendered_as_it_was_said() -> None:
    chat = Conversation(messages=[Message("user", "Hello!"), Message("assistant", "Hi.")])
    turn = await chat.ask(OPEN)
    assert turn.state.previous_actions == (None,)
    assert texts(prompts(chat)[0])[1:3] == ["<question>\nHello!\n</question>", "Hi."]


@pytest.mark.asyncio
async def test_an_faq_that_was_deleted_vanishes_from_the_history_in_both_arms() -> None:
    chat = Conversation(policy=ScriptedPolicy([Action.FETCH, Action.NO_FETCH]), llm=ScriptedLLM(["Nine to five [hours].", "No."]))
    await chat.ask(OPEN)
    chat.retriever = FakeRetriever([RETURNS])
    turn = await chat.ask(SUNDAYS)
    assert (turn.shown, turn.hits, turn.saved_tokens) == ((), (), 0)
    assert "Nine to five.\n</faq>" not in "".join(texts(prompts(chat)[1]))


@pytest.mark.asyncio
async def test_an_faq_that_was_deleted_before_the_answer_ended_is_not_given_as_cited() -> None:
    chat = Conversation(llm=ScriptedLLM(["Nine to five [hours]."]))

    class Emptied(FakeRetriever):
        def get(self, faq_id: str) -> Faq | None:
            return None

    chat.retriever = Emptied(FAQS)
    last = (await chat.events(OPEN))[-1]
    assert isinstance(last, TurnFinished)
    assert (last.cited, last.turn.cited) == ((), ("hours",))


@pytest.mark.asyncio
async def test_conversations_and_owners_do_not_see_each_others_turns() -> None:
    chat = Conversation(llm=ScriptedLLM(["Nine."]))
    await chat.ask(OPEN)
    for request in (replace(chat.request(SUNDAYS), owner="another"), replace(chat.request(SUNDAYS), conversation_id="c2")):
        async for event in chat.pipeline().run(request):
            if isinstance(event, TurnFinished):
                assert event.turn.state.previous_actions == (None,)
                assert HOURS_BLOCK not in prompts(chat)[-1][1].content


@pytest.mark.asyncio
async def test_words_in_any_script_reach_prompt_answer_and_log_unchanged() -> None:
    query, answer = "🙂👩‍👩‍👧 مرحبا \u202eabc\u202c a\x00b ₹", "مرحبا\x00 🙂 [hours]"
    chat = Conversation(llm=ScriptedLLM([answer]))
    first = await chat.ask(query)
    second = await chat.ask(query)
    assert (first.query, first.answer) == (query, answer)
    assert query in prompts(chat)[0][-1].content
    assert second.state.previous_actions == (Action.FETCH,)
    assert texts(prompts(chat)[1])[2] == answer


# Static answers


@pytest.mark.asyncio
async def test_a_static_answer_skips_policy_and_llm_and_enters_the_history() -> None:
    policy = ScriptedPolicy([Action.NO_FETCH])
    price = Price(1.0, None, 4.0, "USD", "v")
    chat = Conversation(policy=policy, llm=ScriptedLLM(["No."]), config=config(static_threshold=0.9), prices={"scripted": price})
    started, delta, finished = await chat.events(OPEN)
    assert (policy.states, prompts(chat)) == ([], [])
    assert isinstance(started, TurnStarted)
    assert (started.model, started.decision.action) == (STATIC_MODEL, Action.STATIC)
    assert delta == TextDelta("Nine to five. [hours]")
    assert isinstance(finished, TurnFinished)
    turn = finished.turn
    assert (turn.usage, turn.model, turn.finish_reason) == (Usage(0, 0, source="none"), STATIC_MODEL, "stop")
    assert (turn.fetched, turn.shown, turn.cited, finished.cited) == (("hours",), ("hours",), ("hours",), (HOURS,))
    assert turn.price == price, "what it saved is priced by the LLM that it spared"
    follow_up = await chat.ask(SUNDAYS)
    assert follow_up.state.previous_actions == (Action.STATIC,)
    assert prompts(chat)[0][1].content.startswith(HOURS_BLOCK)


@pytest.mark.asyncio
async def test_a_static_answer_cites_an_faq_whose_id_holds_a_comma() -> None:
    faq = Faq("shipping,eu", "How long is shipping?", "Two days.")
    chat = Conversation(retriever=FakeRetriever([faq]), config=config(static_threshold=0.9))
    assert (await chat.ask("How long is shipping?")).cited == ("shipping,eu",)


@pytest.mark.asyncio
async def test_a_reader_who_leaves_during_a_static_answer_leaves_it_whole_in_the_log() -> None:
    chat = Conversation(config=config(static_threshold=0.9))
    async with aclosing(chat.pipeline().run(chat.request(OPEN))) as events:
        await anext(events)
        await anext(events)
    assert [(turn.answer, turn.finish_reason) for turn in turns(chat)] == [("Nine to five. [hours]", "stop")]


# What fails on the way


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
    assert (turns(chat), prompts(chat)) == ([], [])
