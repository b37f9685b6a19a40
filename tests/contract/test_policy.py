"""What every Policy must do: the rules, learned gates and the scripted fake alike."""

import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.ports import Policy
from chat.types import Action, Evidence, State
from policy.decide import DecisionConfig, NetworkPolicy
from policy.encoding import StateEncoder
from policy.network import GateNetwork
from policy.rules import AlwaysFetch, EvidenceRule, NeverFetch
from tests.fakes import ScriptedPolicy
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_gate import tiny_gate


@cache
def built(dropout: float) -> tuple[GateNetwork, StateEncoder]:
    """A network over a tiny BERT. What is built once is read by many policies, as by many threads."""
    with tempfile.TemporaryDirectory() as folder:
        network, states, _ = tiny_gate(make_tiny_encoder(Path(folder) / "encoder"), dropout=dropout)
    return network, states


def learned(skip_threshold: float = 0.5, dropout: float = 0.2) -> NetworkPolicy:
    return NetworkPolicy(*built(dropout), DecisionConfig(skip_threshold=skip_threshold, samples=5), f"tiny:{skip_threshold}")


POLICIES: dict[str, Callable[[], Policy]] = {
    "always": AlwaysFetch,
    "never": NeverFetch,
    "evidence": EvidenceRule,
    "evidence at zero": lambda: EvidenceRule(0.0),
    "learned": learned,
    "learned, never certified": lambda: learned(1.01),
    "learned, to skip": lambda: learned(0.0, dropout=0.0),
    "scripted": ScriptedPolicy,
    "scripted to skip": lambda: ScriptedPolicy((Action.NO_FETCH,)),
}
EVERY = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

cosines = st.floats(-1, 1)
evidence = st.builds(
    Evidence,
    top1_similarity=st.none() | cosines,
    margin=st.none() | st.floats(0, 2),
    top1_in_prompt=st.booleans(),
    turns_since_fetch=st.none() | st.integers(0, 50),
)
past = st.lists(st.tuples(st.text(max_size=40), st.none() | st.sampled_from(Action)), max_size=4)
states = st.builds(
    lambda turns, query, seen: State(tuple(q for q, _ in turns), tuple(a for _, a in turns), query, seen),
    past, st.text(max_size=80), st.none() | evidence,
)


@EVERY
@unhurried
@given(state=states)
def test_a_decision_is_valid_and_says_who_made_it_and_why(make: Callable[[], Policy], state: State) -> None:
    policy = make()
    decision = policy.decide(state)
    assert decision.action in (Action.FETCH, Action.NO_FETCH), "STATIC is no action of a policy"
    assert 0.0 <= decision.fetch_probability <= 1.0
    assert 0.0 < decision.behavior_prob <= 1.0
    assert math.isfinite(decision.uncertainty)
    assert decision.uncertainty >= 0.0
    assert decision.policy_version == policy.version != ""
    assert decision.reason.strip()


@EVERY
@unhurried
@given(state=states)
def test_the_same_state_gives_the_same_decision_from_any_policy_of_that_version(make: Callable[[], Policy], state: State) -> None:
    policy, twin = make(), make()
    assert policy.version == twin.version
    assert policy.decide(state) == policy.decide(state) == twin.decide(state)


@EVERY
@unhurried
@given(first=states, second=states)
def test_a_decision_does_not_depend_on_what_was_decided_before(make: Callable[[], Policy], first: State, second: State) -> None:
    policy = make()
    policy.decide(first)
    assert policy.decide(second) == make().decide(second)


@EVERY
@unhurried
@given(state=states)
def test_a_certain_policy_takes_the_action_that_its_probability_says(make: Callable[[], Policy], state: State) -> None:
    decision = make().decide(state)
    learned_threshold = decision.policy_version.startswith("tiny:")  # it skips from a threshold of its own on
    if decision.behavior_prob == 1.0 and not learned_threshold:
        assert (decision.fetch_probability >= 0.5) is (decision.action is Action.FETCH)


@pytest.mark.parametrize("hostile", ["", "\x00", "🙂" * 1000, "مرحبا\u202e", "\ud800", "[FETCH] [SEP] <faqs>", "a" * 100_000])
@EVERY
def test_no_query_makes_a_policy_fail(make: Callable[[], Policy], hostile: str) -> None:
    assert make().decide(State((hostile,), (None,), hostile, None)).action in (Action.FETCH, Action.NO_FETCH)
