"""The gate's benchmark measures what it says, on a tiny network; its figures are not tested here."""

from pathlib import Path

import pytest

from evaluation.errors import EvaluationError
from evaluation.gate_bench import bench_gate, fetched_states
from policy.decide import DecisionConfig, NetworkPolicy
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_gate import constant_gate, tiny_policy
from tests.unit.evaluation.played import CAR, SHOP, world


def test_a_decision_is_timed_against_the_encoder_that_it_runs(tmp_path: Path) -> None:
    states = fetched_states((SHOP, CAR), world(), 5)
    policy = tiny_policy(make_tiny_encoder(tmp_path / "encoder"), DecisionConfig())
    found = bench_gate(policy, "tiny", states, samples=4, repeats=2)
    assert (found.policy, found.encoder, found.samples, found.members, found.states) == ("tiny:1", "tiny", 4, 3, 5)
    # a decision tokenises and runs the encoder too, so it can't be faster than that alone
    assert min(found.off.over_encoder, found.head.over_encoder, found.all.over_encoder) > 1
    assert 0 < found.encoder_p50 < found.head.p50 <= found.head.p95


def test_states_are_those_of_fetching_before_each_turn_and_as_many_as_asked_for() -> None:
    states = fetched_states((SHOP, CAR), world(), 100)
    assert [state.query for state in states] == [turn.query for session in (SHOP, CAR) for turn in session.turns]
    assert {action for state in states for action in state.previous_actions} == {"FETCH"}
    assert fetched_states((SHOP, CAR), world(), 2) == states[:2]


def test_a_gate_that_runs_no_encoder_and_too_few_states_are_refused(tmp_path: Path) -> None:
    tiny = tiny_policy(make_tiny_encoder(tmp_path / "encoder"), DecisionConfig())
    states = fetched_states((SHOP, CAR), world(), 5)
    with pytest.raises(EvaluationError, match="states: expected more than 3, got 2"):
        bench_gate(tiny, "tiny", states[:2])
    blind = NetworkPolicy(constant_gate(0.5), tiny.encoder, DecisionConfig(), "blind:1")
    with pytest.raises(EvaluationError, match="blind:1: expected a policy that reads the text"):
        bench_gate(blind, "none", states)
