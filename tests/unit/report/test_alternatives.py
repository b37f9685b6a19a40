"""Other ways to save, and a provider's caching, by hand on small logs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from report.alternatives import alternatives
from report.caching import caching
from report.figures import Alternative, CacheScenario, Figure
from report.ground import ground
from report.sums import ReportOptions
from tests.unit.report.judged_log import Row, opened, turn

Found = tuple[Mapping[str, Alternative], tuple[CacheScenario, ...]]


def found_in(folder: Path, turns: Sequence[Row], *, prefix_tokens: int | None = None, resamples: int = 2000) -> Found:
    options = ReportOptions(resamples=resamples, prefix_tokens=prefix_tokens)
    with opened(folder, turns) as table, table.snapshot() as rows:
        base = ground(rows, options)
        return {one.name: one for one in alternatives(rows, base)}, caching(rows, base)


def costs(frugal: int, one: int, none: int) -> dict[str, tuple[int, int]]:
    """Input tokens under the headline, with one FAQ and without any; answers of 10."""
    return {"frugal": (frugal, 10), "one_faq": (one, 10), "no_faqs": (none, 10)}


def test_an_alternative_is_compared_with_what_was_served_on_the_same_turns(tmp_path: Path) -> None:
    turns = [turn("a", tokens=(200, 10), costs=costs(290, 140, 40)), turn("b", tokens=(300, 10), costs=costs(390, 340, 90)),
             turn("c", tokens=(500, 10), costs={"frugal": (600, 10)})]
    one = found_in(tmp_path, turns)[0]["one_faq"]
    assert (one.turns, one.tokens) == (2, 150 + 350)
    assert one.saving.value == pytest.approx(1 - 500 / 700)
    assert one.ahead_of_policy.value == pytest.approx((520 - 500) / 700)
    assert one.money == pytest.approx((480 * 10 + 20 * 20) / 1e6)
    assert one.money_ahead.value == pytest.approx((500 - 480) * 10 / (680 * 10 + 20 * 20))
    assert not one.wins, "of two conversations"


def test_tokens_that_were_cached_are_cached_in_the_alternative_too(tmp_path: Path) -> None:
    turns = [turn("a", tokens=(200, 10), cached=150, costs=costs(290, 120, 40))]
    one = found_in(tmp_path, turns)[0]["one_faq"]
    assert one.money == pytest.approx((120 * 1 + 10 * 20) / 1e6)
    assert one.money_ahead.value == pytest.approx(((50 * 10 + 150) - 120) / (140 * 10 + 150 + 10 * 20))


def test_an_alternative_wins_where_it_is_surely_cheaper_and_not_where_it_isnt(tmp_path: Path) -> None:
    turns = [turn(f"c{n}", tokens=(200 + n % 5, 10), costs={"frugal": (300, 10), "one_faq": (150 + n % 7, 10), "repeats": (320, 10),
                                                         "no_history_faqs": (202 + 40 * (-1) ** n, 10)}) for n in range(60)]
    found = found_in(tmp_path, turns)[0]
    assert {name: one.wins for name, one in found.items()} == {
        "one_faq": True, "no_history_faqs": False, "no_faqs": False, "cached_prefix": False, "repeats": False}
    assert found["one_faq"].ahead_of_policy.verdict == "better"
    assert found["repeats"].ahead_of_policy.verdict == "worse"


def test_money_decides_where_it_is_known_and_tokens_where_it_isnt(tmp_path: Path) -> None:
    """More tokens of input, fewer of the dearer output."""
    dear = {"input": 1.0, "cached_input": None, "output": 100.0, "currency": "USD", "version": "1"}
    (tmp_path / "unknown").mkdir()
    for folder, price, wins in ((tmp_path, dear, True), (tmp_path / "unknown", None, False)):
        turns = [turn(f"c{n}", tokens=(200, 20), price=price, costs={"frugal": (300, 20), "one_faq": (250 + n % 3, 10)}) for n in range(40)]
        one = found_in(folder, turns)[0]["one_faq"]
        assert (one.wins, one.ahead_of_policy.verdict) == (wins, "worse")
        assert (one.money is None) == (price is None)


def test_what_isnt_logged_is_unknown_and_never_nothing(tmp_path: Path) -> None:
    found = found_in(tmp_path, [turn("a", costs={"always_fetch": (300, 10), "paper": (400, 10)})])[0]
    assert list(found) == ["one_faq", "no_history_faqs", "no_faqs", "cached_prefix", "paper"]
    one = found["one_faq"]
    assert (one.turns, one.tokens, one.money, one.saving, one.wins) == (0, None, None, Figure(None), False)
    assert "isn't logged" in one.caveat
    assert "give the knowledge base" in found["cached_prefix"].caveat
    assert found["paper"].saving.value == pytest.approx(1 - 410 / 310)


def test_without_turns_there_is_nothing(tmp_path: Path) -> None:
    assert found_in(tmp_path, [turn("a", background=True)]) == ({}, ())


def test_a_cached_prefix_costs_the_full_price_only_after_a_pause(tmp_path: Path) -> None:
    """Calls at 0, 2, 2.5, 9 and 14.5 minutes, whoever's: the first, and the one after more than five, find no cache."""
    turns = [turn(conversation, position, minutes=minutes, tokens=(200, 10), costs=costs(290, 140, 40))
             for conversation, position, minutes in (("a", 0, 0), ("b", 0, 2), ("a", 1, 2.5), ("b", 1, 9), ("c", 0, 14.5))]
    prefix = found_in(tmp_path, turns, prefix_tokens=2000)[0]["cached_prefix"]
    assert prefix.tokens == 5 * (2000 + 40 + 10)
    assert prefix.money == pytest.approx((5 * (40 * 10 + 10 * 20) + 2 * 2000 * 10 + 3 * 2000 * 1) / 1e6)
    assert "(40.0% of these calls)" in prefix.caveat


