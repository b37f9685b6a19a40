"""Saving and harm over the skip threshold, on the turns of which both arms were judged, and where the policy stands today.

A turn is skipped when its skip score is at or above the threshold, as when it was served. Each arm's tokens are its own: of the answer
that went out, and of the one that was written for the judge. It looks back: each turn is taken as it came, after what was said before,
and a threshold chosen here isn't certified (`evaluation/certify.py`). Leaves out bounds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from report.figures import Curve, CurvePoint
from report.intervals import Asked, Draws, Floats, estimates, saved_share
from report.judged import BOTH_ARMS, by, judge_of
from report.rates import rate
from report.sums import COUNTED, ReportOptions, Rows, scope

MOST_POINTS = 41
_OWN_TOKENS = "coalesce(cf_without_rewrite_in + cf_without_rewrite_out, input_tokens + output_tokens)"
"""Without what rewriting the query cost, which both arms would have paid and the written answer's tokens don't hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Turns of which both arms are known. Shapes (turns,)."""

    unit: NDArray[np.int64]
    units: int
    score: Floats
    skipped: NDArray[np.bool_]
    fetch_good: NDArray[np.bool_]
    skip_good: NDArray[np.bool_]
    fetch_tokens: Floats
    skip_tokens: Floats


def curve(rows: Rows, options: ReportOptions) -> Curve | None:
    """None where no turn has both arms judged, by a verdict each. Raises: ReportOptionError as `judge_of`."""
    if (judge := judge_of(rows, options)) is None:
        return None
    turns = _judged(rows, options, judge)
    if not len(turns.score):
        return None
    levels = thresholds(turns.score)
    chosen = [(level, turns.score >= level) for level in levels]
    today = float(turns.score[turns.skipped].min()) if turns.skipped.any() else levels[0]
    *points, operating = _points(turns, [*chosen, (today, turns.skipped)], options)
    return Curve(len(turns.score), tuple(points), operating)


def thresholds(score: Floats) -> tuple[float, ...]:
    """From strict to lax: each score where there are few, else those that skip about equally many turns more; first, where a score
    allows it, 1, at which none is skipped. Shape (turns,)."""
    ordered = np.sort(score)[::-1]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each score, the place of its last turn
    room = MOST_POINTS - 1
    if len(last) > room:
        last = np.unique(last[np.searchsorted(last, np.linspace(last[0], last[-1], room))])
    levels = [float(level) for level in ordered[last]]
    return tuple(levels if levels[0] >= 1 else [1.0, *levels])


def _points(turns: Judged, chosen: list[tuple[float, NDArray[np.bool_]]], options: ReportOptions) -> list[CurvePoint]:
    always, everyone = _by_unit(turns, turns.fetch_tokens), _by_unit(turns, np.ones(len(turns.score)))
    costs = [_by_unit(turns, np.where(skip, turns.skip_tokens, turns.fetch_tokens)) for _, skip in chosen]
    savings = estimates([Asked(np.stack([cost, always], axis=1), saved_share(0, 1), highest=1.0) for cost in costs],
                        Draws(turns.units, options.resamples, options.seed))
    points = []
    for (level, skip), saving in zip(chosen, savings, strict=True):
        harm = _by_unit(turns, (skip & ~turns.skip_good & turns.fetch_good).astype(np.float64))
        good = np.where(skip, turns.skip_good, turns.fetch_good)
        points.append(CurvePoint(level, float(skip.mean()), saving, rate(harm, everyone), float(good.mean())))
    return points


def _by_unit(turns: Judged, column: Floats) -> Floats:
    summed: Floats = np.bincount(turns.unit, column, turns.units).astype(np.float64)
    return summed


def _judged(rows: Rows, options: ReportOptions, judge: str) -> Judged:
    scoped = by(scope(options).and_(f"{COUNTED} AND action IN ('FETCH', 'NO_FETCH') AND skip_score IS NOT NULL"), judge)
    known = "fetch_good IS NOT NULL AND skip_good IS NOT NULL AND fetch_tokens IS NOT NULL AND skip_tokens IS NOT NULL"
    found = rows.arrays(
        "SELECT * FROM (SELECT block, skip_score, action = 'NO_FETCH' AS skipped, fetch_good, skip_good, "
        f"CASE WHEN action = 'FETCH' THEN {_OWN_TOKENS} ELSE fetch_arm_tokens END AS fetch_tokens, "
        f"CASE WHEN action = 'NO_FETCH' THEN {_OWN_TOKENS} ELSE skip_arm_tokens END AS skip_tokens, sequence "
        f"FROM {BOTH_ARMS} WHERE {scoped.where}) WHERE {known} ORDER BY sequence", scoped.params)
    blocks, unit = np.unique(found["block"], return_inverse=True)
    yes = {name: found[name].astype(bool) for name in ("skipped", "fetch_good", "skip_good")}
    return Judged(unit.astype(np.int64), len(blocks), found["skip_score"].astype(np.float64), yes["skipped"], yes["fetch_good"],
                  yes["skip_good"], found["fetch_tokens"].astype(np.float64), found["skip_tokens"].astype(np.float64))
