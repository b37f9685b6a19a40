"""The holdback: which conversations it takes, and that every turn of theirs fetches."""

from dataclasses import replace

import pytest

from chat.holdback import HOLDBACK_POLICY, is_held_back
from chat.types import Action
from tests.conversation import Conversation, config
from tests.fakes import ScriptedLLM, ScriptedPolicy

IDS = [f"conv-{n}" for n in range(20_000)]


def test_the_share_that_is_held_back_is_the_share_asked_for() -> None:
    taken = sum(is_held_back(one, 0.05) for one in IDS)
    assert abs(taken / len(IDS) - 0.05) < 0.005  # three standard errors


def test_none_and_all() -> None:
    assert not any(is_held_back(one, 0.0) for one in IDS)
    assert all(is_held_back(one, 1.0) for one in IDS)


def test_a_larger_share_holds_back_those_of_a_smaller_one() -> None:
    small, large = ({one for one in IDS if is_held_back(one, share)} for share in (0.02, 0.1))
    assert small < large


def test_the_same_conversation_is_on_the_same_side_after_a_restart_and_an_update() -> None:
    """Written out: another hash would move conversations from one side to the other in mid-measurement."""
    assert [one for one in IDS[:60] if is_held_back(one, 0.05)] == ["conv-23", "conv-26", "conv-46"]


@pytest.mark.asyncio
async def test_every_turn_of_a_held_back_conversation_fetches_and_no_faq_answers_alone() -> None:
    chat = Conversation(llm=ScriptedLLM(["one", "two"]), policy=ScriptedPolicy([Action.NO_FETCH]),
                        config=replace(config(static_threshold=0.5), holdback=1.0))
    first, second = await chat.ask("When are you open?"), await chat.ask("thanks")
    for turn in (first, second):
        assert (turn.decision.action, turn.decision.policy_version, turn.decision.behavior_prob) == (Action.FETCH, HOLDBACK_POLICY, 1.0)
    assert (first.fetched, first.answer) == (("hours",), "one")
    assert first.saved_tokens == 0


@pytest.mark.asyncio
async def test_the_others_are_left_to_the_policy() -> None:
    chat = Conversation(llm=ScriptedLLM(["one"]), policy=ScriptedPolicy([Action.NO_FETCH]), config=replace(config(), holdback=0.0))
    assert (await chat.ask("When are you open?")).decision.action is Action.NO_FETCH
