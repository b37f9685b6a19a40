"""`TurnTable`: the tables `turns`, `verdicts` and `ratings` that a report reads, from a live log or from Parquet files.

`turns` has a row for each served turn, with `block`: the number of its conversation, by owner and id, while there are at most 4,096
conversations, and else one of 4,096 by a hash of it. Whole blocks are drawn again for intervals. `verdicts` holds the latest of each
turn, judge and arm, `ratings` the latest of each turn, owner and rater.

A log is read in one transaction, so that a turn is there with its verdicts or not at all, into memory. Parquet files are scanned, never
loaded: what is read of them stands in a file in a folder of its own that is deleted with the table. The texts of turns stay where they
are until they are asked for. Leaves out what the columns hold (`columns.py`) and what is summed (`sums.py`).
"""

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from chat.log.store import SqlConversationLog
from report.columns import (
    MAX_BLOCKS,
    NEEDED_OF_RATINGS,
    NEEDED_OF_TURNS,
    NEEDED_OF_VERDICTS,
    RATING_TYPES,
    RATINGS_BY,
    TURN_TYPES,
    VERDICT_TYPES,
    VERDICTS_BY,
    latest,
    narrow,
    raw,
)
from report.errors import SourceError
from report.log_source import LogSource

MEMORY_LIMIT = "2GB"
"""Of DuckDB; what doesn't fit goes to its file."""
THREADS = 2

Params = Sequence[object]
Said = tuple[str, str | None]
"""Query and answer of a turn."""


