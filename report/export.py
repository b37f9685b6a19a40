"""A report as a file: HTML, JSON with a published schema, or a long table as CSV and Parquet; the suffix says which.

The long table has a row for every number: `section`, `group` (which row of a cut, which baseline), `figure`, `value`, `low`, `high`,
`verdict`, `unit`; what is a word or a time stands in `text`. Texts of people aren't in it. Leaves out HTML (`render.py`).

The schema is docs/report.schema.json, which `python -m service.docs` writes.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, create_model

from chat.log.export import whole_file
from report.errors import ReportError
from report.figures import (
    VERSION,
    Against,
    Alternative,
    CacheScenario,
    Compared,
    Comparison,
    CurvePoint,
    Cut,
    Figure,
    GoodRate,
    Part,
    SavingsReport,
)
from report.render import comparison_page, page

SUFFIXES = (".html", ".json", ".csv", ".parquet")
TEXTS_OF_PEOPLE = ("wrong_answers",)
TOKENS = {"input", "cached_input", "output", "saved_tokens", "saved_input_tokens", "saved_output_tokens", "saved_per_turn", "tokens",
          "actual_tokens", "baseline_tokens"}
MONEY = {"saved_money", "saved", "net", "net_money", "actual", "counterfactual", "judge_cost", "compute_cost", "money"}
OTHER_UNITS = {"compute_seconds": "seconds", "threshold": "score"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the beginning of a text."""

Report = SavingsReport | Comparison


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a report, or one word."""

    section: str
    group: str
    """Empty: the section has one row."""
    figure: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    unit: str = ""
    """share (of 1), tokens, money (the report's currency), count, seconds or score."""
    text: str = ""


def to_json(report: Report) -> str:
    """The report as JSON, numbers to the last digit."""
    return TypeAdapter(type(report)).dump_json(report, indent=2).decode() + "\n"


def schema() -> str:
    """The JSON schema of a savings report; a comparison's is `#/$defs/Comparison`."""
    # made here: it reads the source of the figures, for the words on each field
    described = ConfigDict(use_attribute_docstrings=True)
    published = create_model("Published", __config__=described, savings=SavingsReport, comparison=Comparison)
    made = published.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": VERSION, "$ref": "#/$defs/SavingsReport"}
    return json.dumps(head | {"$defs": made["$defs"]}, indent=2, ensure_ascii=False) + "\n"


def rows(report: Report) -> list[Row]:
    """The long table."""
    return [row for field in fields(report) if field.name not in TEXTS_OF_PEOPLE
            for row in _rows(field.name, "", "", getattr(report, field.name))]


def to_csv(report: Report) -> str:
    """The long table as CSV; texts that a spreadsheet would run as a formula begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in asdict(row).items()} for row in rows(report))
    return out.getvalue()


def to_parquet(report: Report) -> bytes:
    """The long table as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    types = {field.name: pyarrow.float64() if field.name in ("value", "low", "high") else pyarrow.string() for field in fields(Row)}
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(map(asdict, rows(report))), pyarrow.schema(types)), out)
    return out.getvalue()


def check_suffix(suffix: str) -> None:
    """Refuses what no report is written as. Raises: ReportError."""
    if suffix.lower() not in SUFFIXES:
        raise ReportError(f"expected a file ending in {', '.join(SUFFIXES)}, got {suffix or 'no ending'!r}; rename it")


def content(report: Report, suffix: str) -> bytes:
    """What a file of that suffix holds. Raises: ReportError."""
    check_suffix(suffix)
    match suffix.lower():
        case ".html":
            return (page(report) if isinstance(report, SavingsReport) else comparison_page(report)).encode()
        case ".json":
            return to_json(report).encode()
        case ".csv":
            return to_csv(report).encode()
    return to_parquet(report)


def write(report: Report, out: Path) -> None:
    """Write the report to a file, which appears whole or not at all. Raises: ReportError."""
    data = content(report, out.suffix)
    try:
        with whole_file(out.resolve()) as file:
            file.write(data)
    except OSError as error:
        raise ReportError(f"{out}: can't be written ({error.strerror or error}); check its folder, permissions and free space") from error


def _rows(section: str, group: str, figure: str, value: Any) -> Iterator[Row]:
    match value:
        case None:
            return
        case Figure():
            yield Row(section, group, figure or section, value.value, value.low, value.high, value.verdict, _unit(figure or section, value))
        case bool() | str():
            yield Row(section, group, figure or section, text=str(value))
        case datetime():
            yield Row(section, group, figure or section, text=value.isoformat())
        case int() | float():
            yield Row(section, group, figure or section, float(value), unit=_unit(figure or section, value))
        case dict():
            for name, inner in value.items():
                yield from _rows(section, group, f"{figure}.{name}".strip("."), inner)
        case tuple() if figure:  # a table inside a section is one of its own; words of a row stay with it
            words = all(isinstance(inner, str) for inner in value)
            for inner in value:
                yield from _rows(section if words else f"{section}.{figure}", group, figure if words else "", inner)
        case tuple():
            for inner in value:
                yield from _rows(section, "", "", inner)
        case _:
            key = _key(value)
            for name in (field.name for field in fields(value)):
                yield from _rows(section, key or group, f"{figure}.{name}".strip("."), getattr(value, name))


def _key(value: object) -> str:
    """What tells a row from the others of its table; empty where there is one."""
    match value:
        case Against():
            return value.baseline
        case Part():
            return value.part
        case CacheScenario():
            return value.scenario
        case GoodRate():
            return f"{value.group} by {value.source}"
        case Alternative():
            return value.name
        case CurvePoint():
            return f"{value.threshold}"
        case Cut():
            return value.group
        case Compared():
            return value.figure
    return ""


def _unit(figure: str, value: float | Figure) -> str:
    name = figure.rpartition(".")[2]
    if name in TOKENS:
        return "tokens"
    if name in MONEY:
        return "money"
    return OTHER_UNITS.get(name) or ("count" if isinstance(value, int) else "share")


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
