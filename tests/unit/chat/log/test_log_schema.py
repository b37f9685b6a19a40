"""The tables, and the revisions that make them."""

import io
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

import chat.log
from chat.log.schema import REVISION, metadata
from chat.log.store import SqlConversationLog

SCRIPTS = Path(chat.log.__file__).parent / "alembic"


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return ScriptDirectory.from_config(config)


def test_the_revisions_make_the_tables_that_the_code_expects(log: SqlConversationLog) -> None:
    with log.reading("comparing") as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_code_expects_the_latest_revision() -> None:
    assert scripts().get_current_head() == REVISION


def test_opening_an_up_to_date_log_writes_nothing(log: SqlConversationLog, database: Path) -> None:
    with log.writing("holding the lock"):  # a second opener that wanted to write would fail
        SqlConversationLog(str(database), busy_timeout_s=0.05).close()


def test_sqlite_keeps_a_write_ahead_log_and_waits_for_the_disk(log: SqlConversationLog) -> None:
    with log.writing("looking") as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                   for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 200}


def test_the_first_revision_refuses_updates_on_postgresql_too() -> None:
    sql = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": sql})
    with Operations.context(context):
        scripts().get_revision("0001").module.upgrade()
    assert "sequence BIGSERIAL NOT NULL" in sql.getvalue()
    assert "BEFORE UPDATE ON turns FOR EACH ROW EXECUTE FUNCTION turns_refuse_update()" in sql.getvalue()
