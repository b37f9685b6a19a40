"""The price table as people check it: what each model costs, from when and where, and which models of a log it lacks.

Leaves out what turns are priced with in a report (`prices.py`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from chat.prices import BUNDLED, load_prices
from report.prices import STATIC_MODEL, pricing
from report.source import TurnTable
from report.sums import ReportOptions


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """Prices of one model, per million tokens."""

    model: str
    input: float
    cached_input: float | None
    """None: as other input."""
    output: float


@dataclass(frozen=True, slots=True)
class PriceList:
    """A price table, and what it lacks."""

    version: str
    """Its date, of the bundled table."""
    currency: str
    source: str | None
    models: tuple[ListedPrice, ...]
    unknown_models: tuple[str, ...]
    """Models that turns were served by and that aren't in it."""


def price_list(path: Path | None = None, table: TurnTable | None = None) -> PriceList:
    """The table of a file (None: the bundled one), and the models of a log that it lacks. Raises: ChatError, ReportError."""
    place = BUNDLED if path is None else path
    prices = load_prices(place)
    told = json.loads(place.read_text(encoding="utf-8"))
    unknown: tuple[str, ...] = ()
    if table is not None:
        with table.snapshot() as rows:
            unknown = tuple(model for model in pricing(rows, ReportOptions(prices=prices)).unknown_models if model != STATIC_MODEL)
    return PriceList(str(told["version"]), str(told["currency"]), told.get("source"),
                     tuple(ListedPrice(name, one.input, one.cached_input, one.output) for name, one in sorted(prices.items())), unknown)
