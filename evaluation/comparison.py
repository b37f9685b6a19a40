"""Gates side by side at equal harm: each with the threshold that keeps a harmful share on sessions that nobody trained on.

The thresholds are chosen on one split and the figures are of another. Differences are paired: the same conversations are drawn for both.
Works on state graphs, so readers have fixed answers. Leaves out certificates (`thresholds.py`) and text (`tables.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.datasets import Session
from evaluation.gate import Baseline
from evaluation.stats import Interval, Weights, ratio_difference, saving_difference
from evaluation.turns import Bools, Turns
from policy.graph import FETCH, NO_FETCH, Floats, StateGraph, curve, walk

MULTIPLIER = 4.0
"""Reward lost by a harmful skip, in turns' worth of tokens: that of training's `budget` preset at its beginning."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Sessions with their states, in the prompt setting that all gates are compared in."""

    sessions: tuple[Session, ...]
    graph: StateGraph
    frugal: Baseline
    """Always fetching in the frugal setting."""


def gate_turns(split: Split, skips: Bools) -> Turns:
    """The turns of a gate that skips in these states, shape (N,)."""
    graph, walked = split.graph, walk(split.graph, skips)
    nodes = walked.nodes
    labels = [split.sessions[c].turns[t] for c, t in zip(graph.conversations[nodes], graph.turns[nodes], strict=True)]
    return Turns(
        len(split.sessions), graph.conversations[nodes], graph.turns[nodes],
        tuple(frozenset(filter(None, (turn.kind, turn.language))) for turn in labels),
        (walked.actions == NO_FETCH) & graph.decided[nodes], ~graph.decided[nodes], graph.tokens[nodes, walked.actions],
        graph.good[nodes, walked.actions], graph.good[nodes, FETCH], graph.good[nodes, NO_FETCH],
    )


def merged(parts: Sequence[Turns]) -> Turns:
    """The turns of several parts, such as folds, as of one set of conversations."""
    first = np.cumsum([0, *(part.count for part in parts[:-1])])

    def joined(name: str) -> Floats:
        return np.concatenate([getattr(part, name) for part in parts])

    conversations = np.concatenate([part.conversations + offset for part, offset in zip(parts, first, strict=True)])
    return Turns(sum(part.count for part in parts), conversations, joined("positions").astype(np.int64),
                 tuple(label for part in parts for label in part.labels), joined("skipped").astype(bool), joined("static").astype(bool),
                 joined("tokens"), joined("good"), joined("good_fetch"), joined("good_skip"))


def threshold_at(split: Split, scores: Floats, harm: float) -> float:
    """The threshold of largest saving with at most this harmful share of the skips; infinite when none has it."""
    return curve(split.graph, scores, thresholds=200).best(harm, least_skips=10)[1]


def reward(turns: Turns, frugal_tokens: Floats) -> Floats:
    """Reward of each turn: its saving as a share of the baseline's tokens, less the multiplier where a skip is harmful; shape (T,)."""
    return 1.0 - turns.tokens / frugal_tokens - MULTIPLIER * turns.skipped * np.nan_to_num(turns.harm)


@dataclass(frozen=True, slots=True)
class Against:
    """What one gate does better than another, as paired differences."""

    saving: Interval
    reward: Interval
    """A turn."""
    accuracy: Interval


def against(ours: Sequence[Turns], theirs: Sequence[Turns], frugal: Baseline, weights: Weights,
            within: Callable[[Turns], Bools] | None = None) -> Against:
    """Ours less theirs, each a mean over its seeds, on all turns or on a slice."""
    def where(turns: Turns) -> Bools:
        return np.ones(len(turns.tokens), dtype=bool) if within is None else within(turns)

    def sums(gates: Sequence[Turns], values: Callable[[Turns], Floats]) -> Floats:
        return np.stack([turns.by_conversation(values(turns), where(turns)) for turns in gates])

    whole = ours[0].by_conversation(where(ours[0]))
    scored = ours[0].by_conversation(ours[0].scored, where(ours[0]))
    baseline = ours[0].by_conversation(frugal.tokens, where(ours[0]))
    return Against(
        saving_difference(sums(ours, lambda t: t.tokens), sums(theirs, lambda t: t.tokens), baseline, weights),
        ratio_difference(sums(ours, lambda t: reward(t, frugal.tokens)), whole,
                         sums(theirs, lambda t: reward(t, frugal.tokens)), whole, weights),
        ratio_difference(sums(ours, lambda t: t.good), scored, sums(theirs, lambda t: t.good), scored, weights),
    )
