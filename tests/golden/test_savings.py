"""The golden log through the whole report: by turn, by cut and in total, to the token; and money to the last unit."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chat.log.export import export_parquet
from chat.log.store import SqlConversationLog
from chat.types import Price
from report.figures import Cut, SavingsReport, Tokens
from report.savings import savings_report
from report.source import TurnTable, open_log, open_parquet
from report.sums import ReportOptions
from tests.fakes import WordCounter
from tests.golden.savings import CATEGORIES, COUNTED, DOLLARS, EUROS, GoldenTurn, U, fill
from tests.golden.test_turns import play
from tests.golden.turns import conversations

MADE_AT = datetime(2026, 11, 1, tzinfo=UTC)
QUICK = ReportOptions(resamples=100)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(tmp_path_factory.mktemp("golden") / "log.db")) as log:
        fill(log)
        yield log


@pytest.fixture(scope="module")
def table(log: SqlConversationLog) -> Iterator[TurnTable]:
    with open_log(log, CATEGORIES) as table:
        yield table


@pytest.fixture(scope="module")
def report(table: TurnTable) -> SavingsReport:
    return savings_report(table, QUICK, MADE_AT)


def saved(report: SavingsReport) -> dict[str, int]:
    return {one.baseline: one.saved_tokens for one in report.against}


def cuts(rows: tuple[Cut, ...]) -> dict[str, tuple[int, int, int, int, int]]:
    """Group to conversations, turns, tokens paid, of the baseline, saved."""
    return {one.group: (one.conversations, one.turns, one.actual_tokens, one.baseline_tokens, one.saved_tokens) for one in rows}


def test_the_total_is_the_one_added_up_by_hand(report: SavingsReport) -> None:
    head = report.headline
    assert head is not None
    assert (head.baseline, head.turns) == ("frugal", 7)
    assert (head.actual, head.counterfactual) == (Tokens(610, 100, 84), Tokens(700, 100, 73))
    assert (head.saved_tokens, head.saved_input_tokens, head.saved_output_tokens) == (79, 90, -11)
    assert head.saving.value == pytest.approx(79 / 773)
    assert head.saved_per_turn.value == pytest.approx(79 / 7)


def test_every_baseline_counts_the_turns_that_it_is_logged_for(report: SavingsReport) -> None:
    assert [one.baseline for one in report.against] == ["frugal", "paper", "always_fetch"]
    assert saved(report) == {"frugal": 79, "paper": 1258 - 749, "always_fetch": 948 - 804}
    assert [one.turns for one in report.against] == [7, 7, 8]


def test_the_parts_add_up_to_the_saving(report: SavingsReport) -> None:
    assert {part.part: part.tokens for part in report.parts} == {
        "settings": -75, "repeats": 10, "static": 103, "policy": 90, "overhead": -49}
    assert sum(part.tokens for part in report.parts) == 79
    assert sum(part.share.value or 0.0 for part in report.parts) == pytest.approx(79 / 773)


@pytest.mark.parametrize("turn", COUNTED, ids=lambda turn: turn.number)
def test_each_turn_alone_saves_what_it_saves(turn: GoldenTurn, table: TurnTable) -> None:
    alone = replace(QUICK, since=turn.created_at, until=turn.created_at + timedelta(minutes=1))
    report = savings_report(table, alone, MADE_AT)
    assert report.scope.turns == 1
    assert saved(report) == turn.saved
    assert sum(part.tokens for part in report.parts) == next(iter(saved(report).values()))


def test_each_cut_adds_up_to_the_total(report: SavingsReport) -> None:
    assert cuts(report.by_day) == {"2026-10-01": (1, 3, 180, 308, 128), "2026-10-02": (2, 5, 514, 465, -49)}
    assert cuts(report.by_owner) == {"a": (2, 5, 419, 518, 99), "b": (1, 3, 275, 255, -20)}
    assert cuts(report.by_policy) == {"p1": (2, 5, 455, 475, 20), "p2": (1, 2, 239, 210, -29), "static": (1, 1, 0, 88, 88)}
    assert cuts(report.by_category) == {"opening": (1, 3, 180, 308, 128), "orders": (1, 2, 239, 210, -29),
                                        "(unknown)": (1, 3, 275, 255, -20)}
    day_one = report.by_day[0]
    assert (day_one.skip_rate, day_one.static_rate) == (1 / 3, 1 / 3)


@pytest.mark.parametrize(("filters", "expected"), [
    ({"owner": "a"}, 99), ({"owner": "b"}, -20), ({"policy": "p2"}, -29), ({"category": "opening"}, 128),
    ({"policy": "p1", "owner": "b"}, -20),
])
def test_a_filter_reports_what_its_cut_does(filters: dict[str, str], expected: int, table: TurnTable) -> None:
    report = savings_report(table, ReportOptions(resamples=100, **filters), MADE_AT)  # type: ignore[arg-type]
    assert saved(report)["frugal"] == expected


def test_what_does_not_count_is_told(report: SavingsReport) -> None:
    assert report.scope.left_out == {"background": 1, "holdback": 1, "refused": 1}
    assert (report.scope.conversations, report.scope.turns) == (3, 8)
    assert report.scope.first == COUNTED[0].created_at
    assert report.scope.last == COUNTED[-1].created_at


def test_money_is_that_of_the_turns_with_a_price_in_one_currency(report: SavingsReport) -> None:
    # turn 1: 100 * 10 + 10 * 20 = 1200 u, frugal 1100; 2: 40 * 10 + 20 * 5 + 200 = 700, frugal 90 * 10 + 20 * 5 + 200 = 1200;
    # 3: 0, frugal 80 * 10 + 8 * 20 = 960; 4: 100 * 10 + 30 * 5 + 25 * 20 = 1650, frugal 60 * 10 + 30 * 5 + 200 = 950;
    # 5: 700 + 14 * 20 = 980, frugal 1200; together 4530 and 5410
    money = report.money
    assert (money.currency, money.priced_turns) == ("USD", 5)
    assert money.actual == pytest.approx(4530 * U)
    assert money.counterfactual == pytest.approx(5410 * U)
    assert money.saved.value == pytest.approx(880 * U)
    assert money.coverage == pytest.approx((110 + 70 + 155 + 84 + 110) / 804)
    assert (money.unknown_models, money.other_currencies, money.price_versions) == (("nobody-knows",), ("EUR",), ("2026-09-01",))
    assert {one.group: one.saved_money for one in report.by_owner} == {"a": pytest.approx(880 * U), "b": None}


def test_a_rate_brings_another_currency_in(table: TurnTable) -> None:
    # turn 7: 200 * 10 + 20 * 20 = 2400 u, as its cached input costs what other input does; frugal 150 * 10 + 400 = 1900
    money = savings_report(table, replace(QUICK, rates={"EUR": 2.0}), MADE_AT).money
    assert (money.priced_turns, money.other_currencies, money.price_versions) == (6, (), ("2026-09-01", "2026-09-02"))
    assert money.actual == pytest.approx(6930 * U)
    assert money.counterfactual == pytest.approx(7310 * U)
    assert money.saved.value == pytest.approx(380 * U)


def test_the_report_may_be_in_the_other_currency(table: TurnTable) -> None:
    money = savings_report(table, replace(QUICK, currency="EUR", rates={"USD": 0.5}), MADE_AT).money
    assert money.saved.value == pytest.approx(190 * U)
    assert savings_report(table, replace(QUICK, currency="EUR"), MADE_AT).money.saved.value == pytest.approx(-250 * U)


def test_judging_and_computing_are_taken_off(table: TurnTable) -> None:
    # judging: 2 * 100 u and 1400 u for the answer of the other arm; computing: 8 * 9 ms, at 100 an hour 2000 u
    money = savings_report(table, replace(QUICK, hour_price=100.0), MADE_AT).money
    assert money.judge_cost == pytest.approx(1600 * U)
    assert money.compute_seconds == pytest.approx(0.072)
    assert money.compute_cost == pytest.approx(2000 * U)
    assert money.net.value == pytest.approx((880 - 1600 - 2000) * U)


def test_without_a_price_of_computing_the_net_is_without_it(report: SavingsReport) -> None:
    assert report.money.compute_cost is None
    assert report.money.net.value == pytest.approx((880 - 1600) * U)


def test_own_prices_reprice_every_turn(table: TurnTable) -> None:
    # a dollar a million in and out; the static answer stands in for the model that answers most turns
    own = {name: Price(1.0, None, 1.0, "USD", "x") for name in ("dollars", "euros", "nobody-knows")}
    money = savings_report(table, replace(QUICK, prices=own), MADE_AT).money
    assert (money.priced_turns, money.coverage, money.price_versions) == (7, 1.0, ("own",))
    assert money.saved.value == pytest.approx(79 * U)


def test_all_turns_may_be_priced_as_one_model(table: TurnTable) -> None:
    as_dollars = replace(QUICK, prices={"dollars": DOLLARS, "euros": EUROS}, price_as="dollars")
    # 4530 + turn 6: 50 * 10 + 5 * 20 = 600, frugal 900; turn 7: 150 * 10 + 50 * 5 + 400 = 2150, frugal 100 * 10 + 50 * 5 + 400 = 1650
    money = savings_report(table, as_dollars, MADE_AT).money
    assert money.actual == pytest.approx(7280 * U)
    assert money.counterfactual == pytest.approx(7960 * U)


def test_a_forecast_is_a_turns_saving_times_the_turns_of_a_month(table: TurnTable) -> None:
    forecast = savings_report(table, replace(QUICK, turns_a_month=700), MADE_AT).forecast
    assert forecast is not None
    assert forecast.saved_tokens.value == pytest.approx(7900)
    assert forecast.saved_money.value == pytest.approx(700 * 880 * U / 5)
    assert forecast.net_money.value == pytest.approx(700 * -720 * U / 5)
    assert any("700 turns a month" in line for line in forecast.assumptions)


def test_an_export_reports_what_its_log_does(log: SqlConversationLog, tmp_path: Path, report: SavingsReport) -> None:
    export_parquet(log, tmp_path / "turns.parquet")
    with open_parquet(tmp_path / "turns.parquet", categories=CATEGORIES) as table:
        exported = savings_report(table, QUICK, MADE_AT)
    assert exported.against == report.against
    assert exported.parts == report.parts
    assert [cuts(rows) for rows in (exported.by_day, exported.by_policy)] == [cuts(rows) for rows in (report.by_day, report.by_policy)]


def test_the_turns_of_the_golden_prompts_save_in_the_report_what_was_counted_from_their_words(tmp_path: Path) -> None:
    """Prompts, log and report in one: the sum of what each golden turn saves."""
    expected = 0
    with SqlConversationLog(str(tmp_path / "log.db")) as log:
        for golden in conversations():
            turns, _ = asyncio.run(play(golden, WordCounter(), server_counts=True))
            expected += sum(turn.saved for turn in golden.turns)
            for turn in turns:
                log.append(replace(turn, conversation_id=golden.name))
        with open_log(log) as table:
            report = savings_report(table, QUICK, MADE_AT)
    assert report.scope.conversations == len(conversations())
    assert saved(report)["always_fetch"] == expected
    assert expected > 0
