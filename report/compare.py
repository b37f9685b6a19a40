"""Two policies, or two periods, side by side: how much more the second saves, and whether that can be told.

Both are drawn again together, so that a conversation that is in both counts once. The conversations differ else: what changed may be the
traffic, which the warnings say. Leaves out either side's own report (`savings.py`).
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from report.figures import VERSION, Compared, Comparison
from report.ground import Ground, ground
from report.intervals import Asked, Draws, Floats, Statistic, difference, estimates, ratio, saved_share
from report.judged import BY_JUDGE, by, judge_of
from report.rates import rate, rate_difference
from report.source import Snapshot, TurnTable
from report.sums import Ints, ReportOptions, cells

COLUMNS = 9
"""Of one side: tokens paid and of the baseline, money of both, turns with the baseline, with a price, all, skips, static answers."""
TRAFFIC = "Conversations differ, so what changed may be the traffic."


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One side's sums by block of both."""

    ground: Ground
    values: Floats
    """Shape (units, COLUMNS)."""
    good: Floats
    """Good answers and those judged, shape (units, 2)."""


def compare(table: TurnTable, a: ReportOptions, b: ReportOptions, made_at: datetime) -> Comparison:
    """b beside a. Raises: ReportError."""
    with table.snapshot() as rows:
        grounds = ground(rows, a), ground(rows, b)
        head = "frugal" if all(side.headline == "frugal" for side in grounds) else "always_fetch"
        blocks = np.union1d(*(np.unique(side.cells.block) for side in grounds))
        sides = [_side(rows, side, options, head, blocks) for side, options in zip(grounds, (a, b), strict=True)]
    draws = Draws(len(blocks), a.resamples, a.seed)
    one_currency = grounds[0].pricing.currency == grounds[1].pricing.currency
    figures = [_compared(name, statistic, sides, draws, highest, support) for name, statistic, highest, support, money in _statistics(head)
               if one_currency or not money]
    first, second = (rate(side.good[:, 0], side.good[:, 1]) for side in sides)
    figures.append(Compared("Good answers, share", first, second, rate_difference(*sides[1].good.T, *sides[0].good.T)))
    return Comparison(VERSION, grounds[0].scope, grounds[1].scope, tuple(figures), _warnings(grounds, head, one_currency), made_at)


def _statistics(head: str) -> tuple[tuple[str, Statistic, float, int, bool], ...]:
    """What is compared: in words, the statistic of `_Side.values`, its highest value, the column of its turns, and whether it is money."""
    return (
        (f"saving of tokens against {head}", saved_share(0, 1), 1.0, 4, False),
        ("tokens saved a turn", lambda sums: ratio(1, 4)(sums) - ratio(0, 4)(sums), np.inf, 4, False),
        ("tokens a turn", ratio(0, 4), np.inf, 4, False),
        (f"saving of money against {head}", saved_share(2, 3), 1.0, 5, True),
        ("money a turn", ratio(2, 5), np.inf, 5, True),
        ("turns without a fetch, share", ratio(7, 6), 1.0, 6, False),
        ("static answers, share", ratio(8, 6), 1.0, 6, False),
    )


def _side(rows: Snapshot, base: Ground, options: ReportOptions, head: str, blocks: Ints) -> _Side:
    c = base.cells
    turns = c[f"{head}_turns"]
    own = c.by_unit(*base.tokens(head), *base.money(head), turns, turns * base.pricing.priced(c), c["turns"], c["skips"], c["statics"])
    values = np.zeros((len(blocks), COLUMNS))
    values[np.searchsorted(blocks, np.unique(c.block))] = own
    judge, good = judge_of(rows, options), np.zeros((len(blocks), 2))
    if judge is not None:
        found = cells(rows, by(base.scoped.and_("good IS NOT NULL"), judge), {"good": "CAST(good AS INTEGER)", "judged": "1"},
                      blocks=blocks, source=BY_JUDGE)
        good = found.by_unit(found["good"], found["judged"])
    return _Side(base, values, good)


def _compared(name: str, statistic: Statistic, sides: list[_Side], draws: Draws, highest: float, support: int) -> Compared:
    both = np.concatenate([side.values for side in sides], axis=1)
    fewest = [int(np.count_nonzero(side.values[:, support])) for side in sides]
    lead = difference(lambda sums: statistic(sums[..., COLUMNS:]), lambda sums: statistic(sums[..., :COLUMNS]))
    first, second, more = estimates([
        *(Asked(side.values, statistic, few, highest=highest) for side, few in zip(sides, fewest, strict=True)),
        Asked(both, lead, min(fewest))], draws)
    return Compared(name, first, second, more)


def _warnings(grounds: tuple[Ground, Ground], head: str, one_currency: bool) -> tuple[str, ...]:
    said = [TRAFFIC]
    for name, side in zip(("The first", "The second"), grounds, strict=True):
        if not side.scope.turns:
            said.append(f"{name} side has no turn that counts.")
        elif side.turns(head) < side.scope.turns:
            said.append(f"{name} side's saving is about {side.turns(head):,} of its {side.scope.turns:,} turns: for the others, what "
                        f"`{head}` would have cost isn't logged.")
        missing = sorted({*side.pricing.other_currencies, *side.pricing.unknown_models})
        if missing:
            said.append(f"{name} side's money leaves out turns without a price in {side.pricing.currency}: {', '.join(missing)}.")
    if not one_currency:
        said.append("The sides are priced in two currencies, so money isn't compared: name one with --currency, and a rate.")
    if len({side.options.policy for side in grounds}) == 2:
        said.append("Static answers are no policy's, and are in neither side.")
    said.append("Several figures are compared at once: one in twenty intervals misses by chance.")
    return tuple(said)
