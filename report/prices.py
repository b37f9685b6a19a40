"""The prices that a report counts with: those at the time of each turn, or a table of the reader's own, in one currency.

An unknown price is unknown: a turn without one is in no sum of money, and `coverage` says how much is left out. Leaves out the bundled
table (`chat/prices.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.prices import load_prices
from chat.types import Price
from report.errors import ReportOptionError
from report.sums import SERVED, Cells, Floats, ReportOptions, Rows, scope

STATIC_MODEL = "fetchgate-static"
"""`model` of a turn that an FAQ answered: the price that counts is that of the LLM in whose place it did."""
OWN = "own"
"""The version of prices that were given for the report."""


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """A model that turns were served by, and what the report takes it to cost."""

    model: str
    turns: int
    tokens: int
    """Paid and saved ones are both priced by it; these are those paid."""
    price: Price | None
    """As logged, or from the table that was given; None: unknown."""


@dataclass(frozen=True, slots=True)
class Pricing:
    """What tokens cost in one currency, by the price key of their turns."""

    currency: str
    by_key: Mapping[int, tuple[float, float, float]]
    """Input, cached input, output, per million tokens; a key that isn't there has no price in this currency."""
    models: tuple[ModelPrice, ...]
    versions: tuple[str, ...]
    unknown_models: tuple[str, ...]
    other_currencies: tuple[str, ...]

    def priced(self, cells: Cells) -> NDArray[np.bool_]:
        """Which cells have a price."""
        return np.isin(cells.price_key, np.array(list(self.by_key), dtype=np.uint64))

    def money(self, cells: Cells, uncached: Floats, cached: Floats, output: Floats) -> Floats:
        """What the tokens of each cell cost, 0 where no price is known. Shapes (cells,)."""
        keys, number = np.unique(cells.price_key, return_inverse=True)
        prices = np.array([self.by_key.get(int(key), (0.0, 0.0, 0.0)) for key in keys]).reshape(-1, 3)[number]
        money: Floats = (uncached * prices[:, 0] + cached * prices[:, 1] + output * prices[:, 2]) / 1e6
        return money


def pricing(rows: Rows, options: ReportOptions) -> Pricing:
    """The prices of the turns that count, in the report's currency. Raises: ReportOptionError."""
    scoped = scope(options)
    found = rows.rows(
        "SELECT price_key, any_value(model), any_value(input_price), any_value(cached_price), any_value(output_price), "
        "any_value(currency), any_value(price_version), count(*) AS turns, CAST(sum(input_tokens + output_tokens) AS BIGINT) "
        f"FROM turns WHERE {scoped.where} AND {SERVED} GROUP BY price_key "
        "ORDER BY turns DESC, price_key", scoped.params)
    answering = next((str(row[1]) for row in found if row[1] not in (None, STATIC_MODEL)), None)
    models = [(int(row[0]), ModelPrice(str(row[1]), int(row[7]), int(row[8] or 0), _price(row[1], row[2:7], options, answering)))
              for row in found]
    currency = options.currency or _most_common(model for _, model in models)
    by_key = {key: _in_currency(model.price, rate) for key, model in models
              if model.price is not None and (rate := _rate(model.price.currency, currency, options)) is not None}
    used = [model for key, model in models if key in by_key]
    return Pricing(
        currency, by_key, tuple(model for _, model in models),
        versions=tuple(sorted({model.price.version for model in used if model.price is not None})),
        unknown_models=tuple(sorted({model.model for _, model in models if model.price is None})),
        other_currencies=tuple(sorted({model.price.currency for key, model in models if model.price is not None and key not in by_key})),
    )


def _price(model: str | None, logged: tuple[object, ...], options: ReportOptions, answering: str | None) -> Price | None:
    """Of one key: as asked for, else as logged."""
    if options.price_as is not None:
        table = options.prices if options.prices is not None else load_prices()
        if options.price_as not in table:
            raise ReportOptionError(f"price_as: expected a model of the price table, got {options.price_as!r}; it has "
                                    f"{', '.join(sorted(table)[:8])}; give a table with --prices")
        return _own(table[options.price_as], options)
    if options.prices is not None:
        name = answering if model == STATIC_MODEL else model
        price = options.prices.get(name or "")
        return None if price is None else _own(price, options)
    input_price, cached_price, output_price, currency, version = logged
    if not isinstance(input_price, float) or not isinstance(output_price, float):
        return None
    cached = cached_price if isinstance(cached_price, float) else input_price
    return Price(input_price, cached, output_price, str(currency), str(version))


def _own(price: Price, options: ReportOptions) -> Price:
    version = OWN if options.prices is not None else price.version
    return Price(price.input, price.cached_input, price.output, price.currency, version)


def _most_common(models: Iterable[ModelPrice]) -> str:
    counted: Counter[str] = Counter()
    for model in models:
        if model.price is not None:
            counted[model.price.currency] += model.tokens + model.turns
    return max(sorted(counted), key=lambda code: counted[code]) if counted else "USD"


def _rate(currency: str, wanted: str, options: ReportOptions) -> float | None:
    return 1.0 if currency == wanted else options.rates.get(currency)


def _in_currency(price: Price, rate: float) -> tuple[float, float, float]:
    cached = price.input if price.cached_input is None else price.cached_input
    return price.input * rate, cached * rate, price.output * rate
