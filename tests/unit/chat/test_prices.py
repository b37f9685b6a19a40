"""The price table, and tokens to money."""

import json
from pathlib import Path

import pytest

from chat.errors import ChatError
from chat.prices import BUNDLED, cost, load_prices
from chat.types import Price, Usage

PRICE = Price(input=2.0, cached_input=0.5, output=8.0, currency="USD", version="2026-01-01")


def table(path: Path, **models: object) -> Path:
    file = path / "prices.json"
    file.write_text(json.dumps({"version": "2026-01-01", "currency": "EUR", "models": models}), encoding="utf-8")
    return file


def test_the_bundled_table_names_its_date_and_currency_on_every_price() -> None:
    prices = load_prices()
    assert prices["gpt-4o"] == Price(2.5, 1.25, 10.0, "USD", json.loads(BUNDLED.read_text())["version"])
    assert prices["gpt-4"].cached_input is None
    assert prices["fetchgate-extractive"].output == 0.0


def test_a_table_of_ones_own_is_read_in_its_currency(tmp_path: Path) -> None:
    file = table(tmp_path, ours={"input": 1, "cached_input": 0, "output": 3})
    assert load_prices(file) == {"ours": Price(1.0, 0.0, 3.0, "EUR", "2026-01-01")}


@pytest.mark.parametrize("fields", [
    {}, {"input": 1}, {"output": 1}, {"input": "dear", "output": 1}, {"input": None, "output": 1}, {"input": [1], "output": 1},
    7, None, {"input": 1, "cached_input": "x", "output": 1},
])
def test_a_price_that_is_no_number_is_refused_with_file_and_model(tmp_path: Path, fields: object) -> None:
    file = table(tmp_path, ours=fields)
    with pytest.raises(ChatError, match="ours: expected numbers for input and output") as raised:
        load_prices(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("fields", [
    {"input": -1, "output": 1}, {"input": 1, "output": -1}, {"input": 1, "cached_input": -1, "output": 1},
    {"input": float("nan"), "output": 1}, {"input": 1, "output": float("inf")},
    {"input": 1, "cached_input": float("nan"), "output": 1},
])
def test_a_price_below_zero_or_without_end_is_refused(tmp_path: Path, fields: object) -> None:
    with pytest.raises(ChatError, match="ours: expected finite prices of zero or more"):
        load_prices(table(tmp_path, ours=fields))


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"version": "1", "currency": "USD", "models": [1]}'])
def test_a_file_that_is_no_table_is_refused_by_its_path(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ChatError, match=r"prices\.json: expected a table with version, currency and models"):
        load_prices(file)


def test_a_missing_or_binary_file_is_refused_by_its_path(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "missing.json", binary):
        with pytest.raises(ChatError, match=file.name):
            load_prices(file)


def test_cost_is_by_million_tokens_with_cached_input_apart() -> None:
    # 600 * 2 + 400 * 0.5 + 100 * 8 = 1200 + 200 + 800 = 2200 millionths
    assert cost(Usage(1000, 100, cached_input_tokens=400), PRICE) == pytest.approx(0.0022)
    # 1000 * 2 + 100 * 8 = 2800 millionths
    assert cost(Usage(1000, 100), PRICE) == pytest.approx(0.0028)


def test_cached_input_costs_as_much_as_input_where_no_price_is_known_for_it_and_nothing_where_it_is_free() -> None:
    usage = Usage(1000, 0, cached_input_tokens=400)
    assert cost(usage, Price(2.0, None, 8.0, "USD", "v")) == pytest.approx(0.0020)
    assert cost(usage, Price(2.0, 0.0, 8.0, "USD", "v")) == pytest.approx(0.0012)


def test_an_unknown_price_is_unknown_and_a_free_call_costs_zero() -> None:
    assert cost(Usage(1000, 100), None) is None
    assert cost(Usage(0, 0, source="none"), PRICE) == 0.0
