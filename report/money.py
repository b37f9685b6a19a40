"""What turns cost, what they would have cost, and what judging and computing leave of the difference.

Leaves out which prices those are (`prices.py`) and how a provider's prompt caching changes them (`alternatives.py`).
"""

from dataclasses import dataclass

import numpy as np

from report.figures import CacheScenario, Figure, Money
from report.ground import Ground, stacked
from report.intervals import estimate, linear
from report.sums import Floats, Rows

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Judging:
    """What verdicts on the turns that count cost, and the answers of the other arm that were made for them."""

    by_unit: Floats
    """Money by block, what is known."""
    verdicts: int
    unknown: int
    """Verdicts whose cost isn't known, or not in this currency."""

    @property
    def cost(self) -> float | None:
        """None where there are verdicts and the cost of none is known."""
        return None if self.verdicts and self.unknown == self.verdicts else float(self.by_unit.sum())


def money(ground: Ground, judging: Judging, caching: tuple[CacheScenario, ...] = ()) -> Money:
    """The money of a report, over the turns whose cost under the headline baseline is logged and that have a price."""
    actual, counterfactual = ground.money(ground.headline)
    c, priced = ground.cells, ground.pricing.priced(ground.cells)
    priced_turns = int(c[f"{ground.headline}_turns"][priced].sum())
    tokens = c["input"] + c["output"]
    seconds = float(c["compute_us"].sum()) / 1e6
    hour = ground.options.hour_price
    return Money(
        currency=ground.pricing.currency, priced_turns=priced_turns,
        coverage=float(tokens[priced].sum() / tokens.sum()) if tokens.sum() else None,
        price_versions=ground.pricing.versions, unknown_models=ground.pricing.unknown_models,
        other_currencies=ground.pricing.other_currencies,
        actual=float(actual.sum()) if priced_turns else None, counterfactual=float(counterfactual.sum()) if priced_turns else None,
        saved=saved_money(ground, ground.headline), judge_cost=judging.cost, compute_seconds=seconds,
        compute_cost=None if hour is None else seconds / SECONDS_AN_HOUR * hour,
        net=net(ground, judging), caching=caching,
    )


def saved_money(ground: Ground, baseline: str) -> Figure:
    """Money saved against a baseline; None where no turn has a price."""
    actual, counterfactual = ground.money(baseline)
    priced = ground.cells[f"{baseline}_turns"] * ground.pricing.priced(ground.cells)
    if not priced.sum():
        return Figure(None)
    return estimate(stacked(ground, counterfactual, actual, priced), linear((1, -1, 0)), ground.draws)


def net(ground: Ground, judging: Judging) -> Figure:
    """Money saved against the headline baseline, less judging and, where its price is known, computing."""
    values = net_columns(ground, judging)
    return Figure(None) if values is None else estimate(values, linear((1, -1, -1, -1, 0)), ground.draws)


def net_columns(ground: Ground, judging: Judging) -> Floats | None:
    """Counterfactual money, actual money, judging, computing and priced turns by block, shape (units, 5); None: not known."""
    actual, counterfactual = ground.money(ground.headline)
    priced = ground.cells[f"{ground.headline}_turns"] * ground.pricing.priced(ground.cells)
    if not priced.sum() or judging.cost is None:
        return None
    computing = ground.cells["compute_us"] / 1e6 / SECONDS_AN_HOUR * (ground.options.hour_price or 0.0)
    columns = stacked(ground, counterfactual, actual, computing, priced)
    return np.stack([columns[:, 0], columns[:, 1], judging.by_unit, columns[:, 2], columns[:, 3]], axis=1)


def judging_cost(rows: Rows, ground: Ground) -> Judging:
    """What was spent on knowing whether the answers of these turns are good."""
    scoped, currency = ground.scoped, ground.pricing.currency
    found = rows.rows(
        "SELECT t.block, t.price_key, v.currency, CAST(sum(CAST(v.cost AS DECIMAL(28, 12))) AS DOUBLE), count(*), "
        "count(*) FILTER (v.cost IS NULL AND coalesce(v.judge_input_tokens, 0) > 0), count(v.cost), "
        "CAST(coalesce(sum(v.input_tokens), 0) AS BIGINT), CAST(coalesce(sum(v.output_tokens), 0) AS BIGINT) "
        f"FROM (SELECT id, block, price_key FROM turns WHERE {scoped.where}) t JOIN verdicts v ON v.turn_id = t.id GROUP BY ALL "
        "ORDER BY t.block, t.price_key, v.currency", scoped.params)
    units = {int(block): unit for unit, block in enumerate(np.unique(ground.cells.block))}
    by_unit, verdicts, unknown = np.zeros(ground.cells.units), 0, 0
    for block, key, paid_in, cost, count, uncosted, costed, inputs, outputs in found:
        rate = 1.0 if paid_in == currency else ground.options.rates.get(paid_in)
        verdicts, unknown = verdicts + count, unknown + uncosted + (costed if rate is None and cost else 0)
        price = ground.pricing.by_key.get(int(key), (0.0, 0.0, 0.0))
        by_unit[units[block]] += (cost or 0.0) * (rate or 0.0) + (inputs * price[0] + outputs * price[2]) / 1e6
    return Judging(by_unit, int(verdicts), int(unknown))
