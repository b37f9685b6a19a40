"""Figures with their 95 % interval, from sums by block: whole conversations (or blocks of them) are drawn again.

A statistic is a function f of summed columns S = sum_i x_i, so the same one serves the data and every resample. The interval is the
bootstrap-t (Efron & Tibshirani 1993, section 12.5): with t = (f(S*) - f(S)) / se(S*) of the resamples, it reaches from
f(S) - t(97.5 %) se(S) to f(S) - t(2.5 %) se(S), where se^2 = g' C g n / (n - 1), C = sum_i x_i x_i' - S S' / n, and g is the gradient of
f at S. The percentile interval and BCa cover too seldom where few conversations cost much; this one costs the second moments besides.
Leaves out which turns are summed (`sums.py`), and exact bounds (`kb/bounds.py`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from evaluation.stats import RESAMPLES, too_small
from report.figures import Figure, Verdict

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From sums, shape (..., columns), to the statistic, shape (...); nan where it is of nothing."""
CHUNK = 500
"""Resamples whose weights are held as floats at once."""
COLUMNS = 400
"""Columns that are drawn at once."""
FEWEST_DRAWN = 0.9
"""Share of the resamples in which a statistic must be of something, and vary, for its interval to be given."""
NOISE = 1e-9
"""What rounding leaves of a difference, at most, as a share of its terms."""
STEP = 1e-4
"""Of the gradient, as a share of a column's size."""


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each resample draws each of `units` blocks: as many draws as there are blocks, each block as likely as another."""

    units: int
    resamples: int = RESAMPLES
    seed: int = 0

    def sums(self, values: Floats) -> Floats:
        """The summed columns in each resample. Shapes: values (units, columns); returns (resamples, columns)."""
        if len(values) != self.units:
            raise ValueError(f"expected a row for each of {self.units} blocks, got {len(values)}")
        if not self.units:
            return np.zeros((self.resamples, values.shape[1]))
        weights = _weights(self.units, self.resamples, self.seed)
        parts = [weights[start : start + CHUNK].astype(np.float64) @ values for start in range(0, self.resamples, CHUNK)]
        return np.concatenate(parts)


@lru_cache(maxsize=4)
def _weights(units: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """Shape (resamples, units). A block that is drawn 256 times where once is expected would be miscounted, and never is."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, units), dtype=np.uint8)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        which = generator.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        drawn[start : start + size] = np.bincount(which.ravel(), minlength=size * units).reshape(size, units)
    return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A figure that is asked for."""

    values: Floats
    """The sums of each block, shape (units, columns)."""
    statistic: Statistic
    conversations: int | None = None
    """How many stand behind it, to say whether they are enough; None: the blocks with any sum that isn't zero."""
    lowest: float = -math.inf
    highest: float = math.inf
    """What the statistic can be: its interval reaches no further."""


def estimate(values: Floats, statistic: Statistic, draws: Draws, *, conversations: int | None = None, lowest: float = -math.inf,
             highest: float = math.inf) -> Figure:
    """The statistic of all blocks together, with its interval and verdict; its value is None where it is of nothing. See `Asked`."""
    return estimates([Asked(values, statistic, conversations, lowest, highest)], draws)[0]


def estimates(asked: Sequence[Asked], draws: Draws) -> tuple[Figure, ...]:
    """Several figures, from the same resamples."""
    found: list[Figure] = []
    waiting: list[tuple[Asked, Floats]] = []
    for number, one in enumerate(asked):
        waiting.append((one, _with_moments(one.values)))
        if number == len(asked) - 1 or sum(moments.shape[1] for _, moments in waiting) >= COLUMNS:
            drawn = np.split(draws.sums(np.concatenate([moments for _, moments in waiting], axis=1)),
                             np.cumsum([moments.shape[1] for _, moments in waiting])[:-1], axis=1)
            found += [_figure(one, moments, part) for (one, moments), part in zip(waiting, drawn, strict=True)]
            waiting = []
    return tuple(found)


def _figure(asked: Asked, moments: Floats, drawn: Floats) -> Figure:
    units, columns = asked.values.shape
    total = moments.sum(axis=0)
    value = float(asked.statistic(total[:columns]))
    if not math.isfinite(value):
        return Figure(None)
    steps = STEP * (np.abs(total[:columns]) + np.sqrt((asked.values**2).sum(axis=0)))
    resamples = asked.statistic(drawn[:, :columns])
    low: float | None = value
    high: float | None = value
    if units < 2:
        low = high = None
    elif not np.all(np.abs(resamples - value) <= NOISE * _size(total[:columns], asked.statistic, steps)):  # else all are alike
        error = float(_standard_error(total, asked.statistic, steps, units))
        low, high = bootstrap_t(value, error, resamples, _standard_error(drawn, asked.statistic, steps, units))
    if low is not None and high is not None:
        low, high = max(low, asked.lowest), min(high, asked.highest)
    there = int(np.any(asked.values != 0, axis=1).sum())
    return Figure(value, low, high, verdict_of(low, high, there if asked.conversations is None else asked.conversations))


