"""Every state that some sequence of actions reaches, and where each action leads: what a rollout walks, as arrays.

A replay with both arms judged makes it (`evaluation/`); training reads it without knowing how answers are graded. Leaves out
rewards, which depend on a preset and change with a multiplier while training goes on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.types import Action, State

FETCH, NO_FETCH = 0, 1
"""Columns of every array over actions, and the values of `actions`."""
ACTIONS = (Action.FETCH, Action.NO_FETCH)
END = -1
"""Successor of a conversation's last turn."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StateGraph:
    """N states of C conversations. Axis A is (FETCH, NO_FETCH); of a static answer both columns hold the same."""

    states: tuple[State, ...]
    successors: Ints
    """Index of the state that follows, `END` after the last turn; shape (N, A)."""
    starts: Ints
    """Index of each conversation's first state; shape (C,)."""
    conversations: Ints
    """Number of the conversation that a state is of; shape (N,)."""
    turns: Ints
    """Position of its turn in the conversation; shape (N,)."""
    decided: Bools
    """False where an FAQ answers by itself: no action is taken there; shape (N,)."""
    tokens: Floats
    """Input and output tokens; shape (N, A)."""
    good: Floats
    """1 Good, 0 Bad, nan where there is no verdict; shape (N, A)."""
    safe: Floats | None = None
    """1 does no harm, 0 does, nan where nobody said; shape (N, A). None: nobody said anywhere."""

    def __post_init__(self) -> None:
        n = len(self.states)
        if self.safe is not None and self.safe.shape != (n, 2):
            raise ValueError(f"safe: expected shape ({n}, 2), got {self.safe.shape}")
        for name in ("successors", "tokens", "good"):
            if getattr(self, name).shape != (n, 2):
                raise ValueError(f"{name}: expected shape ({n}, 2), got {getattr(self, name).shape}")
        for name in ("conversations", "turns", "decided"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name}: expected shape ({n},), got {getattr(self, name).shape}")

    @property
    def harm(self) -> Floats:
        """1 where skipping is Bad and fetching Good, 0 where not, nan where a verdict is missing; shape (N,)."""
        return np.where(np.isnan(self.good).any(axis=1), np.nan, (self.good[:, NO_FETCH] == 0) & (self.good[:, FETCH] == 1))


@dataclass(frozen=True, slots=True)
class Walk:
    """The states that a policy went through, conversation after conversation, and what it took there."""

    nodes: Ints
    """Shape (B,)."""
    actions: Ints
    """Shape (B,)."""
    starts: Bools
    """True at each conversation's first turn; shape (B,)."""


def walk(graph: StateGraph, skips: Bools | Floats, rng: np.random.Generator | None = None) -> Walk:
    """Each conversation once, from its start. `skips`, shape (N,): whether to skip, or the probability of it with a generator."""
    nodes: list[Ints] = []
    actions: list[Ints] = []
    current, alive = graph.starts, np.arange(len(graph.starts))
    owners: list[Ints] = []
    while len(current):
        wanted = skips[current].astype(bool) if rng is None else rng.random(len(current)) < skips[current]
        taken = (wanted & graph.decided[current]).astype(np.int64)
        nodes.append(current)
        actions.append(taken)
        owners.append(alive)
        following = graph.successors[current, taken]
        current, alive = following[following != END], alive[following != END]
    order = np.argsort(np.concatenate(owners), kind="stable")  # stable: turns stay in their order
    visited = np.concatenate(nodes)[order]
    return Walk(visited, np.concatenate(actions)[order], graph.turns[visited] == 0)


def action_values(graph: StateGraph, rewards: Floats, skip_probs: Floats, gamma: float) -> Floats:
    """What each action brings from here on under a policy, exactly: Q(s, a) = r(s, a) + gamma V(s'); shape (N, A).

    `rewards` (N, A), without nan; `skip_probs` (N,), the policy's P(NO_FETCH). Successors stand behind their states, so one pass from
    the last state back is enough (Sutton & Barto 2018, equation 4.4).
    """
    values = np.zeros(len(graph.states) + 1)  # the last one is END's
    found = np.zeros_like(rewards)
    for node in range(len(graph.states) - 1, -1, -1):
        found[node] = rewards[node] + gamma * values[graph.successors[node]]
        skip = skip_probs[node] if graph.decided[node] else 0.0
        values[node] = (1.0 - skip) * found[node, FETCH] + skip * found[node, NO_FETCH]
    return found


@dataclass(frozen=True, slots=True)
class Curve:
    """What a score does at each of T thresholds, for choosing among policies; intervals are `evaluation`'s business."""

    thresholds: Floats
    """Increasing: from lax to strict; shape (T,)."""
    savings: Floats
    """Share of the tokens of fetching on every turn in the same setting; shape (T,)."""
    skips: Ints
    harms: Floats
    """Harmful skips as a share of the skips whose verdicts are known, 0 without any; shape (T,)."""

    def best(self, budget: float, *, least_skips: int = 20) -> tuple[float, float]:
        """The largest saving with at most this harmful share, and its threshold: (0, inf) when no threshold has it.

        It is chosen after looking, so it selects models and certifies nothing.
        """
        allowed = np.flatnonzero((self.harms <= budget) & (self.skips >= least_skips) & (self.savings > 0.0))
        if not len(allowed):
            return 0.0, float("inf")
        chosen = allowed[np.argmax(self.savings[allowed])]
        return float(self.savings[chosen]), float(self.thresholds[chosen])


def curve(graph: StateGraph, scores: Floats, *, thresholds: int = 60) -> Curve:
    """Skipping where `scores`, shape (N,), reaches a threshold: at so many of their quantiles."""
    decided = scores[graph.decided]
    grid = np.unique(np.quantile(decided, np.linspace(0.0, 1.0, thresholds))) if len(decided) else np.zeros(0)
    fetching = walk(graph, np.zeros(len(graph.states), dtype=bool))
    most, harm = graph.tokens[fetching.nodes, FETCH].sum(), graph.harm
    rows = []
    for threshold in grid:
        walked = walk(graph, scores >= threshold)
        skipped = walked.nodes[walked.actions == NO_FETCH]
        known = harm[skipped][~np.isnan(harm[skipped])]
        saving = 1.0 - graph.tokens[walked.nodes, walked.actions].sum() / most
        rows.append((saving, len(skipped), known.mean() if len(known) else 0.0))
    savings, skips, harms = np.array(rows, dtype=float).reshape(-1, 3).T
    return Curve(grid, savings, skips.astype(np.int64), harms)
