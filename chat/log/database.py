"""The database behind the log: its connections, its transactions, and its faults in plain words.

The only place that knows what SQLite and PostgreSQL do differently (the revisions' triggers apart). One connection writes,
behind a lock; others read. Leaves out tables (`schema.py`), revisions (`migrations.py`) and turns (`store.py`).
"""

import functools
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError, StatementError

from chat.errors import LogError

logger = logging.getLogger(__name__)

SAFE_SQLITE = (3, 51, 3)
"""Older ones can damage a file when one process writes while another folds the write-ahead log back (sqlite.org/wal.html)."""
SCHEMA_LOCK = 0x66657463
"""Key of the PostgreSQL advisory lock under which revisions run."""

_dump_json = functools.partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Database:
    """Connections to one database. Nothing of SQLAlchemy gets out as an exception: all is LogError."""

    def __init__(self, url: str, *, busy_timeout_s: float, create: bool) -> None:
        """Check that the database can be there; it is connected to when first used.

        `url` is a database URL, or the path of an SQLite file. Raises: LogError.
        """
        self._url = _parsed(url)
        self._busy_timeout_s = busy_timeout_s
        self._write_lock = threading.Lock()
        self._closed = False
        self.name = self._url.render_as_string(hide_password=True)
        """For messages: file or URL, without the password."""
        self.path: Path | None = None
        """The SQLite file; None for a server or a `file:` URI."""
        if self._url.get_backend_name() == "sqlite":
            self._find_file(create)
        self._readers = self._engine(pool_size=5, begin="BEGIN", setup=_prepare_reader)
        self._writer = self._engine(pool_size=1, begin="BEGIN IMMEDIATE", setup=self._prepare_writer)

    @contextmanager
    def reading(self, doing: str) -> Iterator[Connection]:
        """A connection that sees one state of the log. `doing` begins the message of a LogError."""
        with self._explained(doing), self._readers.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, doing: str) -> Iterator[Connection]:
        """The writing connection, alone; committed at the end, rolled back if anything is raised."""
        if self._url.get_backend_name() == "sqlite":
            _warn_of_old_sqlite()
        if not self._write_lock.acquire(timeout=self._busy_timeout_s):
            raise LogError(f"{doing}: {self.name}: expected to write within {self._busy_timeout_s:g} s, and another write of "
                           "this process goes on; try again when it is done")
        try:
            with self._explained(doing), self._writer.begin() as connection:
                yield connection
        finally:
            self._write_lock.release()

    def insert_new(self, table: Table, values: dict[str, object], connection: Connection) -> None:
        """Insert a row, unless its key is there already."""
        if connection.dialect.name == "sqlite":
            connection.execute(sqlite.insert(table).values(values).on_conflict_do_nothing())
        else:
            connection.execute(postgresql.insert(table).values(values).on_conflict_do_nothing())

    def lock_schema(self, connection: Connection) -> None:
        """Keep other processes from changing tables until the transaction ends; an SQLite writer has that lock already."""
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})

    def close(self) -> None:
        """Close every connection; the log can't be used after that."""
        self._closed = True
        with self._explained("closing the log", closing=True):
            self._readers.dispose()
            self._writer.dispose()  # last: the last writer folds SQLite's write-ahead log into the file

    def _find_file(self, create: bool) -> None:
        file = self._url.database
        if not file or file == ":memory:":
            raise LogError("expected the path of a database file, got none; a log in memory would be lost")
        if file.startswith("file:"):
            return
        self.name, self.path = file, Path(file).absolute()
        if not self.path.parent.is_dir():
            raise LogError(f"{file}: expected the folder {self.path.parent}, got none; create it, or name another file")
        if not create and not self.path.exists():
            raise LogError(f"{file}: expected a conversation log, got no such file; check the path, or import sessions first")

    def _engine(self, *, pool_size: int, begin: str, setup: Any) -> Engine:
        lite = self._url.get_backend_name() == "sqlite"
        try:
            engine = create_engine(
                self._url,
                hide_parameters=True,  # they are people's words, and would stand in tracebacks
                json_serializer=_dump_json,
                pool_size=pool_size,
                max_overflow=0 if pool_size == 1 else 10,
                pool_timeout=30,
                pool_pre_ping=not lite,
                connect_args={"timeout": self._busy_timeout_s} if lite else {},
            )
        except (SQLAlchemyError, ImportError) as error:
            raise LogError(f"{self.name}: expected a database that can be reached from here, got: {error}; "
                           "install its driver, or use an SQLite file") from error
        if lite:
            event.listen(engine, "connect", setup)
            # the driver would begin transactions by itself, and only before a write
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _prepare_writer(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            self._switch_to_wal(connection)

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """Two processes may try at once, and SQLite then refuses one of them without waiting."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _explained(self, doing: str, *, closing: bool = False) -> Iterator[None]:
        if self._closed and not closing:
            raise LogError(f"{doing}: {self.name}: expected an open log, got one that was closed; open it again")
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            raise LogError(f"{doing}: {self.name}: {self._in_words(error)}") from error

    def _in_words(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        code = _code(cause)
        if code in _SQLITE_FAULTS:
            return _SQLITE_FAULTS[code].format(seconds=self._busy_timeout_s)
        said = str(cause).partition("\n")[0]  # further lines of PostgreSQL quote the row
        if isinstance(cause, (ValueError, TypeError, OverflowError)) or type(error) is StatementError:
            return f"expected values that the log can hold, got one that it can't ({said}); nothing was stored"
        return f"expected a database that works, got {type(cause).__name__}: {said}; check that it is up and intact"


_SQLITE_FAULTS = {
    sqlite3.SQLITE_BUSY: "expected to write within {seconds:g} s, got a file that another process keeps locked; try again, "
                         "and end the process that holds it",
    sqlite3.SQLITE_READONLY: "expected a file that can be written, got a read-only one; change its permissions or its folder's",
    sqlite3.SQLITE_FULL: "expected room for the record, got a full disk; free some space; nothing of the record was stored",
    sqlite3.SQLITE_IOERR: "expected a working disk, got an input/output error; check its space and health",
    sqlite3.SQLITE_CORRUPT: "expected an intact database, got a damaged one; restore a backup, or save what can be read "
                            "with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "expected an SQLite database, got another kind of file; check the path",
    sqlite3.SQLITE_CANTOPEN: "expected a file that can be opened, got one that can't; check that it is a file, its permissions "
                             "and its folder's",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "expected a new row, got a change to a stored one; turns and admin acts are append-only",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "expected a new id, got one that is in the log; give each turn its own",
}


def _code(error: BaseException) -> int | None:
    """SQLite's result code: the whole one where we have words for it, else its group's."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code if code is None or code in _SQLITE_FAULTS else code & 0xFF


def _prepare_reader(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON")


def _parsed(url: str) -> URL:
    try:
        return make_url(url) if "://" in url else URL.create("sqlite", database=str(Path(url).expanduser()))
    except SQLAlchemyError as error:
        raise LogError(f"expected a database URL or the path of a file, got one that doesn't parse: {error}") from error


@functools.cache
def _warn_of_old_sqlite() -> None:
    """Once a process, when it first writes."""
    if sqlite3.sqlite_version_info < SAFE_SQLITE:
        logger.warning("SQLite %s is older than %s, which mended a fault that can damage the log when two processes write it; "
                       "let only one process write, or use PostgreSQL", sqlite3.sqlite_version, ".".join(map(str, SAFE_SQLITE)))
