"""Exact bounds against closed forms, and the trials that a budget needs."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb.bounds import clopper_pearson_upper, needed_trials, needed_without_failure


@pytest.mark.parametrize("trials", [1, 10, 299, 5000])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_exact_bound_without_a_failure_has_a_closed_form(trials: int, level: float) -> None:
    assert clopper_pearson_upper(0, trials, level) == pytest.approx(1 - (1 - level) ** (1 / trials), rel=1e-9)


@pytest.mark.parametrize(("failures", "trials"), [(1, 20), (3, 50), (19, 20), (40, 400)])
def test_at_the_exact_bound_so_few_failures_have_a_chance_of_one_in_twenty(failures: int, trials: int) -> None:
    p = clopper_pearson_upper(failures, trials)
    chance = sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(failures + 1))
    assert chance == pytest.approx(0.05)


def test_no_trials_and_nothing_but_failures_bound_nothing() -> None:
    assert clopper_pearson_upper(0, 0) == clopper_pearson_upper(7, 7) == 1.0
    with pytest.raises(ValueError, match="failures: expected 0 to trials"):
        clopper_pearson_upper(2, 1)


def test_a_budget_of_one_per_cent_needs_299_trials_without_a_failure() -> None:
    assert needed_without_failure(0.01) == 299
    assert needed_without_failure(0.05) == 59
    assert needed_without_failure(0.01, level=0.9) == 230
    assert needed_without_failure(0.99) == 1


@given(st.integers(0, 30), st.floats(0.002, 0.9))
@settings(max_examples=100, deadline=None)
def test_needed_trials_are_enough_and_one_less_is_not(failures: int, budget: float) -> None:
    trials = needed_trials(failures, budget)
    assert clopper_pearson_upper(failures, trials) <= budget < clopper_pearson_upper(failures, trials - 1)


@pytest.mark.parametrize("budget", [0.0, 1.0, -0.1, math.nan])
def test_a_budget_is_a_share_that_can_be_kept_and_broken(budget: float) -> None:
    with pytest.raises(ValueError, match="budget: expected a share"):
        needed_without_failure(budget)
