"""The audit of administrators' acts, and the way to it from the oldest log."""

import io
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, delete, update
from typer.testing import CliRunner

from chat.errors import LogError
from chat.log.audit import AdminAct, latest_acts, record_act
from chat.log.schema import admin_acts
from chat.log.store import SqlConversationLog
from service.cli.log import app
from tests.unit.chat.log.test_log_schema import SCRIPTS, scripts

ACT = AdminAct(datetime(2026, 11, 20, 9, 30, 0, 5, tzinfo=UTC), "fg-abc", "put", ("fee/ü", "card"), "kb1", "kb2")
UNDO = AdminAct(datetime(2026, 11, 20, 9, 31, tzinfo=UTC), "local", "undo", (), None, "kb1")


def test_acts_come_back_the_latest_first(log: SqlConversationLog) -> None:
    assert latest_acts(log, limit=5) == ()
    record_act(log, ACT)
    record_act(log, UNDO)
    assert latest_acts(log, limit=5) == (UNDO, ACT)
    assert latest_acts(log, limit=1) == (UNDO,)


@pytest.mark.parametrize("change", [update(admin_acts).values(owner="x"), delete(admin_acts)])
def test_an_act_can_be_neither_changed_nor_deleted(log: SqlConversationLog, change: Any) -> None:
    record_act(log, ACT)
    with pytest.raises(LogError, match="append-only"), log.writing("covering tracks") as connection:
        connection.execute(change)
    assert latest_acts(log, limit=5) == (ACT,)


def test_a_log_of_the_first_version_is_brought_up_with_all_its_turns(database: Path, make_turn: Any) -> None:
    """The oldest revision, filled by its own columns, opened by this version."""
    with SqlConversationLog(str(database)) as newest:
        newest.append(make_turn("t1"))
        [row] = newest.rows()
    old = database.with_name("old.db")
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    engine = create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with sqlite3.connect(old) as raw, sqlite3.connect(database) as filled:
        for table in ("conversations", "turns"):
            names = [name for _, name, *_ in raw.execute(f"PRAGMA table_info({table})")]
            for values in filled.execute(f"SELECT {', '.join(names)} FROM {table}"):
                raw.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values)
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    raw.close()
    filled.close()
    with SqlConversationLog(str(old)) as log:
        assert list(log.rows()) == [row]
        record_act(log, ACT)
        log.append(make_turn("t2"))
        assert latest_acts(log, limit=5) == (ACT,)


def test_the_command_shows_acts_as_a_table_and_as_json(log: SqlConversationLog, database: Path) -> None:
    record_act(log, AdminAct(ACT.created_at, "fg-abc", "delete", ("[bold]x\x1b[2J",), "kb1", "kb2"))
    table = CliRunner().invoke(app, ["audit", "--db", str(database)], env={"COLUMNS": "140"})
    assert table.exit_code == 0, table.stderr
    assert all(word in table.stdout for word in ("2026-11-20 09:30:00", "fg-abc", "delete", "[bold]x", "kb1", "kb2"))
    assert "\x1b[2J" not in table.stdout
    shown = CliRunner().invoke(app, ["audit", "--json", "--limit", "1", "--db", str(database)])
    assert json.loads(shown.stdout) == [{"created_at": "2026-11-20T09:30:00.000005+00:00", "owner": "fg-abc", "act": "delete",
                                         "ids": ["[bold]x\x1b[2J"], "kb_version_before": "kb1", "kb_version_after": "kb2"}]


def test_a_log_that_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["audit", "--db", str(tmp_path / "none.db")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none.db: expected a conversation log, got no such file" in result.stderr


def test_acts_can_be_neither_changed_nor_deleted_on_postgresql_too() -> None:
    sql = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": sql})
    with Operations.context(context):
        scripts().get_revision("0002").module.upgrade()
    assert "BEFORE UPDATE OR DELETE ON admin_acts FOR EACH ROW EXECUTE FUNCTION admin_acts_refuse_change()" in sql.getvalue()
