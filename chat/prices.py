"""What models cost: a dated table, and tokens to money. An unknown price is None, never zero.

The bundled table holds list prices; override it with a JSON file of the same form. Leaves out reports (`report/`).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from chat.errors import ChatError
from chat.types import Price, Usage

BUNDLED = Path(__file__).parent / "data" / "prices.json"


def load_prices(path: Path = BUNDLED) -> Mapping[str, Price]:
    """Model name to price. The file: `{"version", "currency", "models": {name: {"input", "cached_input"?, "output"}}}`,
    prices per million tokens. Raises: ChatError naming the file and the model."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        version, currency, models = str(table["version"]), str(table["currency"]), dict(table["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ChatError(f"{path}: expected a table with version, currency and models, and it doesn't read: {error!r}") from error
    return {name: _price(path, name, fields, currency, version) for name, fields in models.items()}


def _price(path: Path, name: str, fields: Mapping[str, float], currency: str, version: str) -> Price:
    try:
        cached = fields.get("cached_input")
        cached = None if cached is None else float(cached)
        price = Price(float(fields["input"]), cached, float(fields["output"]), currency, version)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ChatError(f"{path}: {name}: expected numbers for input and output, got {fields!r}") from error
    if not all(0.0 <= value < math.inf for value in (price.input, price.cached_input or 0.0, price.output)):
        raise ChatError(f"{path}: {name}: expected finite prices of zero or more, got {fields!r}")
    return price


def cost(usage: Usage, price: Price | None) -> float | None:
    """Money for one call, in the price's currency; None when the price is unknown."""
    if price is None:
        return None
    cached = usage.cached_input_tokens or 0
    cached_price = price.input if price.cached_input is None else price.cached_input
    return ((usage.input_tokens - cached) * price.input + cached * cached_price + usage.output_tokens * price.output) / 1e6
