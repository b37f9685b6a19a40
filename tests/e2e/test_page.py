"""The chat page in headless Chromium, as a person uses it: ask, watch it come, reload, on a phone, by keyboard."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from chat.ports import Chunk
from chat.types import Action, Message, Sampling
from tests.e2e.conftest import Service
from tests.fakes import ScriptedLLM

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; `make test` installs it on Debian, elsewhere do it by hand"),
]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]

Start = Callable[..., Service]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens the page; anything on its console that is an error fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(service: Service, *, width: int = 1280, height: int = 800) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(service.url)
        return page

    open_page.complaints = complaints  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page: Page, question: str) -> None:
    page.get_by_test_id("composer").fill(question)
    page.get_by_test_id("send").click()


def test_a_question_is_answered_with_its_action_citation_and_tokens(start: Start, visit: Visit) -> None:
    page = visit(start(answers=("It is ₹450 [fee-late]. <b>not bold</b>",)))
    ask(page, "how much is the late fee? <img src=x onerror=alert(1)>")
    answer = page.get_by_test_id("message-assistant")
    expect(answer).to_contain_text("It is ₹450")
    expect(answer).to_contain_text("<b>not bold</b>")
    expect(page.get_by_test_id("action-badge")).to_be_visible()
    page.get_by_test_id("citations").locator("summary").click()
    link = page.get_by_test_id("citations").get_by_role("link")
    expect(link).to_have_attribute("href", "https://bank.example/fees")
    expect(page.get_by_test_id("message-user")).to_contain_text("<img src=x onerror=alert(1)>")


def test_skipping_a_fetch_counts_as_tokens_saved(start: Start, visit: Visit) -> None:
    service = start(answers=("It is ₹450 [fee-late].", "You're welcome!"), actions=(Action.FETCH, Action.NO_FETCH))
    page = visit(service)
    ask(page, "how much is the late fee?")
    expect(page.get_by_test_id("message-assistant")).to_have_count(1)
    expect(page.get_by_test_id("send")).to_be_visible()
    ask(page, "thanks a lot")
    expect(page.get_by_test_id("message-assistant")).to_have_count(2)
    expect(page.get_by_test_id("message-assistant").last).to_contain_text("You're welcome!")
    expect(page.get_by_test_id("send")).to_be_visible()
    saved = service.log.turns[1].saved_tokens
    assert saved is not None
    assert saved > 0
    expect(page.get_by_test_id("tokens-saved")).to_contain_text(str(saved))


def test_a_reload_keeps_the_conversation_and_its_memory(start: Start, visit: Visit) -> None:
    service = start()
    page = visit(service)
    ask(page, "how much is the late fee?")
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is ₹450")
    expect(page.get_by_test_id("send")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is ₹450")
    ask(page, "can you waive it?")
    expect(page.get_by_test_id("message-assistant")).to_have_count(2)
    expect(page.get_by_test_id("send")).to_be_visible()
    assert len({turn.conversation_id for turn in service.log.turns}) == 1
    assert service.policy.states[1].previous_actions == (Action.FETCH,)


def test_a_new_chat_is_a_new_conversation(start: Start, visit: Visit) -> None:
    service = start()
    page = visit(service)
    ask(page, "late fee?")
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is")
    expect(page.get_by_test_id("send")).to_be_visible()
    page.get_by_test_id("new-chat").click()
    expect(page.get_by_test_id("message-assistant")).to_have_count(0)
    ask(page, "lost card?")
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is")
    expect(page.get_by_test_id("send")).to_be_visible()
    assert len({turn.conversation_id for turn in service.log.turns}) == 2


def test_the_keyboard_alone_will_do(start: Start, visit: Visit) -> None:
    page = visit(start())
    page.get_by_test_id("composer").focus()
    page.keyboard.type("late")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("fee?")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is")
    expect(page.get_by_test_id("composer")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_test_id("composer")).to_have_value("late\nfee?")


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 800)])
def test_nothing_sticks_out_on_a_phone_or_a_desk(start: Start, visit: Visit, tmp_path: Path, width: int, height: int) -> None:
    page = visit(start(answers=("x" * 400 + " [fee-late] مرحبا 👩‍👩‍👧",)), width=width, height=height)
    ask(page, "late fee? " + "w" * 300)
    expect(page.get_by_test_id("message-assistant")).to_contain_text("xxx")
    expect(page.get_by_test_id("send")).to_be_visible()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, page.screenshot(path=tmp_path / "overflow.png")
    expect(page.get_by_test_id("composer")).to_be_in_viewport()


def test_the_page_speaks_vietnamese_and_remembers_it(start: Start, visit: Visit) -> None:
    page = visit(start())
    expect(page.locator("html")).to_have_attribute("lang", "en")
    placeholder = page.get_by_test_id("composer").get_attribute("placeholder")
    page.get_by_test_id("lang-switch").click()
    expect(page.locator("html")).to_have_attribute("lang", "vi")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "vi")
    assert page.get_by_test_id("composer").get_attribute("placeholder") != placeholder


def test_a_failure_is_said_keeps_the_question_and_can_be_tried_again(start: Start, visit: Visit) -> None:
    service = start(llm=ScriptedLLM(("It is fine.",), fail_after=0))
    page = visit(service)
    ask(page, "late fee?")
    expect(page.get_by_test_id("error")).to_be_visible()
    expect(page.get_by_test_id("message-user")).to_contain_text("late fee?")
    service.llm.fail_after = None
    page.get_by_test_id("retry").click()
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is fine.")
    # Chromium itself reports the 503 on the console
    complaints: list[str] = visit.complaints  # type: ignore[attr-defined]
    assert all("503" in complaint for complaint in complaints)
    complaints.clear()


def test_an_example_question_can_be_clicked(start: Start, visit: Visit) -> None:
    page = visit(start())
    page.get_by_test_id("example").first.click()
    expect(page.get_by_test_id("message-assistant")).to_contain_text("It is")


def test_text_appears_as_it_comes_and_escape_stops_it(start: Start, visit: Visit) -> None:
    class Endless(ScriptedLLM):
        async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Chunk]:
            while True:
                yield Chunk("still ")
                await asyncio.sleep(0.02)

    service = start(llm=Endless())
    page = visit(service)
    ask(page, "late fee?")
    expect(page.get_by_test_id("message-assistant")).to_contain_text("still still")
    expect(page.get_by_test_id("stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("send")).to_be_visible()
    expect(page.get_by_test_id("composer")).to_be_focused()
