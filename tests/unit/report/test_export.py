"""Reports as files: JSON that its schema describes and that reads back, long tables with every number, nothing half-written."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from pydantic import TypeAdapter

from report.errors import ReportError
from report.export import content, rows, schema, to_csv, to_json, to_parquet, write
from report.figures import Comparison, Figure, SavingsReport
from tests.conftest import ROOT
from tests.unit.report.made import HOSTILE, empty_report, made_comparison, made_report


def numbers(value: object) -> list[float]:
    """Every number in JSON."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_json_reads_back_as_the_same_report_to_the_last_digit() -> None:
    for report in (made_report(), empty_report()):
        assert TypeAdapter(SavingsReport).validate_json(to_json(report)) == report
    assert TypeAdapter(Comparison).validate_json(to_json(made_comparison())) == made_comparison()


def test_the_published_schema_is_up_to_date() -> None:
    published = (ROOT / "docs/report.schema.json").read_text(encoding="utf-8")
    assert published == schema(), "docs/report.schema.json is stale; run `.venv/bin/python -m service.docs`"


def test_the_schema_names_and_describes_what_the_json_holds() -> None:
    made: dict[str, Any] = json.loads(schema())
    definitions = made["$defs"]
    report = definitions[made["$ref"].rpartition("/")[2]]
    assert set(report["properties"]) == set(report["required"]) == set(json.loads(to_json(made_report())))
    assert definitions["Figure"]["properties"]["low"]["description"] == "None: no interval can be given."
    assert "too_small" in definitions["Figure"]["properties"]["verdict"]["enum"]


def test_the_long_table_has_every_number_of_the_report() -> None:
    told = json.loads(to_json(made_report()))
    del told["wrong_answers"]
    table = [number for row in rows(made_report()) for number in (row.value, row.low, row.high) if number is not None]
    assert sorted(table) == sorted(numbers(told))


def test_rows_say_what_they_are() -> None:
    found = {(row.section, row.group, row.figure): row for row in rows(made_report())}
    head = found["against", "frugal", "saving"]
    assert (head.value, head.verdict, head.unit) == (0.3548, "better", "share")
    assert (found["against", "paper", "saved_tokens"].value, found["against", "paper", "saved_tokens"].unit) == (3_950_500, "tokens")
    assert found["money.caching", "extra_cached", "saved_money"].unit == "money"
    assert found["quality.rates", "NO_FETCH by judge", "good"].unit == "count"
    assert found["by_policy", "demo:8f31c2", "good"].unit == "share"
    assert found["money", "", "currency"].text == "USD"
    assert found["scope", "", "left_out.holdback"].value == 331
    assert found["curve", "0.62", "operating.skip_rate"].value == 0.41
    assert found["curve.points", "0.05", "accuracy"].value == pytest.approx(0.836)


def test_the_csv_and_the_parquet_are_the_long_table() -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(made_report()))))
    table = pyarrow.parquet.read_table(io.BytesIO(to_parquet(made_report()))).to_pylist()
    made = rows(made_report())
    assert len(read) == len(table) == len(made)
    assert [row["value"] for row in table] == [row.value for row in made]
    assert [float(row["value"]) if row["value"] else None for row in read] == [row.value for row in made]


def test_texts_of_people_are_in_no_table_and_none_is_a_formula() -> None:
    report = made_report()
    hostile = replace(report, by_owner=(replace(report.by_owner[0], group="=HYPERLINK(1)"),))
    made = to_csv(hostile)
    assert HOSTILE not in made
    assert "\nby_owner,'=HYPERLINK(1),turns," in made
    assert "\nby_owner,=" not in made


@pytest.mark.parametrize("suffix", [".html", ".json", ".csv", ".parquet"])
def test_a_file_is_written_by_its_ending(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"report{suffix}"
    for report in (made_report(), made_comparison()):
        write(report, out)
        assert out.read_bytes() == content(report, suffix)
    assert list(tmp_path.iterdir()) == [out]


def test_another_ending_or_folder_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="ending in .html, .json, .csv, .parquet, got '.pdf'"):
        write(made_report(), tmp_path / "report.pdf")
    with pytest.raises(ReportError, match="can't be written"):
        write(made_report(), tmp_path / "nowhere" / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_number_is_unknown_in_json() -> None:
    report = made_report()
    odd = replace(report.money, saved=Figure(float("nan")))
    assert json.loads(to_json(replace(report, money=odd)))["money"]["saved"]["value"] is None
