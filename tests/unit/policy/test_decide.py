"""When the learned gate skips, what it explores, and what a turn does when it can't decide."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.plan import TurnPlanner
from chat.types import Action, Message
from policy.decide import BATCH, DecisionConfig, Exploration, NetworkPolicy
from policy.encoding import StateEncoder
from policy.errors import PolicyError
from policy.network import GateNetwork
from policy.uncertainty import McDropout, mc_probs
from tests.conversation import FAQS, Conversation, config
from tests.fakes import FakeRetriever, InMemoryLog
from tests.tiny_gate import STATES, constant_gate, gate_state, similarity_gate, tiny_gate, tiny_policy

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
SURE = DecisionConfig(skip_threshold=0.5, mc_dropout="off")


@pytest.fixture(scope="module")
def states(bert: Path) -> StateEncoder:
    return tiny_gate(bert)[1]


def policy(network: GateNetwork, states: StateEncoder, decision: DecisionConfig = SURE, exploration: Exploration | None = None,
           seed: int = 0) -> NetworkPolicy:
    return NetworkPolicy(network, states, decision, "tiny:1", exploration=exploration, rng=random.Random(seed))


@unhurried
@given(penalty=st.floats(0.0, 3.0), row=st.integers(0, len(STATES) - 1), gain=st.floats(-6.0, 6.0))
def test_it_skips_just_when_the_mean_less_c_standard_deviations_reaches_the_threshold(
    states: StateEncoder, penalty: float, row: int, gain: float
) -> None:
    network = similarity_gate(gain, dropout=0.4)
    probs = mc_probs(network, states.batch([STATES[row]]), mode="head", samples=8, seed=5)[:, 0, 1]
    mean, spread = float(probs.mean()), float(probs.std(correction=0))
    estimate = mean - penalty * spread  # no rounding: what the policy compares is this very number
    options = DecisionConfig(skip_threshold=estimate, samples=8, uncertainty_penalty=penalty, seed=5)
    at, above = (policy(network, states, replace(options, skip_threshold=threshold)).decide(STATES[row])
                 for threshold in (estimate, math.nextafter(estimate, math.inf)))
    assert (at.action, above.action) == (Action.NO_FETCH, Action.FETCH)
    assert at.fetch_probability == 1.0 - mean
    assert at.uncertainty == above.uncertainty == spread
    assert at.behavior_prob == above.behavior_prob == 1.0


def test_scores_are_what_the_threshold_is_compared_with_in_batches_too(states: StateEncoder) -> None:
    options = DecisionConfig(skip_threshold=0.6, uncertainty_penalty=0.7)
    one = policy(similarity_gate(), states, options)
    many = [gate_state("card", similarity / 100) for similarity in range(BATCH + 7)]
    scores = one.scores(many)
    assert scores.shape == (BATCH + 7,)
    assert (one.decide(many[-1]).action is Action.NO_FETCH) is bool(scores[-1] >= 0.6)
    for state, score in zip(many[:5], scores[:5], strict=True):
        found = one.decide(state)
        assert 1.0 - found.fetch_probability - 0.7 * found.uncertainty == pytest.approx(score, abs=1e-6)
    assert one.scores([]).shape == (0,)


@pytest.mark.parametrize("mode", ["off", "head", "all"])
def test_without_a_certified_threshold_it_never_skips(mode: McDropout, states: StateEncoder) -> None:
    never = policy(constant_gate(1.0 - 1e-7), states, DecisionConfig(mc_dropout=mode))
    assert {never.decide(state).action for state in STATES} == {Action.FETCH}


def test_another_threshold_is_another_gate_over_the_same_network_and_explores_nothing(states: StateEncoder) -> None:
    curious = policy(constant_gate(0.8), states, exploration=Exploration(0.9, 0.9))
    assert {curious.at(0.7).decide(STATES[0]).action for _ in range(50)} == {Action.NO_FETCH}
    assert {curious.at(0.9).decide(STATES[0]).action for _ in range(50)} == {Action.FETCH}
    assert curious.at(0.9).config == replace(SURE, skip_threshold=0.9)


@pytest.mark.parametrize(("probability", "options", "reason"), [
    (0.8, SURE, "80% sure that a fetch would not help"),
    (0.2, SURE, "a fetch may help"),
])
def test_a_decision_gives_its_reason(probability: float, options: DecisionConfig, reason: str, states: StateEncoder) -> None:
    assert policy(constant_gate(probability), states, options).decide(STATES[0]).reason == reason


def test_too_unsure_a_skip_says_so(states: StateEncoder) -> None:
    unsure = policy(similarity_gate(6.0, dropout=0.5), states, DecisionConfig(skip_threshold=0.5, uncertainty_penalty=3.0, samples=50))
    found = unsure.decide(STATES[0])
    assert found.action is Action.FETCH
    assert "for answering without a fetch, but too unsure (±" in found.reason


@pytest.mark.parametrize("mode", ["off", "head", "all"])
def test_a_state_is_decided_alike_each_time_and_from_many_threads(mode: McDropout, encoder: Path) -> None:
    options = DecisionConfig(skip_threshold=0.4, mc_dropout=mode, samples=4)
    shared = tiny_policy(encoder, options)
    alone = [tiny_policy(encoder, options).decide(state) for state in STATES]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared.decide, STATES * 20))
    assert found == alone * 20


# exploration


@pytest.mark.parametrize(("probability", "usual", "other"), [(0.8, Action.NO_FETCH, Action.FETCH), (0.2, Action.FETCH, Action.NO_FETCH)])
def test_the_other_action_is_tried_at_the_rate_that_is_logged(
    probability: float, usual: Action, other: Action, states: StateEncoder
) -> None:
    """4,000 draws: by Hoeffding off by more than 0.05 with a chance below 5e-9."""
    rates = Exploration(to_fetch=0.1, to_skip=0.25)
    rate = rates.to_fetch if usual is Action.NO_FETCH else rates.to_skip
    curious = policy(constant_gate(probability), states, exploration=rates)
    found = [curious.decide(STATES[0]) for _ in range(4_000)]
    tried = [one for one in found if one.action is other]
    assert len(tried) / len(found) == pytest.approx(rate, abs=0.05)
    assert {one.behavior_prob for one in tried} == {rate}
    assert {one.behavior_prob for one in found if one.action is usual} == {1.0 - rate}
    assert {one.reason for one in tried} == {"tries the other action, to learn what it brings"}
    assert {one.fetch_probability for one in found} == {found[0].fetch_probability}, "what the network thinks isn't touched by chance"


@pytest.mark.parametrize("probability", [0.2, 0.8])
def test_a_rate_of_zero_never_explores_and_draws_nothing(probability: float, states: StateEncoder) -> None:
    class NoChance(random.Random):
        def random(self) -> float:
            raise AssertionError("drew a number")

    one = NetworkPolicy(constant_gate(probability), states, SURE, "tiny:1", exploration=Exploration(), rng=NoChance())
    assert {one.decide(STATES[0]).behavior_prob for _ in range(20)} == {1.0}


def test_exploring_one_way_leaves_the_other_alone(states: StateEncoder) -> None:
    """200 draws at 0.5: none the other way with a chance of 1e-60."""
    curious = Exploration(to_skip=0.5)
    skips, fetches = (policy(constant_gate(p), states, exploration=curious) for p in (0.8, 0.2))
    assert {skips.decide(STATES[0]).action for _ in range(200)} == {Action.NO_FETCH}
    assert {fetches.decide(STATES[0]).action for _ in range(200)} == {Action.FETCH, Action.NO_FETCH}


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_rate_that_leaves_the_policy_no_chance_is_refused(rate: float) -> None:
    for name in ("to_fetch", "to_skip"):
        with pytest.raises(ValueError, match=f"{name}: expected 0 <= rate < 1"):
            Exploration(**{name: rate})


@pytest.mark.parametrize(("options", "message"), [
    ({"samples": 0}, "samples: expected at least 1, got 0"),
    ({"uncertainty_penalty": -0.5}, "uncertainty_penalty: expected 0 or more, got -0.5"),
    ({"uncertainty_penalty": math.nan}, "uncertainty_penalty: expected 0 or more, got nan"),
    ({"uncertainty_penalty": math.inf}, "uncertainty_penalty: expected 0 or more, got inf"),
    ({"skip_threshold": math.nan}, "skip_threshold: expected a number, got nan"),
])
def test_a_configuration_that_decides_nothing_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecisionConfig(**options)  # type: ignore[arg-type]


# damaged weights


@pytest.mark.parametrize("mode", ["off", "head", "all"])
@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_an_error_of_ours(damage: float, mode: McDropout, states: StateEncoder) -> None:
    network = similarity_gate()
    with torch.no_grad():
        network.action.bias[..., 0] = damage
    broken = policy(network, states, DecisionConfig(skip_threshold=0.1, mc_dropout=mode))
    with pytest.raises(PolicyError, match="tiny:1: expected finite probabilities, got NaN; the weights are damaged, load another policy"):
        broken.decide(STATES[0])
    with pytest.raises(PolicyError):
        broken.scores(STATES)


def test_a_turn_whose_policy_has_damaged_weights_fetches_and_is_marked(states: StateEncoder, caplog: pytest.LogCaptureFixture) -> None:
    network = constant_gate(0.9)
    with torch.no_grad():
        network.body.weight[:] = math.nan
    broken = policy(network, states)
    made = TurnPlanner(FakeRetriever(FAQS), broken, InMemoryLog(), config()).plan((Message("user", "When are you open?"),), "local", "c1")
    assert made.degraded == ("policy_failed",)
    assert (made.decision.action, made.decision.policy_version, made.decision.behavior_prob) == (Action.FETCH, "tiny:1", 1.0)
    assert made.prompt.fetched == ("hours",)
    assert "policy tiny:1 failed; fetching" in caplog.text


@pytest.mark.asyncio
async def test_a_conversation_under_a_learned_gate_logs_what_it_decided(states: StateEncoder) -> None:
    talk = Conversation(policy=policy(similarity_gate(), states, DecisionConfig(skip_threshold=0.55, uncertainty_penalty=0.0)))
    first, second = await talk.ask("When are you open?"), await talk.ask("xyzzy")
    assert (first.decision.action, second.decision.action) == (Action.NO_FETCH, Action.FETCH)
    assert first.degraded == second.degraded == ()
    assert second.state.previous_actions == (Action.NO_FETCH,)
    assert first.decision == talk.policy.decide(first.state)
    assert first.decision.uncertainty > 0.0
