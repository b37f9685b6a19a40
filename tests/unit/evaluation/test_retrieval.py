"""Figures of retrieval against ones counted by hand, scikit-learn's, and a slow bootstrap."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from evaluation.retrieval import FIGURES, Outcomes, auroc, estimates, fpr_at_95, interval, intervals, ndcg, outcomes

RANKED = (("a", "b", "c"), ("b", "a", "c"), ("c", "b", "d", "a"), ("c", "b"), ("a", "c"))
GOLDS = (("a",), ("a",), ("a",), ("a",), ())
"""Found at places 1, 2, 4, not at all; and a query that nothing settles."""


def found(scores: tuple[float, ...] = (0.9, 0.8, 0.4, 0.7, 0.4)) -> Outcomes:
    return outcomes(RANKED, GOLDS, scores)


def test_recall_and_mrr_are_what_the_places_say() -> None:
    one = found()
    assert one.places.tolist() == [1, 2, 4, 0, 0]
    values = dict(zip(FIGURES, estimates([one], resamples=10)[0, :, 0].tolist(), strict=True))
    assert values["recall_at_1"] == pytest.approx(1 / 4)
    assert values["recall_at_3"] == pytest.approx(2 / 4)
    assert values["recall_at_10"] == pytest.approx(3 / 4)
    assert values["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 4)


def test_any_gold_faq_is_enough_and_what_stands_below_ten_is_not_found() -> None:
    low = [f"other-{n}" for n in range(10)] + ["a"]
    one = outcomes([("c", "b", "a"), low], [("a", "b"), ("a",)], [0.5, 0.5])
    assert one.places.tolist() == [2, 0]
    assert one.gains[1] == 0


def test_ndcg_is_the_discounted_share_of_the_best_order() -> None:
    assert ndcg(("a", "b", "c"), ("a", "b")) == pytest.approx(1)
    assert ndcg(("c", "a"), ("a",)) == pytest.approx(1 / np.log2(3))
    assert ndcg(("a", "c", "b"), ("a", "b")) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert ndcg(("a",), ()) == 0
    assert ndcg([f"{n}" for n in range(10)], [f"{n}" for n in range(40)]) == pytest.approx(1)


def test_auroc_counts_pairs_and_ties_half() -> None:
    assert auroc(np.array([0.9, 0.8, 0.4, 0.7, 0.4]), np.array([True, True, True, True, False])) == pytest.approx(3.5 / 4)
    assert auroc(np.array([0.1, 0.9]), np.array([True, False])) == 0
    assert np.isnan(auroc(np.array([0.1, 0.9]), np.array([True, True])))
    assert np.isnan(fpr_at_95(np.array([0.1, 0.9]), np.array([False, False])))


def test_fpr_lets_one_known_query_in_twenty_be_missed() -> None:
    scores = np.concatenate([np.linspace(0.5, 0.9, 19), [0.1], [0.2, 0.6]])
    known = np.arange(22) < 20
    assert fpr_at_95(scores, known) == 0.5  # the threshold is 0.5: the one at 0.1 is missed
    assert fpr_at_95(scores[1:], known[1:]) == 1.0  # of 19, none may be missed


def test_both_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(5, 60))
        known = rng.permutation(count) < count // 2
        scores = np.asarray(np.round(rng.random(count) + 0.3 * known, 1), dtype=np.float64)  # with ties
        assert auroc(scores, known) == pytest.approx(roc_auc_score(known, scores))
        wrong, kept, _ = roc_curve(known, scores, drop_intermediate=False)
        assert fpr_at_95(scores, known) == pytest.approx(wrong[np.argmax(kept >= 0.95 - 1e-12)])


def test_the_bootstrap_is_the_slow_ones() -> None:
    """Each resample's figures are those of the queries drawn, one by one."""
    rng = np.random.default_rng(1)
    known = np.arange(40) < 25
    one = Outcomes(rng.integers(0, 12, 40) * known, rng.random(40) * known, np.round(rng.random(40), 1), known)
    values = estimates([one], resamples=20, seed=3)[0]
    draws = np.random.default_rng(3).integers(40, size=(20, 40))
    for n, rows in enumerate(draws, 1):
        places, chosen = one.places[rows], known[rows]
        assert values[0, n] == pytest.approx(np.mean(places[chosen] == 1))
        assert values[2, n] == pytest.approx(np.mean((places[chosen] > 0) & (places[chosen] <= 10)))
        assert values[4, n] == pytest.approx(np.mean(one.gains[rows][chosen]))
        assert values[5, n] == pytest.approx(auroc(one.scores[rows], chosen))
        assert values[6, n] == pytest.approx(fpr_at_95(one.scores[rows], chosen))


def test_a_long_bootstrap_goes_on_where_its_blocks_end() -> None:
    np.testing.assert_array_equal(estimates([found()], resamples=50), estimates([found()], resamples=50, drawn_together=35))


def test_differences_are_paired() -> None:
    one = found()
    same, other = estimates([one, found((0.9, 0.8, 0.7, 0.6, 0.1))], resamples=200)
    assert (same[:5] == other[:5]).all()
    difference = intervals(other - same, one.known)
    assert difference["recall_at_1"] == interval(np.zeros(201), 4)
    assert difference["ood_auroc"] is not None
    assert difference["ood_auroc"].value == pytest.approx(0.5 / 4)


def test_figures_that_the_data_cannot_tell_are_none() -> None:
    inside, outside = outcomes([("a",)] * 40, [("a",)] * 40, [0.5] * 40), outcomes([("a",)] * 40, [()] * 40, [0.5] * 40)
    told = intervals(estimates([inside], resamples=20)[0], inside.known)
    assert told["ood_auroc"] is None
    assert told["ood_fpr95"] is None
    assert told["mrr"] is not None
    assert not told["mrr"].too_small
    assert set(intervals(estimates([outside], resamples=20)[0], outside.known).values()) == {None}


def test_few_queries_out_of_domain_make_that_figure_too_small_alone() -> None:
    one = outcomes([("a",)] * 45, [("a",)] * 40 + [()] * 5, np.linspace(1, 0, 45))
    told = intervals(estimates([one], resamples=50)[0], one.known)
    assert told["recall_at_1"] is not None
    assert told["ood_auroc"] is not None
    assert not told["recall_at_1"].too_small
    assert told["ood_auroc"].too_small
    assert told["ood_auroc"].value == 1


def test_the_interval_covers_the_truth() -> None:
    """Recall 0.3 of 200 queries: 19 of 20 intervals cover it; fewer than 85 of 100 has a chance below 1e-4."""
    rng, covered = np.random.default_rng(5), 0
    for seed in range(100):
        places = (rng.random(200) < 0.3).astype(np.int64)
        one = Outcomes(places, places.astype(np.float64), rng.random(200), np.ones(200, dtype=bool))
        told = interval(estimates([one], resamples=400, seed=seed)[0, 0], 200)
        covered += told is not None and told.low <= 0.3 <= told.high
    assert covered >= 85
