"""Brings a database to the schema of this code: the Alembic revisions in `alembic/`, run when the log is opened.

Leaves out the revisions themselves; each is a file in `alembic/versions/`.
"""

import threading
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from chat.errors import LogError
from chat.log.database import Database
from chat.log.schema import REVISION

_versions = table("alembic_version", column("version_num"))
_one_at_a_time = threading.Lock()  # Alembic's `context` and `op` belong to the process, not to a thread


def upgrade(database: Database) -> None:
    """Create the tables, or bring older ones up; nothing is written when they are there already.

    Raises: LogError when the database is newer than this code, or holds something else.
    """
    with database.reading("opening the log") as connection:
        if revision(connection) == REVISION:
            return
    with _one_at_a_time, database.writing("preparing the log") as connection:
        database.lock_schema(connection)
        _refuse_strangers(connection, database.name)
        _run(connection, database.name)


def revision(connection: Connection) -> str | None:
    """The revision that a database is at; None when it holds no log yet."""
    if not inspect(connection).has_table(_versions.name):
        return None
    found: str | None = connection.execute(select(_versions.c.version_num)).scalar()
    return found


def _refuse_strangers(connection: Connection, name: str) -> None:
    tables = inspect(connection).get_table_names()
    if tables and _versions.name not in tables:
        raise LogError(f"{name}: expected an empty database or a conversation log, got one with the tables "
                       f"{', '.join(tables[:3])}; choose another database")


def _run(connection: Connection, name: str) -> None:
    # imported here: a log that is up to date, the common case, needs no Alembic
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LogError(f"{name}: expected a log at revision {REVISION} or older, got {revision(connection)!r}; "
                       "it was written by a newer version: update this one") from error
