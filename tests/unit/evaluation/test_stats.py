"""Intervals against closed forms and a slow twin, and how often they hold what they claim to hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluation.stats import (
    Counts,
    Interval,
    Share,
    Weights,
    holm,
    over_seeds,
    ratio_difference,
    resampled,
    resampled_ratio,
    saving,
    saving_difference,
    share,
    sign_p,
    too_small,
    upper_share,
)

Ints = NDArray[np.int64]


def slow_ratio(part: Counts, whole: Counts, weights: Weights) -> list[float]:
    """One resample, one seed and one conversation at a time."""
    found = []
    for row in weights:
        ratios = []
        for seed_part, seed_whole in zip(np.atleast_2d(part), np.atleast_2d(whole), strict=True):
            parts = sum(int(times) * float(count) for times, count in zip(row, seed_part, strict=True))
            wholes = sum(int(times) * float(count) for times, count in zip(row, seed_whole, strict=True))
            ratios.append(parts / wholes if wholes > 0 else math.nan)
        found.append(sum(ratios) / len(ratios))
    return found


def clustered(rng: np.random.Generator, conversations: int, mean: float, spread: float) -> tuple[Ints, Ints]:
    """Counts by conversation, each with its own chance from a Beta of this mean; a larger `spread` makes them more alike."""
    whole = rng.integers(1, 8, size=conversations)
    return rng.binomial(whole, rng.beta(mean * spread, (1 - mean) * spread, size=conversations)), whole


# intervals by conversation


@pytest.mark.parametrize("seeds", [(), (3,)])
def test_resamples_are_those_of_the_slow_twin(seeds: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 3, size=(*seeds, 4))
    part = rng.integers(0, 3, size=(*seeds, 4))
    weights = resampled(4, resamples=200)
    slow = slow_ratio(part, whole, weights)
    assert resampled_ratio(part, whole, weights) == pytest.approx(slow, nan_ok=True)
    assert upper_share(part, whole, weights, 0.9) == pytest.approx(sorted(1.0 if math.isnan(v) else v for v in slow)[math.ceil(0.9 * 199)])


def test_an_interval_is_of_the_slow_twins_resamples() -> None:
    part, whole = np.array([0.5, 2.0, 1.0]), np.array([2, 3, 1])
    weights = resampled(3, resamples=400)
    low, high = np.quantile(slow_ratio(part, whole, weights), (0.025, 0.975))
    found = share(part, whole, weights)
    assert (found.value, found.low, found.high) == pytest.approx((3.5 / 6, low, high))


def test_seeds_are_averaged_within_each_resample() -> None:
    whole = np.array([[1] * 40, [1] * 40])
    part = np.array([[1, 0] * 20, [0, 1] * 20])  # the seeds fail on opposite conversations
    weights = resampled(40, resamples=500)
    found = share(part, whole, weights)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert share(part[0], whole[0], weights).high > 0.6
    assert share(part, whole[0], weights) == found, "a whole that is common to all seeds is given once"


def test_an_interval_says_when_too_few_conversations_count() -> None:
    whole = np.ones(100, dtype=np.int64)
    weights = resampled(100, resamples=100)
    assert not share(whole, whole, weights).too_small
    whole[29:] = 0
    rare = share(whole, whole, weights)
    assert rare.too_small, "conversations without any of the whole tell nothing"
    assert str(rare) == "100.0 (100.0 to 100.0; too small to trust)"
    everywhere = np.ones(100, dtype=np.int64)
    assert ratio_difference(everywhere, everywhere, whole, whole, weights).too_small, "one arm of two is enough"
    assert share(np.array([whole, everywhere]), np.array([whole, everywhere]), weights).too_small, "and so is one seed"
    assert [too_small(n) for n in (0, 29, 30)] == [True, True, False]


def test_a_difference_is_claimed_only_when_zero_is_outside_of_an_interval_to_trust() -> None:
    assert Interval(0.2, 0.1, 0.3).claimable
    assert Interval(-0.2, -0.3, -0.1).claimable
    assert not Interval(0.2, 0.0, 0.3).claimable
    assert not Interval(0.2, 0.1, 0.3, too_small=True).claimable
    assert not Interval(0.2, math.nan, math.nan).claimable
    assert Share is Interval


@pytest.mark.parametrize("shape", [(50,), (3, 50)])
def test_arms_that_are_identical_differ_by_exactly_nothing(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    part, whole = rng.integers(0, 99, size=shape), rng.integers(100, 999, size=shape)
    weights = resampled(50, resamples=300)
    for found in (ratio_difference(part, whole, part, whole, weights), saving_difference(part, part, whole, weights)):
        assert (found.value, found.low, found.high, found.claimable) == (0, 0, 0, False)


def test_pairing_takes_away_what_both_arms_share() -> None:
    rng = np.random.default_rng(2)
    whole = np.full(200, 10)
    b = rng.integers(0, 10, size=200)
    weights = resampled(200, resamples=1000)
    paired = ratio_difference(b + 1, whole, b, whole, weights)  # a tenth more in each conversation
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.1, 0.1, 0.1))
    assert paired.claimable
    unpaired = share(b, whole, weights)
    assert unpaired.high - unpaired.low > 0.05


def test_a_saving_is_of_the_sum_of_tokens() -> None:
    weights = resampled(2, resamples=500)
    found = saving(np.array([50, 300]), np.array([100, 300]), weights)
    assert found.value == pytest.approx(1 - 350 / 400)
    assert (found.low, found.high) == pytest.approx((0.0, 0.5)), "the resamples of one conversation only"
    assert saving(np.array([150.0]), np.array([100]), resampled(1, resamples=10)).value == pytest.approx(-0.5)


def test_savings_differ_by_the_difference_of_savings() -> None:
    rng = np.random.default_rng(3)
    a, b, baseline = (rng.integers(100, 900, size=60) for _ in range(3))
    weights = resampled(60, resamples=500)
    found = saving_difference(a, b, baseline, weights)
    assert found.value == pytest.approx(saving(a, baseline, weights).value - saving(b, baseline, weights).value)
    back = saving_difference(b, a, baseline, weights)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_arms_may_have_different_numbers_of_seeds() -> None:
    baseline = np.full(40, 100)
    found = saving_difference(np.array([[60] * 40, [40] * 40]), np.full(40, 70), baseline, resampled(40, resamples=50))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))


def test_nineteen_of_twenty_intervals_hold_the_share_that_made_clustered_turns() -> None:
    # 400 intervals of 80 conversations. It covers about 93 % here (it is approximate); were it 93 %, fewer than 350 would
    # hold it with a chance of 3e-5. Turns taken for independent cover 73 %: 330 or more with a chance of 1e-5, which the test tells apart.
    rng = np.random.default_rng(4)
    weights = resampled(80, resamples=500)
    held = naive = 0
    for _ in range(400):
        part, whole = clustered(rng, 80, mean=0.3, spread=1.0)
        found = share(part, whole, weights)
        held += found.low <= 0.3 <= found.high
        half = 1.96 * math.sqrt(found.value * (1 - found.value) / whole.sum())
        naive += abs(found.value - 0.3) <= half
    assert held >= 350
    assert naive < 330


def test_one_bound_in_twenty_is_below_the_share_that_made_clustered_turns() -> None:
    # were the bound's coverage 93 % (it is approximate), fewer than 350 of 400 would hold the share with a chance of 3e-5
    rng = np.random.default_rng(5)
    weights = resampled(80, resamples=500)
    bounds = [upper_share(*clustered(rng, 80, mean=0.3, spread=1.0), weights) for _ in range(400)]
    assert 350 <= sum(bound >= 0.3 for bound in bounds) < 400


def test_too_little_data_is_never_a_low_bound() -> None:
    nothing = np.array([0, 0])
    assert upper_share(nothing, nothing, resampled(2, resamples=20)) == 1.0
    assert upper_share(nothing, np.array([1, 0]), resampled(2, resamples=200)) == 1.0, "a quarter of the resamples are empty"
    assert upper_share(nothing, np.array([1, 1]), resampled(2, resamples=20)) == 0.0


# seeds of training


def test_the_interval_over_seeds_is_students() -> None:
    found = over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5 / 5)  # the 97.5 % point of t with 4 degrees of freedom, from a table
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-5)
    same = over_seeds([0.25] * 5)
    assert (same.value, same.low, same.high) == (0.25, 0.25, 0.25)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    one = over_seeds([0.5])
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert not one.claimable
    assert math.isnan(over_seeds([]).value)


# several comparisons


def test_holm_by_hand() -> None:
    # sorted: 0.005 <= 0.05/4, 0.01 <= 0.05/3, 0.03 > 0.05/2, and 0.04 is not asked any more
    assert holm([0.01, 0.04, 0.03, 0.005]) == (True, False, False, True)
    assert holm([0.01, 0.04, 0.02, 0.005]) == (True, True, True, True)
    assert holm([0.04, math.nan]) == (False, False), "what can't be told is a comparison too"
    assert holm([0.02, math.nan]) == (True, False)
    assert holm([0.02], level=0.01) == (False,)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_claims_no_less_than_bonferroni_and_no_more_than_no_correction(p_values: list[float]) -> None:
    for p, claimed in zip(p_values, holm(p_values), strict=True):
        assert (p <= 0.05 / len(p_values)) <= claimed <= (p <= 0.05)


def test_a_sign_p_counts_both_sides_and_is_never_zero() -> None:
    assert sign_p(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert sign_p(-np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert sign_p(np.full(99, 0.5)) == pytest.approx(0.02)
    assert sign_p(np.zeros(99)) == 1.0
    assert sign_p(np.full(99, math.nan)) == 1.0


def test_a_sign_p_of_arms_alike_is_small_as_often_as_it_says() -> None:
    # a p-value is below 0.05 for about 5 % of 400 differences of nothing; were it 6.5 % (it is approximate), more than 46
    # would be with a chance of 1e-4
    rng = np.random.default_rng(6)
    weights = resampled(60, resamples=500)
    whole = np.ones(60, dtype=np.int64)
    small = 0
    for _ in range(400):
        a, b = rng.normal(size=60), rng.normal(size=60)
        small += sign_p(resampled_ratio(a, whole, weights) - resampled_ratio(b, whole, weights)) < 0.05
    assert 4 <= small <= 46
