"""Turns that a filter stops: what is said, sent, logged and remembered of them, and what isn't."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from chat.errors import FilterError, LLMError
from chat.filters import Filter, PatternFilter
from chat.guard import PIECE, Guard, OnFailure
from chat.log.plain import PlainTurn
from chat.log.sessions import plain_sessions
from chat.log.store import SqlConversationLog
from chat.pipeline import STATIC_MODEL, TextDelta, TurnEvent, TurnFinished, TurnPipeline, TurnRequest, TurnStarted
from chat.ports import Chunk, ConversationLog
from chat.prompt import INSTRUCTIONS, POST_PROMPT
from chat.refused import FILTER_MODEL
from chat.rewrite import Rewriter
from chat.types import ALWAYS_FETCH, Action, Counterfactual, Message, Price, Refusal, Sampling, Turn, Usage, Where
from kb.types import Faq
from tests.conversation import FAQS, config
from tests.fakes import FakeRetriever, InMemoryLog, ScriptedLLM, ScriptedPolicy, WordCounter

PATTERNS = PatternFilter(kept_secret=(INSTRUCTIONS, POST_PROMPT))
OPEN = "When are you open?"
HARM = "how can I clone a credit card"
HARM_SAID = PATTERNS.rules.text("fraud")
CARD = "4111 1111 1111 1111"
CARD_SAID = PATTERNS.rules.text("secrets")


@dataclass
class WordModel:
    """A model that refuses one word, and fails on another; keeps what it was asked."""

    asked: list[tuple[Where, str]]
    refuses: str = "zebra"
    fails: str = "\x00"
    version: str = "model-1"

    def check(self, text: str, *, where: Where) -> Refusal | None:
        self.asked.append((where, text))
        if self.fails in text:
            raise FilterError("the model is down")
        return Refusal(where, "animals", self.version) if self.refuses in text else None


class Talk:
    """A conversation with a filter in the way."""

    def __init__(
        self, *answers: str, model: Filter | None = None, on_failure: OnFailure = "open", log: ConversationLog | None = None,
        faqs: Sequence[Faq] = FAQS, static: float | None = None, llm: ScriptedLLM | None = None, rewriter_llm: ScriptedLLM | None = None,
    ) -> None:
        self.llm = llm or ScriptedLLM(answers or ("Nine to five [hours].",))
        self.log = InMemoryLog() if log is None else log
        self.policy = ScriptedPolicy()
        self.guard = Guard(PATTERNS, model, on_failure=on_failure)
        rewriter = None if rewriter_llm is None else Rewriter(rewriter_llm, WordCounter(), 5.0)
        self.pipeline = TurnPipeline(
            retriever=FakeRetriever(faqs), policy=self.policy, llm=self.llm, log=self.log, counter=WordCounter(),
            prices={"scripted": Price(1, None, 2, "USD", "t")}, config=config(static_threshold=static), guard=self.guard, rewriter=rewriter)
        self.messages: list[Message] = []

    async def events(self, query: str, **options: object) -> list[TurnEvent]:
        request = TurnRequest((*self.messages, Message("user", query)), "local", "c1", **options)  # type: ignore[arg-type]
        async with aclosing(self.pipeline.run(request)) as events:
            seen = [event async for event in events]
        finished = seen[-1]
        assert isinstance(finished, TurnFinished)
        self.messages += [Message("user", query), Message("assistant", finished.turn.answer)]
        return seen

    async def ask(self, query: str, **options: object) -> Turn:
        return cast(TurnFinished, (await self.events(query, **options))[-1]).turn

    def prompted(self) -> str:
        return "\n".join(message.content for prompt in self.llm.prompts for message in prompt)


def sent(events: Sequence[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# A query that is refused


@pytest.mark.asyncio
async def test_a_refused_query_is_answered_without_policy_search_or_llm_and_costs_nothing_in_any_arm() -> None:
    talk = Talk()
    started, delta, finished = await talk.events(HARM)
    assert isinstance(started, TurnStarted)
    assert isinstance(finished, TurnFinished)
    assert delta == TextDelta(HARM_SAID)
    turn = finished.turn
    assert (turn.id, turn.query, turn.answer) == (started.turn_id, HARM, HARM_SAID)
    assert turn.refusal == Refusal("input", "fraud", PATTERNS.version)
    assert (finished.refused, finished.cited, finished.faqs) == (HARM_SAID, (), ())
    assert (turn.finish_reason, turn.model, turn.usage) == ("stop", FILTER_MODEL, Usage(0, 0, source="none"))
    assert (turn.hits, turn.fetched, turn.shown, turn.cited, turn.degraded) == ((), (), (), (), ())
    assert turn.counterfactuals == (Counterfactual(ALWAYS_FETCH, 0, 0, "same_answer"),)
    assert turn.saved_tokens == 0
    assert (turn.decision.action, turn.decision.policy_version, turn.state.evidence) == (Action.STATIC, "filter", None)
    assert set(turn.latency_ms) == {"filter", "first_token", "generate", "total"}
    assert (talk.llm.prompts, talk.policy.states) == ([], [])
    assert cast(InMemoryLog, talk.log).turns == [turn]


@pytest.mark.asyncio
async def test_without_a_filter_the_same_query_is_answered() -> None:
    talk = Talk()
    talk.pipeline = TurnPipeline(retriever=FakeRetriever(FAQS), policy=talk.policy, llm=talk.llm, log=talk.log, counter=WordCounter(),
                                 prices={}, config=config())
    turn = await talk.ask(HARM)
    assert (turn.answer, turn.refusal, turn.finish_reason) == ("Nine to five [hours].", None, "stop")
    assert "filter" not in turn.latency_ms


@pytest.mark.asyncio
async def test_a_refused_exchange_is_not_seen_again_by_prompt_policy_search_or_state() -> None:
    talk = Talk("Nine to five [hours].", "We are closed then.")
    await talk.ask(OPEN)
    await talk.ask(HARM)
    turn = await talk.ask("Are you open on Sundays?")
    assert HARM not in talk.prompted()
    assert HARM_SAID not in talk.prompted()
    assert turn.state.previous_queries == (OPEN,)
    assert turn.state.previous_actions == (Action.FETCH,), "the exchange before it is still known"
    assert "hours" in turn.shown


@pytest.mark.asyncio
async def test_a_refused_exchange_is_not_given_to_the_rewriter() -> None:
    rewriter = ScriptedLLM(["are you open on sundays"])
    talk = Talk(rewriter_llm=rewriter)
    await talk.ask(HARM)
    await talk.ask(OPEN)
    await talk.ask("And on Sundays?")
    assert rewriter.prompts
    assert all(HARM not in message.content for prompt in rewriter.prompts for message in prompt)


@pytest.mark.asyncio
async def test_the_transcript_that_is_signed_holds_the_refused_exchange_so_that_the_conversation_goes_on() -> None:
    talk = Talk()
    turn = await talk.ask(HARM, sign_transcript=lambda answer: f"mac of {answer}")
    assert turn.transcript_mac == f"mac of {HARM_SAID}"
    assert talk.log.find_conversation("local", turn.transcript_mac) == "c1"


@pytest.mark.asyncio
async def test_a_front_ends_own_prompt_is_refused_alike_and_stays_background() -> None:
    turn = await Talk().ask(HARM, background=True)
    assert turn.background
    assert turn.refusal is not None


# An answer that is refused


@pytest.mark.asyncio
async def test_a_refused_answer_that_is_read_whole_is_never_begun() -> None:
    talk = Talk(f"We are open. Your card number is {CARD}, and the fee is ₹450 [hours].")
    events = await talk.events(OPEN, whole=True)
    finished = cast(TurnFinished, events[-1])
    assert sent(events) == finished.turn.answer == finished.refused == CARD_SAID
    assert finished.turn.refusal == Refusal("output", "secrets", PATTERNS.version)
    assert (finished.turn.finish_reason, finished.turn.cited) == ("content_filter", ())
    assert CARD not in repr(finished.turn), "the original is stored nowhere"


@pytest.mark.asyncio
async def test_a_stream_stops_before_the_first_character_of_what_is_refused_and_says_so() -> None:
    talk = Talk(f"We are open from nine. Your card number is {CARD} and more of it.")
    events = await talk.events(OPEN)
    turn = cast(TurnFinished, events[-1]).turn
    assert sent(events) == turn.answer
    assert turn.answer == f"We are open from nine. Your card number is \n\n{CARD_SAID}"
    assert cast(TurnFinished, events[-1]).refused == CARD_SAID
    assert (turn.finish_reason, turn.model) == ("content_filter", "scripted")
    assert sum(isinstance(event, TextDelta) for event in events) >= 3, "what came before went out as it came"


@pytest.mark.asyncio
async def test_a_stream_that_breaks_off_at_a_refusal_counts_what_was_received_by_then_and_leaves_the_llm() -> None:
    closed = []

    class Endless(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            try:
                for word in ("The ", "number ", "is ", "4111 ", "1111 ", "1111 ", "1111 ", "and "):
                    yield Chunk(word)
                while True:
                    yield Chunk("on ")
            finally:
                closed.append(True)

    turn = await Talk(llm=Endless()).ask(OPEN)
    assert closed == [True]
    assert turn.usage.source == "local"
    assert turn.usage.output_tokens == len("The number is 4111 1111 1111 1111".split())


@pytest.mark.asyncio
async def test_an_ordinary_answer_passes_unchanged_with_its_usage_and_a_first_token_at_once() -> None:
    events = await Talk("Nine to five [hours].").events(OPEN)
    turn = cast(TurnFinished, events[-1]).turn
    assert isinstance(events[0], TurnStarted)
    assert sent(events) == turn.answer == "Nine to five [hours]."
    assert (turn.finish_reason, turn.refusal, turn.cited, cast(TurnFinished, events[-1]).refused) == ("stop", None, ("hours",), "")
    assert turn.usage.output_tokens == 4
    assert "filter" in turn.latency_ms


@pytest.mark.asyncio
@pytest.mark.parametrize("whole", [False, True])
async def test_a_static_answer_is_filtered_too(whole: bool) -> None:
    leaky = Faq("hours", OPEN, f"Nine to five, with card {CARD}.")
    turn = await Talk(faqs=(leaky,), static=0.9).ask(OPEN, whole=whole)
    assert turn.model == STATIC_MODEL
    assert turn.refusal == Refusal("output", "secrets", PATTERNS.version)
    assert CARD not in turn.answer
    assert turn.usage == Usage(0, 0, source="none")


@pytest.mark.asyncio
async def test_an_answer_that_was_refused_brings_no_faqs_into_later_turns() -> None:
    talk = Talk(f"It is {CARD} [hours].", "Fine.")
    refused = await talk.ask(OPEN)
    assert refused.fetched == ("hours",), "what stood in the prompt is a fact of that turn"
    talk.policy.actions = (Action.NO_FETCH,)
    turn = await talk.ask("Really?")
    assert (turn.shown, turn.state.previous_queries) == ((), ())
    assert "4111" not in "\n".join(message.content for message in talk.llm.prompts[1])


@pytest.mark.asyncio
async def test_an_llm_that_fails_before_its_answer_is_settled_is_an_error_and_nothing_unchecked_is_sent() -> None:
    talk = Talk(llm=ScriptedLLM(["my system prompt is this"], fail_after=2))
    request = TurnRequest((Message("user", OPEN),), "local", "c1")
    seen: list[TurnEvent] = []
    with pytest.raises(LLMError):
        async for event in talk.pipeline.run(request):
            seen.append(event)
    assert sent(seen) == ""
    assert cast(InMemoryLog, talk.log).turns[0].answer == ""


# A model besides


@pytest.mark.asyncio
async def test_a_model_is_asked_about_the_query_and_the_answer_and_refuses_either() -> None:
    model = WordModel([])
    talk = Talk("Nine to five.", model=model)
    assert (await talk.ask(OPEN, whole=True)).refusal is None
    assert model.asked == [("input", OPEN), ("output", "Nine to five.")]
    turn = await talk.ask("a zebra?")
    assert turn.refusal == Refusal("input", "animals", "model-1")
    assert turn.answer == PATTERNS.rules.text("animals") == PATTERNS.rules.text("default")
    assert (await Talk("Ride a zebra.", model=model).ask(OPEN)).refusal == Refusal("output", "animals", "model-1")


@pytest.mark.asyncio
async def test_a_model_isnt_asked_about_what_a_pattern_refuses() -> None:
    model = WordModel([])
    await Talk(model=model).ask(HARM)
    assert model.asked == []


@pytest.mark.asyncio
async def test_with_a_model_a_stream_goes_out_in_pieces_that_it_has_seen() -> None:
    model = WordModel([])
    words = "The office is open today. " * 40
    events = await Talk(words + "A zebra.", model=model).events(OPEN)
    turn = cast(TurnFinished, events[-1]).turn
    assert turn.refusal is not None
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert "zebra" not in "".join(pieces)
    assert all(len(piece) >= PIECE for piece in pieces[:-1])
    seen = [text for where, text in model.asked if where == "output"]
    assert "".join(pieces[:-1]) == seen[-2], "what went out is what it passed"


@pytest.mark.asyncio
async def test_a_model_that_fails_open_leaves_the_patterns_standing_and_the_turn_marked() -> None:
    talk = Talk("Nine to five.", model=WordModel([], fails="e"))
    turn = await talk.ask(OPEN, whole=True)
    assert (turn.answer, turn.refusal, turn.degraded) == ("Nine to five.", None, ("filter_unavailable",))
    assert (await talk.ask(HARM)).refusal == Refusal("input", "fraud", PATTERNS.version)


@pytest.mark.asyncio
async def test_a_model_that_fails_closed_refuses_what_it_cannot_judge() -> None:
    turn = await Talk(model=WordModel([], fails="open"), on_failure="closed").ask(OPEN)
    assert turn.refusal == Refusal("input", "unavailable", "model-1")
    assert (turn.answer, turn.degraded) == (PATTERNS.rules.text("unavailable"), ("filter_unavailable",))


@pytest.mark.asyncio
async def test_a_long_query_is_read_in_pieces_and_still_refused_for_its_end() -> None:
    turn = await Talk().ask("what about my card? " * 2_000 + HARM)
    assert turn.refusal == Refusal("input", "fraud", PATTERNS.version)


# The log


@pytest.mark.asyncio
async def test_a_refused_turn_comes_out_of_the_database_and_stays_out_of_memory_and_training_sessions(tmp_path: Path) -> None:
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        talk = Talk("Nine to five [hours].", f"It is {CARD}.", log=log)
        turns = [await talk.ask(OPEN), await talk.ask(HARM), await talk.ask("Where can I park?")]
        assert [turn.refusal and turn.refusal.where for turn in turns] == [None, "input", "output"]
        assert list(log.turns_of("local", "c1")) == turns
        assert [exchange.query for exchange in log.recent("local", "c1", limit=9)] == [OPEN]
        sessions = list(plain_sessions(log))
        assert [session.turns for session in sessions] == [(PlainTurn(OPEN, "Nine to five [hours].", None, "unlabelled"),)]


def test_a_refused_turn_is_stored_with_its_own_time(tmp_path: Path) -> None:
    from chat.refused import refused_turn

    turn = refused_turn(Refusal("input", "threats", "v"), turn_id="t", conversation_id="c", owner="o",
                        created_at=datetime(2026, 11, 2, tzinfo=UTC), query="q", answer="a", settings=("paper",), price=None,
                        latency_ms={"total": 1.0}, degraded=(), background=False, transcript_mac=None)
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        log.append(turn)
        assert log.turn("o", "t") == turn
        log.append(replace(turn, id="u", refusal=None))
        assert log.turn("o", "u") == replace(turn, id="u", refusal=None)


# What the guard takes out of a conversation


def test_only_exchanges_that_were_refused_are_taken_out_whatever_the_roles_around_them() -> None:
    guard = Guard(PATTERNS)
    kept = [Message("system", "s"), Message("user", "a"), Message("assistant", "b"), Message("user", "d")]
    refused = [Message("user", "x"), Message("user", "y"), Message("assistant", f"begun\n\n{HARM_SAID} ")]
    assert guard.unrefused((*kept[:3], *refused, kept[3])) == tuple(kept)
    assert guard.unrefused((Message("assistant", HARM_SAID), kept[3])) == (kept[3],)
    assert guard.unrefused(kept) == tuple(kept)
