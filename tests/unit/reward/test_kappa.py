"""Kappa and alpha against worked examples, sklearn and crowd-kit; intervals that cover what was planted."""

import math

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from crowdkit.metrics.data import alpha_krippendorff
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from reward.kappa import (
    by_conversation,
    cohen_kappa,
    coincidences,
    exact_share,
    krippendorff_alpha,
    powers,
    weighted_kappa,
)

words = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40)


def table(pairs: list[tuple[int, int]], categories: int = 4) -> np.ndarray:
    counts = np.zeros((categories, categories))
    for one, other in pairs:
        counts[one, other] += 1
    return counts


def test_kappa_of_a_worked_example() -> None:
    """45 of 60 agree; by chance .5 * .6667 + .5 * .3333 = .5 would: (.75 - .5) / .5."""
    assert cohen_kappa(np.array([[25.0, 5.0], [10.0, 20.0]])) == pytest.approx((45 / 60 - 0.5) / 0.5)


def test_kappa_is_one_for_full_agreement_and_minus_one_for_opposites() -> None:
    assert cohen_kappa(np.diag([3.0, 4.0])) == 1.0
    assert cohen_kappa(np.array([[0.0, 5.0], [5.0, 0.0]])) == -1.0


def test_a_judge_who_always_says_good_has_no_agreement_beyond_chance_however_often_it_is_right() -> None:
    assert cohen_kappa(np.array([[95.0, 0.0], [5.0, 0.0]])) == 0.0


def test_agreement_can_t_be_told_where_both_sides_say_one_thing_throughout() -> None:
    assert math.isnan(float(cohen_kappa(np.array([[9.0, 0.0], [0.0, 0.0]]))))
    assert math.isnan(float(cohen_kappa(np.zeros((2, 2)))))


@given(words)
def test_kappa_plain_and_weighted_is_sklearn_s(pairs: list[tuple[int, int]]) -> None:
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(set(one + other)) < 2:
        return  # sklearn warns of it, and so it is nan here
    for weights, ours in ((None, cohen_kappa(table(pairs))), ("linear", weighted_kappa(table(pairs), powers(4, 1))),
                          ("quadratic", weighted_kappa(table(pairs), powers(4, 2)))):
        assert float(ours) == pytest.approx(cohen_kappa_score(one, other, labels=[0, 1, 2, 3], weights=weights), abs=1e-9)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=12))
def test_alpha_is_crowd_kit_s_whoever_rated_what(units: list[list[int]]) -> None:
    rated = [unit for unit in units if len(unit) > 1]
    if len({answer for unit in rated for answer in unit}) < 2:
        return
    rows = pd.DataFrame([(task, worker, answer) for task, unit in enumerate(rated) for worker, answer in enumerate(unit)],
                        columns=["task", "worker", "label"])
    assert float(krippendorff_alpha(coincidences(units, 3))) == pytest.approx(alpha_krippendorff(rows), abs=1e-9)
    squared = alpha_krippendorff(rows, distance=lambda a, b: float((a - b) ** 2))  # type: ignore[operator]
    assert float(krippendorff_alpha(coincidences(units, 3), "interval")) == pytest.approx(squared, abs=1e-9)


def test_ordinal_alpha_of_krippendorff_s_own_example() -> None:
    """Krippendorff 2011, example C: four observers, twelve units, gaps; nominal .743, ordinal .815, interval .849."""
    gap = 0
    observers = [[1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
                 [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap]]
    units = [[value - 1 for value in unit if value != gap] for unit in zip(*observers, strict=True)]
    found = [float(krippendorff_alpha(coincidences(units, 5), scale)) for scale in ("nominal", "ordinal", "interval")]
    assert found == pytest.approx([0.743, 0.815, 0.849], abs=5e-4)


def test_an_interval_is_of_whole_conversations_and_wider_than_that_of_its_turns() -> None:
    """Ten conversations, each all right or all wrong: resampling turns as if independent would make it far too narrow."""
    right, wrong = np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([[0.0, 5.0], [5.0, 0.0]])
    whole = by_conversation(cohen_kappa, np.stack([right] * 7 + [wrong] * 3))
    apart = by_conversation(cohen_kappa, np.stack([one / 10 for one in [right] * 70 + [wrong] * 30]))
    assert whole.value == pytest.approx(apart.value)
    assert whole.high - whole.low > 2 * (apart.high - apart.low)


def test_the_interval_holds_the_planted_kappa_in_about_95_of_100_samples() -> None:
    """A judge right with probability .8 on balanced cases has kappa .6. Of 100 samples 85 or fewer cover with chance 2e-4."""
    rng = np.random.default_rng(7)
    covered = 0
    for sample in range(100):
        truth = rng.random(200) < 0.5
        judged = np.where(rng.random(200) < 0.8, truth, ~truth)
        tables = np.zeros((200, 2, 2))
        tables[np.arange(200), truth.astype(int), judged.astype(int)] = 1
        found = by_conversation(cohen_kappa, tables, resamples=500, seed=sample)
        covered += found.low <= 0.6 <= found.high
    assert 85 < covered <= 100


def test_a_share_has_its_exact_interval() -> None:
    """Clopper and Pearson: 0 of 10 is at most 1 - .025 ** (1 / 10)."""
    assert exact_share(0, 10).low == 0.0
    assert exact_share(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert exact_share(10, 10).low == pytest.approx(0.025**0.1)
    assert math.isnan(exact_share(0, 0).value)
    assert (exact_share(0, 0).low, exact_share(0, 0).high) == (0.0, 1.0)
