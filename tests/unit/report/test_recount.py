"""A recount agrees with what a real pipeline logged, and finds a count that was changed."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chat.accounting import alternatives
from chat.prompt import PAPER, PromptSettings
from chat.types import ALWAYS_FETCH, Action, Message, Turn
from report.recount import Difference, Recounter
from tests.conversation import FAQS, Conversation, config
from tests.fakes import FakeRetriever, ScriptedLLM, ScriptedPolicy, WordCounter

SERVING = PromptSettings(k=2, history_turns=2, history_faqs="cited", faq_turns=1, repeats=False)
BASELINES = {"paper": PAPER, **alternatives(SERVING)}
SAID = ("When are you open?", "Can I return things?", "and on Sundays?", "Where can I park?", "thanks")
ACTIONS = (Action.FETCH, Action.NO_FETCH, Action.FETCH, Action.NO_FETCH)
ANSWERS = ("Nine to five [hours].", "Yes.", "I don't know.", "Behind the house [parking]. " * 3, "Welcome.")


async def played(*, operator: str = "", server_counts: bool = False, static: float | None = None) -> list[Turn]:
    """A conversation of five turns; with `static`, FAQs that are that similar answer by themselves."""
    chat = Conversation(llm=ScriptedLLM(ANSWERS, usage=server_counts), policy=ScriptedPolicy(ACTIONS),
                        config=config(SERVING, baselines=BASELINES, min_similarity=0.1, static_threshold=static),
                        messages=[Message("system", operator)] if operator else [])
    return [await chat.ask(query) for query in SAID]


def recounter(kb_version: str = "fake-kb", serving: PromptSettings = SERVING) -> Recounter:
    return Recounter(WordCounter(), FakeRetriever(FAQS).get, kb_version, serving, BASELINES)


@pytest.mark.parametrize(("operator", "server_counts", "static"), [
    ("", False, None), ("", True, None), ("", False, 0.9), ("", True, 0.9),
    ("Be brief and kind.", False, None), ("Be brief and kind.", True, None), ("Be brief and kind.", False, 0.9),
])  # not all three: where every count is a server's, the log doesn't say what an operator's text takes
@pytest.mark.asyncio
async def test_every_count_of_a_pipeline_comes_out_again(operator: str, server_counts: bool, static: float | None) -> None:
    turns = await played(operator=operator, server_counts=server_counts, static=static)
    assert (static is not None) == any(turn.decision.action is Action.STATIC for turn in turns)
    done = recounter().recount(turns)
    assert (done.agreed, done.differing, done.passed_over) == (5, [], {})


@pytest.mark.asyncio
async def test_one_token_more_in_any_count_is_found() -> None:
    turns = await played()
    paid = replace(turns[1], usage=replace(turns[1].usage, output_tokens=turns[1].usage.output_tokens + 1))
    other = replace(turns[3].counterfactuals[0], input_tokens=turns[3].counterfactuals[0].input_tokens + 1)
    saved = replace(turns[3], counterfactuals=(other, *turns[3].counterfactuals[1:]))
    done = recounter().recount([turns[0], paid, turns[2], saved, turns[4]])
    assert (done.agreed, done.turns_differing) == (3, 2)
    assert [(one.turn_id, one.what, one.logged - one.recounted) for one in done.differing] == [
        (turns[1].id, "output", 1), (turns[3].id, ALWAYS_FETCH, 1)]


@pytest.mark.asyncio
async def test_other_settings_than_those_of_the_time_are_found_out() -> None:
    done = recounter(serving=PAPER).recount(await played())
    assert done.turns_differing > 0
    assert all(isinstance(one, Difference) for one in done.differing)


@pytest.mark.asyncio
async def test_what_can_not_be_recounted_says_why_and_is_never_counted_as_agreeing() -> None:
    turns: Sequence[Turn] = await played()
    rewritten = replace(turns[2], latency_ms={**turns[2].latency_ms, "rewrite": 3.0})
    done = recounter().recount([turns[0], replace(turns[1], prompt_version="2020-1"), rewritten, *turns[3:]])
    assert done.agreed == 3
    assert sorted(done.passed_over.values()) == [1, 1]
    elsewhere = recounter(kb_version="another").recount(turns)
    assert (elsewhere.agreed, elsewhere.passed_over) == (0, {"of another version of the knowledge base": 5})
