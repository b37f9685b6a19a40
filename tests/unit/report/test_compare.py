"""Two policies or periods side by side."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action, Price, Turn
from report.compare import compare
from report.figures import Compared, Comparison, Figure
from report.source import open_log
from report.sums import ReportOptions
from tests.unit.report.logged import BEGAN, log_of, table_of, turn

QUICK = ReportOptions(resamples=300)
A, B = replace(QUICK, policy="p1"), replace(QUICK, policy="p2")
MADE_AT = datetime(2026, 11, 1, tzinfo=UTC)


def both(count: int = 30, *, of_b: int = 30, price_of_b: Price | None = None) -> list[Turn]:
    """`count` conversations by each policy: p1 pays 60 to 64 of 100 tokens, p2 `of_b` to 4 more."""
    prices = {} if price_of_b is None else {"price": price_of_b, "model": "other"}
    return [turn(number, f"{policy}-{number:03}", paid=paid + number % 5, policy=policy, minutes=number % count, **(more or {}))  # type: ignore[arg-type]
            for policy, paid, more, begin in (("p1", 60, None, 0), ("p2", of_b, prices, count)) for number in range(begin, begin + count)]


def compared(folder: Path, turns: list[Turn], a: ReportOptions = A, b: ReportOptions = B) -> Comparison:
    with table_of(folder, *turns) as table:
        return compare(table, a, b, MADE_AT)


def figure(found: Comparison, name: str) -> Compared:
    return next(one for one in found.figures if one.figure.startswith(name))


def test_a_policy_that_saves_more_is_seen_to(tmp_path: Path) -> None:
    saving = figure(compared(tmp_path, both()), "saving of tokens against always_fetch")
    assert saving.a.value == pytest.approx(0.38)
    assert saving.b.value == pytest.approx(0.68)
    assert saving.difference.value == pytest.approx(0.30)
    assert saving.difference.verdict == "better"
    assert saving.difference.low is not None
    assert saving.difference.low > 0.25


def test_the_same_side_twice_differs_by_nothing(tmp_path: Path) -> None:
    for one in compared(tmp_path, both(), A, A).figures:
        assert one.difference.value in (0.0, None)
        assert one.difference.low in (0.0, None)


def test_alike_policies_are_not_told_apart(tmp_path: Path) -> None:
    found = compared(tmp_path, both(of_b=60))
    assert figure(found, "saving of tokens").difference.verdict == "unclear"


def test_a_side_of_few_conversations_claims_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path, both(10))
    assert figure(found, "saving of tokens").difference.verdict == "too_small"


def test_periods_are_compared_as_policies_are(tmp_path: Path) -> None:
    turns = [turn(number, f"c{number}", paid=80 if number < 30 else 50, minutes=number) for number in range(60)]
    noon = BEGAN + timedelta(minutes=30)
    found = compared(tmp_path, turns, replace(QUICK, until=noon), replace(QUICK, since=noon))
    assert (found.a.turns, found.b.turns) == (30, 30)
    assert figure(found, "tokens a turn").difference == Figure(-30.0, -30.0, -30.0, "worse")
    assert figure(found, "tokens saved a turn").difference.value == pytest.approx(30.0)


def test_a_conversation_on_both_sides_is_drawn_once(tmp_path: Path) -> None:
    """Each conversation pays 20 tokens more in its second turn, whatever it pays: paired, the difference is certain."""
    turns = [turn(100 * late + number, f"c{number}", paid=10 + number + 20 * late, minutes=100 * late)
             for late in (0, 1) for number in range(40)]
    hour = BEGAN + timedelta(minutes=60)
    found = compared(tmp_path, turns, replace(QUICK, until=hour), replace(QUICK, since=hour))
    lead = figure(found, "tokens a turn").difference
    assert lead.value == pytest.approx(20.0)
    assert lead.low == pytest.approx(20.0)
    assert lead.high == pytest.approx(20.0)


def test_a_side_without_turns_is_told_and_unknown(tmp_path: Path) -> None:
    found = compared(tmp_path, both(), A, replace(QUICK, policy="p9"))
    assert figure(found, "saving of tokens").b == Figure(None)
    assert figure(found, "saving of tokens").difference == Figure(None)
    assert "The second side has no turn that counts." in found.warnings


def test_money_of_two_currencies_is_not_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, both(price_of_b=Price(1.0, None, 1.0, "EUR", "x")), A, B)
    assert not [one for one in found.figures if "money" in one.figure]
    assert any("two currencies" in warning for warning in found.warnings)


def test_with_a_rate_money_of_two_currencies_is(tmp_path: Path) -> None:
    euros, dollars = Price(5.0, None, 5.0, "EUR", "x"), {"currency": "USD", "rates": {"EUR": 2.0}}
    found = compared(tmp_path, both(of_b=60, price_of_b=euros), replace(A, **dollars), replace(B, **dollars))  # type: ignore[arg-type]
    assert figure(found, "money a turn").difference.value == pytest.approx(0.0)


def test_good_answers_are_compared_where_they_were_judged(tmp_path: Path) -> None:
    with log_of(tmp_path, *both()) as log:
        record_verdicts(log, [LoggedVerdict(f"t{number}", BEGAN, Action.NO_FETCH, "j:1", number < 30 or number % 2 == 0, "")
                              for number in range(60)])
        with open_log(log) as table:
            good = figure(compare(table, A, B, MADE_AT), "Good answers")
    assert (good.a.value, good.b.value, good.difference.value) == (1.0, 0.5, -0.5)
    assert good.difference.verdict == "worse"


def test_traffic_is_always_named_as_another_reason(tmp_path: Path) -> None:
    found = compared(tmp_path, both())
    assert "Conversations differ, so what changed may be the traffic." in found.warnings
    assert "Static answers are no policy's, and are in neither side." in found.warnings
    assert found.made_at == MADE_AT
