"""The skip threshold that is certified on the calibration split, which neither training nor early stopping has seen.

Leaves out other splits, choosing by looking, and static answers (`kb/calibrate.py`).
"""

import numpy as np

from evaluation.certify import Certificate, Skips, fixed_sequence
from evaluation.stats import Weights, resampled
from policy.graph import NO_FETCH, Bools, Floats, StateGraph, walk

BUDGET = 0.10
"""Harmful share of the skips that is asked for by default."""
STEPS = 60
"""Thresholds that are tested at most."""


def certified_skips(graph: StateGraph, scores: Floats, *, budget: float = BUDGET, weights: Weights | None = None,
                    false_good_rate: float = 0.0, unjudged_is_harm: bool = False) -> Certificate:
    """The laxest skip threshold on `scores`, shape (N,), that keeps the budget. The grid is quantiles of the scores alone.

    Where a judge gave the verdicts, `false_good_rate` is what it may overlook (`certify.harm_bound`), and `unjudged_is_harm`: a turn on
    which it couldn't tell is a harm. By labels, a turn without one is no trial.
    """
    drawn = resampled(len(graph.starts)) if weights is None else weights
    decided = scores[graph.decided]
    grid = np.unique(np.quantile(decided, np.linspace(0.0, 1.0, STEPS)))[::-1] if len(decided) else np.zeros(0)

    def skips_at(threshold: float) -> Skips:
        return graph_skips(graph, scores >= threshold, unjudged_is_harm=unjudged_is_harm)

    return fixed_sequence(grid.tolist(), skips_at, drawn, budget=budget, false_good_rate=false_good_rate)


def graph_skips(graph: StateGraph, skips: Bools, *, unjudged_is_harm: bool = False) -> Skips:
    """The skips of a gate that skips in these states, shape (N,), on its own transcript; a turn without verdict is no trial, or a harm."""
    walked = walk(graph, skips)
    judged = ~np.isnan(graph.good[walked.nodes]).all(axis=1) | unjudged_is_harm
    chosen = walked.nodes[(walked.actions == NO_FETCH) & judged]
    return Skips(graph.conversations[chosen], graph.turns[chosen], graph.harm[chosen].astype(float))
