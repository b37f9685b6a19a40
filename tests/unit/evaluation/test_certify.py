"""Error budgets: closed forms, what more harm may do to a bound, and how often a budget is certified falsely."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.certify import Certificate, HarmBound, Skips, fixed_sequence, harm_bound
from evaluation.stats import resampled, upper_share
from kb.bounds import clopper_pearson_upper, needed_without_failure

COUNT = 12
WEIGHTS = resampled(COUNT, resamples=300)
places = st.sets(st.tuples(st.integers(0, COUNT - 1), st.integers(0, 4)), min_size=1, max_size=30)
verdicts = st.sampled_from([0.0, 0.0, 0.25, 1.0, math.nan])


def skips(*rows: tuple[int, int, float]) -> Skips:
    """Rows of conversation, turn and harm."""
    conversations, turns, harms = ([row[n] for row in rows] for n in range(3))
    return Skips(np.array(conversations, dtype=np.int64), np.array(turns, dtype=np.int64), np.array(harms, dtype=np.float64))


def one_each(conversations: int, harms: int = 0) -> Skips:
    """One skip a conversation, the first of them harmful."""
    return skips(*((n, 0, float(n < harms)) for n in range(conversations)))


@st.composite
def some_skips(draw: st.DrawFn) -> Skips:
    return skips(*((conversation, turn, draw(verdicts)) for conversation, turn in sorted(draw(places))))


def never_lower(after: HarmBound, before: HarmBound) -> bool:
    return after.upper_conversation >= before.upper_conversation and after.upper_turn >= before.upper_turn


# one bound


def test_without_harm_the_bound_is_the_exact_one_of_the_conversations() -> None:
    found = harm_bound(skips(*((n, turn, 0.0) for n in range(50) for turn in range(4))), resampled(80, resamples=200))
    assert found.value == 0.0
    assert found.upper_conversation == pytest.approx(1 - 0.05 ** (1 / 50))
    assert found.upper_turn == pytest.approx(1 - 0.05 ** (1 / 200))
    assert (found.skips, found.conversations, found.drawn_harms, found.missing, found.too_small) == (200, 50, 0, 0, False)


def test_no_skip_bounds_nothing() -> None:
    found = harm_bound(skips(), WEIGHTS)
    assert math.isnan(found.value)
    assert (found.upper_conversation, found.upper_turn, found.skips, found.too_small) == (1.0, 1.0, 0, True)


def test_the_bootstrap_counts_where_it_is_above_the_exact_bound() -> None:
    # one conversation of 40 has all the harm, and most of the skips
    rows = [(0, turn, 1.0) for turn in range(60)] + [(n, 0, 0.0) for n in range(1, 40)]
    weights = resampled(40, resamples=500)
    found = harm_bound(skips(*rows), weights)
    bootstrap = upper_share(np.array([60] + [0] * 39), np.array([60] + [1] * 39), weights)
    assert found.upper_conversation == bootstrap > clopper_pearson_upper(1, 40)
    assert found.drawn_harms == 1


def test_a_missing_verdict_counts_as_harm_in_the_bound_and_not_in_the_value() -> None:
    known, unknown = skips((0, 0, 0.0), (1, 0, 1.0), (2, 0, 1.0)), skips((0, 0, 0.0), (1, 0, 1.0), (2, 0, math.nan))
    found = harm_bound(unknown, WEIGHTS)
    assert found == replace(harm_bound(known, WEIGHTS), value=0.5, missing=1)
    assert math.isnan(harm_bound(skips((0, 0, math.nan)), WEIGHTS).value)


@given(some_skips(), st.data())
@settings(max_examples=60, deadline=None)
def test_more_harm_never_lowers_a_bound(before: Skips, data: st.DataObject) -> None:
    harmed = before.harms.copy()
    harmed[data.draw(st.integers(0, len(harmed) - 1))] = 1.0
    assert never_lower(harm_bound(replace(before, harms=harmed), WEIGHTS), harm_bound(before, WEIGHTS))


@given(some_skips(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_missing_verdict_never_lowers_a_bound(before: Skips, data: st.DataObject) -> None:
    harmed = before.harms.copy()
    harmed[data.draw(st.integers(0, len(harmed) - 1))] = math.nan
    assert never_lower(harm_bound(replace(before, harms=harmed), WEIGHTS), harm_bound(before, WEIGHTS))


@given(some_skips(), st.floats(0, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_judge_that_misses_harm_divides_the_bound(found: Skips, rate: float) -> None:
    plain, corrected = harm_bound(found, WEIGHTS), harm_bound(found, WEIGHTS, false_good_rate=rate)
    assert corrected.upper_conversation == min(1.0, plain.upper_conversation / (1 - rate))
    assert corrected.upper_turn == min(1.0, plain.upper_turn / (1 - rate))
    assert corrected.value == pytest.approx(plain.value, nan_ok=True)


@given(some_skips(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_order_of_skips_does_not_matter(found: Skips, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(found.harms))
    shuffled = harm_bound(Skips(found.conversations[order], found.turns[order], found.harms[order]), WEIGHTS)
    assert shuffled.value == pytest.approx(harm_bound(found, WEIGHTS).value, nan_ok=True)
    assert replace(shuffled, value=0.0) == replace(harm_bound(found, WEIGHTS), value=0.0)


def test_the_draw_of_a_conversation_changes_only_for_a_skip_that_is_new() -> None:
    weights = resampled(1, resamples=5)

    def drawn(turns: range) -> int:
        """The turn that is drawn: with one harmful skip, the exact bound sees the harm only there."""
        [found] = [harmful for harmful in turns
                   if harm_bound(skips(*((0, turn, float(turn == harmful)) for turn in turns)), weights).drawn_harms == 1]
        return found

    first = drawn(range(10))
    assert drawn(range(first + 1)) == drawn(range(first, 10)) == first, "fewer skips, the same draw"
    assert drawn(range(20)) in {first, *range(10, 20)}


def test_every_skip_of_a_conversation_is_as_likely_to_be_drawn() -> None:
    # the third of three skips is harmful in each of 3000 conversations: 1000 are drawn, more than 120 off with a chance of 3e-6
    rows = [(n, turn, float(turn == 2)) for n in range(3000) for turn in range(3)]
    weights = np.ones((1, 3000), dtype=np.int64)
    assert harm_bound(skips(*rows), weights).drawn_harms == pytest.approx(1000, abs=120)
    assert harm_bound(skips(*rows), weights, seed=1).drawn_harms != harm_bound(skips(*rows), weights).drawn_harms


def test_a_harm_of_a_quarter_is_drawn_a_quarter_of_the_time() -> None:
    # 750 of 3000, more than 110 off with a chance of 4e-6
    weights = np.ones((1, 3000), dtype=np.int64)
    assert harm_bound(skips(*((n, 0, 0.25) for n in range(3000))), weights).drawn_harms == pytest.approx(750, abs=110)


def test_a_harm_between_0_and_1_is_drawn_alike_whatever_else_is_skipped() -> None:
    weights = np.ones((1, 400), dtype=np.int64)
    halves = [(n, 0, 0.5) for n in range(400)]
    before, after = harm_bound(skips(*halves), weights), harm_bound(skips(*halves, (0, 9, 0.0)), weights)
    assert abs(before.drawn_harms - after.drawn_harms) <= 1, "conversation 0 alone has another skip to draw"


@pytest.mark.parametrize(("rows", "message"), [
    ([(0, 0, 1.5)], "harms: expected 0 to 1"),
    ([(0, -1, 0.0)], "expected numbers from 0"),
    ([(-1, 0, 0.0)], "expected numbers from 0"),
    ([(1, 2, 0.0), (1, 2, 1.0)], "each turn of a conversation once"),
])
def test_skips_that_cannot_be_are_refused(rows: list[tuple[int, int, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        skips(*rows)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one conversation, turn and harm a skip"):
        replace(one_each(3), harms=np.zeros(2))
    with pytest.raises(ValueError, match=f"expected numbers below {COUNT}"):
        harm_bound(skips((COUNT, 0, 0.0)), WEIGHTS)
    with pytest.raises(ValueError, match="false_good_rate"):
        harm_bound(one_each(3), WEIGHTS, false_good_rate=1.0)


# the sequence of tests


def certify(*by_threshold: Skips, budget: float = 0.05, count: int = 400, false_good_rate: float = 0.0) -> Certificate:
    """Thresholds 0, 1, 2…, from strict to lax."""
    return fixed_sequence(range(len(by_threshold)), lambda t: by_threshold[int(t)], resampled(count, resamples=200), budget=budget,
                          false_good_rate=false_good_rate)


def test_the_laxest_threshold_before_the_first_failure_is_certified() -> None:
    found = certify(one_each(100), one_each(150), one_each(200, harms=40), one_each(300))
    assert found.threshold == 1
    assert found.bound is not None
    assert found.bound.upper_conversation == pytest.approx(1 - 0.05 ** (1 / 150)) == found.tightest_budget
    assert [threshold for threshold, _ in found.tested] == [0, 1, 2]
    assert (found.budget, found.more_needed) == (0.05, 0)


def test_nothing_is_evaluated_past_the_first_failure() -> None:
    asked: list[float] = []

    def evaluate(threshold: float) -> Skips:
        asked.append(threshold)
        return one_each(100, harms=50 if threshold < 0.8 else 0)

    assert fixed_sequence([0.9, 0.8, 0.7, 0.6], evaluate, resampled(100, resamples=50), budget=0.1).threshold == 0.8
    assert asked == [0.9, 0.8, 0.7]


def test_testing_begins_where_enough_conversations_skip_whatever_their_harm() -> None:
    # 59 are needed for 5 %: the first two can't pass, and their harm is not looked at
    found = certify(one_each(20, harms=20), one_each(58), one_each(59), one_each(90))
    assert [threshold for threshold, _ in found.tested] == [2, 3]
    assert found.threshold == 3
    assert certify(one_each(59, harms=1), one_each(300)).threshold is None, "a beginning that fails is not passed over"
    later = certify(one_each(100), one_each(30), one_each(200))
    assert later.threshold == 0, "once begun, a threshold with few skips fails like any other"
    assert [threshold for threshold, _ in later.tested] == [0, 1]


def test_too_few_skips_tell_what_they_certify_and_how_many_more_are_needed() -> None:
    found = certify(one_each(100), one_each(200), one_each(150), budget=0.01)
    assert (found.threshold, found.bound) == (None, None)
    assert [threshold for threshold, _ in found.tested] == [1], "the one that most conversations skip at"
    assert found.tightest_budget == pytest.approx(1 - 0.05 ** (1 / 200))
    assert found.more_needed == 99


def test_after_a_failure_the_trials_that_are_needed_count_the_harm_seen() -> None:
    found = certify(one_each(100, harms=2), budget=0.05)
    assert found.threshold is None
    assert found.tightest_budget == pytest.approx(clopper_pearson_upper(2, 100))
    assert clopper_pearson_upper(2, 100 + found.more_needed) <= 0.05 < clopper_pearson_upper(2, 99 + found.more_needed)


def test_a_judge_that_misses_half_of_the_harm_needs_twice_the_conversations() -> None:
    needed = needed_without_failure(0.025)
    assert certify(one_each(needed), false_good_rate=0.5).threshold == 0
    found = certify(one_each(needed - 5), false_good_rate=0.5)
    assert found.threshold is None
    assert found.more_needed == 5
    assert certify(one_each(needed - 1)).threshold == 0


def test_no_threshold_certifies_nothing() -> None:
    assert certify(budget=0.01) == Certificate(None, 0.01, None, 1.0, 299, ())
    assert certify(skips(), budget=0.01).more_needed == 299


def test_where_only_the_bootstrap_is_above_the_budget_one_more_is_said_to_be_needed() -> None:
    rows = [(0, turn, 1.0) for turn in range(60)] + [(n, 0, 0.0) for n in range(1, 200)]
    found = certify(skips(*rows), budget=0.1, count=200)
    assert clopper_pearson_upper(1, 200) < 0.1 < found.tightest_budget
    assert (found.threshold, found.more_needed) == (None, 1)


@given(st.lists(some_skips(), min_size=1, max_size=5), st.floats(0.25, 0.95), st.floats(0.25, 0.95))
@settings(max_examples=60, deadline=None)
def test_of_two_budgets_that_begin_alike_the_laxer_goes_as_far(found: list[Skips], a: float, b: float) -> None:
    strict, lax = (fixed_sequence(range(len(found)), lambda t: found[int(t)], WEIGHTS, budget=budget) for budget in sorted((a, b)))
    if strict.threshold is not None and strict.tested[0][0] == lax.tested[0][0]:
        assert lax.threshold is not None
        assert lax.threshold >= strict.threshold


# how often it is wrong


def calibration_set(rng: np.random.Generator, harm: Callable[[float], float], conversations: int) -> Callable[[float], Skips]:
    """Clustered turns with a score each; a threshold skips those below it. `harm(score)` is the chance of harm at a score.

    All turns of a conversation share most of their luck: four of five take the conversation's verdict instead of their own.
    """
    turns = rng.integers(1, 6, size=conversations)
    conversation = np.repeat(np.arange(conversations), turns)
    turn = np.concatenate([np.arange(n) for n in turns])
    score = rng.random(len(turn))
    luck = np.where(rng.random(len(turn)) < 0.8, rng.random(conversations)[conversation], rng.random(len(turn)))
    harms = (luck < np.vectorize(harm, otypes=[float])(score)).astype(float)

    def evaluate(threshold: float) -> Skips:
        skipped = score < threshold
        return Skips(conversation[skipped], turn[skipped], harms[skipped])

    return evaluate


SETS, FALSE_ALLOWED = 400, 37
"""Were each set certified falsely with a chance of 5 %, more than 37 of 400 (9.25 %) would be with a chance of 2e-4."""


def test_a_harm_just_above_the_budget_is_seldom_certified() -> None:
    # each threshold's true harm is 5.01 % and the budget 5 %; counts decide where testing begins
    rng = np.random.default_rng(0)
    weights = resampled(250, resamples=200)
    by_turn = false = 0
    for _ in range(SETS):
        evaluate = calibration_set(rng, lambda score: 0.0501, 250)
        false += fixed_sequence([0.05, 0.1, 0.2, 0.4, 0.8, 1.0], evaluate, weights, budget=0.05).threshold is not None
        by_turn += harm_bound(evaluate(1.0), weights).upper_turn <= 0.05
    assert false <= FALSE_ALLOWED
    assert by_turn > FALSE_ALLOWED, "the bound that takes turns for independent fails this test"


def test_thresholds_past_the_last_safe_one_are_seldom_certified_and_safe_ones_are() -> None:
    # below a score of 0.5 nothing harms; above it so much that a threshold of 0.6 has a harm of 5.01 %
    rng = np.random.default_rng(1)
    weights = resampled(250, resamples=200)
    false = right = 0
    for _ in range(SETS):
        evaluate = calibration_set(rng, lambda score: 0.0 if score < 0.5 else 0.3006, 250)
        threshold = fixed_sequence([0.1, 0.3, 0.5, 0.6, 0.7], evaluate, weights, budget=0.05).threshold
        false += threshold is not None and threshold >= 0.6
        right += threshold is not None
    assert false <= FALSE_ALLOWED
    assert right == SETS, "with no harm and hundreds of skips the first thresholds always pass"
