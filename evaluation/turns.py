"""Turns that were played, as arrays, and counts of them by conversation: what every figure of a gate is made of.

Leaves out intervals (`stats.py`) and which figures there are (`gate.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.types import Action
from evaluation.certify import Skips
from evaluation.rollout import Arm, Step

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """T turns of C conversations under one policy; every array has shape (T,). nan is a missing verdict."""

    count: int
    """C."""
    conversations: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: tuple[frozenset[str], ...]
    """The slices that a turn is in: its kind, and its language where it isn't the main one."""
    skipped: Bools
    static: Bools
    tokens: Floats
    good: Floats
    good_fetch: Floats
    good_skip: Floats

    @property
    def scored(self) -> Bools:
        """Turns with a verdict."""
        return ~np.isnan(self.good)

    @property
    def harm(self) -> Floats:
        """1 where skipping is Bad and fetching Good, nan where a verdict is missing."""
        missing = np.isnan(self.good_fetch) | np.isnan(self.good_skip)
        return np.where(missing, np.nan, (self.good_skip == 0) & (self.good_fetch == 1))

    def by_conversation(self, values: Floats | Bools, where: Bools | None = None) -> Floats:
        """Sum of values by conversation, nan as nothing; shape (C,)."""
        chosen = np.nan_to_num(np.asarray(values, dtype=float)) * (1.0 if where is None else where)
        return np.bincount(self.conversations, weights=chosen, minlength=self.count).astype(np.float64)

    def within(self, label: str) -> Bools:
        """The turns of a slice."""
        return np.array([label in labels for labels in self.labels], dtype=bool)

    def skips(self) -> Skips:
        """The labelled turns that were skipped, for bounds on harm. An unlabelled turn is no trial: nobody said what it needs."""
        chosen = self.skipped & self.scored
        return Skips(self.conversations[chosen], self.positions[chosen], self.harm[chosen])


def turns_of(plays: Sequence[Sequence[Step]]) -> Turns:
    """Plays as arrays."""
    steps = [(number, position, step) for number, play in enumerate(plays) for position, step in enumerate(play)]

    def good(arm: Arm) -> float:
        return np.nan if arm.good is None else float(arm.good)

    return Turns(
        len(plays), np.array([n for n, _, _ in steps], dtype=np.int64), np.array([p for _, p, _ in steps], dtype=np.int64),
        tuple(frozenset(filter(None, (step.turn.kind, step.turn.language))) for _, _, step in steps),
        np.array([step.skipped for _, _, step in steps], dtype=bool),
        np.array([step.action is Action.STATIC for _, _, step in steps], dtype=bool),
        np.array([step.taken.tokens for _, _, step in steps], dtype=float), np.array([good(step.taken) for _, _, step in steps]),
        np.array([good(step.fetch) for _, _, step in steps]), np.array([good(step.skip) for _, _, step in steps]),
    )
