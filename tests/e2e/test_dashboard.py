"""The report over HTTP and the dashboard in headless Chromium, over a real log: the file's figures, filters, turns, keys, a phone."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from chat.log.store import SqlConversationLog
from service.cli.main import app
from service.keys import Scope, create_key
from tests.e2e.conftest import Service, services
from tests.e2e.test_page import Start, Visit, browser, pytestmark, visit
from tests.unit.report.filled import fill, made_turn
from tests.unit.report.made import HOSTILE

__all__ = ["browser", "pytestmark", "visit"]  # the fixtures and marks of the page's other tests

HARMED = "turn-1-1"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that each test gets a copy of to change."""
    path = tmp_path_factory.mktemp("filled") / "log.db"
    with SqlConversationLog(str(path)) as log:
        fill(log)
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, filled: Path) -> Iterator[Service]:
    """One for all tests that only read: a report is made once."""
    with SqlConversationLog(str(filled), create=False) as log, services(tmp_path_factory.mktemp("service")) as start_service:
        yield start_service(database=log)


@pytest.fixture
def log(tmp_path: Path, filled: Path) -> Iterator[SqlConversationLog]:
    shutil.copy(filled, tmp_path / "log.db")
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        yield opened


def dashboard(page: Page, service: Service, asked: str = "") -> Page:
    page.goto(f"{service.url}/dashboard{asked}")
    expect(page.get_by_test_id("report")).to_contain_text("Token savings")
    expect(page.get_by_test_id("turn-rows").get_by_role("row").first).to_be_visible()
    return page


def get(service: Service, path: str, key: str = "", **asked: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{service.url}/v1/report/{path}", params=asked, headers=headers)  # type: ignore[arg-type]


def without_time(text: str) -> dict[str, Any]:
    found = json.loads(text)
    assert found.pop("made_at")
    return dict(found)


def test_the_api_gives_the_figures_of_the_command_to_the_last_digit(service: Service, filled: Path) -> None:
    served = without_time(get(service, "savings", **{"from": "2026-10-02", "to": "2026-10-03"}, month=1_000_000).text)
    ran = CliRunner().invoke(app, ["report", "savings", "--db", str(filled), "--from", "2026-10-02", "--to", "2026-10-03", "--month",
                                   "1000000", "--budget", "0.05", "--resamples", "200", "--json"])
    assert ran.exit_code == 0, ran.stderr
    made = without_time(ran.stdout)
    # what the service knows besides: the topics of its FAQs, and how long they are
    for name in ("by_category", "alternatives"):
        served.pop(name), made.pop(name)
    assert served == made
    assert served["scope"]["turns"] == 54


def test_the_dashboard_shows_the_figures_of_the_api_and_leads_to_turns(service: Service, visit: Visit) -> None:
    saving = get(service, "savings").json()["against"][0]["saving"]
    page = dashboard(visit(service), service)
    expect(page.locator("[data-figure=saving]")).to_have_text(f"{saving['value'] * 100:.1f} %")
    expect(page.get_by_role("heading", name="Certainty")).to_be_visible()
    expect(page.get_by_role("heading", name="Quality", exact=True)).to_be_visible()
    expect(page.locator("#report svg").first).to_be_visible()
    page.get_by_test_id("report").get_by_role("button", name=HARMED).click()
    expect(page.get_by_test_id("turn-dialog")).to_contain_text("conversation-1")


def test_the_chat_page_leads_to_it(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.get_by_test_id("tokens-saved").click()
    page.get_by_test_id("savings-report").click()
    expect(page).to_have_url(f"{service.url}/dashboard")
    expect(page.get_by_test_id("report")).to_contain_text("Token savings")


def test_a_filter_is_in_the_address_and_narrows_figures_and_turns(service: Service, visit: Visit) -> None:
    page = dashboard(visit(service), service)
    page.get_by_test_id("owner").fill("fg-beta")
    page.get_by_test_id("show").click()
    expect(page.locator(".report-head")).to_contain_text("key fg-beta")
    assert "owner=fg-beta" in page.url
    page.reload()
    expect(page.locator(".report-head")).to_contain_text("key fg-beta")
    expect(page.get_by_test_id("owner")).to_have_value("fg-beta")
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.locator(".report-head")).not_to_contain_text("key fg-beta")
    expect(page.locator("#policies option")).to_have_count(2)


def test_a_period_that_cannot_be_is_said_and_the_page_stays_usable(service: Service, visit: Visit) -> None:
    page = visit(service)
    page.goto(f"{service.url}/dashboard?from=2026-10-10&to=2026-10-01")
    expect(page.get_by_test_id("state")).to_contain_text("expected a time after")
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_test_id("report")).to_contain_text("Token savings")
    visit.complaints[:] = [said for said in visit.complaints if "400" not in said]  # type: ignore[attr-defined]


