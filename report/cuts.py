"""The saving cut by day, category, policy version and owner.

The rows of a cut together are the turns that count. Leaves out filters (`sums.scope`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from report.figures import Cut, Figure
from report.ground import Ground
from report.intervals import Asked, Draws, estimates, saved_share
from report.rates import rate
from report.sums import CACHED, Cells, Floats, Ints, Rows, Scoped, cells

By = Literal["day", "category", "policy", "owner"]
MOST_DAYS = 92
"""More days than that are shown as months."""
MOST_GROUPS = 40
"""The groups with fewest turns beyond that are one, `OTHERS`."""
MOST_UNITS = 1024
"""Blocks that the intervals of a cut draw: more would cost much and change little."""
OTHERS = "(others)"
UNNAMED = "(unknown)"


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Cells with the row of their group."""

    names: tuple[str, ...]
    number: Ints


def cut(rows: Rows, ground: Ground, by: By, *, judge: str | None) -> tuple[Cut, ...]:
    """One row for each group: days in order, else the group with most turns first."""
    if not ground.cells.units:
        return ()
    blocks = np.unique(ground.cells.block)
    found = cells(rows, ground.scoped, _columns(ground.headline), group=_label(by, ground), blocks=blocks)
    good = _verdicts(rows, ground, _label(by, ground), blocks, judge)
    groups = _grouped(found, in_order=by == "day")
    counts = _conversations(rows, ground, _label(by, ground))
    c, number, few = found, groups.number, _fewer(ground)
    paid, would_pay = c["h_input"] + c["h_output"], c["h_cf_input"] + c["h_cf_output"]
    savings = _spread(paid, would_pay, number, c, len(groups.names), few.units)
    good_ones = _spread(good["good"], good["judged"], _numbers(groups, good, found), good, len(groups.names), good.units)
    figures = estimates([Asked(values, saved_share(0, 1), highest=1.0) for values in savings], few)
    rates = [rate(values[:, 0], values[:, 1]) for values in good_ones]
    return tuple(_row(ground, found, groups, number, counts, figures[number], rates[number]) for number in range(len(groups.names)))


def _fewer(ground: Ground) -> Draws:
    """Resamples for many figures at once: of at most `MOST_UNITS` blocks."""
    return Draws(min(ground.draws.units, MOST_UNITS), ground.draws.resamples, ground.draws.seed)


def _columns(headline: str) -> Mapping[str, str]:
    there = f"cf_{headline}_in IS NOT NULL AND cf_{headline}_out IS NOT NULL"
    own = {"input": "input_tokens", "cached": CACHED, "output": "output_tokens", "cf_input": f"cf_{headline}_in",
           "cf_cached": f"least({CACHED}, cf_{headline}_in)", "cf_output": f"cf_{headline}_out", "turns": "1"}
    return {"turns": "1", "skips": "CAST(action = 'NO_FETCH' AS INTEGER)", "statics": "CAST(action = 'STATIC' AS INTEGER)"} | {
        f"h_{name}": f"CASE WHEN {there} THEN {sql} END" for name, sql in own.items()}


def _label(by: By, ground: Ground) -> str:
    """The SQL of a group's name."""
    if by != "day":
        return f"coalesce({'policy_version' if by == 'policy' else by}, '{UNNAMED}')"
    first, last = ground.scope.first, ground.scope.last
    days = (last.date() - first.date()).days + 1 if first is not None and last is not None else 0
    return "strftime(day, '%Y-%m')" if days > MOST_DAYS else "strftime(day, '%Y-%m-%d')"


def _grouped(found: Cells, *, in_order: bool) -> _Groups:
    names, number = np.unique(found.group.astype(str), return_inverse=True)
    if in_order:
        return _Groups(tuple(names.tolist()), number.astype(np.int64))
    turns = np.bincount(number, found["turns"])
    order = sorted(range(len(names)), key=lambda i: (-turns[i], str(names[i])))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    shown = [str(names[i]) for i in order]
    if len(shown) > MOST_GROUPS:
        place, shown = np.minimum(place, MOST_GROUPS - 1), [*shown[: MOST_GROUPS - 1], OTHERS]
    return _Groups(tuple(shown), place[number])


def _numbers(groups: _Groups, cells: Cells, found: Cells) -> Ints:
    """The group of other cells, whose groups are among those that were found."""
    known = dict(zip(found.group.astype(str).tolist(), groups.number.tolist(), strict=True))
    return np.array([known[name] for name in cells.group.astype(str)], dtype=np.int64)


def _spread(a: Floats, b: Floats, number: Ints, cells: Cells, groups: int, units: int) -> list[Floats]:
    """Both columns of each group by block, shape (units, 2) each."""
    place = number * units + cells.unit % units
    wide = [np.bincount(place, column, groups * units).reshape(groups, units) for column in (a, b)]
    return list(np.stack(wide, axis=-1))


def _verdicts(rows: Rows, ground: Ground, label: str, blocks: Ints, judge: str | None) -> Cells:
    """Good ones, and how many were given, on the answers that went out."""
    source = ("(SELECT t.*, v.good AS good FROM turns t JOIN verdicts v ON v.turn_id = t.id AND v.arm = t.action "
              f"WHERE v.judge = '{(judge or '').replace(chr(39), chr(39) * 2)}' AND v.good IS NOT NULL)")
    return cells(rows, ground.scoped, {"good": "CAST(good AS INTEGER)", "judged": "1"}, group=label, blocks=blocks, source=source)


def _conversations(rows: Rows, ground: Ground, label: str) -> dict[str, int]:
    scoped: Scoped = ground.scoped
    found = rows.rows(f"SELECT {label} AS label, count(DISTINCT conversation) FROM turns WHERE {scoped.where} GROUP BY label",
                      scoped.params)
    return {str(name): int(count) for name, count in found}


def _row(ground: Ground, found: Cells, groups: _Groups, number: int, counts: Mapping[str, int], saving: Figure,
         good: Figure) -> Cut:
    mine = groups.number == number

    def total(name: str) -> int:
        return int(found[name][mine].sum())

    turns, paid = total("turns"), total("h_input") + total("h_output")
    would_pay = total("h_cf_input") + total("h_cf_output")
    return Cut(
        group=groups.names[number], conversations=sum(counts[name] for name in set(found.group[mine].astype(str).tolist())), turns=turns,
        skip_rate=total("skips") / turns if turns else None, static_rate=total("statics") / turns if turns else None,
        actual_tokens=paid, baseline_tokens=would_pay, saved_tokens=would_pay - paid, saving=saving,
        saved_money=_saved_money(ground, found, mine), good=good,
    )


def _saved_money(ground: Ground, found: Cells, mine: NDArray[np.bool_]) -> float | None:
    priced = mine & ground.pricing.priced(found)
    if not found["h_turns"][priced].sum():
        return None
    c, money = found, ground.pricing.money
    would_pay = money(c, c["h_cf_input"] - c["h_cf_cached"], c["h_cf_cached"], c["h_cf_output"])
    paid = money(c, c["h_input"] - c["h_cached"], c["h_cached"], c["h_output"])
    return float((would_pay - paid)[mine].sum())
