"""Charts: drawn without colours, styles or scripts of their own; None where there is nothing to draw."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from report.charts import alternatives_chart, curve_chart, days_chart, parts_chart
from report.figures import Figure
from tests.unit.report.made import UNKNOWN, made_report

REPORT = made_report()
HEAD = REPORT.against[0].saving


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    made = {"days": days_chart(REPORT.by_day), "parts": parts_chart(REPORT.parts), "curve": curve_chart(REPORT.curve),
            "alternatives": alternatives_chart(REPORT.alternatives, HEAD)}
    return {name: svg for name, svg in made.items() if svg is not None}


def test_every_chart_is_drawn_in_the_colours_of_the_page(drawn: dict[str, str]) -> None:
    assert list(drawn) == ["days", "parts", "curve", "alternatives"]
    for svg in drawn.values():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
        assert colours <= {"none", "transparent", *(f"var(--{name})" for name in ("accent", "fetch", "error", "muted", "line", "text"))}


def test_no_chart_has_a_style_a_script_or_an_address(drawn: dict[str, str]) -> None:
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        assert root.attrib["aria-label"]
        for element in root.iter():
            assert not {"style", "href", "onload", "{http://www.w3.org/1999/xlink}href"} & set(element.attrib)
            assert element.tag.rpartition("}")[2] in ("svg", "g", "path", "rect", "line", "text", "title", "circle")


def test_today_is_marked_on_the_curve(drawn: dict[str, str]) -> None:
    assert ">today<" in drawn["curve"]
    assert REPORT.curve is not None
    without = curve_chart(replace(REPORT.curve, operating=None))
    assert without is not None
    assert ">today<" not in without


def test_a_way_that_costs_far_more_is_left_to_the_table() -> None:
    far = replace(REPORT.alternatives[0], saving=Figure(-36.0, -37.0, -35.0))
    assert alternatives_chart((far,), HEAD) is None


def test_nothing_is_drawn_of_nothing() -> None:
    assert days_chart(()) is None
    assert days_chart(REPORT.by_day[:1]) is None
    assert parts_chart(()) is None
    assert alternatives_chart(REPORT.alternatives, UNKNOWN) is None
    assert curve_chart(None) is None


def test_the_interval_of_a_small_sample_does_not_stretch_the_chart() -> None:
    wild = [replace(cut, saving=Figure(0.1, -90_000.0, 0.4, "too_small")) for cut in REPORT.by_day]
    calm = [replace(cut, saving=Figure(0.1, 0.1, 0.1, "too_small")) for cut in REPORT.by_day]
    assert days_chart(tuple(wild)) == days_chart(tuple(calm))
