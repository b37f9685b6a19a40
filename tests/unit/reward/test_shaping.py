"""Rewards by preset, against the table in the docs, by arithmetic that can be done in the head."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reward.errors import PresetError, RewardError, ShapingInputError
from reward.shaping import (
    FETCH,
    NO_FETCH,
    PRESETS,
    BudgetRewards,
    FixedRewards,
    HedgedRewards,
    budget_rewards,
    fixed_rewards,
    harmful_skips,
    hedged_rewards,
    preset,
    skips_from,
)

NAN = math.nan
KULKARNI = FixedRewards(0.1, 2.0, -1.0)
HEDGED = HedgedRewards(token_price=0.0)
BUDGET = BudgetRewards(budget=0.05, step=1.0, cap=10.0)


def floats(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def hedged(kind: str, *, price: float = 0.0, tokens: float = 0.0) -> tuple[float, float]:
    """(fetch, skip) rewards where both arms give the same answer; kind: letters of g(ood), h(edged), u(nknown)."""
    good, hedges, unknown = (floats(float(letter in kind)) for letter in "ghu")
    rewards = hedged_rewards(
        HedgedRewards(token_price=price), good_skip=good, good_fetch=good, hedged_skip=hedges, hedged_fetch=hedges,
        unknown_skip=unknown, unknown_fetch=unknown, skip_tokens=floats(tokens), fetch_tokens=floats(2 * tokens))
    return float(rewards[0, FETCH]), float(rewards[0, NO_FETCH])


def budget(good_skip: float, good_fetch: float, multiplier: float, *, skip: float = 400, fetch: float = 1_000) -> NDArray[np.float64]:
    return budget_rewards(BUDGET, good_skip=floats(good_skip), good_fetch=floats(good_fetch), skip_tokens=floats(skip),
                          fetch_tokens=floats(fetch), baseline_tokens=floats(1_000), multiplier=multiplier).ravel()


# presets


def test_the_presets_are_those_of_the_table() -> None:
    assert preset("kulkarni2024") == FixedRewards(fetch=0.1, good_skip=2.0, bad_skip=-1.0)
    assert preset("symmetric") == FixedRewards(fetch=0.1, good_skip=1.0, bad_skip=-1.0)
    assert isinstance(preset("hedged"), HedgedRewards)
    assert isinstance(preset("budget"), BudgetRewards)
    assert list(PRESETS) == ["kulkarni2024", "symmetric", "hedged", "budget"]


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RewardError, match="expected one of kulkarni2024, symmetric, hedged, budget, got 'paper'"):
        preset("paper")


def test_the_papers_rewards_skip_from_0_367() -> None:
    assert skips_from(preset("kulkarni2024")) == pytest.approx(1.1 / 3)
    assert round(skips_from(preset("kulkarni2024")), 3) == 0.367
    assert skips_from(preset("symmetric")) == pytest.approx(0.55)


@given(st.floats(-9, -1), st.floats(-0.9, 0.9), st.floats(1, 9))
def test_at_the_point_of_indifference_both_arms_are_worth_the_same(bad: float, fetch: float, good: float) -> None:
    p = skips_from(FixedRewards(fetch, good, bad))
    assert 0.0 < p < 1.0
    assert p * good + (1 - p) * bad == pytest.approx(fetch, abs=1e-9)


@pytest.mark.parametrize("name", ["hedged", "budget"])
def test_rewards_that_depend_on_the_turn_have_no_point_of_indifference(name: str) -> None:
    with pytest.raises(PresetError, match=r"expected fixed rewards \(kulkarni2024, symmetric\), got .*; calibrate"):
        skips_from(preset(name))


@pytest.mark.parametrize("values", [(2.0, 2.0, -1.0), (-1.0, 2.0, -1.0), (0.1, -1.0, 2.0), (NAN, 2.0, -1.0), (0.1, math.inf, -1.0)])
def test_fixed_rewards_that_make_one_action_always_best_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected bad_skip < fetch < good_skip"):
        FixedRewards(*values)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: HedgedRewards(-0.1), "token_price"),
    (lambda: HedgedRewards(NAN), "token_price"),
    (lambda: HedgedRewards(0.0, wrong=0.0), "correct > correct_hedged > unknown"),
    (lambda: BudgetRewards(1.0, 1.0, 1.0), "budget: expected a share"),
    (lambda: BudgetRewards(-0.01, 1.0, 1.0), "budget: expected a share"),
    (lambda: BudgetRewards(0.01, 0.0, 1.0), "step: expected"),
    (lambda: BudgetRewards(0.01, 1.0, math.inf), "cap: expected"),
])
def test_presets_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_each_preset_says_what_to_beware_of() -> None:
    assert all(PRESETS[name].notes for name in PRESETS)
    assert "isn't judged" in preset("kulkarni2024").notes[0]
    assert "never strictly best" in preset("hedged").notes[0]
    assert "certifies" in preset("budget").notes[0]


# fixed


def test_a_fetch_earns_the_same_and_a_skip_by_its_verdict() -> None:
    for good in (np.array([True, False]), np.array([1, 0]), floats(1, 0)):
        assert fixed_rewards(KULKARNI, good_skip=good).tolist() == [[0.1, 2.0], [0.1, -1.0]]


def test_a_missing_verdict_is_missing_and_not_zero() -> None:
    rewards = fixed_rewards(KULKARNI, good_skip=floats(NAN, 1.0))
    assert np.isnan(rewards[0, NO_FETCH])
    assert rewards[0, FETCH] == 0.1
    assert not np.isnan(rewards[1]).any()


def test_no_turns_have_no_rewards() -> None:
    assert fixed_rewards(KULKARNI, good_skip=floats()).shape == (0, 2)


# hedged


@pytest.mark.parametrize(("kind", "reward"), [
    ("g", 1.0), ("gh", 0.5), ("u", 0.0), ("h", -2.0), ("", -4.0),
    ("gu", 1.0), ("ghu", 1.0),  # right to say so: the query is out of domain
    ("hu", 0.0),
])
def test_an_answer_earns_by_correctness_and_tone_in_either_arm(kind: str, reward: float) -> None:
    assert hedged(kind) == (reward, reward)


def test_tokens_are_paid_by_the_thousand_in_each_arm() -> None:
    fetch, skip = hedged("g", price=0.1, tokens=500)
    assert (fetch, skip) == pytest.approx((1.0 - 0.1, 1.0 - 0.05))


@pytest.mark.parametrize("missing", ["good", "hedged", "unknown", "tokens"])
def test_what_is_missing_in_one_arm_leaves_the_other(missing: str) -> None:
    arrays = {f"{name}_{arm}": floats(1.0) for name in ("good", "hedged", "unknown") for arm in ("skip", "fetch")}
    tokens = {"skip_tokens": floats(10), "fetch_tokens": floats(10)}
    (tokens if missing == "tokens" else arrays)["skip_tokens" if missing == "tokens" else f"{missing}_skip"] = floats(NAN)
    rewards = hedged_rewards(HEDGED, **arrays, **tokens)
    assert np.isnan(rewards[0, NO_FETCH])
    assert rewards[0, FETCH] == 1.0


def best_tone(rewards: HedgedRewards, p: float) -> dict[str, float]:
    return {
        "assert": p * rewards.correct + (1 - p) * rewards.wrong,
        "hedge": p * rewards.correct_hedged + (1 - p) * rewards.wrong_hedged,
        "refuse": rewards.unknown,
    }


@given(st.floats(0, 1))
def test_hedging_is_never_strictly_best_at_the_published_rewards(p: float) -> None:
    worth = best_tone(HEDGED, p)
    assert worth["hedge"] <= max(worth["assert"], worth["refuse"]) + 1e-12
    assert HEDGED.hedges_between is None


def test_rewards_under_which_hedging_pays_say_between_what() -> None:
    kinder = HedgedRewards(token_price=0.0, wrong_hedged=-1.0)
    low, high = kinder.hedges_between or (NAN, NAN)
    assert (low, high) == pytest.approx((1 / 1.5, 3 / 3.5))
    assert kinder.notes == ()
    for p, best in ((low - 0.01, "refuse"), (low + 0.01, "hedge"), (high - 0.01, "hedge"), (high + 0.01, "assert")):
        worth = best_tone(kinder, p)
        assert max(worth, key=worth.__getitem__) == best


# budget


@pytest.mark.parametrize(("good_skip", "good_fetch", "harm"), [(1, 1, 0), (1, 0, 0), (0, 0, 0), (0, 1, 1)])
def test_a_skip_harms_where_fetching_would_have_been_good(good_skip: float, good_fetch: float, harm: float) -> None:
    assert harmful_skips(good_skip=floats(good_skip), good_fetch=floats(good_fetch)).tolist() == [harm]


@pytest.mark.parametrize(("good_skip", "good_fetch"), [(NAN, 1), (NAN, 0), (1, NAN), (0, NAN), (NAN, NAN)])
def test_a_missing_verdict_leaves_harm_unknown_even_where_the_other_settles_it(good_skip: float, good_fetch: float) -> None:
    assert np.isnan(harmful_skips(good_skip=floats(good_skip), good_fetch=floats(good_fetch))).all()
    fetch, skip = budget(good_skip, good_fetch, 1.0)
    assert np.isnan(skip)
    assert fetch == 0.0


def test_without_a_multiplier_the_reward_is_the_saving() -> None:
    assert budget(0, 1, 0.0).tolist() == pytest.approx([0.0, 0.6])
    assert budget(0, 1, 0.0, skip=1_200, fetch=900).tolist() == pytest.approx([0.1, -0.2])  # savings can be losses


def test_a_skip_pays_for_harm_above_the_budget_and_a_fetch_pays_nothing() -> None:
    assert budget(0, 1, 2.0).tolist() == pytest.approx([0.0, 0.6 - 2.0 * 0.95])
    assert budget(1, 1, 2.0).tolist() == pytest.approx([0.0, 0.6 + 2.0 * 0.05])
    assert budget(0, 0, 2.0).tolist() == pytest.approx([0.0, 0.6 + 2.0 * 0.05])


def test_skipping_is_best_below_the_documented_probability_of_harm() -> None:
    harmful, harmless = budget(0, 1, 2.0), budget(1, 1, 2.0)
    point = BUDGET.budget + 0.6 / 2.0
    assert point * harmful[NO_FETCH] + (1 - point) * harmless[NO_FETCH] == pytest.approx(harmless[FETCH])


@given(st.floats(0, 2_000), st.floats(0, 2_000), st.floats(0, 10), st.booleans(), st.booleans())
def test_more_tokens_never_earn_more(a: float, b: float, multiplier: float, good_skip: bool, good_fetch: bool) -> None:
    few, many = sorted((a, b))
    cheap = budget(good_skip, good_fetch, multiplier, skip=few, fetch=few)
    dear = budget(good_skip, good_fetch, multiplier, skip=many, fetch=many)
    assert (cheap >= dear).all()
    cheap_pair, dear_pair = hedged("gh", price=0.1, tokens=few), hedged("gh", price=0.1, tokens=many)
    assert cheap_pair[0] >= dear_pair[0]
    assert cheap_pair[1] >= dear_pair[1]


@given(st.floats(0, 10), st.floats(0, 10))
def test_a_higher_multiplier_never_favours_harm(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert budget(0, 1, high)[NO_FETCH] <= budget(0, 1, low)[NO_FETCH]
    assert budget(1, 1, high)[NO_FETCH] >= budget(1, 1, low)[NO_FETCH]
    assert budget(0, 1, high)[FETCH] == budget(0, 1, low)[FETCH]


@given(st.sampled_from(["fixed", "hedged", "budget"]), st.floats(0, 10))
def test_a_good_skip_never_earns_less_than_a_bad_one(kind: str, multiplier: float) -> None:
    if kind == "fixed":
        good, bad = fixed_rewards(KULKARNI, good_skip=floats(1, 0))[:, NO_FETCH]
    elif kind == "hedged":
        good, bad = hedged("g")[1], hedged("")[1]
    else:
        good, bad = budget(1, 1, multiplier)[NO_FETCH], budget(0, 1, multiplier)[NO_FETCH]
    assert good >= bad


# what can't be used


def test_arrays_must_fit_together() -> None:
    with pytest.raises(ShapingInputError, match=r"good_fetch: expected one value a turn, shape \(2,\), got \(1,\)"):
        harmful_skips(good_skip=floats(1, 0), good_fetch=floats(1))
    with pytest.raises(ShapingInputError, match="good_skip: expected one value a turn"):
        fixed_rewards(KULKARNI, good_skip=floats(1, 0)[None])
    with pytest.raises(ShapingInputError, match="skip_tokens: expected one value a turn"):
        budget_rewards(BUDGET, good_skip=floats(1), good_fetch=floats(1), skip_tokens=floats(1, 2), fetch_tokens=floats(1),
                       baseline_tokens=floats(1), multiplier=0.0)


@pytest.mark.parametrize("verdict", [0.5, -1.0, math.inf])
def test_a_verdict_is_good_bad_or_missing(verdict: float) -> None:
    with pytest.raises(ShapingInputError, match=r"good_skip: expected 1 \(Good, yes\), 0 \(Bad, no\) or NaN"):
        fixed_rewards(KULKARNI, good_skip=floats(1.0, verdict))


@pytest.mark.parametrize("count", [-1.0, math.inf])
def test_token_counts_are_counts(count: float) -> None:
    with pytest.raises(ShapingInputError, match="skip_tokens: expected a finite count"):
        budget(1, 1, 0.0, skip=count)


@pytest.mark.parametrize("multiplier", [-0.1, 10.1, NAN])
def test_a_multiplier_outside_its_range_is_refused(multiplier: float) -> None:
    with pytest.raises(ShapingInputError, match=r"multiplier: expected 0..10 \(the preset's cap\)"):
        budget(1, 1, multiplier)


def test_a_turn_without_a_baseline_has_no_share_to_save() -> None:
    with pytest.raises(ShapingInputError, match="baseline_tokens: expected more than 0"):
        budget_rewards(BUDGET, good_skip=floats(1), good_fetch=floats(1), skip_tokens=floats(1), fetch_tokens=floats(1),
                       baseline_tokens=floats(0), multiplier=0.0)
