"""How well a search finds what settles a query, and tells queries that nothing settles: pure functions on what it found.

Every figure is of labelled queries, each the unit of the bootstrap; several searches of the same queries are resampled together, so that
differences are paired. Leaves out searching (`retrieval_run.py`) and queries of one conversation, which depend on each other
(`followup_tables.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.stats import RESAMPLES, Interval, too_small

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DEPTH = 10
"""Places that are looked at; what stands further down counts as not found."""
MISSED = 20
"""FPR@95 lets one in so many of the queries that an FAQ settles be missed."""
FOUND = ("recall_at_1", "recall_at_3", "recall_at_10", "mrr", "ndcg_at_10")
"""Means over the queries that an FAQ settles."""
TOLD_APART = ("ood_auroc", "ood_fpr95")
"""Of these queries against those that none does."""
FIGURES = (*FOUND, *TOLD_APART)
DRAWN_TOGETHER = 1 << 21
"""Draws that are in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What a search found for labelled queries. Shapes (Q,)."""

    places: Ints
    """Of the first FAQ that settles the query, from 1; 0: not among the first `DEPTH`, or there is none."""
    gains: Floats
    """nDCG@10."""
    scores: Floats
    """How much a query looks as if an FAQ settled it."""
    known: Bools
    """Whether an FAQ does."""

    def take(self, rows: Bools) -> "Outcomes":
        return Outcomes(self.places[rows], self.gains[rows], self.scores[rows], self.known[rows])


def outcomes(ranked: Sequence[Sequence[str]], golds: Sequence[Sequence[str]], scores: Sequence[float] | Floats) -> Outcomes:
    """Ranked FAQ ids beside the ids that settle each query, () for none."""
    places = [next((place for place, one in enumerate(ids[:DEPTH], 1) if one in gold), 0) for ids, gold in zip(ranked, golds, strict=True)]
    return Outcomes(np.array(places, dtype=np.int64), np.array([ndcg(ids, gold) for ids, gold in zip(ranked, golds, strict=True)]),
                    np.asarray(scores, dtype=np.float64), np.array([bool(gold) for gold in golds], dtype=bool))


def ndcg(ranked: Sequence[str], gold: Sequence[str]) -> float:
    """`sum over gold at place p of 1 / log2(p + 1)`, as a share of the best order's (Järvelin & Kekäläinen 2002); 0 without gold."""
    wanted = set(gold)
    best = sum(_discount(place) for place in range(1, min(len(wanted), DEPTH) + 1))
    return sum(_discount(place) for place, one in enumerate(ranked[:DEPTH], 1) if one in wanted) / best if wanted else 0.0


def estimates(searches: Sequence[Outcomes], *, resamples: int = RESAMPLES, seed: int = 0,
              drawn_together: int = DRAWN_TOGETHER) -> Floats:
    """`FIGURES` of searches of the same queries, shape (searches, len(FIGURES), 1 + resamples): of the data first, then of each resample.

    What can't be told is nan: nothing to be found, or nothing to be told apart from.
    """
    known = searches[0].known
    values = np.concatenate([_per_query(one) for one in searches], axis=1)  # (Q, searches * len(FOUND))
    blocks = []
    for weights in _weights(len(known), resamples, seed, drawn_together):
        whole = weights @ known.astype(np.float32)
        means = _ratio(weights @ values, whole[:, None]).reshape(len(weights), len(searches), len(FOUND))
        blocks.append(np.concatenate([means, np.stack([_told_apart(one, weights) for one in searches], axis=1)], axis=2))
    return np.moveaxis(np.concatenate(blocks), 0, 2)


def auroc(scores: Floats, known: Bools) -> float:
    """Chance that a query with an FAQ has the larger score of a random two, ties half; nan without both kinds."""
    return _alone(scores, known, 0)


def fpr_at_95(scores: Floats, known: Bools) -> float:
    """Share of the queries without an FAQ that pass the largest threshold which 95 % of those with one pass; nan without both kinds."""
    return _alone(scores, known, 1)


