"""Rows of a live conversation log into the tables of a report, in one transaction of the log, and later only what came since.

A turn that was erased, or that was stored late under an earlier number, changes how many rows stand up to the last one read; then all
is read anew. How far was read stands in the tables themselves, so that it is undone with them. Leaves out the tables (`source.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow
from sqlalchemy import JSON, Column, Connection, Select, Table, Text, cast, func, select

from chat.log import schema
from chat.log.store import SqlConversationLog
from report.columns import RATING_TYPES, RATINGS_BY, TURN_TYPES, VERDICT_TYPES, VERDICTS_BY, latest, narrow, raw

PAGE = 20_000
"""Rows of a log that are held in memory at once."""

_TABLES = (schema.turns, schema.verdicts, schema.ratings)
_ARROW = {"BIGINT": pyarrow.int64(), "INTEGER": pyarrow.int64(), "VARCHAR": pyarrow.string(), "DOUBLE": pyarrow.float64(),
          "BOOLEAN": pyarrow.bool_(), "TIMESTAMPTZ": pyarrow.timestamp("us", tz="UTC")}


class LogSource:
    """A log as the source of a report's tables."""

    def __init__(self, log: SqlConversationLog, *, by_category: bool) -> None:
        self._log, self._by_category = log, by_category

    def fill(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Add what came since, or read all anew where something is gone; whether anything changed. Raises: LogError."""
        with self._log.reading("reading turns for a report") as log:
            again = any(_counted(log, table, last) != rows for table in _TABLES for last, rows in (_progress(connection, table),))
            if again:
                for name in ("served", "imported", "verdicts", "ratings", "progress"):
                    connection.execute(f"DELETE FROM {name}")
            changed = self._add_turns(connection, log)
            changed |= _add_latest(connection, log, schema.verdicts, VERDICT_TYPES, VERDICTS_BY)
            changed |= _add_latest(connection, log, schema.ratings, RATING_TYPES, RATINGS_BY)
            return changed or again

    def texts(self, turn_ids: Sequence[str]) -> Mapping[str, tuple[str, str | None]]:
        """Query and answer by turn id. Raises: LogError."""
        t = schema.turns.c
        with self._log.reading("reading the texts of turns") as log:
            found = log.execute(select(t.id, t.query, t.answer).where(t.id.in_(list(turn_ids)))).all()
        return {turn_id: (query, answer) for turn_id, query, answer in found}

    def _add_turns(self, connection: duckdb.DuckDBPyConnection, log: Connection) -> bool:
        changed = False
        for _ in _pages(connection, log, schema.turns, TURN_TYPES):
            rows = raw("page", TURN_TYPES, TURN_TYPES, ())
            connection.execute(f"INSERT INTO served {narrow(rows, by_category=self._by_category)}")
            connection.execute("INSERT INTO imported SELECT count(*) FROM page WHERE source = 'import'")
            changed = True
        return changed


def _add_latest(connection: duckdb.DuckDBPyConnection, log: Connection, table: Table, types: dict[str, str], by: str) -> bool:
    """Add rows, each in the place of an earlier one of the same key."""
    changed = False
    same = " AND ".join(f"{table.name}.{name} = page.{name}" for name in by.split(", "))
    for _ in _pages(connection, log, table, types):
        connection.execute(f"DELETE FROM {table.name} WHERE EXISTS (SELECT 1 FROM page WHERE {same})")
        connection.execute(f"INSERT INTO {table.name} BY NAME {latest(raw('page', types, types, ()), by)}")
        changed = True
    return changed


def _pages(connection: duckdb.DuckDBPyConnection, log: Connection, table: Table, types: dict[str, str]) -> Iterator[None]:
    """The rows that weren't read yet, page by page, each as the table `page` while it is its turn."""
    query = select(*(_as_stored(table.c[name]) for name in types)).order_by(table.c.sequence).limit(PAGE)
    last, count = _progress(connection, table)
    while rows := log.execute(query.where(table.c.sequence > last)).all():
        columns = zip(types.values(), zip(*rows, strict=True), strict=True)
        page = pyarrow.table([pyarrow.array(values, _ARROW[kind]) for kind, values in columns], names=list(types))
        connection.register("page", page)
        yield
        connection.unregister("page")
        last, count = rows[-1][0], count + len(rows)
        connection.execute("DELETE FROM progress WHERE name = ?", [table.name])
        connection.execute("INSERT INTO progress VALUES (?, ?, ?)", [table.name, last, count])


def _progress(connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, int]:
    """The last sequence that was read, and how many rows up to it."""
    found = connection.execute("SELECT last, rows FROM progress WHERE name = ?", [table.name]).fetchall()
    return found[0] if found else (0, 0)


def _counted(log: Connection, table: Table, last: int) -> int:
    query: Select[Any] = select(func.count()).select_from(table).where(table.c.sequence <= last)
    return int(log.execute(query).scalar_one())


def _as_stored(column: Column[Any]) -> Any:
    """What is nested as the text that it is stored as: DuckDB reads it."""
    return cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column
