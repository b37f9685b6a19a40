"""The log out to files: plain sessions or whole turns as JSON lines; turns, verdicts and ratings as Parquet.

A file appears whole or not at all: it is written beside its place and then renamed. Everything is streamed, so memory
doesn't grow with the log. Leaves out what a plain session is (`plain.py`).
"""

import io
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from sqlalchemy import JSON, BigInteger, Boolean, Double, Integer, Select, Table, Text, select

from chat.errors import LogError
from chat.log.plain import as_object
from chat.log.records import Row
from chat.log.schema import UtcDateTime, ratings, turns, verdicts
from chat.log.sessions import plain_sessions
from chat.log.store import PAGE, SqlConversationLog

if TYPE_CHECKING:
    import pyarrow

Progress = Callable[[int], None]
"""Called with the number of turns written since the last call."""

ROW_GROUP = 8192
"""Turns that are held in memory and written to Parquet at once."""


def export_sessions(log: SqlConversationLog, out: Path, *, progress: Progress | None = None) -> None:
    """Write every conversation as a plain session, a JSON object a line. Raises: LogError."""
    with _new_text(log, out) as file:
        write_sessions(log, file, progress=progress)


def export_turns(log: SqlConversationLog, out: Path, *, progress: Progress | None = None) -> None:
    """Write every turn with all that is known of it, a JSON object a line. Raises: LogError."""
    with _new_text(log, out) as file:
        write_turns(log, file, progress=progress)


def export_parquet(log: SqlConversationLog, out: Path, *, progress: Progress | None = None) -> None:
    """Write every turn as a row of a Parquet file; what is nested stands there as JSON text. Raises: LogError."""
    _write_parquet(log, out, turns, log.rows(), progress)


def export_verdicts(log: SqlConversationLog, out: Path, *, progress: Progress | None = None) -> None:
    """Write every verdict, also those that a later one replaces, as a row of a Parquet file. Raises: LogError."""
    _write_parquet(log, out, verdicts, _rows(log, verdicts), progress)


def export_ratings(log: SqlConversationLog, out: Path, *, progress: Progress | None = None) -> None:
    """Write every rating, also those that a later one replaces, as a row of a Parquet file. Raises: LogError."""
    _write_parquet(log, out, ratings, _rows(log, ratings), progress)


def _rows(log: SqlConversationLog, table: Table) -> Iterator[Row]:
    """All rows of a table that is only added to, page by page."""
    query, last = select(table).order_by(table.c.sequence).limit(PAGE), 0
    while page := _page(log, query.where(table.c.sequence > last), table.name):
        yield from page
        last = page[-1]["sequence"]


def _page(log: SqlConversationLog, query: Select[*tuple[object, ...]], what: str) -> list[Row]:
    with log.reading(f"reading {what}") as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _write_parquet(log: SqlConversationLog, out: Path, table: Table, all_rows: Iterable[Row], progress: Progress | None) -> None:
    import pyarrow.parquet

    schema = parquet_schema(table)
    with _new_file(log, out) as file, pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _groups(all_rows):
            batch = [{name: _cell(value) for name, value in row.items()} for row in rows]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema), row_group_size=ROW_GROUP)
            _report(progress, len(rows))


def write_sessions(log: SqlConversationLog, file: TextIO, *, progress: Progress | None = None) -> None:
    """Write plain sessions to an open file."""
    for session in plain_sessions(log):
        file.write(json.dumps(as_object(session), ensure_ascii=False) + "\n")
        _report(progress, len(session.turns))


def write_turns(log: SqlConversationLog, file: TextIO, *, progress: Progress | None = None) -> None:
    """Write turns to an open file."""
    for row in log.rows():
        file.write(json.dumps(turn_object(row), ensure_ascii=False) + "\n")
        _report(progress, 1)


def turn_object(row: Row) -> dict[str, object]:
    """The JSON object of a turn: the columns of `schema.turns`, the time as ISO 8601."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def parquet_schema(table: Table = turns) -> "pyarrow.Schema":
    """The columns of a table of `schema.py` with the types that they have in Parquet."""
    import pyarrow

    types: dict[type, Any] = {
        Text: pyarrow.string(), JSON: pyarrow.string(), BigInteger: pyarrow.int64(), Integer: pyarrow.int32(),
        Double: pyarrow.float64(), Boolean: pyarrow.bool_(), UtcDateTime: pyarrow.timestamp("us", tz="UTC"),
    }
    return pyarrow.schema([pyarrow.field(c.name, types[type(c.type)], nullable=bool(c.nullable)) for c in table.columns])


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while group := list(islice(rest, ROW_GROUP)):
        yield group


def _report(progress: Progress | None, count: int) -> None:
    if progress is not None:
        progress(count)


@contextmanager
def _new_text(log: SqlConversationLog, out: Path) -> Iterator[TextIO]:
    with _new_file(log, out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()


@contextmanager
def _new_file(log: SqlConversationLog, out: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `out` once all is written; nothing is left of it if anything is raised."""
    place = out.resolve()
    if log.path is not None and place == log.path.resolve():
        raise LogError(f"{out}: expected a file to export to, got the log itself; name another file")
    if place.exists() and not place.is_file():
        raise LogError(f"{out}: expected a file to export to, got something else; name a file, or - for standard output")
    try:
        with whole_file(place) as file:
            yield file
    except OSError as error:
        raise LogError(f"{out}: can't be written ({error.strerror or error}); check its folder, permissions and free space") \
            from error


@contextmanager
def whole_file(place: Path) -> Iterator[BinaryIO]:
    """A file beside a place, which it takes once all is on the disk; nothing is left of it if anything is raised. Raises: OSError."""
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
