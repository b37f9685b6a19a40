"""AUROC, rho and tau-b by conversation, against sklearn and scipy on the very answers that a resample draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import roc_auc_score

from evaluation.ranks import auroc, conversation_numbers, difference, drawn, interval, kendall, spearman

answers = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=4, max_size=25)


@given(answers, st.integers(0, 2**16))
def test_each_resample_has_the_figures_of_the_answers_that_it_drew(rows: list[tuple[int, int, int]], seed: int) -> None:
    scores, truth = np.array([row[0] for row in rows], dtype=np.float64), np.array([row[1] for row in rows], dtype=np.float64)
    groups = conversation_numbers([str(row[2]) for row in rows])
    weights = np.random.default_rng(seed).multinomial(groups.max() + 1, [1 / (groups.max() + 1)] * (groups.max() + 1), size=3)
    ranked, rho, tau = (figure(scores, truth, groups, weights) for figure in
                        (lambda s, t, g, w: auroc(s, t > 2, g, w), spearman, kendall))
    for place, row in enumerate((np.ones(groups.max() + 1, dtype=np.int64), *weights)):
        taken = np.repeat(np.arange(len(rows)), row[groups])
        found = [one[0] if place == 0 else one[1][place - 1] for one in (ranked, rho, tau)]
        if 0 < (truth[taken] > 2).sum() < len(taken):
            assert found[0] == pytest.approx(roc_auc_score(truth[taken] > 2, scores[taken]))
        if len(set(scores[taken])) > 1 and len(set(truth[taken])) > 1:
            assert found[1] == pytest.approx(spearmanr(scores[taken], truth[taken]).statistic)
            assert found[2] == pytest.approx(kendalltau(scores[taken], truth[taken]).statistic)


def test_what_can_t_be_told_is_nan() -> None:
    groups, weights = np.array([0, 1, 1]), np.ones((2, 2), dtype=np.int64)
    same, other = np.ones(3), np.array([1.0, 2.0, 3.0])
    assert math.isnan(auroc(other, np.array([True, True, True]), groups, weights)[0])
    assert math.isnan(spearman(same, other, groups, weights)[0])
    assert math.isnan(kendall(other, same, groups, weights)[0])


def test_a_score_beside_itself_differs_by_nothing_and_few_conversations_are_said_to_be_few() -> None:
    rng = np.random.default_rng(5)
    groups = conversation_numbers([str(one) for one in rng.integers(0, 8, 60)])
    weights = drawn(groups)[:500]
    one = auroc(rng.random(60), rng.random(60) < 0.5, groups, weights)
    assert (difference(one, one, 8).value, difference(one, one, 8).high) == (0.0, 0.0)
    assert interval(one, 8).too_small
    assert interval(one, 8).low < one[0] < interval(one, 8).high
