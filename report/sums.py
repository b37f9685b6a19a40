"""Which turns a report is about, and their sums: by block, by price and, where asked for, by group.

Tokens are summed as whole numbers and priced afterwards, so that the same turns give the same figures to the last digit however the
database orders its work. Leaves out what the sums mean (`savings.py`), prices (`prices.py`) and intervals (`intervals.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chat.types import Price
from evaluation.stats import RESAMPLES
from report.errors import ReportOptionError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SERVED = "NOT background AND NOT refused AND input_tokens IS NOT NULL AND output_tokens IS NOT NULL"
"""Turns whose cost is known, the holdback's among them."""
COUNTED = f"{SERVED} AND NOT holdback"
"""Turns that a saving is computed from."""
CACHED = "least(coalesce(cached_input_tokens, 0), input_tokens)"


class Rows(Protocol):
    """What queries are asked of: `source.Snapshot`."""

    def rows(self, sql: str, params: tuple[object, ...] = ...) -> list[tuple[Any, ...]]: ...

    def arrays(self, sql: str, params: tuple[object, ...] = ...) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report is about, and what it takes as given."""

    since: datetime | None = None
    """The first instant; None: from the first turn on."""
    until: datetime | None = None
    """Exclusive; None: to the last turn."""
    policy: str | None = None
    """Only turns of this `policy_version`; static answers are no policy's, and are left out with it."""
    owner: str | None = None
    category: str | None = None
    """Of the FAQ that was found first."""
    currency: str | None = None
    """None: the one that most tokens are priced in."""
    prices: Mapping[str, Price] | None = None
    """Model to price, in the place of the prices at the time of the turn; None: those."""
    price_as: str | None = None
    """Price every turn as if this model had answered."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Units of the report's currency for one of another."""
    hour_price: float | None = None
    """Of an hour of computing, in the report's currency; None: not told."""
    turns_a_month: int | None = None
    """Of the forecast; None: no forecast."""
    judge: str | None = None
    """Version of the judge whose verdicts count; None: the one with most verdicts."""
    margin: float = 0.01
    """Loss of the Good-rate that counts as kept."""
    budget: float | None = None
    """Share of skips that may do harm; None: not told."""
    prefix_tokens: int | None = None
    """Of all FAQs in one prompt; None: not told."""
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and value.utcoffset() is None:
                raise ReportOptionError(f"{name}: expected a time with its zone, got {value.isoformat()}; add +00:00 for UTC")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ReportOptionError(f"until: expected a time after {self.since.isoformat()}, got {self.until.isoformat()}; swap them")
        if bad := [code for code, rate in self.rates.items() if not 0 < rate < math.inf]:
            raise ReportOptionError(f"rates: expected a number above zero for {bad[0]}, got {self.rates[bad[0]]}")
        if self.hour_price is not None and not 0 <= self.hour_price < math.inf:
            raise ReportOptionError(f"hour_price: expected a price of zero or more, got {self.hour_price}")
        if self.turns_a_month is not None and self.turns_a_month < 1:
            raise ReportOptionError(f"turns_a_month: expected 1 or more, got {self.turns_a_month}")
        if self.resamples < 100:
            raise ReportOptionError(f"resamples: expected 100 or more, got {self.resamples}; 10,000 is the rule")


@dataclass(frozen=True, slots=True)
class Scoped:
    """A condition of SQL with its parameters."""

    where: str
    params: tuple[object, ...]

    def and_(self, condition: str) -> "Scoped":
        """The same with one more condition, which takes no parameters."""
        return Scoped(f"{self.where} AND {condition}", self.params)


