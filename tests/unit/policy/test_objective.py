"""Objectives against closed forms, slow twins and gradients by hand, and a planted bandit that they must solve."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, tensor

from policy.objective import (
    MAX_KL_COEF,
    MIN_KL_COEF,
    adaptive_kl_coef,
    advantages,
    all_action_loss,
    best_of_k,
    discounted_returns,
    dual_step,
    effective_sample_size,
    importance_weights,
    kl_divergence,
    moving_baseline,
    policy_gradient_loss,
    ppo_loss,
    supervised_loss,
)

rates = st.floats(0.0, 1.0)
numbers = st.floats(-100.0, 100.0)


def doubles(*values: float) -> Tensor:
    return tensor(values, dtype=torch.float64)


def learnable(*rows: tuple[float, ...]) -> Tensor:
    return tensor(rows, dtype=torch.float64, requires_grad=True)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


# returns, baselines, advantages


def test_a_reward_of_one_for_ever_is_worth_1_over_1_minus_gamma() -> None:
    starts = torch.zeros(400, dtype=torch.bool)
    starts[0] = True
    for gamma in (0.1, 0.5, 0.9):
        returns = discounted_returns(torch.ones(400, dtype=torch.float64), starts, gamma)
        assert returns[0].item() == pytest.approx(1.0 / (1.0 - gamma), abs=1e-12)
        assert returns[-1].item() == 1.0


def test_returns_stop_at_the_end_of_a_conversation() -> None:
    rewards, starts = doubles(1.0, 2.0, 4.0, 8.0), tensor([True, False, True, False])
    assert discounted_returns(rewards, starts, 0.5).tolist() == [2.0, 2.0, 8.0, 8.0]
    assert discounted_returns(rewards, tensor([True, False, False, False]), 0.5).tolist() != [2.0, 2.0, 8.0, 8.0]


def test_returns_of_single_turns_are_their_rewards_and_no_turns_have_none() -> None:
    assert discounted_returns(tensor([3.0, -1.0]), tensor([True, True]), 0.9).tolist() == [3.0, -1.0]
    assert discounted_returns(torch.ones(0), torch.ones(0, dtype=torch.bool), 0.9).shape == (0,)


@given(st.lists(st.tuples(numbers, st.booleans()), min_size=1, max_size=12), rates)
@settings(deadline=None)
def test_returns_are_the_sum_that_defines_them(turns: list[tuple[float, bool]], gamma: float) -> None:
    rewards, starts = [reward for reward, _ in turns], [start for _, start in turns]
    slow = []
    for t in range(len(turns)):
        end = next((u for u in range(t + 1, len(turns)) if starts[u]), len(turns))
        slow.append(sum(gamma ** (u - t) * rewards[u] for u in range(t, end)))
    assert discounted_returns(doubles(*rewards), tensor(starts), gamma).tolist() == pytest.approx(slow, abs=1e-9)


def test_returns_need_one_start_for_each_reward() -> None:
    with pytest.raises(ValueError, match=r"got \(2,\) and \(1,\); pass one start flag for each turn"):
        discounted_returns(torch.ones(2), tensor([True]), 0.1)


def test_an_advantage_is_what_is_above_the_baseline() -> None:
    assert advantages(tensor([1.0, 4.0]), 0.5, normalize=False).tolist() == [0.5, 3.5]
    assert advantages(tensor([1.0, 4.0]), tensor([1.0, 2.0]), normalize=False).tolist() == [0.0, 2.0]


def test_normalized_advantages_have_mean_0_and_variance_1_whatever_the_baseline() -> None:
    for baseline in (0.0, 7.0):
        normalized = advantages(doubles(1.0, 2.0, 6.0), baseline, normalize=True)
        assert normalized.mean().item() == pytest.approx(0.0, abs=1e-9)
        assert normalized.square().mean().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("returns", [[2.0], [2.0, 2.0, 2.0]])
def test_equal_advantages_normalize_to_zero(returns: list[float]) -> None:
    assert advantages(doubles(*returns), 0.0, normalize=True).tolist() == [0.0] * len(returns)


def test_a_moving_baseline_starts_at_the_mean_and_closes_the_gap_geometrically() -> None:
    baseline = moving_baseline(None, tensor([1.0, 3.0]), 0.9)
    assert baseline == 2.0
    for _ in range(10):
        baseline = moving_baseline(baseline, tensor([0.0, 0.0]), 0.9)
    assert baseline == pytest.approx(2.0 * 0.9**10)


def test_a_baseline_of_zero_is_a_baseline() -> None:
    assert moving_baseline(0.0, tensor([1.0]), 0.75) == 0.25


# losses and their gradients


def test_the_reinforce_gradient_is_the_one_derived_by_hand() -> None:
    logits, gains, taken = learnable((0.3, -0.2, 1.0), (0.0, 2.0, -1.0)), doubles(2.0, -3.0), tensor([2, 0])
    pi = logits.detach().softmax(-1)
    entropy = -(pi * pi.log()).sum(-1, keepdim=True)
    chosen = torch.nn.functional.one_hot(taken, 3)
    # d log pi(a) / dz = onehot(a) - pi;  dH / dz = -pi (log pi + H)
    by_hand = -(gains[:, None] * (chosen - pi) - 0.1 * pi * (pi.log() + entropy)) / 2
    torch.testing.assert_close(gradient(policy_gradient_loss(logits, taken, gains, entropy_coef=0.1), logits), by_hand)


def test_the_reinforce_loss_is_minus_what_is_hoped_for() -> None:
    loss = policy_gradient_loss(torch.zeros(1, 2), tensor([1]), tensor([2.0]), entropy_coef=0.1)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(2.0 * math.log(2) - 0.1 * math.log(2))


def test_the_all_action_gradient_is_the_one_derived_by_hand() -> None:
    logits, values = learnable((0.5, -0.5), (1.0, 3.0)), tensor([[1.0, -1.0], [0.1, 2.0]], dtype=torch.float64)
    pi = logits.detach().softmax(-1)
    expected = (pi * values).sum(-1, keepdim=True)
    torch.testing.assert_close(gradient(all_action_loss(logits, values, entropy_coef=0.0), logits), -pi * (values - expected) / 2)


def test_the_all_action_gradient_is_the_mean_of_reinforces_over_every_action() -> None:
    logits, values = learnable((0.5, -0.5, 0.2)), doubles(1.0, -1.0, 0.4)
    pi = logits.detach().softmax(-1)[0]
    mean = torch.stack([
        pi[a] * gradient(policy_gradient_loss(logits, tensor([a]), values[a:a + 1], entropy_coef=0.3), logits) for a in range(3)
    ]).sum(0)
    torch.testing.assert_close(gradient(all_action_loss(logits, values[None], entropy_coef=0.3), logits), mean)


def test_the_all_action_loss_is_least_at_the_softmax_of_values_over_the_entropy_coef() -> None:
    values, coef = tensor([[1.0, -1.0], [0.1, 0.3]], dtype=torch.float64), 0.5
    logits = (values / coef).requires_grad_()
    loss = all_action_loss(logits, values, entropy_coef=coef)
    assert loss.item() == pytest.approx(-(coef * (values / coef).logsumexp(-1)).mean().item())
    torch.testing.assert_close(gradient(loss, logits), torch.zeros_like(values), atol=1e-12, rtol=0)


def test_finite_differences_agree_with_every_gradient() -> None:
    logits, other, actions = learnable((0.3, -0.2), (1.0, 0.5)), tensor([[0.0, 0.4], [0.2, 0.1]], dtype=torch.float64), tensor([0, 1])
    heads = learnable((0.5, -0.5))[0].detach().requires_grad_()
    old = other.log_softmax(-1)[:, 0]
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda z, _: policy_gradient_loss(z, actions, doubles(2.0, -1.0), entropy_coef=0.2),
        lambda z, _: all_action_loss(z, other, entropy_coef=0.2),
        lambda z, v: ppo_loss(z, v, actions, old, doubles(2.0, -1.0), doubles(1.0, 0.0), clip=0.9, value_coef=0.5, entropy_coef=0.2),
        lambda z, _: kl_divergence(z, other),
        lambda z, _: supervised_loss(z, actions, doubles(1.0, 3.0)),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, (logits, heads))


def test_what_isnt_learned_through_gets_no_gradient() -> None:
    logits, values, pair = learnable((0.1, 0.2)), learnable((1.0, 2.0)), doubles(1.0).requires_grad_()
    policy_gradient_loss(logits, tensor([0]), pair, entropy_coef=0.1).backward()  # type: ignore[no-untyped-call]
    all_action_loss(logits, values, entropy_coef=0.1).backward()  # type: ignore[no-untyped-call]
    kl_divergence(logits, values).backward()  # type: ignore[no-untyped-call]
    ppo_loss(logits, doubles(0.0), tensor([0]), pair, pair, pair, clip=0.2, value_coef=1.0, entropy_coef=0.1).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert values.grad is None
    assert pair.grad is None


@pytest.mark.parametrize("loss", [
    lambda z, bad: policy_gradient_loss(z, tensor([0]), bad, entropy_coef=0.1),
    lambda z, bad: all_action_loss(z, bad.expand(1, 2), entropy_coef=0.1),
    lambda z, bad: ppo_loss(z, bad, tensor([0]), bad, bad, bad, clip=0.2, value_coef=1.0, entropy_coef=0.1),
    lambda z, bad: kl_divergence(z, bad.expand(1, 2)),
    lambda z, bad: supervised_loss(z, tensor([0]), bad),
])
def test_nan_shows_in_the_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert loss(torch.zeros(1, 2), tensor([math.nan])).isnan()


@pytest.mark.parametrize(("ratio", "gain", "surrogate", "moves"), [
    (1.0, 2.0, 2.0, True),
    (1.1, 2.0, 2.2, True),
    (1.5, 2.0, 2.4, False),  # good enough already: clipped at 1.2
    (0.5, 2.0, 1.0, True),  # made less likely by mistake: free to come back
    (0.9, -2.0, -1.8, True),
    (0.5, -2.0, -1.6, False),  # bad and rare enough already: clipped at 0.8
    (1.5, -2.0, -3.0, True),  # made more likely by mistake: free to come back
])
def test_ppo_clips_where_the_paper_says_so(ratio: float, gain: float, surrogate: float, moves: bool) -> None:
    logits = learnable((0.4, -0.3))
    old = logits.detach().log_softmax(-1)[:, 0] - math.log(ratio)
    loss = ppo_loss(logits, doubles(0.0), tensor([0]), old, doubles(gain), doubles(0.0), clip=0.2, value_coef=1.0, entropy_coef=0.0)
    assert loss.item() == pytest.approx(-surrogate)
    assert bool(gradient(loss, logits).abs().sum() > 1e-9) is moves


def test_ppo_adds_the_value_error_and_takes_off_the_entropy() -> None:
    loss = ppo_loss(torch.zeros(2, 2), tensor([1.0, 0.0]), tensor([0, 1]), torch.full((2,), math.log(0.5)), tensor([1.0, 3.0]),
                    tensor([3.0, 0.0]), clip=0.2, value_coef=0.5, entropy_coef=0.1)
    assert loss.item() == pytest.approx(0.5 * 2.0 - 2.0 - 0.1 * math.log(2))


@given(st.floats(0.2, 5.0), st.floats(-3.0, 3.0), st.floats(0.0, 0.9), st.floats(0.0, 0.9))
@settings(deadline=None)
def test_a_wider_clip_never_raises_the_ppo_loss(ratio: float, gain: float, a: float, b: float) -> None:
    def loss(clip: float) -> float:
        old = doubles(math.log(0.5 / ratio))
        return ppo_loss(doubles(0.0, 0.0)[None], doubles(0.0), tensor([0]), old, doubles(gain), doubles(0.0), clip=clip,
                        value_coef=0.0, entropy_coef=0.0).item()

    narrow, wide = sorted((a, b))
    assert loss(wide) <= loss(narrow) + 1e-12
    assert loss(wide) >= -ratio * gain - 1e-9  # the bound is pessimistic: never better than unclipped


def test_kl_of_two_coins_is_the_textbooks() -> None:
    def coin(p: float) -> Tensor:
        return doubles(math.log(p), math.log(1 - p))[None]

    by_hand = 0.3 * math.log(0.3 / 0.6) + 0.7 * math.log(0.7 / 0.4)
    assert kl_divergence(coin(0.3), coin(0.6)).item() == pytest.approx(by_hand)
    assert kl_divergence(coin(0.6), coin(0.3)).item() != pytest.approx(by_hand, abs=1e-3)
    assert kl_divergence(torch.cat([coin(0.3), coin(0.6)]), torch.cat([coin(0.6), coin(0.6)])).item() == pytest.approx(by_hand / 2)


def test_kl_of_sure_policies_is_their_distance_in_logits_not_infinite() -> None:
    assert kl_divergence(tensor([[200.0, -200.0]]), tensor([[-200.0, 200.0]])).item() == pytest.approx(400.0)


@given(st.lists(numbers, min_size=3, max_size=3), st.lists(numbers, min_size=3, max_size=3), numbers)
@settings(deadline=None)
def test_kl_is_never_negative_and_blind_to_a_shift_of_the_logits(a: list[float], b: list[float], shift: float) -> None:
    p, q = doubles(*a)[None], doubles(*b)[None]
    assert kl_divergence(p, q).item() >= -1e-9
    assert kl_divergence(p, p + shift).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("kl", "following"), [(0.0, 0.5), (0.066, 0.5), (0.067, 1.0), (0.1, 1.0), (0.15, 1.0), (0.151, 2.0),
                                              (math.nan, 1.0), (math.inf, 2.0)])
def test_the_kl_coefficient_doubles_above_and_halves_below_its_target(kl: float, following: float) -> None:
    assert adaptive_kl_coef(1.0, kl, 0.1) == following


def test_the_kl_coefficient_comes_back_from_a_long_quiet_stretch() -> None:
    quiet = loud = 1.0
    for _ in range(5_000):
        quiet, loud = adaptive_kl_coef(quiet, 0.0, 0.1), adaptive_kl_coef(loud, 9.0, 0.1)
    assert (quiet, loud) == (MIN_KL_COEF, MAX_KL_COEF)
    assert adaptive_kl_coef(0.0, 0.0, 0.1) == adaptive_kl_coef(0.0, 9.0, 0.1) == 0.0


def test_the_supervised_loss_is_a_weighted_mean() -> None:
    logits = doubles(math.log(0.25), math.log(0.75)).expand(2, 2)
    loss = supervised_loss(logits, tensor([0, 1]), doubles(3.0, 1.0))
    assert loss.item() == pytest.approx(-(3 * math.log(0.25) + math.log(0.75)) / 4)
    assert supervised_loss(logits, tensor([0, 1]), doubles(30.0, 10.0)).item() == pytest.approx(loss.item())


def test_a_weight_of_zero_drops_a_state() -> None:
    logits = torch.randn(3, 2, generator=Generator().manual_seed(0))
    kept = supervised_loss(logits[:2], tensor([0, 1]), torch.ones(2))
    assert supervised_loss(logits, tensor([0, 1, 1]), tensor([1.0, 1.0, 0.0])).item() == pytest.approx(kept.item())


# rejection sampling


@pytest.mark.parametrize("k", [1, 2, 5])
def test_best_of_k_misses_the_better_arm_as_often_as_k_draws_do(k: int) -> None:
    """A false failure is 5 standard deviations away: under 1 in 1,000,000 for each k and seed."""
    states, p = 20_000, 0.3
    logits = tensor([math.log(1 - p), math.log(p)]).expand(states, 2)
    found = best_of_k(tensor([0.0, 1.0]).expand(states, 2), logits, k, Generator().manual_seed(k)).double().mean().item()
    expected = 1.0 - (1.0 - p) ** k
    assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / states))


def test_best_of_many_is_the_label_of_supervised_learning() -> None:
    """A state is missed with probability 0.5 ** 64."""
    rewards = torch.randn(50, 2, generator=Generator().manual_seed(1))
    assert best_of_k(rewards, torch.zeros(50, 2), 64, Generator().manual_seed(2)).tolist() == rewards.argmax(-1).tolist()


def test_best_of_k_draws_the_same_from_the_same_seed() -> None:
    first, second = (best_of_k(torch.zeros(40, 2), torch.zeros(40, 2), 1, Generator().manual_seed(3)).tolist() for _ in range(2))
    assert first == second
    assert set(first) == {0, 1}


def test_best_of_k_refuses_no_draws_and_missing_rewards() -> None:
    with pytest.raises(ValueError, match="at least 1 draw, got 0"):
        best_of_k(torch.zeros(1, 2), torch.zeros(1, 2), 0, Generator())
    with pytest.raises(ValueError, match="got 1 NaN; drop the states"):
        best_of_k(tensor([[0.0, math.nan]]), torch.zeros(1, 2), 2, Generator())


# importance weights


def test_weights_are_the_ratio_up_to_the_clip() -> None:
    target, behavior = doubles(0.5, 0.9, 0.0), doubles(0.25, 0.1, 0.5)
    assert importance_weights(target, behavior, clip=5.0).tolist() == [2.0, 5.0, 0.0]
    assert importance_weights(target, behavior, clip=math.inf).tolist() == pytest.approx([2.0, 9.0, 0.0])


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.001, math.nan, math.inf])
def test_weights_refuse_a_behavior_prob_that_is_none(bad: float) -> None:
    with pytest.raises(ValueError, match=r"behavior_probs: expected 0 < p <= 1, got \[.*\] among 1 such turns; drop the turns"):
        importance_weights(doubles(0.5, 0.5), doubles(0.5, bad), clip=10.0)


logged = st.lists(st.tuples(rates, st.floats(1e-6, 1.0)), min_size=1, max_size=8)


@given(logged, st.floats(0.0, 100.0), st.floats(0.0, 100.0))
@settings(deadline=None)
def test_weights_are_bounded_and_a_higher_clip_never_lowers_one(turns: list[tuple[float, float]], a: float, b: float) -> None:
    target, behavior = doubles(*(t for t, _ in turns)), doubles(*(b for _, b in turns))
    low, high = (importance_weights(target, behavior, clip=clip) for clip in sorted((a, b)))
    assert bool((low >= 0.0).all())
    assert bool((low <= min(a, b)).all())
    assert bool((low <= high).all())


@given(st.lists(st.just(0.0) | st.floats(1e-9, 1e6), min_size=1, max_size=12), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_the_effective_sample_is_between_one_and_all_turns_whatever_the_scale(weights: list[float], scale: float) -> None:
    size = effective_sample_size(doubles(*weights))
    assert size == 0.0 if not any(weights) else 1.0 - 1e-9 <= size <= len(weights) + 1e-9
    assert effective_sample_size(doubles(*weights) * scale) == pytest.approx(size)


def test_equal_weights_are_worth_every_turn_and_one_weight_is_worth_one() -> None:
    for weight in (1.0, 0.01, 1e-30, 1e30):
        assert effective_sample_size(torch.full((7,), weight)) == pytest.approx(7.0)
    assert effective_sample_size(tensor([0.0, 3.0, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(tensor([1.0, 2.0])) == pytest.approx(9 / 5)
    assert effective_sample_size(torch.zeros(3)) == effective_sample_size(torch.zeros(0)) == 0.0


# the multiplier of an error budget


@pytest.mark.parametrize(("multiplier", "skips", "harms", "following"), [
    (2.0, [1.0, 1.0], [0.2, 0.2], 2.0),  # as much harm as allowed
    (2.0, [0.0, 0.0], [1.0, 1.0], 2.0),  # nothing is skipped
    (0.0, [1.0, 1.0], [0.0, 0.0], 0.0),  # can't go below 0
    (3.0, [1.0, 1.0], [1.0, 1.0], 3.0),  # nor above the cap
    (2.0, [1.0, 0.0], [0.7, 1.0], 2.25),
    (2.0, [1.0, 1.0], [0.0, 0.0], 1.8),
    (2.0, [0.5, 0.5], [0.7, 0.7], 2.25),  # probabilities of skipping
])
def test_the_multiplier_moves_with_harm_above_the_budget(
    multiplier: float, skips: list[float], harms: list[float], following: float,
) -> None:
    found = dual_step(multiplier, doubles(*skips), doubles(*harms), budget=0.2, step=1.0, cap=3.0)
    assert found == pytest.approx(following, abs=1e-12)


def settle(step: float) -> float:
    """Where the multiplier goes when the best response skips at harm < budget + saving / multiplier; harm is uniform in [0, 1]."""
    harms, budget, saving, multiplier = torch.linspace(0, 1, 10_001, dtype=torch.float64), 0.1, 0.5, 3.0
    for _ in range(2_000):
        skips = (saving > multiplier * (harms - budget)).double()
        multiplier = dual_step(multiplier, skips, harms, budget=budget, step=step, cap=50.0)
    return multiplier


def test_dual_ascent_settles_where_skips_harm_just_as_often_as_allowed() -> None:
    """E[skip (harm - b)] = t^2 / 2 - b t is 0 at t = 2 b, where the multiplier is saving / (t - b) = 0.5 / 0.1 = 5."""
    assert settle(step=20.0) == pytest.approx(5.0, abs=0.02)
    assert settle(step=-20.0) in (0.0, 50.0)  # the wrong sign runs to an end


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=6), st.floats(0.0, 9.0), rates, rates, st.floats(0.01, 100.0))
@settings(deadline=None)
def test_the_multiplier_stays_in_bounds_and_a_larger_budget_never_raises_it(
    turns: list[tuple[float, float]], multiplier: float, a: float, b: float, step: float,
) -> None:
    skips, harms = doubles(*(s for s, _ in turns)), doubles(*(h for _, h in turns))
    strict, lax = (dual_step(multiplier, skips, harms, budget=budget, step=step, cap=9.0) for budget in sorted((a, b)))
    assert 0.0 <= lax <= strict + 1e-9
    assert strict <= 9.0


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, math.inf])
def test_the_multiplier_refuses_what_would_poison_it(bad: float) -> None:
    with pytest.raises(ValueError, match=r"harms: expected one or more numbers in \[0, 1\], got .* of 2; drop the turns"):
        dual_step(1.0, doubles(1.0, 1.0), doubles(0.0, bad), budget=0.1, step=1.0, cap=9.0)
    with pytest.raises(ValueError, match="skips: expected one or more"):
        dual_step(1.0, doubles(bad), doubles(0.0), budget=0.1, step=1.0, cap=9.0)
    with pytest.raises(ValueError, match="skips: expected one or more"):
        dual_step(1.0, doubles(), doubles(), budget=0.1, step=1.0, cap=9.0)


# a planted bandit: four contexts, two arms, values known

VALUES = tensor([[0.1, 2.0], [0.1, -1.0], [0.1, 0.9], [0.1, -0.4]])
NOISE = 0.5
OPTIMUM = VALUES.max(-1).values.mean().item()  # 0.775
UNIFORM = VALUES.mean().item()  # 0.2375
TOLERANCE = 0.05
TURNS, STEPS = 256, 150
PASSES = 4
"""Over each batch, by PPO: after the first the ratios leave 1 and the clip has work."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was drawn under the policy of that time."""

    old_log_probs: Tensor
    actions: Tensor
    rewards: Tensor
    both: Tensor
    """(B, 2): what either arm would have earned."""


