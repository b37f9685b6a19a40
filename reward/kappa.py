"""Agreement beyond chance: Cohen's kappa, plain and weighted, and Krippendorff's alpha, with intervals by conversation.

All of them are functions of a table of counts that adds up over conversations, so a resample of conversations is a weighted sum of
their tables, and no case is gone through again. Tables have shape (..., C, C): one side's answer by row, the other's by column.
Agreement that can't be told from the data (both sides say one and the same thing throughout) is nan, never 0 or 1.
Sources: Cohen 1960 (kappa), Cohen 1968 (weights), Krippendorff 2011 (alpha, Computing Krippendorff's Alpha-Reliability).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kb.bounds import clopper_pearson_upper

RESAMPLES = 10_000
Tables = NDArray[np.float64]
"""Counts, shape (..., C, C)."""
Scale = Literal["nominal", "ordinal", "interval"]
"""Of categories 0, 1, 2…: merely different, or the further apart the more they are. `ordinal` weighs by how many lie between."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; nan is what can't be told."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "can't be told" if math.isnan(self.value) else f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def cohen_kappa(tables: Tables) -> NDArray[np.float64]:
    """(observed - expected) / (1 - expected) agreement of two sides; shape of the tables without their last two axes."""
    return weighted_kappa(tables, 1.0 - np.eye(np.shape(tables)[-1]))


def weighted_kappa(tables: Tables, disagreement: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - observed / expected disagreement, where `disagreement[i, j]` (C, C) is what answers i and j cost; 0 where i is j."""
    tables = np.asarray(tables, dtype=np.float64)
    total = tables.sum(axis=(-2, -1))
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    observed = (tables * disagreement).sum(axis=(-2, -1)) * total
    expected = np.einsum("...i,ij,...j->...", rows, disagreement, columns)
    return _one_less(observed, expected)


def powers(categories: int, exponent: float) -> NDArray[np.float64]:
    """The disagreement |i - j| ** exponent: 1 for linear weights, 2 for quadratic ones."""
    places = np.arange(categories, dtype=np.float64)
    return np.asarray(np.abs(places[:, None] - places[None, :]) ** exponent)


def krippendorff_alpha(coincidences: Tables, scale: Scale = "nominal") -> NDArray[np.float64]:
    """1 - observed / expected disagreement of any number of raters, from `coincidences` summed over units; gaps are no matter."""
    tables = np.asarray(coincidences, dtype=np.float64)
    sums = tables.sum(axis=-1)
    distance = _distance(sums, scale)
    observed = (tables * distance).sum(axis=(-2, -1)) * (sums.sum(axis=-1) - 1.0)
    expected = np.einsum("...i,...ij,...j->...", sums, distance, sums)
    return _one_less(observed, expected)


def coincidences(units: Sequence[Sequence[int]], categories: int) -> Tables:
    """How often each pair of answers met on one unit, (C, C): each unit's pairs weighted by 1 / (raters - 1). One rater says nothing."""
    table = np.zeros((categories, categories))
    for unit in units:
        if len(unit) > 1:
            counts = np.bincount(unit, minlength=categories).astype(np.float64)
            table += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return table


def by_conversation(figure: Callable[[Tables], NDArray[np.float64]], tables: Tables, *, resamples: int = RESAMPLES,
                    seed: int = 0) -> Estimate:
    """The figure of all conversations' tables together, with its percentile interval over resamples of whole conversations.

    A resample of which the figure can't be told counts as 0: no agreement beyond chance was seen. Shapes: tables
    (conversations, C, C), also (conversations, R, C, C) for a figure that takes R tables at once.
    """
    conversations = len(tables)
    value = float(figure(tables.sum(axis=0)))
    if conversations == 0 or math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan)
    draws = np.random.default_rng(seed).multinomial(conversations, [1 / conversations] * conversations, size=resamples)
    low, high = np.quantile(np.nan_to_num(figure(np.tensordot(draws, tables, axes=1)), nan=0.0), (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def exact_share(part: int, whole: int) -> Estimate:
    """`part` of `whole` with its exact two-sided 95 % interval, as if all were independent (Clopper & Pearson 1934)."""
    if whole == 0:
        return Estimate(math.nan, 0.0, 1.0)
    low = 1.0 - clopper_pearson_upper(whole - part, whole, 0.975)
    return Estimate(part / whole, low, clopper_pearson_upper(part, whole, 0.975))


def _distance(sums: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    categories = sums.shape[-1]
    if scale == "nominal":
        return 1.0 - np.eye(categories)
    if scale == "interval":
        return powers(categories, 2.0)
    between = np.cumsum(sums, axis=-1) - sums / 2.0  # of two categories, those in between and half of each
    return np.asarray((between[..., :, None] - between[..., None, :]) ** 2)


def _one_less(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - observed / expected; nan where nothing was to be expected."""
    ratio = np.full(np.shape(expected), np.nan)
    np.divide(observed, expected, out=ratio, where=expected > 0)
    return 1.0 - ratio