class Source(Protocol):
    """Where the rows of a table come from."""

    def fill(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Bring `served`, `verdicts` and `ratings` up to date; whether anything changed."""

    def texts(self, turn_ids: Sequence[str]) -> Mapping[str, Said]:
        """Query and answer by turn id."""


class Snapshot:
    """One state of the tables; good for one thread, until it is closed."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, source: Source) -> None:
        self._connection, self._source = connection, source

    def rows(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        """The rows that a query finds, NULL as None."""
        with _explained("reading the turns of a report"):
            return self._connection.execute(sql, list(params)).fetchall()

    def arrays(self, sql: str, params: Params = ()) -> dict[str, NDArray[Any]]:
        """The columns that a query finds, by name; NULL of numbers is nan."""
        with _explained("reading the turns of a report"):
            found = self._connection.execute(sql, list(params)).fetchnumpy()
        return {name: _plain(column) for name, column in found.items()}

    def texts(self, turn_ids: Sequence[str]) -> Mapping[str, Said]:
        """Query and answer by turn id, of those turns that are there still."""
        return self._source.texts(turn_ids) if turn_ids else {}

    @property
    def imported(self) -> int:
        """Labelled turns from session files: nobody served them, and no report is about them."""
        return int(self.rows("SELECT coalesce(sum(turns), 0) FROM imported")[0][0])


class TurnTable:
    """What a report reads; safe for many threads. Close it to let go of its memory or file."""

    def __init__(self, source: Source, categories: Mapping[str, str], folder: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self._source, self._folder, self._filling = source, folder, threading.Lock()
        place = ":memory:" if folder is None else str(Path(folder.name) / "report.duckdb")
        with _explained("opening the tables of a report"):
            self._connection = duckdb.connect(place, config={"memory_limit": MEMORY_LIMIT, "threads": THREADS})
            self._connection.execute("SET preserve_insertion_order = false")
            _make_tables(self._connection, categories)
        self.refresh()

    def refresh(self) -> bool:
        """Read what came since; whether anything changed. What was erased is gone afterwards. Raises: LogError, SourceError."""
        with self._filling, _explained("reading turns"), _transaction(self._connection.cursor()) as connection:
            if changed := self._source.fill(connection):
                _number_blocks(connection)
            return changed

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One state of the tables, whatever is read meanwhile."""
        with _transaction(self._connection.cursor()) as connection:
            yield Snapshot(connection, self._source)

    def close(self) -> None:
        """Let go of the tables."""
        self._connection.close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_log(log: SqlConversationLog, categories: Mapping[str, str] | None = None) -> TurnTable:
    """The tables of a log, in memory; `categories` is FAQ id to category. Raises: LogError."""
    return TurnTable(LogSource(log, by_category=bool(categories)), categories or {})


def open_parquet(turns: Path, verdicts: Path | None = None, ratings: Path | None = None,
                 categories: Mapping[str, str] | None = None) -> TurnTable:
    """The tables of an export. Raises: SourceError when a file isn't one."""
    for path in (turns, verdicts, ratings):
        if path is not None and not path.is_file():
            raise SourceError(f"{path}: expected a Parquet file, got none; export the log to it, or check the path")
    folder = tempfile.TemporaryDirectory(prefix="fetchgate-report-")
    try:
        return TurnTable(_ParquetSource(turns, verdicts, ratings, by_category=bool(categories)), categories or {}, folder)
    except BaseException:
        folder.cleanup()
        raise


class _ParquetSource:
    def __init__(self, turns: Path, verdicts: Path | None, ratings: Path | None, *, by_category: bool) -> None:
        self._turns, self._verdicts, self._ratings, self._by_category = turns, verdicts, ratings, by_category
        self._read = False

    def fill(self, connection: duckdb.DuckDBPyConnection) -> bool:
        if self._read:
            return False
        rows = raw(_scan(self._turns), _columns(connection, self._turns), TURN_TYPES, NEEDED_OF_TURNS)
        connection.execute(f"INSERT INTO served {narrow(rows, by_category=self._by_category)}")
        connection.execute(f"INSERT INTO imported SELECT count(*) FROM {_scan(self._turns)} WHERE source = 'import'")
        if self._verdicts is not None:
            rows = raw(_scan(self._verdicts), _columns(connection, self._verdicts), VERDICT_TYPES, NEEDED_OF_VERDICTS)
            connection.execute(f"INSERT INTO verdicts BY NAME {latest(rows, VERDICTS_BY)}")
        if self._ratings is not None:
            rows = raw(_scan(self._ratings), _columns(connection, self._ratings), RATING_TYPES, NEEDED_OF_RATINGS)
            connection.execute(f"INSERT INTO ratings BY NAME {latest(rows, RATINGS_BY)}")
        self._read = True
        return True

    def texts(self, turn_ids: Sequence[str]) -> Mapping[str, Said]:
        with duckdb.connect() as connection, _explained(f"reading texts of {self._turns}"):
            found = connection.execute(f"SELECT id, query, answer FROM {_scan(self._turns)} WHERE id IN (SELECT unnest(?))",
                                       [list(turn_ids)]).fetchall()
        return {turn_id: (query, answer) for turn_id, query, answer in found}


def _make_tables(connection: duckdb.DuckDBPyConnection, categories: Mapping[str, str]) -> None:
    connection.execute("CREATE TABLE categories (faq_id VARCHAR, category VARCHAR)")
    if categories:
        connection.execute("INSERT INTO categories SELECT unnest(?), unnest(?)", [list(categories), list(categories.values())])
    nothing = {name: f"(SELECT {', '.join(f'CAST(NULL AS {kind}) AS {column}' for column, kind in types.items())} LIMIT 0)"
               for name, types in (("turns", TURN_TYPES), ("verdicts", VERDICT_TYPES), ("ratings", RATING_TYPES))}
    connection.execute(f"CREATE TABLE served AS {narrow('SELECT * FROM ' + nothing['turns'], by_category=False)}")
    connection.execute(f"CREATE TABLE verdicts AS {latest('SELECT * FROM ' + nothing['verdicts'], VERDICTS_BY)}")
    connection.execute(f"CREATE TABLE ratings AS {latest('SELECT * FROM ' + nothing['ratings'], RATINGS_BY)}")
    connection.execute("CREATE TABLE imported (turns BIGINT)")
    connection.execute("CREATE TABLE progress (name VARCHAR, last BIGINT, rows BIGINT)")
    connection.execute("CREATE TABLE numbered (conversation UBIGINT, block INTEGER)")
    _number_blocks(connection)


def _number_blocks(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `turns`, with the block of each."""
    connection.execute("DELETE FROM numbered")
    many = connection.execute("SELECT count(DISTINCT conversation) FROM served").fetchall()[0][0] > MAX_BLOCKS
    if many:
        turns = f"SELECT *, CAST(conversation % {MAX_BLOCKS} AS INTEGER) AS block FROM served"
    else:
        connection.execute("INSERT INTO numbered SELECT conversation, row_number() OVER (ORDER BY owner, conversation_id) - 1 FROM "
                           "(SELECT DISTINCT conversation, owner, conversation_id FROM served)")
        turns = "SELECT served.*, numbered.block FROM served JOIN numbered USING (conversation)"
    connection.execute(f"CREATE OR REPLACE VIEW turns AS {turns}")


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """One state of the tables; kept if nothing is raised."""
    connection.begin()
    try:
        yield connection
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.close()


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        said = str(error).partition("\n")[0]
        raise SourceError(f"{doing}: expected tables as the log exports them, got {type(error).__name__}: {said}; "
                          "check the file, or export it anew") from error


def _scan(path: Path) -> str:
    return "read_parquet('{}')".format(str(path).replace("'", "''"))


def _columns(connection: duckdb.DuckDBPyConnection, path: Path) -> set[str]:
    return {str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {_scan(path)}").fetchall()}


def _plain(column: Any) -> NDArray[Any]:
    """Without a mask: nan for a number that isn't known, None for anything else."""
    if not isinstance(column, np.ma.MaskedArray):
        return np.asarray(column)
    if column.dtype.kind in "iufb":
        return np.asarray(np.ma.filled(column.astype(np.float64), np.nan))
    return np.asarray(np.ma.filled(column.astype(object), None))
