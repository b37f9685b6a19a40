"""Intervals of shares near 0 or 1, by conversation."""

import math

import numpy as np
import pytest

from report.rates import effective_size, rate, rate_difference

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def planted(rng: np.random.Generator, conversations: int, p: float, alike: float) -> tuple[Floats, Floats]:
    """Good and judged turns of conversations whose own Good-rates vary around p (beta-binomial)."""
    judged = rng.integers(1, 7, size=conversations)
    spread = (1 - alike) / alike
    own = rng.beta(p * spread, (1 - p) * spread, size=conversations)
    return rng.binomial(judged, own).astype(np.float64), judged.astype(np.float64)


@pytest.mark.parametrize(("sizes", "p"), [((300, 40), (0.97, 0.98)), ((1000, 60), (0.93, 0.93)), ((400, 400), (0.99, 0.97))])
@pytest.mark.parametrize("alike", [0.1, 0.4])
def test_a_difference_of_good_rates_covers_a_planted_one(sizes: tuple[int, int], p: tuple[float, float], alike: float) -> None:
    """95 % of 400 times; the bounds are five standard errors away, so by chance it fails less than once in a million."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        figure = rate_difference(*planted(rng, sizes[0], p[0], alike), *planted(rng, sizes[1], p[1], alike))
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= p[0] - p[1] <= figure.high
    assert covered / 400 >= 0.895


def test_a_rate_covers_a_planted_one() -> None:
    """As above; of 60 conversations, with about four Bad answers."""
    rng = np.random.default_rng(4)
    figures = [rate(*planted(rng, 60, 0.98, 0.2)) for _ in range(600)]
    covered = np.mean([figure.low is not None and figure.high is not None and figure.low <= 0.98 <= figure.high for figure in figures])
    assert 0.905 <= covered <= 0.995


def test_independent_turns_have_wilsons_interval_with_t() -> None:
    good = np.repeat([1.0, 0.0], [80, 20])
    found = rate(good, np.ones(100))
    n, t = 0.8 * 0.2 / (16 / 100**2 * 100 / 99), 1.9842169516
    middle, half = (0.8 + t**2 / (2 * n)) / (1 + t**2 / n), t / (1 + t**2 / n) * math.sqrt(0.16 / n + t**2 / (4 * n**2))
    assert (found.value, found.verdict) == (0.8, "unknown")
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_turns_that_are_alike_within_conversations_count_as_one() -> None:
    judged = np.full(100, 5.0)
    alike = effective_size(np.repeat([5.0, 0.0], [80, 20]), judged)
    mixed = effective_size(np.full(100, 4.0), judged)
    assert alike == pytest.approx(99)
    assert mixed == 500


def test_where_all_are_good_the_interval_has_a_width() -> None:
    judged = np.full(50, 3.0)
    found = rate(judged, judged)
    assert found.low is not None
    assert found.value == found.high == 1.0
    assert 0.9 < found.low < 0.95
    difference = rate_difference(judged, judged, judged, judged)
    assert difference.value == 0.0
    assert difference.low is not None
    assert difference.low == pytest.approx(found.low - 1)


def test_what_cant_be_told_isnt_a_number() -> None:
    nothing, one = np.zeros(3), np.array([1.0, 0.0, 0.0])
    assert rate(nothing, nothing).value is None
    assert (rate(one, one).low, rate(one, one).verdict) == (None, "too_small")
    assert rate_difference(one, one, nothing, nothing).value is None
    assert rate_difference(one, one, one, one).verdict == "too_small"
    few = np.ones(29)
    assert rate_difference(few, few, np.ones(500), np.ones(500)).verdict == "too_small"
