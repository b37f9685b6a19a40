"""Reports of a running service: kept until the log or the knowledge base changes, one at a time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.log.store import SqlConversationLog
from kb.types import Faq
from report.sums import ReportOptions
from service.errors import ApiError
from service.reports import Reports
from tests.unit.report.filled import fill, made_turn

ASKED = ReportOptions()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        fill(opened, 4)
        yield opened


@pytest.fixture
def reports(log: SqlConversationLog) -> Iterator[Reports]:
    made = Reports(log, keep=2, resamples=100)
    yield made
    made.close()


def test_a_report_is_kept_until_a_turn_is_served(reports: Reports, log: SqlConversationLog) -> None:
    first = reports.savings(ASKED)
    assert reports.savings(ASKED) is first
    log.append(made_turn(50, 1))
    log.append(made_turn(51, 1))
    assert reports.savings(ASKED).scope.turns == first.scope.turns + 1  # the other one is held back


def test_each_question_has_its_own_report_and_few_are_kept(reports: Reports) -> None:
    owners = {name: reports.savings(ReportOptions(owner=name)) for name in ("fg-alpha", "fg-beta")}
    assert {name: one.scope.owner for name, one in owners.items()} == {"fg-alpha": "fg-alpha", "fg-beta": "fg-beta"}
    first = reports.savings(ASKED)
    assert reports.savings(ASKED) is first
    for name in owners:
        reports.savings(ReportOptions(owner=name))
    assert reports.savings(ASKED) is not first


def test_topics_follow_the_knowledge_base(log: SqlConversationLog) -> None:
    faqs = [Faq("fee-late", "Late fee?", "450.", "fees")]
    version = ["1"]
    reports = Reports(log, lambda: tuple(faqs), lambda: version[0], budget=0.1, resamples=100)
    report = reports.savings(ASKED)
    assert [cut.group for cut in report.by_category] == ["fees"]
    assert report.quality.budget == 0.1
    faqs[0], version[0] = Faq("fee-late", "Late fee?", "450.", "money"), "2"
    assert [cut.group for cut in reports.savings(ASKED).by_category] == ["money"]
    reports.close()


def test_while_a_report_is_made_another_request_is_told_to_come_back(log: SqlConversationLog) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> tuple[Faq, ...]:
        entered.set()
        leave.wait(10)
        return ()

    reports = Reports(log, slow, patience=0.05)
    working = threading.Thread(target=reports.savings, args=(ASKED,))
    working.start()
    assert entered.wait(10)
    with pytest.raises(ApiError) as refused:
        reports.turns(ASKED, "all", None, 10)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "busy", 5)
    leave.set()
    working.join(10)
    assert len(reports.turns(ASKED, "all", None, 10).turns) == 10
    reports.close()


def test_after_it_was_closed_it_opens_again(reports: Reports) -> None:
    before = reports.savings(ASKED).scope
    reports.close()
    assert reports.savings(ASKED).scope == before