def scope(options: ReportOptions, *, any_policy: bool = False) -> Scoped:
    """The turns that are asked for, counted or not; `any_policy` leaves out that filter."""
    wanted: list[tuple[str, object]] = []
    if options.since is not None:
        wanted.append(("created_at >= ?", options.since.astimezone(UTC).replace(tzinfo=None)))
    if options.until is not None:
        wanted.append(("created_at < ?", options.until.astimezone(UTC).replace(tzinfo=None)))
    if options.policy is not None and not any_policy:
        wanted.append(("policy_version = ?", options.policy))
    if options.owner is not None:
        wanted.append(("owner = ?", options.owner))
    if options.category is not None:
        wanted.append(("category = ?", options.category))
    return Scoped(" AND ".join(["true", *(condition for condition, _ in wanted)]), tuple(value for _, value in wanted))


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Sums of turns that are alike in block, price and group. Shapes (cells,)."""

    units: int
    """How many blocks there are; `unit` numbers them from 0."""
    unit: Ints
    block: Ints
    """The block's own number."""
    price_key: NDArray[np.uint64]
    group: NDArray[Any]
    """Empty text where none was asked for."""
    sums: Mapping[str, Floats]
    """By the name of the column: whole numbers below 2**53."""

    def by_unit(self, *columns: Floats, only: NDArray[np.bool_] | None = None) -> Floats:
        """Columns of cells, summed by block. Shapes: columns (cells,); returns (units, columns)."""
        keep = np.ones(len(self.unit), dtype=bool) if only is None else only
        summed = [np.bincount(self.unit[keep], column[keep], self.units) for column in columns]
        return np.stack(summed, axis=1) if summed else np.zeros((self.units, 0))

    def __getitem__(self, name: str) -> Floats:
        return self.sums[name]


def cells(rows: Rows, scoped: Scoped, columns: Mapping[str, str], *, group: str | None = None, blocks: Ints | None = None,
          source: str = "turns") -> Cells:
    """The sums of the columns over the turns of a scope.

    `columns` is name to an SQL expression of whole numbers, NULL counting as nothing; `group` is one of text. `blocks` are those that
    units are numbered by, in order; None: those that are found. Raises: ReportError.
    """
    wanted = ", ".join(f"CAST(coalesce(sum({sql}), 0) AS DOUBLE) AS {name}" for name, sql in columns.items())
    label = f"CAST({group} AS VARCHAR)" if group else "''"
    found = rows.arrays(f"SELECT block, price_key, {label} AS label, {wanted} FROM {source} WHERE {scoped.where} GROUP BY ALL "
                        "ORDER BY label, block, price_key", scoped.params)
    block = found["block"].astype(np.int64)
    known = np.unique(block) if blocks is None else blocks
    if blocks is not None:
        there = np.isin(block, known)
        found = {name: column[there] for name, column in found.items()}
        block = block[there]
    return Cells(len(known), np.searchsorted(known, block).astype(np.int64), block, found["price_key"].astype(np.uint64), found["label"],
                 {name: found[name].astype(np.float64) for name in columns})


def token_columns() -> dict[str, str]:
    """Turns, their actions, and what they cost, as columns for `cells`."""
    return {
        "turns": "1", "skips": "CAST(action = 'NO_FETCH' AS INTEGER)", "statics": "CAST(action = 'STATIC' AS INTEGER)",
        "input": "input_tokens", "cached": CACHED, "output": "output_tokens",
        "compute_us": "CAST(round(1000 * compute_ms) AS BIGINT)",
    }


def baseline_columns(name: str) -> dict[str, str]:
    """What turns cost and would have cost under a baseline, of those for which that is logged, as columns for `cells`."""
    there = f"cf_{name}_in IS NOT NULL AND cf_{name}_out IS NOT NULL"
    own = {"turns": "1", "input": "input_tokens", "cached": CACHED, "output": "output_tokens",
           "cf_input": f"cf_{name}_in", "cf_cached": f"least({CACHED}, cf_{name}_in)", "cf_output": f"cf_{name}_out"}
    return {f"{name}_{column}": f"CASE WHEN {there} THEN {sql} END" for column, sql in own.items()}
