"""Intervals by conversation: the turns of one conversation depend on each other, so whole conversations are drawn again.

Counts by conversation have shape (conversations,), or (seeds, conversations) where training was repeated: each resample then draws
the same conversations for every seed and averages the seeds' ratios, so that the interval is about the mean over these seeds.
How much the seeds differ is shown apart (`over_seeds`). Arms may have different numbers of seeds; part and whole of one arm must
have the same number or one. Exact bounds are `kb/bounds.py`'s.
Leaves out promotion, and intervals that correct the percentile bootstrap for few or skewed conversations: they are marked instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

RESAMPLES = 10_000
FEWEST_CONVERSATIONS = 30
Counts = NDArray[np.int64] | NDArray[np.float64]
"""A sum by conversation, shape (conversations,) or (seeds, conversations)."""
Weights = NDArray[np.int64]
"""How often each resample drew each conversation, shape (resamples, conversations)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share, a saving or a difference of two, with its 95 % interval. What can't be told is nan."""

    value: float
    low: float
    high: float
    too_small: bool = False
    """Too few conversations stand behind it for the interval to be trusted."""

    @property
    def claimable(self) -> bool:
        """Of a difference: it may be claimed, as its interval excludes zero and enough conversations stand behind it."""
        return not self.too_small and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        warning = "; too small to trust" if self.too_small else ""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f}{warning})"


Share = Interval


def too_small(conversations: int) -> bool:
    """Whether an interval over so many conversations is too small to trust."""
    return conversations < FEWEST_CONVERSATIONS


def resampled(conversations: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """Bootstrap weights by conversation: each row sums to the number of conversations."""
    draws: Weights = np.random.default_rng(seed).multinomial(conversations, [1 / conversations] * conversations, size=resamples)
    return draws


def resampled_ratio(part: Counts, whole: Counts, weights: Weights) -> NDArray[np.float64]:
    """Sum of `part` over sum of `whole` in each resample, averaged over seeds; shape (resamples,). Of nothing it is nan."""
    parts, wholes = weights @ np.atleast_2d(part).T, weights @ np.atleast_2d(whole).T  # (resamples, seeds)
    ratio = np.full(np.broadcast_shapes(parts.shape, wholes.shape), np.nan)
    np.divide(parts, wholes, out=ratio, where=wholes > 0)
    mean: NDArray[np.float64] = ratio.mean(axis=1)
    return mean


def share(part: Counts, whole: Counts, weights: Weights) -> Interval:
    """`part` as a share of `whole`. Of nothing it is nan."""
    return _interval(_ratio(part, whole), resampled_ratio(part, whole, weights), whole)


def ratio_difference(part_a: Counts, whole_a: Counts, part_b: Counts, whole_b: Counts, weights: Weights) -> Interval:
    """How much larger the ratio a is than the ratio b, on the same resamples."""
    values = resampled_ratio(part_a, whole_a, weights) - resampled_ratio(part_b, whole_b, weights)
    return _interval(_ratio(part_a, whole_a) - _ratio(part_b, whole_b), values, whole_a, whole_b)


def saving(tokens: Counts, baseline_tokens: Counts, weights: Weights) -> Interval:
    """`1 - sum(tokens) / sum(baseline_tokens)`: below zero where it costs more than the baseline."""
    return _interval(1 - _ratio(tokens, baseline_tokens), 1 - resampled_ratio(tokens, baseline_tokens, weights), baseline_tokens)


def saving_difference(tokens_a: Counts, tokens_b: Counts, baseline_tokens: Counts, weights: Weights) -> Interval:
    """How much more a saves than b, both against the same baseline, on the same resamples."""
    return ratio_difference(tokens_b, baseline_tokens, tokens_a, baseline_tokens, weights)


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean over training seeds with Student's t interval, one value a seed: what another seed's mean could be, the data being
    as they are. It takes the values as about normal; of one seed the interval is nan. Not to be mixed with the interval by conversation.
    """
    seeds = len(values)
    if seeds < 2:
        return Interval(float(values[0]) if seeds else math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    half = float(stdtrit(seeds - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(seeds)
    return Interval(mean, mean - half, mean + half)


def upper_share(part: Counts, whole: Counts, weights: Weights, level: float = 0.95) -> float:
    """One-sided upper bound of a share, by conversation.

    A resample without any of the whole counts as 1, so that too little data is never a low bound. Where nothing was seen
    in `part` it is 0, which is no bound at all: take an exact one beside it.
    """
    values = resampled_ratio(part, whole, weights)
    return float(np.quantile(np.where(np.isnan(values), 1.0, values), level, method="higher"))


def sign_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of "no difference" from a difference's resamples: twice the smaller share on one side of zero.

    One is added to both counts, so that no finite number of resamples says 0 (Davison & Hinkley 1997, section 4.2). A nan counts
    for both sides. Shapes: differences (resamples,), as `resampled_ratio(a) - resampled_ratio(b)`.
    """
    below, above = np.sum(~(differences > 0)), np.sum(~(differences < 0))
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(differences))))


def holm(p_values: Sequence[float], level: float = 0.05) -> tuple[bool, ...]:
    """Which of several comparisons may be claimed with at most the chance `level` of any false claim (Holm 1979)."""
    claimed = [False] * len(p_values)
    for rank, number in enumerate(np.argsort(p_values, kind="stable")):  # nan comes last and is never claimed
        if not p_values[number] <= level / (len(p_values) - rank):
            break
        claimed[number] = True
    return tuple(claimed)


def _ratio(part: Counts, whole: Counts) -> float:
    """The ratio of the data as they are."""
    once = np.ones((1, np.shape(whole)[-1]), dtype=np.int64)
    return float(resampled_ratio(part, whole, once)[0])


def _interval(value: float, values: NDArray[np.float64], *wholes: Counts) -> Interval:
    """The percentile interval; too small when fewer conversations than it takes have any of a whole."""
    low, high = np.quantile(values, (0.025, 0.975))
    conversations = min(int(np.count_nonzero(whole, axis=-1).min()) for whole in wholes)
    return Interval(value, float(low), float(high), too_small(conversations))
