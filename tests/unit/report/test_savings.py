"""The report on logs that are empty, small, broken or strange; what it warns of; figures to the token are in `tests/golden`."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chat.log.store import SqlConversationLog
from chat.types import Price, Turn
from report.cautions import NOTHING
from report.errors import ReportOptionError
from report.figures import Figure, SavingsReport
from report.savings import savings_report
from report.source import open_log
from report.sums import ReportOptions
from tests.unit.report.judged_log import opened
from tests.unit.report.judged_log import turn as exported
from tests.unit.report.logged import BEGAN, log_of, table_of, turn

MADE_AT = datetime(2026, 11, 1, tzinfo=UTC)
QUICK = ReportOptions(resamples=200, turns_a_month=1000)


def report_of(folder: Path, turns: Sequence[Turn], options: ReportOptions = QUICK) -> SavingsReport:
    with table_of(folder, *turns) as table:
        return savings_report(table, options, MADE_AT)


def told(report: SavingsReport, words: str) -> bool:
    return any(words in warning for warning in report.warnings)


def many(count: int) -> list[Turn]:
    """Conversations of two turns; every other one saves 40 of 100 tokens a turn, the others 60."""
    return [turn(2 * number + place, f"c{number:03}", paid=60 if number % 2 else 40) for number in range(count) for place in range(2)]


def test_a_log_without_turns_has_a_report_that_says_so(tmp_path: Path) -> None:
    report = report_of(tmp_path, [])
    assert report.headline is None
    assert report.warnings == (NOTHING,)
    assert (report.scope.turns, report.scope.first, report.parts, report.by_day) == (0, None, (), ())
    assert report.forecast is None
    assert report.curve is None
    assert report.money.saved == Figure(None)
    assert report.money.coverage is None


def test_a_filter_that_nothing_passes_has_one_too(tmp_path: Path) -> None:
    assert report_of(tmp_path, [turn(1)], replace(QUICK, policy="nobody's")).warnings == (NOTHING,)


def test_one_turn_has_a_value_and_no_claim(tmp_path: Path) -> None:
    report = report_of(tmp_path, [turn(1)])
    assert report.headline is not None
    assert report.headline.saving == Figure(0.4, None, None, "too_small")
    assert told(report, "Too small to trust: conversations are 1,")


def test_thirty_conversations_may_claim_a_saving(tmp_path: Path) -> None:
    report = report_of(tmp_path, many(30))
    assert report.headline is not None
    saving = report.headline.saving
    assert (saving.value, saving.verdict) == (0.5, "better")
    assert saving.low is not None
    assert saving.high is not None
    assert 0.4 < saving.low < 0.5 < saving.high < 0.6
    assert (report.method.units, report.method.by_blocks) == (30, False)
    assert not told(report, "Too small")


def test_the_same_log_gives_the_same_report_to_the_last_digit(tmp_path: Path) -> None:
    with log_of(tmp_path, *many(40)) as log, open_log(log) as one:
        first = savings_report(one, QUICK, MADE_AT)
        with open_log(log) as other:
            assert savings_report(other, QUICK, MADE_AT) == first
        assert savings_report(one, QUICK, MADE_AT) == first


def test_what_came_while_the_dashboard_was_open_is_reported_as_if_all_were_read_at_once(tmp_path: Path) -> None:
    turns = many(40)
    with log_of(tmp_path, *turns[:31]) as log, open_log(log) as grown:
        savings_report(grown, QUICK, MADE_AT)
        for one in turns[31:]:
            log.append(one)
        grown.refresh()
        with open_log(log) as fresh:
            assert savings_report(grown, QUICK, MADE_AT) == savings_report(fresh, QUICK, MADE_AT)


def test_turns_without_usage_are_left_out_and_told(tmp_path: Path) -> None:
    costs = {"always_fetch": (100, 10)}
    with opened(tmp_path, [exported("c1", costs=costs), exported("c2", costs=costs, input_tokens=None)]) as table:
        report = savings_report(table, QUICK, MADE_AT)
    assert report.scope.left_out == {"no_usage": 1}
    assert report.scope.turns == 1
    assert told(report, "1 turn without known usage is left out.")


def test_turns_whose_baseline_was_never_logged_save_nothing_that_is_known(tmp_path: Path) -> None:
    report = report_of(tmp_path, [turn(1, costs={})])
    assert report.headline is None
    assert report.scope.turns == 1
    assert told(report, "no saving can be told")
    assert report.forecast is None


def test_the_headline_is_frugal_once_most_turns_are_logged_with_it(tmp_path: Path) -> None:
    old, new = {"always_fetch": 100, "paper": 200}, {"always_fetch": 100, "paper": 200, "frugal": 80}
    (tmp_path / "old").mkdir()
    few = report_of(tmp_path / "old", [turn(1, costs=old), turn(2, costs=old), turn(3, costs=new)])
    most = report_of(tmp_path, [turn(1, costs=old), turn(2, costs=new), turn(3, costs=new)])
    assert [one.baseline for one in few.against] == ["always_fetch", "paper", "frugal"]
    assert [one.baseline for one in most.against] == ["frugal", "paper", "always_fetch"]
    assert told(few, "isn't logged for most turns")
    assert told(most, "The headline is about 2 of the 3 turns")


def test_currencies_are_never_added_up_without_a_rate(tmp_path: Path) -> None:
    euros = Price(1.0, None, 1.0, "EUR", "x")
    report = report_of(tmp_path, [turn(1), turn(2), turn(3, price=euros, model="e")])
    assert (report.money.currency, report.money.priced_turns, report.money.other_currencies) == ("USD", 2, ("EUR",))
    assert told(report, "Turns priced in EUR are in no sum of money")


def test_unknown_prices_are_unknown_and_named(tmp_path: Path) -> None:
    report = report_of(tmp_path, [turn(1, price=None, model="new-model")])
    assert report.money.actual is None
    assert report.money.saved == report.money.net == Figure(None)
    assert report.money.coverage == 0.0
    assert told(report, "Prices of new-model are unknown")
    assert report.forecast is not None
    assert report.forecast.saved_money == Figure(None)


def test_a_model_that_costs_nothing_saves_no_money(tmp_path: Path) -> None:
    free = Price(0.0, 0.0, 0.0, "USD", "x")
    report = report_of(tmp_path, [turn(1, price=free)])
    assert (report.money.actual, report.money.saved.value, report.money.coverage) == (0.0, 0.0, 1.0)
    assert report.headline is not None
    assert report.headline.money_saving == Figure(None)


def test_a_clock_that_went_back_is_told(tmp_path: Path) -> None:
    report = report_of(tmp_path, [turn(1, minutes=60), turn(2, minutes=10), turn(3, "c2"), turn(4, "c2")])
    assert told(report, "The clock went back in 1 conversation")
    assert report.scope.first is not None
    assert report.scope.first == BEGAN + timedelta(minutes=3)


def test_background_prompts_and_the_holdback_are_left_out_and_degraded_turns_told(tmp_path: Path) -> None:
    report = report_of(tmp_path, [turn(1), turn(2, background=True), turn(3, "c2", policy="holdback"), turn(4, degraded=("kb",))])
    assert report.scope.left_out == {"background": 1, "holdback": 1}
    assert report.scope.turns == 2
    assert told(report, "1 turn is counted though something failed in it.")


def test_without_verdicts_nothing_says_that_quality_was_kept(tmp_path: Path) -> None:
    report = report_of(tmp_path, many(30))
    assert (report.quality.judge, report.quality.verdict) == (None, "unknown")
    assert told(report, "No answer was judged")


def test_many_days_are_shown_as_months_and_many_owners_as_few(tmp_path: Path) -> None:
    turns = [turn(number, f"c{number}", owner=f"key-{number:02}", minutes=number * 3 * 1440) for number in range(45)]
    report = report_of(tmp_path, turns)
    assert [one.group for one in report.by_day] == ["2026-10", "2026-11", "2026-12", "2027-01", "2027-02"]
    assert len(report.by_owner) == 40
    others = report.by_owner[-1]
    assert (others.group, others.turns, others.conversations) == ("(others)", 6, 6)
    assert sum(one.saved_tokens for one in report.by_owner) == 45 * 40


def test_a_group_of_few_conversations_claims_nothing(tmp_path: Path) -> None:
    turns = [turn(number, f"c{number}", owner="big" if number else "small", paid=40 + number) for number in range(35)]
    by_owner = {one.group: one for one in report_of(tmp_path, turns).by_owner}
    assert by_owner["big"].saving.verdict == "better"
    assert by_owner["small"].saving.verdict == "too_small"


@pytest.mark.parametrize(("options", "words"), [
    ({"since": datetime(2026, 1, 1)}, "since: expected a time with its zone"),
    ({"since": BEGAN, "until": BEGAN}, "until: expected a time after"),
    ({"rates": {"EUR": 0.0}}, "rates: expected a number above zero for EUR"),
    ({"rates": {"EUR": float("nan")}}, "rates: expected a number above zero for EUR"),
    ({"hour_price": -1.0}, "hour_price: expected a price"),
    ({"turns_a_month": 0}, "turns_a_month: expected 1 or more"),
    ({"resamples": 10}, "resamples: expected 100 or more"),
])
def test_options_that_make_no_sense_are_refused_in_words(options: dict[str, object], words: str) -> None:
    with pytest.raises(ReportOptionError, match=words):
        ReportOptions(**options)  # type: ignore[arg-type]


def test_an_owner_is_a_value_and_never_sql(tmp_path: Path) -> None:
    hostile = "x' OR '1'='1"
    report = report_of(tmp_path, [turn(1), turn(2, "c2", owner=hostile)], replace(QUICK, owner=hostile))
    assert report.scope.turns == 1


def test_a_log_may_be_reported_while_it_is_written(tmp_path: Path) -> None:
    with SqlConversationLog(str(tmp_path / "log.db")) as log, open_log(log) as table:
        for number in range(4):
            log.append(turn(number, f"c{number}"))
            table.refresh()
            report = savings_report(table, replace(QUICK, resamples=100), MADE_AT)
            assert report.headline is not None
            assert report.headline.saved_tokens == 40 * (number + 1)
