"""Values of a turn: what they refuse, and the saving that a turn knows of."""

from dataclasses import FrozenInstanceError, replace

import pytest

from chat.types import ALWAYS_FETCH, Action, Counterfactual, Decision, Message, Sampling, State, Turn, Usage
from tests.conversation import NOON

TURN = Turn(
    id="t1", conversation_id="c1", owner="local", created_at=NOON, query="q", answer="a", state=State((), (), "q", None),
    decision=Decision(Action.FETCH, 1.0, 0.0, 1.0, "rule:always", "always"), hits=(), fetched=(), shown=(), cited=(),
    usage=Usage(100, 10), counterfactuals=(), model="m", prompt_version="p", kb_version="k", price=None, latency_ms={},
    finish_reason="stop",
)


def test_a_state_needs_one_action_for_each_previous_query() -> None:
    assert State(("a", "b"), (None, Action.STATIC), "q", None).previous_actions == (None, Action.STATIC)
    with pytest.raises(ValueError, match="one action for each previous query, got 1 for 2"):
        State(("a", "b"), (Action.FETCH,), "q", None)


@pytest.mark.parametrize("probability", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_decision_refuses_a_fetch_probability_outside_0_to_1(probability: float) -> None:
    with pytest.raises(ValueError, match="fetch_probability"):
        Decision(Action.FETCH, probability, 0.0, 1.0, "p", "r")


@pytest.mark.parametrize("probability", [0.0, -0.5, 1.01, float("nan")])
def test_a_decision_refuses_a_behavior_prob_that_no_taken_action_can_have(probability: float) -> None:
    with pytest.raises(ValueError, match="behavior_prob"):
        Decision(Action.FETCH, 1.0, 0.0, probability, "p", "r")


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_decision_may_be_certain_either_way(probability: float) -> None:
    assert Decision(Action.NO_FETCH, probability, 0.0, 1.0, "p", "r").fetch_probability == probability


def test_an_action_is_its_own_name_so_that_logs_read_well() -> None:
    assert [str(action) for action in Action] == ["FETCH", "NO_FETCH", "STATIC"]


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Message("user", "hi").content = "ho"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        TURN.answer = "another"  # type: ignore[misc]


def test_sampling_leaves_everything_to_the_llm_unless_asked() -> None:
    assert Sampling() == Sampling(max_tokens=None, temperature=None, top_p=None, stop=(), seed=None)


@pytest.mark.parametrize(("inputs", "outputs", "saved"), [
    (150, 10, 50), (60, 10, -40), (100, 10, 0), (0, 0, -110), (100, 30, 20),
])
def test_saved_tokens_count_input_and_output_against_always_fetch(inputs: int, outputs: int, saved: int) -> None:
    others = (Counterfactual("paper", 9999, 10, "same_answer"), Counterfactual(ALWAYS_FETCH, inputs, outputs, "same_answer"))
    assert replace(TURN, counterfactuals=others).saved_tokens == saved


def test_saved_tokens_are_unknown_without_the_serving_setting_and_not_zero() -> None:
    assert TURN.saved_tokens is None
    assert replace(TURN, counterfactuals=(Counterfactual("paper", 500, 10, "same_answer"),)).saved_tokens is None
