"""Intervals by conversation: the turns of one conversation depend on each other, so whole conversations are drawn again.

Leaves out exact bounds and promotion, which come with the learned gate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
Weights = NDArray[np.int64]
"""How often each resample drew each conversation, shape (resamples, conversations)."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval by conversation."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def resampled(conversations: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """Bootstrap weights by conversation: each row sums to the number of conversations."""
    draws: Weights = np.random.default_rng(seed).multinomial(conversations, [1 / conversations] * conversations, size=resamples)
    return draws


def share(part: NDArray[np.int64], whole: NDArray[np.int64], weights: Weights) -> Share:
    """`part` as a share of `whole`, both counts by conversation, shape (conversations,). Of nothing it is nan."""
    values = _ratio(weights @ part, weights @ whole)
    low, high = np.quantile(values, (0.025, 0.975))
    return Share(float(_ratio(part.sum(), whole.sum())), float(low), float(high))


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return ratio
