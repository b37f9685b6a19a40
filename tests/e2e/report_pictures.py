"""Pictures of a report's page at desktop and phone width: `python -m tests.e2e.report_pictures REPORT.html docs/images`.

The docs' pictures are of the example's log (`report/example.py`).
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.e2e.test_page import ARGUMENTS, CHROMIUM

SIZES = {"report-1280.png": (1280, 900), "report-390.png": (390, 844)}
"""File to width and height: what is seen without scrolling."""


def screenshots(html: Path, out: Path) -> tuple[Path, ...]:
    """What a person sees first of the page, written to a folder at each width."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            return take(browser, html, out)
        finally:
            browser.close()


def take(browser: Browser, html: Path, out: Path) -> tuple[Path, ...]:
    """The same in a browser that is open."""
    out.mkdir(parents=True, exist_ok=True)
    for name, (width, height) in SIZES.items():
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light", offline=True)
        page = context.new_page()
        page.goto(html.resolve().as_uri())
        page.screenshot(path=out / name)
        context.close()
    return tuple(out / name for name in SIZES)


if __name__ == "__main__":
    print(*screenshots(Path(sys.argv[1]), Path(sys.argv[2])), sep="\n")
