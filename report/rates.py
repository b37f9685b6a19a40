"""Intervals of shares that are near 0 or 1, such as Good answers and harmful skips, of turns that depend on each other by conversation.

Wilson's interval (1927) with as many turns as count: n = p (1 - p) / v, where v is the variance of the share between conversations
(Kish's effective size), and t in the place of z. Of two shares it is Newcombe's (1998, method 10). Both have a width where every answer
was Good, and cover a planted truth where resampling doesn't: with few Bad answers many resamples hold none (docs/results.md). So no
conversation is drawn again. Leaves out one-sided bounds of harm (`evaluation/certify.py`).
"""

import math

import numpy as np
from scipy.special import stdtrit

from evaluation.stats import too_small
from report.figures import Figure
from report.intervals import Floats, verdict_of

LEVEL = 0.95


def rate(part: Floats, whole: Floats) -> Figure:
    """`part` as a share of `whole`, each summed by conversation or block, shapes (units,). None of nothing, and no interval of one unit."""
    total = float(whole.sum())
    if not total:
        return Figure(None)
    value, units = float(part.sum()) / total, int(np.count_nonzero(whole))
    if units < 2:
        return Figure(value, verdict="too_small")
    size, t = effective_size(part, whole), float(stdtrit(units - 1, (1 + LEVEL) / 2))
    middle = (value + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * math.sqrt(value * (1 - value) / size + t**2 / (4 * size**2))
    low, high = min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half))
    return Figure(value, low, high, "too_small" if too_small(units) else "unknown")


def rate_difference(part_a: Floats, whole_a: Floats, part_b: Floats, whole_b: Floats) -> Figure:
    """How much larger the share a is than the share b, of different conversations. Shapes (units,).

    From a - b - sqrt((a - low_a)^2 + (high_b - b)^2) to a - b + sqrt((high_a - a)^2 + (b - low_b)^2).
    """
    a, b = rate(part_a, whole_a), rate(part_b, whole_b)
    if a.value is None or b.value is None:
        return Figure(None)
    value, fewest = a.value - b.value, min(int(np.count_nonzero(whole_a)), int(np.count_nonzero(whole_b)))
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Figure(value, verdict="too_small")
    low, high = value - math.hypot(a.value - a.low, b.high - b.value), value + math.hypot(a.high - a.value, b.value - b.low)
    return Figure(value, max(-1.0, low), min(1.0, high), verdict_of(low, high, fewest))


def effective_size(part: Floats, whole: Floats) -> float:
    """How many independent turns say as much about the share: at most those that there are; as many as units where all are alike.

    Shapes (units,). v = sum (part - p whole)^2 / (sum whole)^2 * units / (units - 1), over the units with any turn.
    """
    units, total = int(np.count_nonzero(whole)), float(whole.sum())
    p = float(part.sum()) / total
    if p in (0.0, 1.0) or units < 2:
        return float(units)
    variance = float(((part - p * whole) ** 2).sum()) / total**2 * units / (units - 1)
    return total if not variance else min(total, max(1.0, p * (1 - p) / variance))