def bootstrap_t(value: float, error: float, resamples: Floats, errors: Floats, level: float = 0.95) -> tuple[float | None, float | None]:
    """The interval by studentised resamples; (None, None) where too few of them are of anything. Shapes: resamples, errors (R,)."""
    known = np.isfinite(resamples) & np.isfinite(errors) & (errors > 0)
    if error == 0 or known.sum() < FEWEST_DRAWN * len(resamples):
        return None, None
    studentised = (resamples[known] - value) / errors[known]
    tail = (1 - level) / 2
    below, above = np.quantile(studentised, (tail, 1 - tail))
    return float(value - above * error), float(value - below * error)


def _with_moments(values: Floats) -> Floats:
    """The columns, and then the products of each pair of them."""
    return np.stack([*values.T, *(values[:, i] * values[:, j] for i, j in _pairs(values.shape[1]))], axis=1)


def _pairs(columns: int) -> Iterator[tuple[int, int]]:
    return combinations_with_replacement(range(columns), 2)


def _standard_error(moments: Floats, statistic: Statistic, steps: Floats, units: int) -> Floats:
    """Of the statistic of each row of sums and summed products, by linearising it. Shapes: moments (..., columns), steps as the values'."""
    columns = len(steps)
    sums = moments[..., :columns]
    gradient = [_slope(statistic, sums, column, steps[column]) for column in range(columns)]
    variance = np.zeros(sums.shape[:-1])
    for place, (i, j) in enumerate(_pairs(columns)):
        covariance = moments[..., columns + place] - sums[..., i] * sums[..., j] / units
        variance += (1 if i == j else 2) * gradient[i] * gradient[j] * covariance
    error: Floats = np.sqrt(np.maximum(variance, 0.0) * units / max(units - 1, 1))
    return error


def _size(sums: Floats, statistic: Statistic, steps: Floats) -> float:
    """Of the terms that a statistic is made of, beside which what rounding leaves of their difference is nothing. Shapes (columns,)."""
    return float(sum(abs(_slope(statistic, sums, column, step) * sums[column]) for column, step in enumerate(steps)))


def _slope(statistic: Statistic, sums: Floats, column: int, step: float) -> Floats:
    """How fast the statistic grows with one of the sums."""
    if step == 0:  # a column of nothing
        return np.zeros(sums.shape[:-1])
    move = np.zeros(sums.shape[-1])
    move[column] = step
    return (statistic(sums + move) - statistic(sums - move)) / (2 * step)


def as_rate(figure: Figure) -> Figure:
    """The same of a rate, which is neither better nor worse than nothing: all that its verdict may say is that it is of too few."""
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (figure.low, figure.high))
    return Figure(figure.value, low, high, "too_small" if figure.verdict == "too_small" else "unknown")


def scaled(figure: Figure, factor: float) -> Figure:
    """The figure times a number above zero, with its interval."""
    value, low, high = (None if part is None else part * factor for part in (figure.value, figure.low, figure.high))
    return Figure(value, low, high, figure.verdict)


def verdict_of(low: float | None, high: float | None, conversations: int) -> Verdict:
    """What an interval says of a figure against nothing gained."""
    if too_small(conversations):
        return "too_small"
    if low is None or high is None:
        return "unknown"
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def ratio(part: int, whole: int) -> Statistic:
    """Column `part` over column `whole`."""
    return lambda sums: _divided(sums[..., part], sums[..., whole])


def saved_share(cost: int, baseline: int) -> Statistic:
    """One less the ratio of what was paid to what the baseline would have cost."""
    return lambda sums: _divided(sums[..., baseline] - sums[..., cost], sums[..., baseline])


def total_of(column: int) -> Statistic:
    """The sum of a column over as many conversations."""
    return lambda sums: sums[..., column]


def difference(a: Statistic, b: Statistic) -> Statistic:
    """How much larger a is than b."""
    return lambda sums: a(sums) - b(sums)


def linear(weights: Sequence[float]) -> Statistic:
    """The sum of the columns, each times its weight."""
    factors = np.asarray(weights, dtype=np.float64)
    return lambda sums: sums @ factors


def _divided(part: Floats, whole: Floats) -> Floats:
    """The ratio, nan where the whole isn't above zero."""
    out = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return out
