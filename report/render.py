"""A report as HTML: one file that opens offline, without a script, in light and dark; or its part for the dashboard.

Every text is escaped by the template engine; charts alone are put in as they are. The file's own policy lets nothing run and nothing
be loaded: its one style sheet is allowed by its hash. Leaves out words (`words.py`), charts (`charts.py`) and the dashboard around it.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from report import charts, words
from report.figures import Comparison, Cut, Figure, SavingsReport

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "report.css"
ROWS = 40
"""Rows of a cut that are shown; the data formats have all."""


@dataclass(frozen=True, slots=True)
class Table:
    """A cut as the page shows it."""

    title: str
    unit: str
    """What a row is."""
    rows: tuple[Cut, ...]
    hidden: int


def page(report: SavingsReport) -> str:
    """The whole report as an HTML file."""
    return _page(part(report), "Token savings")


def part(report: SavingsReport) -> str:
    """The report as an element, to be put into a page that has the style sheet."""
    head = report.headline
    drawn = {"days": charts.days_chart(report.by_day), "parts": charts.parts_chart(report.parts),
             "curve": charts.curve_chart(report.curve),
             "alternatives": charts.alternatives_chart(report.alternatives, head.saving if head else Figure(None))}
    return _environment().get_template("savings.html").render(
        report=report, head=head, charts=_safe(drawn), tables=_tables(report), currency=report.money.currency)


def comparison_page(comparison: Comparison) -> str:
    """Two policies or periods side by side, as an HTML file."""
    return _page(_environment().get_template("comparison.html").render(comparison=comparison), "Token savings compared")


def stylesheet() -> str:
    """The style sheet of a report."""
    return STYLE.read_text(encoding="utf-8")


def _page(body: str, title: str) -> str:
    style = stylesheet()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        body=Markup(body), style=Markup(style), style_hash=f"sha256-{digest}", title=title)


def _safe(drawn: Mapping[str, str | None]) -> dict[str, Markup | None]:
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}


def _tables(report: SavingsReport) -> tuple[Table, ...]:
    cuts = (("By day", "day", report.by_day), ("By topic", "topic", report.by_category), ("By policy", "policy", report.by_policy),
            ("By API key", "key", report.by_owner))
    return tuple(Table(title, unit, cut[-ROWS:] if unit == "day" else cut[:ROWS], max(0, len(cut) - ROWS))
                 for title, unit, cut in cuts if cut)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    made.globals["words"] = words
    made.filters |= {"share": words.share, "points": words.points, "count": words.count, "money": words.money, "day": words.day,
                     "moment": words.moment}
    return made