BanditLoss = Callable[[Tensor, Tensor, Batch], Tensor]
"""logits (B, 2) and values (B,) of the network now, batch -> loss."""


def reinforce(logits: Tensor, _: Tensor, batch: Batch) -> Tensor:
    gains = advantages(batch.rewards, moving_baseline(None, batch.rewards, 0.9), normalize=False)
    return policy_gradient_loss(logits, batch.actions, gains, entropy_coef=0.01)


def all_action(logits: Tensor, _: Tensor, batch: Batch) -> Tensor:
    return all_action_loss(logits, batch.both, entropy_coef=0.01)


def ppo(logits: Tensor, values: Tensor, batch: Batch) -> Tensor:
    gains = advantages(batch.rewards, values.detach(), normalize=True)
    return ppo_loss(logits, values, batch.actions, batch.old_log_probs, gains, batch.rewards, clip=0.2, value_coef=0.5,
                    entropy_coef=0.01)


def draw(weights: Tensor, generator: Generator) -> tuple[Tensor, Batch]:
    """Contexts, and what the policy of these weights did in them."""
    contexts = torch.randint(4, (TURNS,), generator=generator)
    both = VALUES[contexts] + NOISE * torch.randn(TURNS, 2, generator=generator)
    log_probs = weights.detach()[contexts].log_softmax(-1)
    actions = torch.multinomial(log_probs.exp(), 1, generator=generator)
    return contexts, Batch(log_probs.gather(-1, actions)[:, 0], actions[:, 0], both.gather(-1, actions)[:, 0], both)


def learned_value(loss_of: BanditLoss, *, seed: int, sign: float = 1.0) -> float:
    """Expected reward of a linear softmax policy after training on sign * loss."""
    generator = Generator().manual_seed(seed)
    weights, head = torch.zeros(4, 2, requires_grad=True), torch.zeros(4, requires_grad=True)
    groups: list[dict[str, Any]] = [{"params": [weights]}, {"params": [head], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for _ in range(STEPS):
        contexts, batch = draw(weights, generator)
        for _ in range(PASSES if loss_of is ppo else 1):
            optimizer.zero_grad()
            (sign * loss_of(weights[contexts], head[contexts], batch)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return (weights.detach().softmax(-1) * VALUES).sum(-1).mean().item()


@pytest.mark.parametrize("loss_of", [reinforce, all_action, ppo])
def test_the_planted_bandit_is_solved_and_with_the_sign_flipped_it_is_not(loss_of: BanditLoss) -> None:
    """The seed is fixed; with another, a false failure has a chance under 1 % (none in 300 seeds; the worst was 0.017 short)."""
    assert OPTIMUM - learned_value(loss_of, seed=0) < TOLERANCE
    assert learned_value(loss_of, seed=0, sign=-1.0) < UNIFORM
