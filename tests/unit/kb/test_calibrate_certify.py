"""Certified thresholds: against a slow twin, and how often a certificate is wrong where the truth is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb.bounds import clopper_pearson_upper
from kb.calibrate import STARTS, Bools, Floats, certify, curve
from kb.errors import CalibrationError


def alone(count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Every query is its own conversation."""
    return np.arange(count)


def slow_certify(scores: Sequence[float], wrong: Sequence[bool], budget: float) -> tuple[float | None, int]:
    """The lowest threshold and its trials: one threshold at a time, the bound by the binomial tail, as many starts as are in reach."""

    def keeps(failures: int, trials: int, chance: float) -> bool:
        return sum(math.comb(trials, k) * budget**k * (1 - budget) ** (trials - k) for k in range(failures + 1)) <= chance

    count = next((n for n in (3, 2) if keeps(STARTS[n - 1], len(scores), 0.05 / n)), 1)
    best: tuple[float | None, int] = None, 0
    for room in STARTS[:count]:
        for threshold in sorted(set(scores), reverse=True):
            answered = [bad for score, bad in zip(scores, wrong, strict=True) if score >= threshold]
            if not keeps(room, len(answered), 0.05 / count):
                continue
            if not keeps(sum(answered), len(answered), 0.05 / count):
                break
            if len(answered) > best[1]:
                best = threshold, len(answered)
    return best


CASES = st.lists(st.tuples(st.integers(0, 60), st.booleans() | st.just(False)), max_size=60)


@given(CASES, st.sampled_from([0.15, 0.3, 0.5, 0.8]))
@settings(max_examples=300, deadline=None)
def test_a_certificate_is_the_slow_twins(cases: list[tuple[int, bool]], budget: float) -> None:
    scores, wrong = [score / 60 for score, _ in cases], [bad for _, bad in cases]
    found = certify(np.array(scores), np.array(wrong, dtype=bool), alone(len(cases)), budget=budget)
    threshold, trials = slow_certify(scores, wrong, budget)
    assert found.threshold == threshold
    if threshold is not None:
        answered = [bad for score, bad in zip(scores, wrong, strict=True) if score >= threshold]
        assert (found.trials, found.wrong, found.more_needed) == (trials, sum(answered), 0)
        assert clopper_pearson_upper(sum(answered), trials) <= found.upper <= budget
    else:
        assert found.more_needed > 0


@pytest.mark.parametrize(("budget", "needed"), [(0.05, 59), (0.01, 299)])
def test_too_few_labels_certify_nothing_and_it_is_said_how_many_more_it_takes(budget: float, needed: int) -> None:
    for count in (0, 1, needed - 1):
        found = certify(np.linspace(1, 0, count), np.zeros(count, dtype=bool), alone(count), budget=budget)
        assert (found.threshold, found.more_needed, found.trials) == (None, needed - count, count)
    enough = certify(np.linspace(1, 0, needed), np.zeros(needed, dtype=bool), alone(needed), budget=budget)
    assert (enough.threshold, enough.more_needed) == (0.0, 0)
    assert enough.upper <= budget


def test_more_needed_counts_the_wrong_ones_that_were_seen() -> None:
    wrong = np.zeros(80, dtype=bool)
    wrong[0] = True
    found = certify(np.linspace(1, 0, 80), wrong, alone(80), budget=0.05)
    assert (found.threshold, found.trials, found.wrong) == (None, 59, 1)
    assert found.trials + found.more_needed == 93  # of which one wrong keeps 5 %
    assert clopper_pearson_upper(1, 93) <= 0.05 < clopper_pearson_upper(1, 92)


def test_a_wrong_answer_among_the_surest_stops_the_first_sequence_and_not_the_others() -> None:
    wrong = np.zeros(400, dtype=bool)
    wrong[10] = True
    few, many = (certify(np.linspace(1, 0, count), wrong[:count], alone(count), budget=0.05) for count in (120, 400))
    assert few.threshold is None
    assert (many.threshold, many.trials, many.wrong) == (0.0, 400, 1)