def test_a_turn_opens_from_the_list_redacted_and_escaped(service: Service, visit: Visit) -> None:
    page = dashboard(visit(service), service)
    page.get_by_test_id("turns-show").select_option("harmful")
    expect(page.get_by_test_id("turn-rows").get_by_role("row")).to_have_count(1)
    page.get_by_test_id("turn-rows").get_by_test_id("turn").click()
    dialog = page.get_by_test_id("turn-dialog")
    expect(dialog).to_contain_text(HOSTILE)
    expect(dialog).to_contain_text("[e-mail]")
    expect(dialog).not_to_contain_text("Asha")
    expect(dialog).to_contain_text("frugal")
    expect(dialog).to_contain_text("Another sum.")
    expect(dialog).to_contain_text("fee-late 0.81")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_more_turns_come_page_by_page_and_nothing_needs_sideways_scrolling(service: Service, visit: Visit) -> None:
    page = dashboard(visit(service), service)
    expect(page.get_by_test_id("turn-rows").get_by_role("row")).to_have_count(50)
    page.get_by_test_id("more").click()
    expect(page.get_by_test_id("turn-rows").get_by_role("row")).to_have_count(100)
    page.get_by_test_id("more").click()
    expect(page.get_by_test_id("turn-rows").get_by_role("row")).to_have_count(120)
    expect(page.get_by_test_id("more")).to_be_hidden()
    page.get_by_test_id("turn-rows").get_by_test_id("turn").first.click()
    expect(page.get_by_test_id("turn-dialog")).to_be_visible()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("[document.documentElement.scrollWidth, document.querySelector('dialog[open]').scrollWidth <= innerWidth]") \
            == [width, True]


def test_a_turn_that_is_served_meanwhile_is_in_the_next_report(start: Start, log: SqlConversationLog) -> None:
    service = start(database=log)
    before = get(service, "savings").json()["scope"]["turns"]
    chat = {"model": "fetchgate", "messages": [{"role": "user", "content": "how much is the late fee?"}]}
    assert httpx.post(f"{service.url}/v1/chat/completions", json=chat).status_code == 200
    assert get(service, "savings").json()["scope"]["turns"] == before + 1


def test_the_files_are_saved_from_the_page(service: Service, visit: Visit) -> None:
    page = dashboard(visit(service), service)
    with page.expect_download() as download:
        page.get_by_test_id("save-html").click()
    assert download.value.suggested_filename == "savings.html"
    assert "<!doctype html>" in download.value.path().read_text(encoding="utf-8")
    assert get(service, "savings", format="csv").text.startswith("section,group,figure")
    assert get(service, "savings", format="parquet").content[:4] == b"PAR1"
    assert "attachment" in get(service, "savings", format="file").headers["content-disposition"]


def test_a_key_sees_its_own_turns_alone_and_no_similarities(start: Start, log: SqlConversationLog) -> None:
    mine, my_key = create_key([Scope.REPORT])
    admin, admin_key = create_key([Scope.ADMIN, Scope.REPORT])
    chats, chat_key = create_key([Scope.CHAT])
    for number in (101, 103):
        turn = made_turn(number, 1)
        log.append(replace(turn, owner=my_key.lookup))
    service = start(database=log, keys=(my_key, admin_key, chat_key))
    assert get(service, "savings").status_code == 401
    assert get(service, "savings", chats).status_code == 403
    scope = get(service, "savings", mine).json()["scope"]
    assert (scope["turns"], scope["owner"]) == (2, my_key.lookup)
    assert get(service, "savings", mine, owner="fg-alpha").status_code == 403
    assert [turn["id"] for turn in get(service, "turns", mine).json()["turns"]] == ["turn-103-1", "turn-101-1"]
    assert get(service, f"turns/{HARMED}", mine).status_code == 404
    assert get(service, "turns/turn-101-1", mine).json()["inside"] is None
    assert get(service, f"turns/{HARMED}", admin).json()["inside"]["similarities"][0] == ["fee-late", 0.8125]
    assert get(service, "savings", admin, owner="fg-alpha").json()["scope"]["owner"] == "fg-alpha"


def test_a_page_of_another_site_gets_no_report_where_there_are_no_keys(service: Service) -> None:
    answer = httpx.get(f"{service.url}/v1/report/savings", headers={"Host": "evil.example"})
    assert answer.status_code == 403


def test_without_a_log_the_report_says_so(start: Start) -> None:
    assert get(start(), "savings").json()["error"]["code"] == "no_log"


def test_the_page_asks_for_a_key_where_one_is_needed(start: Start, log: SqlConversationLog, visit: Visit) -> None:
    key, hashed = create_key([Scope.REPORT, Scope.ADMIN])
    service = start(database=log, keys=(hashed,))
    page = visit(service)
    page.goto(f"{service.url}/dashboard")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_test_id("report")).to_contain_text("Token savings")
    visit.complaints[:] = [said for said in visit.complaints if "401" not in said]  # type: ignore[attr-defined]
