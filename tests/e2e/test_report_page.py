"""The report's file in headless Chromium: offline and without a script, on a desktop and a phone, light, dark and printed."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from report.export import Report, write
from tests.conftest import ROOT
from tests.e2e.report_pictures import SIZES, take
from tests.e2e.test_page import browser, pytestmark
from tests.unit.report.made import empty_report, made_comparison, made_report

__all__ = ["browser", "pytestmark"]  # the fixture and marks of the chat page's tests

Open = Callable[..., Page]
MADE: dict[str, Callable[[], Report]] = {"report": made_report, "empty": empty_report, "comparison": made_comparison}
FIRST_CARDS = "[...document.querySelectorAll('.card h2')].map(e => [e.textContent, e.getBoundingClientRect().bottom])"
CONTRASTS = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  const said = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll('main *')].filter((e) => !e.closest('svg') && said(e))
    .map((e) => { const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
      return [e.className + ' ' + e.textContent.trim().slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })
    .filter(([, ratio]) => ratio < 4.5);
})()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, make in MADE.items():
        write(make(), folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in MADE}


@pytest.fixture
def visit_file(browser: Browser, files: dict[str, Path]) -> Iterator[Open]:
    """Opens a report's file without a network and without scripts; whatever the console says fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(name: str = "report", *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", offline=True,
                                      java_script_enabled=False)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: None if request.url.startswith("file:") else complaints.append(request.url))
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def test_saving_certainty_and_quality_are_seen_without_scrolling(visit_file: Open) -> None:
    page = visit_file()
    cards = page.evaluate(FIRST_CARDS)
    assert [name for name, _ in cards] == ["Saving", "Certainty", "Quality"]
    assert all(bottom < 300 for _, bottom in cards)
    saving = page.locator("[data-figure=saving]")
    assert saving.inner_text() == "35.5 %"
    assert saving.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 36


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("width", [390, 1280])
def test_there_is_no_sideways_scrolling(visit_file: Open, name: str, width: int) -> None:
    page = visit_file(name, width=width, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_in_light_and_dark(visit_file: Open, dark: bool) -> None:
    page = visit_file(dark=dark)
    assert page.evaluate(CONTRASTS) == []
    drawn = page.locator("svg.chart text").first.evaluate("e => getComputedStyle(e).fill")
    assert drawn == ("rgb(162, 174, 185)" if dark else "rgb(86, 98, 109)")


def test_a_row_on_a_phone_says_what_each_number_is(visit_file: Open) -> None:
    page = visit_file(width=390)
    cell = page.locator("td[data-label='Share saved']").first
    assert cell.evaluate("e => getComputedStyle(e, '::before').content") == '"Share saved"'
    assert cell.bounding_box() is not None


def test_it_prints(visit_file: Open) -> None:
    page = visit_file(dark=True)
    page.emulate_media(media="print")
    assert page.locator(".card").first.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


def test_pictures_are_taken_at_desktop_and_phone_width(browser: Browser, files: dict[str, Path], tmp_path: Path) -> None:
    for path in take(browser, files["report"], tmp_path):
        assert struct.unpack(">II", path.read_bytes()[16:24]) == SIZES[path.name]
        assert path.stat().st_size > 20_000


def test_the_pictures_of_the_docs_have_these_widths() -> None:
    for name, size in SIZES.items():
        path = ROOT / "docs/images" / name
        assert path.is_file(), f"expected {path}; make it with `python -m tests.e2e.report_pictures REPORT.html docs/images`"
        assert struct.unpack(">II", path.read_bytes()[16:24]) == size