def test_a_conversation_is_one_trial_however_much_is_asked_in_it() -> None:
    scores, groups = np.linspace(1, 0, 120), np.arange(120) // 4
    found = certify(scores, np.zeros(120, dtype=bool), groups, budget=0.05)
    assert (found.threshold, found.trials, found.more_needed) == (None, 30, 29)
    assert certify(scores, np.zeros(120, dtype=bool), alone(120), budget=0.05).threshold == 0.0
    # where all of a conversation is wrong, whichever query is drawn, it is one failure
    found = certify(scores, groups >= 20, groups, budget=0.5)
    assert (found.trials - found.wrong, found.threshold is not None) == (20, True)


def test_the_query_that_is_drawn_of_a_conversation_is_no_matter_of_its_place_or_its_label() -> None:
    # of 400 conversations with one wrong query in four, a quarter of the draws is wrong: outside of 60 to 140 with a chance of 4e-6
    wrong = np.arange(1600) % 4 == 3
    failures = {certify(np.ones(1600), wrong, np.arange(1600) // 4, budget=0.9, seed=seed).wrong for seed in range(5)}
    assert len(failures) > 1
    assert all(60 <= count <= 140 for count in failures)


def test_the_curve_is_what_the_labels_show() -> None:
    points = curve(np.array([0.9, 0.8, 0.8, 0.1]), np.array([False, True, False, True]), alone(4))
    assert [(p.threshold, p.coverage, p.wrong) for p in points] == [(0.9, 0.25, 0.0), (0.8, 0.75, pytest.approx(1 / 3)), (0.1, 1.0, 0.5)]
    assert [p.upper for p in points] == [clopper_pearson_upper(0, 1), clopper_pearson_upper(1, 3), clopper_pearson_upper(2, 4)]
    assert curve(np.zeros(0), np.zeros(0, dtype=bool), alone(0)) == ()


@pytest.mark.parametrize("budget", [0.0, 1.0, -0.1, math.nan])
def test_a_budget_is_a_share_that_can_be_kept_and_broken(budget: float) -> None:
    with pytest.raises(CalibrationError, match="budget: expected a share above 0 and below 1"):
        certify(np.zeros(1), np.zeros(1, dtype=bool), alone(1), budget=budget)


def truly_wrong(scores: Floats, rng: np.random.Generator) -> Bools:
    """Labels of which the chance is known: 1 - score."""
    return rng.random(len(scores)) < 1 - scores


def test_on_new_data_the_true_error_exceeds_the_budget_about_once_in_twenty_times_at_most() -> None:
    # scores are uniform on [0.6, 1] and wrong with the chance 1 - score, so that from t on (1 - t) / 2 are. At a rate of 5 %, more than
    # 22 of 200 exceed with a chance of 2e-4. The threshold at which the labels merely look right exceeds about every other time.
    exceeded = naive = certified = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = np.sort(rng.uniform(0.6, 1, 400))[::-1]
        wrong = truly_wrong(scores, rng)
        found = certify(scores, wrong, alone(400), budget=0.1)
        if found.threshold is not None:
            certified += 1
            exceeded += (1 - found.threshold) / 2 > 0.1
        shares = np.cumsum(wrong) / np.arange(1, 401)
        naive += (1 - scores[np.flatnonzero(shares <= 0.1).max(initial=0)]) / 2 > 0.1
    assert certified > 80
    assert exceeded <= 22 < 60 < naive


def test_the_same_holds_of_whole_conversations_and_not_of_queries_taken_for_independent() -> None:
    # as above; the four queries of a conversation share score and label
    exceeded = naive = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = rng.uniform(0.7, 1, 200)
        wrong = truly_wrong(scores, rng)
        scores, wrong, groups = np.repeat(scores, 4), np.repeat(wrong, 4), np.repeat(np.arange(200), 4)
        threshold, independent = (certify(scores, wrong, g, budget=0.1, seed=seed).threshold for g in (groups, alone(800)))
        exceeded += threshold is not None and (1 - threshold) / 2 > 0.1
        naive += independent is not None and (1 - independent) / 2 > 0.1
    assert exceeded <= 22 < naive
