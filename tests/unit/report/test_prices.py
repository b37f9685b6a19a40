"""Which prices a report counts with."""

from pathlib import Path

import pytest

from chat.pipeline import STATIC_MODEL as SERVED_STATIC
from chat.prices import load_prices
from chat.types import Price, Turn
from report.errors import ReportOptionError
from report.prices import STATIC_MODEL, Pricing, pricing
from report.sums import ReportOptions
from tests.unit.report.logged import table_of, turn

EUROS = Price(1.0, 0.5, 2.0, "EUR", "e1")


def priced(folder: Path, turns: list[Turn], options: ReportOptions = ReportOptions()) -> Pricing:  # noqa: B008
    with table_of(folder, *turns) as table, table.snapshot() as rows:
        return pricing(rows, options)


def test_a_static_answer_is_called_what_the_pipeline_calls_it() -> None:
    assert STATIC_MODEL == SERVED_STATIC


def test_the_currency_is_the_one_that_most_tokens_are_priced_in(tmp_path: Path) -> None:
    found = priced(tmp_path, [turn(1), turn(2), turn(3, price=EUROS, model="e", paid=1000)])
    assert (found.currency, found.other_currencies, found.versions) == ("EUR", ("USD",), ("e1",))


def test_a_rate_converts_and_the_versions_of_both_tables_are_named(tmp_path: Path) -> None:
    found = priced(tmp_path, [turn(1), turn(2, price=EUROS, model="e")], ReportOptions(currency="USD", rates={"EUR": 1.5}))
    assert sorted(found.by_key.values()) == [(1.5, 0.75, 3.0), (10.0, 10.0, 10.0)]
    assert (found.other_currencies, found.versions) == ((), ("2026-09-01", "e1"))


def test_a_price_that_rose_counts_from_then_on(tmp_path: Path) -> None:
    dearer = Price(20.0, None, 20.0, "USD", "2026-10-01")
    found = priced(tmp_path, [turn(1), turn(2, price=dearer)])
    assert sorted(found.by_key.values()) == [(10.0, 10.0, 10.0), (20.0, 20.0, 20.0)]
    assert found.versions == ("2026-09-01", "2026-10-01")


def test_a_table_of_ones_own_takes_the_place_of_what_was_logged(tmp_path: Path) -> None:
    found = priced(tmp_path, [turn(1), turn(2, model="other")], ReportOptions(prices={"m": EUROS}))
    assert (found.currency, found.versions, found.unknown_models) == ("EUR", ("own",), ("other",))
    assert [*found.by_key.values()] == [(1.0, 0.5, 2.0)]


def test_a_static_answer_takes_the_price_of_the_model_that_it_spared(tmp_path: Path) -> None:
    found = priced(tmp_path, [turn(1), turn(2, model=STATIC_MODEL)], ReportOptions(prices={"m": EUROS}))
    assert [*found.by_key.values()] == [(1.0, 0.5, 2.0)] * 2
    assert found.unknown_models == ()


def test_the_bundled_table_prices_as_a_model_that_never_answered(tmp_path: Path) -> None:
    found = priced(tmp_path, [turn(1, price=None)], ReportOptions(price_as="gpt-4o"))
    listed = load_prices()["gpt-4o"]
    assert [*found.by_key.values()] == [(listed.input, listed.cached_input, listed.output)]
    assert found.versions == (listed.version,)


def test_a_model_that_no_table_has_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ReportOptionError, match="price_as: expected a model of the price table, got 'gpt-99'; it has m"):
        priced(tmp_path, [turn(1)], ReportOptions(price_as="gpt-99", prices={"m": EUROS}))


def test_models_are_listed_with_what_they_were_paid_for(tmp_path: Path) -> None:
    found = priced(tmp_path, [turn(1), turn(2), turn(3, model="x", price=None)])
    assert [(one.model, one.turns, one.tokens, one.price is None) for one in found.models] == [("m", 2, 120, False), ("x", 1, 60, True)]
