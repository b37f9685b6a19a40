"""The made-up log that a report is timed on."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from report.bench import make_turns, make_verdicts, measure
from report.savings import savings_report
from report.source import open_parquet
from report.sums import ReportOptions


def test_the_made_up_log_has_all_that_a_report_shows(tmp_path: Path) -> None:
    make_turns(tmp_path / "t.parquet", 4000)
    make_verdicts(tmp_path / "v.parquet", 4000)
    with open_parquet(tmp_path / "t.parquet", tmp_path / "v.parquet", categories={"faq-3": "c"}) as table:
        report = savings_report(table, ReportOptions(resamples=100), datetime(2026, 11, 1, tzinfo=UTC))
    assert report.headline is not None
    assert report.headline.baseline == "frugal"
    assert 0 < (report.scope.left_out or {})["holdback"] < 400
    assert {one.group for one in report.by_policy} == {"gate-1", "gate-2", "static"}
    assert {one.group for one in report.by_category} == {"c", "(unknown)"}
    assert report.quality.skips_judged > 0
    assert report.curve is not None


def test_a_measurement_says_how_long_and_how_much(tmp_path: Path) -> None:
    found = measure(2000, tmp_path, resamples=100)
    assert found["turns"] == 2000
    assert found["whole_s"] == pytest.approx(found["read_s"] + found["report_s"], abs=0.02)
    assert found["peak_bytes"] > 2**20
    assert measure(2000, tmp_path, resamples=100)["file_bytes"] == found["file_bytes"], "the file is kept and measured again"
