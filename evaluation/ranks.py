"""Does a score rank answers as people do? AUROC, Spearman's rho and Kendall's tau-b, with intervals by conversation.

Whole conversations are drawn again, and the answers within and between conversations are compared once: AUROC and tau-b are ratios
of sums over pairs of answers, and so of sums over pairs of conversations; a weighted midrank is a sum over conversations. Every
figure of every resample is exact, and two scores on the same resamples are paired. nan is what can't be told.
Sources: Hanley & McNeil 1982 (AUROC is the probability that a Good answer outranks a Bad one, ties a half); Kendall 1945 (tau-b).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.stats import Interval, Weights, resampled, too_small

Floats = NDArray[np.float64]
Resampled = tuple[float, Floats]
"""A figure of the data as they are, and of each resample."""
_Figure = Callable[[Floats], Floats]
"""From weights (resamples, conversations) to values (resamples,)."""


def conversation_numbers(conversations: Sequence[str]) -> NDArray[np.int64]:
    """Each answer's conversation, numbered from 0 in the order in which they come."""
    numbers = {one: number for number, one in enumerate(dict.fromkeys(conversations))}
    return np.array([numbers[one] for one in conversations], dtype=np.int64)


def auroc(scores: Floats, good: NDArray[np.bool_], conversations: NDArray[np.int64], weights: Weights) -> Resampled:
    """The probability that a Good answer scores above a Bad one. Shapes (answers,), weights (resamples, conversations)."""
    pairs = np.subtract.outer(scores[good], scores[~good])
    won = (pairs > 0) + 0.5 * (pairs == 0)
    places = weights.shape[1]
    wins = _summed(won, conversations[good], conversations[~good], places)
    all_pairs = _summed(np.ones_like(won), conversations[good], conversations[~good], places)
    return _both(lambda drawn: _ratio(_pair_sum(wins, drawn), _pair_sum(all_pairs, drawn)), weights)


def kendall(scores: Floats, truth: Floats, conversations: NDArray[np.int64], weights: Weights) -> Resampled:
    """Tau-b: pairs in the same order less those in the other, over the geometric mean of the pairs that each side tells apart."""
    first, second = np.sign(np.subtract.outer(scores, scores)), np.sign(np.subtract.outer(truth, truth))
    agree, one, other = (_summed(values, conversations, conversations, weights.shape[1])
                         for values in (first * second, first**2, second**2))
    return _both(lambda drawn: _ratio(_pair_sum(agree, drawn), np.sqrt(_pair_sum(one, drawn) * _pair_sum(other, drawn))), weights)


def spearman(scores: Floats, truth: Floats, conversations: NDArray[np.int64], weights: Weights) -> Resampled:
    """Pearson's correlation of the two midranks, taken anew in each resample."""
    member = np.eye(weights.shape[1])[conversations]  # (answers, conversations)
    below, above = (_below(values) @ member for values in (scores, truth))

    def rho(drawn: Floats) -> Floats:
        one, other, counts = below @ drawn.T, above @ drawn.T, member @ drawn.T  # (answers, resamples)
        total = counts.sum(axis=0)
        one, other = one - (counts * one).sum(axis=0) / total, other - (counts * other).sum(axis=0) / total
        spread = np.sqrt((counts * one**2).sum(axis=0) * (counts * other**2).sum(axis=0))
        return _ratio((counts * one * other).sum(axis=0), spread)

    return _both(rho, weights)


def interval(found: Resampled, conversations: int) -> Interval:
    """The percentile interval; resamples of which the figure can't be told are left out."""
    value, values = found
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, (0.025, 0.975)) if known.size else (np.nan, np.nan)
    return Interval(value, float(low), float(high), too_small(conversations))


def difference(one: Resampled, other: Resampled, conversations: int) -> Interval:
    """How much higher the one is, on the same resamples."""
    return interval((one[0] - other[0], one[1] - other[1]), conversations)


def drawn(conversations: NDArray[np.int64], *, seed: int = 0) -> Weights:
    """Bootstrap weights for these conversations."""
    return resampled(int(conversations.max()) + 1, seed=seed)


def _below(values: Floats) -> Floats:
    """(answers, answers): 1 where the column's value is below the row's, a half where they tie; row sums are midranks less a half."""
    return np.asarray((values[None, :] < values[:, None]) + 0.5 * (values[None, :] == values[:, None]))


def _summed(pairs: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64], places: int) -> Floats:
    """Sums by pair of conversations, (places, places)."""
    eye = np.eye(places)
    return np.asarray(eye[rows].T @ pairs @ eye[columns])


def _pair_sum(sums: Floats, drawn: Floats) -> Floats:
    return np.asarray(np.einsum("ri,ij,rj->r", drawn, sums, drawn, optimize=True))


def _both(figure: _Figure, weights: Weights) -> Resampled:
    return float(figure(np.ones((1, weights.shape[1])))[0]), figure(weights.astype(np.float64))


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 1e-9)  # of what is constant, rounding leaves a little
    return ratio
