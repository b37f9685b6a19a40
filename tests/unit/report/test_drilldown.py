"""From figures to turns: pages, filters, one turn with all that is known of it, redacted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.log.ratings import Rating, record_rating
from chat.log.store import SqlConversationLog
from report.drilldown import turn_detail, turn_page
from report.source import TurnTable, open_log
from report.sums import ReportOptions
from tests.unit.report.filled import BEGAN, fill, made_turn

HARMED = "turn-1-1"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlConversationLog]:
    path: Path = tmp_path_factory.mktemp("log") / "log.db"
    with SqlConversationLog(str(path)) as opened:
        fill(opened, 12)
        record_rating(opened, Rating(HARMED, "fg-beta", "ann", "user", BEGAN, good=False))
        yield opened


@pytest.fixture(scope="module")
def table(log: SqlConversationLog) -> Iterator[TurnTable]:
    with open_log(log) as opened:
        yield opened


def test_pages_hold_every_turn_once_the_latest_first(table: TurnTable) -> None:
    seen: list[str] = []
    before = None
    for _ in range(10):
        page = turn_page(table, ReportOptions(), before=before, limit=7)
        seen += [turn.id for turn in page.turns]
        if (before := page.next) is None:
            break
    assert seen == [f"turn-{number}-{position}" for number in reversed(range(12)) for position in (2, 1, 0)]


def test_a_line_has_tokens_saving_verdict_and_whether_it_counts(table: TurnTable) -> None:
    lines = {turn.id: turn for turn in turn_page(table, ReportOptions()).turns}
    skip, fetch, held = lines[HARMED], lines["turn-2-0"], lines["turn-10-1"]
    assert (skip.action, skip.tokens, skip.baseline, skip.baseline_tokens, skip.saved_tokens) == ("NO_FETCH", 120, "frugal", 421, 301)
    assert (skip.good, fetch.good) == (False, True)
    assert (skip.counted, held.counted) == (True, False)
    assert skip.created_at == made_turn(1, 1).created_at


@pytest.mark.parametrize(("show", "count"),
                         [("all", 36), ("NO_FETCH", 10), ("FETCH", 26), ("STATIC", 0), ("harmful", 1), ("not_counted", 6)])
def test_a_kind_of_turns_can_be_asked_for(table: TurnTable, show: str, count: int) -> None:
    assert len(turn_page(table, ReportOptions(), show=show).turns) == count  # type: ignore[arg-type]


def test_turns_are_those_of_the_report(table: TurnTable) -> None:
    page = turn_page(table, ReportOptions(owner="fg-beta", policy="gate:1", since=made_turn(7, 0).created_at))
    assert {turn.id for turn in page.turns} == {f"turn-{number}-{position}" for number in (3, 7, 11) for position in range(3)}


def test_a_turn_is_shown_redacted_with_both_verdicts(table: TurnTable, log: SqlConversationLog) -> None:
    turn = turn_detail(table, log, HARMED, owner=None, inside=True)
    assert turn is not None
    assert "Asha" not in turn.line.query
    assert "asha@example.com" not in turn.line.query
    assert "<script>" in turn.line.query
    assert {(one.arm, one.good) for one in turn.verdicts} == {("NO_FETCH", False), ("FETCH", True)}
    assert [(one.role, one.good) for one in turn.ratings] == [("user", False)]
    assert {one.baseline: one.saved_tokens for one in turn.counterfactuals}["paper"] == 501
    assert turn.cost == pytest.approx((90 * 2.0 + 10 * 0.5 + 20 * 8.0) / 1e6)
    assert turn.inside is not None
    assert turn.inside.similarities[0] == ("fee-late", 0.8125)


def test_what_the_policy_saw_can_be_left_out(table: TurnTable, log: SqlConversationLog) -> None:
    turn = turn_detail(table, log, HARMED, owner="fg-beta", inside=False)
    assert turn is not None
    assert turn.inside is None


def test_the_turn_of_another_owner_is_none(table: TurnTable, log: SqlConversationLog) -> None:
    assert turn_detail(table, log, HARMED, owner="fg-alpha", inside=False) is None
    assert turn_detail(table, log, "nowhere", owner=None, inside=True) is None


def test_a_turn_of_the_holdback_says_so(table: TurnTable, log: SqlConversationLog) -> None:
    turn = turn_detail(table, log, "turn-10-0", owner=None, inside=False)
    assert turn is not None
    assert turn.notes == ("holdback",)
