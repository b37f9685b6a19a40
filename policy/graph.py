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

    def __post_init__(self) -> None:
        n = len(self.states)
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
    chosen = skips.astype(bool) if rng is None else None
    nodes: list[Ints] = []
    actions: list[Ints] = []
    current, alive = graph.starts, np.arange(len(graph.starts))
    owners: list[Ints] = []
    while len(current):
        taken = chosen[current] if chosen is not None else rng.random(len(current)) < skips[current]  # type: ignore[union-attr]
        taken = np.where(graph.decided[current], taken, False).astype(np.int64)
        nodes.append(current)
        actions.append(taken)
        owners.append(alive)
        following = graph.successors[current, taken]
        current, alive = following[following != END], alive[following != END]
    order = np.argsort(np.concatenate(owners), kind="stable")  # stable: turns stay in their order
    visited = np.concatenate(nodes)[order]
    return Walk(visited, np.concatenate(actions)[order], graph.turns[visited] == 0)
