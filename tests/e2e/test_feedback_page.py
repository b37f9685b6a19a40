"""The chat page's thumbs and comments in headless Chromium, over a real log: by pointer, by keyboard, on a phone, when it fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from chat.log.ratings import latest, ratings
from chat.log.store import SqlConversationLog
from tests.e2e.conftest import Service
from tests.e2e.test_page import Start, Visit, ask, browser, pytestmark, visit

__all__ = ["browser", "pytestmark", "visit"]  # the fixtures and marks of the page's other tests


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        yield opened


@pytest.fixture
def service(start: Start, log: SqlConversationLog) -> Service:
    return start(database=log)


def answered(page: Page, question: str = "how much is the late fee?") -> Page:
    ask(page, question)
    expect(page.get_by_test_id("send")).to_be_visible()
    expect(page.get_by_test_id("feedback").last).to_be_visible()
    return page


def test_a_thumb_is_stored_shown_and_there_after_a_reload(service: Service, log: SqlConversationLog, visit: Visit) -> None:
    page = answered(visit(service))
    expect(page.get_by_test_id("feedback-comment-toggle")).to_be_hidden()
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_test_id("feedback-said")).to_have_text("Saved. Thank you.")
    expect(page.get_by_role("button", name="Good answer", pressed=True)).to_be_visible()
    [rating] = ratings(log)
    [turn] = log.turns()
    assert (rating.turn_id, rating.good, rating.comment, rating.owner) == (turn.id, True, None, "local")
    assert rating.rater.startswith("browser-")
    page.reload()
    expect(page.get_by_test_id("feedback-good")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_test_id("feedback-bad")).to_have_attribute("aria-pressed", "false")
    page.get_by_test_id("feedback-good").click()  # pressed already: nothing more to say
    assert len(ratings(log)) == 1


def test_a_change_of_mind_brings_a_comment_and_both_ratings_are_kept(service: Service, log: SqlConversationLog, visit: Visit) -> None:
    page = answered(visit(service))
    page.get_by_test_id("feedback-good").click()
    expect(page.get_by_test_id("feedback-said")).to_have_text("Saved. Thank you.")
    page.get_by_test_id("feedback-bad").click()
    page.get_by_label("What could be better").fill("<b>It was ₹500</b>")
    page.get_by_test_id("feedback-send").click()
    expect(page.get_by_test_id("feedback-comment")).to_be_hidden()
    expect(page.get_by_test_id("feedback-comment-toggle")).to_be_focused()
    assert [(rating.good, rating.comment) for rating in latest(ratings(log))] == [(False, "<b>It was ₹500</b>")]
    assert [rating.good for rating in ratings(log)] == [True, False, False]
    page.reload()
    page.get_by_test_id("feedback-comment-toggle").click()
    expect(page.get_by_test_id("feedback-comment")).to_have_value("<b>It was ₹500</b>")


def test_the_keyboard_alone_rates_and_comments(service: Service, log: SqlConversationLog, visit: Visit) -> None:
    page = answered(visit(service))
    page.get_by_test_id("feedback-good").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("feedback-bad")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_test_id("feedback-bad")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("feedback-comment-toggle")).to_be_focused()
    expect(page.get_by_test_id("feedback-comment-toggle")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Tab")
    page.keyboard.type("no\nreally")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("feedback-comment")).to_be_hidden()
    expect(page.get_by_test_id("feedback-comment-toggle")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("feedback-comment")).to_be_focused()
    page.keyboard.type("wrong fee")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("feedback-comment")).to_be_hidden()
    assert [(rating.good, rating.comment) for rating in latest(ratings(log))] == [(False, "wrong fee")]


def test_what_is_said_while_a_rating_is_on_its_way_goes_after_it(service: Service, log: SqlConversationLog, visit: Visit) -> None:
    page = answered(visit(service))
    held: list[Route] = []
    page.route("**/v1/feedback", lambda route: held.append(route), times=1)
    page.get_by_test_id("feedback-good").click()
    expect(page.get_by_test_id("feedback-said")).to_have_text("Saving…")
    page.get_by_test_id("feedback-bad").click()
    page.get_by_label("What could be better").fill("wrong fee")
    page.get_by_test_id("feedback-send").click()
    assert len(held) == 1, "one at a time, in order"
    held[0].continue_()
    expect(page.get_by_test_id("feedback-comment")).to_be_hidden()
    assert [(rating.good, rating.comment) for rating in ratings(log)] == [(True, None), (False, "wrong fee")]
    expect(page.get_by_test_id("feedback-bad")).to_have_attribute("aria-pressed", "true")


def test_a_rating_that_is_not_stored_is_taken_back_and_said(service: Service, log: SqlConversationLog, visit: Visit) -> None:
    page = answered(visit(service))
    log.close()
    page.get_by_test_id("feedback-good").click()
    expect(page.get_by_test_id("feedback-said")).to_contain_text("This could not be saved. The service is not available at the moment.")
    expect(page.get_by_test_id("feedback-good")).to_have_attribute("aria-pressed", "false")
    complaints: list[str] = visit.complaints  # type: ignore[attr-defined]
    assert all("503" in complaint for complaint in complaints)  # Chromium itself reports it on the console
    complaints.clear()


def test_each_answer_has_thumbs_of_its_own_and_one_that_failed_has_none(
    start: Start, log: SqlConversationLog, visit: Visit
) -> None:
    service = start(database=log, answers=("It is ₹450.", "Yes."))
    page = answered(visit(service))
    answered(page, "can you waive it?")
    expect(page.get_by_test_id("feedback")).to_have_count(2)
    page.get_by_test_id("feedback-bad").last.click()
    expect(page.get_by_test_id("feedback-said").last).to_have_text("Saved. Thank you.")
    said = {turn.query: turn.id for turn in log.turns()}
    assert [rating.turn_id for rating in ratings(log)] == [said["can you waive it?"]]
    service.llm.fail_after = 0
    ask(page, "and then?")
    expect(page.get_by_test_id("error")).to_be_visible()
    expect(page.get_by_test_id("feedback").last).to_be_hidden()
    visit.complaints.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_thumbs_and_comment_fit_a_phone_and_a_desk_in_vietnamese(
    service: Service, visit: Visit, width: int, height: int
) -> None:
    page = visit(service, width=width, height=height)
    page.get_by_test_id("lang-switch").click()
    answered(page)
    page.get_by_role("button", name="Câu trả lời chưa tốt").click()
    expect(page.get_by_test_id("feedback-said")).to_have_text("Đã lưu. Cảm ơn bạn.")
    expect(page.get_by_label("Điều gì chưa ổn")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    for name in ("feedback-good", "feedback-bad"):
        box = page.get_by_test_id(name).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, target size
