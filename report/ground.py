"""What every part of a report stands on: the turns that count with their sums, prices, resamples and the headline baseline.

Leaves out the figures that are made of it (`savings.py`, `money.py`, `cuts.py`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from report.figures import Scope
from report.intervals import Draws
from report.prices import Pricing, pricing
from report.sums import COUNTED, Cells, Floats, ReportOptions, Rows, Scoped, baseline_columns, cells, scope, token_columns

SHOWN_BASELINES = ("frugal", "paper", "always_fetch")
HEADLINE_SHARE = 0.5
"""Share of the counted turns whose cost under `frugal` must be logged for the headline to be against it."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The turns that count, summed."""

    options: ReportOptions
    scoped: Scoped
    """Those turns, as a condition."""
    pricing: Pricing
    cells: Cells
    """With the columns of `token_columns` and those of the shown baselines."""
    draws: Draws
    headline: str
    """frugal or always_fetch."""
    scope: Scope
    by_blocks: bool
    """Blocks hold several conversations."""
    clock_went_back: int
    """Conversations whose last turn bears an earlier time than another of theirs."""
    degraded: int
    counted_here: int
    """Turns whose tokens no server counted."""

    def tokens(self, baseline: str) -> tuple[Floats, Floats]:
        """What each cell cost, and would have cost under a baseline, over the turns that it is logged for."""
        c = self.cells
        return c[f"{baseline}_input"] + c[f"{baseline}_output"], c[f"{baseline}_cf_input"] + c[f"{baseline}_cf_output"]

    def money(self, baseline: str) -> tuple[Floats, Floats]:
        """The same in money, 0 where no price is known."""
        c = self.cells
        return (
            self.pricing.money(c, c[f"{baseline}_input"] - c[f"{baseline}_cached"], c[f"{baseline}_cached"], c[f"{baseline}_output"]),
            self.pricing.money(c, c[f"{baseline}_cf_input"] - c[f"{baseline}_cf_cached"], c[f"{baseline}_cf_cached"],
                               c[f"{baseline}_cf_output"]),
        )

    def turns(self, baseline: str) -> int:
        """How many turns a baseline is logged for."""
        return int(self.cells[f"{baseline}_turns"].sum())


def ground(rows: Rows, options: ReportOptions) -> Ground:
    """The turns that are asked for, summed. Raises: ReportError."""
    scoped = scope(options).and_(COUNTED)
    columns = token_columns()
    for name in SHOWN_BASELINES:
        columns |= baseline_columns(name)
    found = cells(rows, scoped, columns)
    turns = int(found["turns"].sum())
    conversations, back = _conversations(rows, scoped)
    first, last, degraded, counted_here = rows.rows(
        "SELECT min(created_at), max(created_at), count(*) FILTER (degraded), count(*) FILTER (usage_source = 'local') "
        f"FROM turns WHERE {scoped.where}", scoped.params)[0]
    described = Scope(
        options.since, options.until, _utc(first), _utc(last), options.policy, options.owner, options.category, conversations, turns,
        _left_out(rows, options),
    )
    frugal = float(found["frugal_turns"].sum())
    return Ground(
        options, scoped, pricing(rows, options), found, Draws(found.units, options.resamples, options.seed),
        "frugal" if frugal and frugal >= HEADLINE_SHARE * turns else "always_fetch",
        described, found.units < conversations, back, int(degraded), int(counted_here),
    )


def stacked(ground: Ground, *columns: Floats) -> Floats:
    """Columns of cells by block, shape (units, columns)."""
    return ground.cells.by_unit(*columns) if ground.cells.units else np.zeros((0, len(columns)))


def _conversations(rows: Rows, scoped: Scoped) -> tuple[int, int]:
    """How many conversations there are, and in how many the clock went back."""
    found = rows.rows("SELECT count(*), count(*) FILTER (back) FROM (SELECT arg_max(created_at, position) < max(created_at) AS back "
                      f"FROM turns WHERE {scoped.where} GROUP BY conversation)", scoped.params)[0]
    return int(found[0]), int(found[1])


def _left_out(rows: Rows, options: ReportOptions) -> dict[str, int]:
    """Why turns that are asked for don't count, each for the first reason that holds."""
    scoped = scope(options)
    found = rows.rows(
        "SELECT CASE WHEN background THEN 'background' WHEN refused THEN 'refused' WHEN holdback THEN 'holdback' "
        f"ELSE 'no_usage' END AS why, count(*) FROM turns WHERE {scoped.where} AND NOT coalesce({COUNTED}, false) "
        "GROUP BY why ORDER BY why", scoped.params)
    left_out = {str(why): int(count) for why, count in found}
    everything = options.owner is None and options.policy is None and options.category is None
    imported = int(rows.rows("SELECT coalesce(sum(turns), 0) FROM imported")[0][0]) if everything else 0
    return left_out | ({"imported": imported} if imported else {})


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