def test_models_have_no_cache_in_common_and_static_answers_are_calls_of_the_one_that_answers(tmp_path: Path) -> None:
    turns = [turn("a", 0, minutes=0, model="m", costs=costs(290, 140, 40)), turn("a", 1, minutes=1, model="n", costs=costs(290, 140, 40)),
             turn("a", 2, "STATIC", (0, 0), minutes=2, model="fetchgate-static", costs=costs(290, 140, 40)),
             turn("a", 3, minutes=3, model="m", costs=costs(290, 140, 40))]
    prefix = found_in(tmp_path, turns, prefix_tokens=2000)[0]["cached_prefix"]
    assert prefix.money == pytest.approx((4 * (40 * 10 + 10 * 20) + 2 * 2000 * 10 + 2 * 2000 * 1) / 1e6)


def test_a_prefix_too_short_to_be_cached_costs_the_full_price(tmp_path: Path) -> None:
    turns = [turn("a", n, minutes=n, tokens=(200, 10), costs=costs(290, 140, 40)) for n in range(3)]
    prefix = found_in(tmp_path, turns, prefix_tokens=1000)[0]["cached_prefix"]
    assert prefix.money == pytest.approx(3 * (1040 * 10 + 10 * 20) / 1e6)
    assert "Providers cache from" in prefix.caveat


def test_a_prefix_without_a_cached_price_costs_the_full_one(tmp_path: Path) -> None:
    plain = {"input": 10.0, "cached_input": None, "output": 20.0, "currency": "USD", "version": "1"}
    turns = [turn("a", n, minutes=n, price=plain, costs=costs(290, 140, 40)) for n in range(3)]
    assert found_in(tmp_path, turns, prefix_tokens=2000)[0]["cached_prefix"].money == pytest.approx(3 * (2040 * 10 + 10 * 20) / 1e6)


def test_caching_makes_what_was_saved_cheaper(tmp_path: Path) -> None:
    turns = [turn("a", tokens=(200, 10), cached=150, costs=costs(300, 0, 0)), turn("b", tokens=(400, 10), costs=costs(380, 0, 0)),
             turn("c", tokens=(400, 10), price=None, costs=costs(900, 0, 0))]
    none, logged, extra = found_in(tmp_path, turns)[1]
    assert [one.scenario for one in (none, logged, extra)] == ["none", "as_logged", "extra_cached"]
    fixed = 2 * 10 * 20
    paid = {"none": 200 * 10 + 400 * 10 + fixed, "logged": 50 * 10 + 150 + 400 * 10 + fixed}
    would = {"none": 300 * 10 + 380 * 10 + fixed, "logged": 150 * 10 + 150 + 380 * 10 + fixed, "extra": 50 * 10 + 250 + 380 * 10 + fixed}
    for one, cost, baseline in ((none, paid["none"], would["none"]), (logged, paid["logged"], would["logged"]),
                                (extra, paid["logged"], would["extra"])):
        assert one.saved_money.value == pytest.approx((baseline - cost) / 1e6)
        assert one.money_saving.value == pytest.approx(1 - cost / baseline)


def test_without_prices_there_is_no_money_to_cache(tmp_path: Path) -> None:
    assert found_in(tmp_path, [turn("a", price=None, costs=costs(300, 0, 0))])[1] == ()