def intervals(found: Floats, known: Bools) -> dict[str, Interval | None]:
    """`FIGURES` of one search, or of a difference of two, shape (len(FIGURES), 1 + resamples); None: the data can't tell."""
    behind = {name: int(known.sum()) if name in FOUND else int(min(known.sum(), (~known).sum())) for name in FIGURES}
    return {name: interval(values, behind[name]) for name, values in zip(FIGURES, found, strict=True)}


def interval(values: Floats, behind: int) -> Interval | None:
    """A figure and its percentile interval, of its value and resamples; resamples that can't tell are passed over."""
    if np.isnan(values[0]):
        return None
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return Interval(float(values[0]), float(low), float(high), too_small(behind))


def _discount(place: int) -> float:
    return float(1 / np.log2(place + 1))


def _per_query(one: Outcomes) -> NDArray[np.float32]:
    """Shape (Q, len(FOUND)); 0 for queries that no FAQ settles."""
    reciprocal = 1 / np.maximum(one.places, 1) * (one.places > 0)
    within = [(one.places > 0) & (one.places <= k) for k in (1, 3, 10)]
    return np.stack([*within, reciprocal, one.gains], axis=1).astype(np.float32) * one.known[:, None]


def _weights(count: int, resamples: int, seed: int, drawn_together: int) -> Iterator[NDArray[np.float32]]:
    """How often each query was drawn: once each first, then block after block of resamples, shape (block, count)."""
    yield np.ones((1, count), dtype=np.float32)
    rng, block = np.random.default_rng(seed), max(1, drawn_together // count)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float32)


def _told_apart(one: Outcomes, weights: NDArray[np.float32]) -> Floats:
    """AUROC and FPR@95 of each row of weights, shape (rows, 2). Sums of weights are whole numbers, so float32 has them exactly."""
    known, others = (rows[np.argsort(one.scores[rows])] for rows in (np.flatnonzero(one.known), np.flatnonzero(~one.known)))
    if not len(known) or not len(others):
        return np.full((len(weights), 2), np.nan)
    scores, other_scores = one.scores[known], one.scores[others]
    below, beyond = _sums(weights[:, known]), _sums(weights[:, others])
    total, other_total = below[:, -1:], beyond[:, -1:]
    passed = (below[:, np.searchsorted(scores, other_scores)] + below[:, np.searchsorted(scores, other_scores, side="right")]) / 2
    larger = np.einsum("ij,ij->i", weights[:, others], total - passed, dtype=np.float64)
    area = _ratio(larger, total[:, 0].astype(np.float64) * other_total[:, 0])
    first_kept = np.minimum((MISSED * below <= total).sum(axis=1) - 1, len(known) - 1)
    under = np.take_along_axis(beyond, np.searchsorted(other_scores, scores[first_kept])[:, None], axis=1)
    wrongly_kept = np.where(total > 0, _ratio(other_total - under, other_total), np.nan)
    return np.stack([area, wrongly_kept[:, 0]], axis=1)


def _sums(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of the columns before each, and of all at the end; shape (rows, columns + 1)."""
    found = np.zeros((len(weights), weights.shape[1] + 1), dtype=np.float32)
    np.cumsum(weights, axis=1, out=found[:, 1:])
    return found


def _alone(scores: Floats, known: Bools, figure: int) -> float:
    nothing = np.zeros(len(scores))
    one = Outcomes(nothing.astype(np.int64), nothing, np.asarray(scores, dtype=np.float64), known)
    return float(_told_apart(one, np.ones((1, len(scores)), dtype=np.float32))[0, figure])


def _ratio(part: Any, whole: Any) -> Floats:
    """nan where the whole is nothing."""
    ratio = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    np.divide(part, whole, out=ratio, where=np.asarray(whole) > 0, dtype=np.float64)
    return ratio
