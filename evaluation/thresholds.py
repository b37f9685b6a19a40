"""Thresholds that are certified on the calibration split: from which score a gate skips, from which similarity an FAQ answers alone.

Both are tested from strict to lax by the same procedure (`certify.py`), on sessions that neither training nor early stopping has seen.
Leaves out other splits, and choosing by looking.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.certify import Certificate, Skips, fixed_sequence
from evaluation.datasets import Session
from evaluation.stats import Weights, resampled
from kb.retriever import FaqRetriever
from policy.graph import NO_FETCH, Bools, Floats, StateGraph, walk

BUDGET = 0.10
"""Harmful share of the skips, and wrong share of the static answers, that is asked for by default."""
STEPS = 60
"""Thresholds that are tested at most."""
STATIC_THRESHOLDS = tuple(round(0.98 - 0.01 * n, 2) for n in range(49))


def certified_skips(graph: StateGraph, scores: Floats, *, budget: float = BUDGET, weights: Weights | None = None) -> Certificate:
    """The laxest skip threshold on `scores`, shape (N,), that keeps the budget. The grid is quantiles of the scores alone."""
    drawn = resampled(len(graph.starts)) if weights is None else weights
    decided = scores[graph.decided]
    grid = np.unique(np.quantile(decided, np.linspace(0.0, 1.0, STEPS)))[::-1] if len(decided) else np.zeros(0)
    return fixed_sequence(grid.tolist(), lambda threshold: graph_skips(graph, scores >= threshold), drawn, budget=budget)


def graph_skips(graph: StateGraph, skips: Bools) -> Skips:
    """The skips of a gate that skips in these states, shape (N,), on its own transcript; unlabelled turns are no trials."""
    walked = walk(graph, skips)
    chosen = walked.nodes[(walked.actions == NO_FETCH) & ~np.isnan(graph.good[walked.nodes]).all(axis=1)]
    return Skips(graph.conversations[chosen], graph.turns[chosen], graph.harm[chosen].astype(float))


def certified_static(sessions: Sequence[Session], retriever: FaqRetriever, *, budget: float = BUDGET) -> Certificate:
    """The laxest similarity from which the top FAQ is the answer, with at most this share of wrong ones: not a gold FAQ."""
    found = [(number, position, hits[0].similarity, float(hits[0].faq.id not in turn.gold))
             for number, session in enumerate(sessions) for position, turn in enumerate(session.turns) if turn.gold is not None
             for hits in [retriever.search(turn.query, k=1)] if hits and hits[0].faq.answer]
    columns = np.array(found, dtype=float).reshape(-1, 4).T

    def answered(threshold: float) -> Skips:
        chosen = columns[2] >= threshold
        return Skips(columns[0, chosen].astype(np.int64), columns[1, chosen].astype(np.int64), columns[3, chosen])

    return fixed_sequence(STATIC_THRESHOLDS, answered, resampled(len(sessions)), budget=budget)
