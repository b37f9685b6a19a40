"""Whether a reward means what it says: accuracy, calibration, and how far length decides. Pure functions over arrays.

A pair's logit is r(chosen) - r(rejected), and sigmoid(logit) the probability that people prefer the chosen one. Leaves out intervals
(`evaluation/stats.py`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

Floats = NDArray[np.float64]
COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures that are tried: few or separable dev pairs would have it at nothing."""
BINS = 5
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs of like confidence."""

    confidence: float
    """Mean probability of the side that the model prefers."""
    accuracy: float
    pairs: int


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """How a model does on pairs that it hasn't seen."""

    pairs: int
    accuracy: float
    """Share of pairs preferred as people did; a tie counts half."""
    log_loss: float
    """In nats; log 2 = 0.693 knows nothing."""
    ece: float
    """Mean distance of confidence and accuracy over the bins, weighted by pairs."""
    bins: tuple[Bin, ...]
    accuracy_longer: float
    """Where people preferred the longer answer, in words; nan: there is no such pair."""
    accuracy_shorter: float
    length_correlation: float
    """Pearson's, of the pairs' logits with the differences of log(1 + words): how far length decides; 0: not at all."""
    longer_preferred: float
    """Share of pairs whose longer answer the model prefers; people's is beside it."""
    longer_preferred_by_people: float


def accuracy(logits: Floats) -> float:
    """Share above zero; a tie counts half. nan of nothing."""
    return float(np.mean(correct(logits))) if logits.size else float("nan")


def correct(logits: Floats) -> Floats:
    """1 where the chosen answer is ahead, 0.5 at a tie, else 0."""
    return np.where(logits > 0, 1.0, np.where(logits == 0, 0.5, 0.0))


def measures(logits: Floats, longer: Floats) -> PairMeasures:
    """Of pairs, shapes (B,). `longer`: log(1 + words) of the chosen less that of the rejected answer."""
    bins = reliability(logits)
    unequal = longer != 0
    side = np.sign(longer[unequal])
    return PairMeasures(
        len(logits), accuracy(logits), float(np.mean(np.logaddexp(0, -logits))) if logits.size else float("nan"), ece(bins), bins,
        accuracy(logits[longer > 0]), accuracy(logits[longer < 0]), _correlation(logits, longer),
        accuracy(logits[unequal] * side), accuracy(side))


def reliability(logits: Floats, bins: int = BINS) -> tuple[Bin, ...]:
    """Pairs by confidence, from 0.5 to 1 in steps of one width; empty bins are left out."""
    confidence = expit(np.abs(logits))
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(np.int64), bins - 1)
    right = correct(logits)
    return tuple(Bin(float(confidence[place == n].mean()), float(right[place == n].mean()), int(np.sum(place == n)))
                 for n in range(bins) if np.any(place == n))


def ece(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error (Naeini et al. 2015)."""
    pairs = sum(one.pairs for one in bins)
    return sum(one.pairs * abs(one.confidence - one.accuracy) for one in bins) / pairs if pairs else float("nan")


def fit_temperature(logits: Floats) -> float:
    """The T for which `-log sigmoid(logit / T)` is least over pairs (Guo et al. 2017), within [0.05, 20]."""
    found = minimize_scalar(lambda log_t: np.mean(np.logaddexp(0, -logits * np.exp(-log_t))),
                            bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def platt(rewards: Floats, good: Floats) -> tuple[float, float]:
    """Temperature and bias for which `P(good) = sigmoid(r / T + b)` is most likely (Platt 1999), T within [0.05, 20]."""
    def loss(x: Floats) -> float:
        logit = rewards * np.exp(-x[0]) + x[1]
        return float(np.mean(np.logaddexp(0, logit) - good * logit) + RIDGE * x[1] ** 2)

    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(np.log(COLDEST), np.log(HOTTEST)), (-20.0, 20.0)])
    return float(np.exp(found.x[0])), float(found.x[1])


def _correlation(a: Floats, b: Floats) -> float:
    if len(a) < 2 or a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
