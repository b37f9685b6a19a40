"""The log when things go wrong: each fault is a LogError in plain words, and nothing is half-written."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from chat.errors import LogError
from chat.log.database import SAFE_SQLITE
from chat.log.schema import conversations
from chat.log.store import SqlConversationLog
from tests.conftest import ROOT


def python(script: str, *arguments: object) -> "subprocess.Popen[str]":
    """The script, with `turn(id)` and `open_log(path)` at hand."""
    prelude = (
        "import sys\nfrom dataclasses import replace\nfrom chat.log.store import SqlConversationLog as open_log\n"
        "from tests.unit.chat.log.conftest import TURN\n"
        "def turn(turn_id): return replace(TURN, id=turn_id)\n"
        "def say(text): print(text, flush=True)\n"
    )
    return subprocess.Popen([sys.executable, "-c", prelude + script, *map(str, arguments)], cwd=ROOT, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"expected the folder .*/none, got none; create it"):
        SqlConversationLog(str(tmp_path / "none" / "log.db"))


def test_a_missing_file_is_not_created_when_only_reading_was_asked(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="got no such file"):
        SqlConversationLog(str(tmp_path / "log.db"), create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="expected a file that can be opened"):
        SqlConversationLog(str(tmp_path))


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("Dear diary, " * 1000)
    with pytest.raises(LogError, match="expected an SQLite database, got another kind of file"):
        SqlConversationLog(str(file))
    assert file.read_text() == "Dear diary, " * 1000


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    with pytest.raises(LogError, match="expected an empty database or a conversation log, got one with the tables recipes"):
        SqlConversationLog(str(file))


def test_a_damaged_file_is_reported(database: Path, make_turn: Any) -> None:
    with SqlConversationLog(str(database)) as log:
        for n in range(20):
            log.append(make_turn(f"t{n}", answer="word " * 1000))
    whole = database.read_bytes()
    database.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    with pytest.raises(LogError, match="expected an intact database, got a damaged one; restore a backup"), \
            SqlConversationLog(str(database)) as log:
        list(log.turns())


def test_a_log_of_a_newer_version_is_refused(database: Path) -> None:
    SqlConversationLog(str(database)).close()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LogError, match=r"expected a log at revision .* or older, got '9999'.*update this one"):
        SqlConversationLog(str(database))


def test_a_read_only_file_can_be_read_and_a_write_is_refused(database: Path, make_turn: Any) -> None:
    with SqlConversationLog(str(database)) as log:
        log.append(make_turn("t1"))
        with SqlConversationLog(f"sqlite:///file:{database}?mode=ro&uri=true") as reader:
            assert [turn.id for turn in reader.turns()] == ["t1"]
            with pytest.raises(LogError, match=r"storing turn t2.*got a read-only one; change its permissions"):
                reader.append(make_turn("t2"))
        assert log.turn_count() == 1


def test_what_only_reads_can_not_write(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1"))
    with pytest.raises(LogError, match="got a read-only one"), log.reading("erasing by mistake") as connection:
        connection.execute(delete(conversations))
    assert log.turn_count() == 1


def test_a_database_that_another_process_locks_is_reported_and_works_again_later(
    log: SqlConversationLog, database: Path, make_turn: Any
) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LogError, match=r"storing turn t1.*expected to write within 0\.2 s, got a file that another process"):
        log.append(make_turn("t1"))
    assert log.turn_count() == 0
    other.close()
    log.append(make_turn("t1"))
    assert log.turn_count() == 1


def test_opening_a_fresh_file_that_is_locked_is_reported(database: Path) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LogError, match="another process keeps locked"):
        SqlConversationLog(str(database), busy_timeout_s=0.05)
    other.close()


def test_a_write_that_waits_too_long_for_one_of_its_own_process_is_reported(log: SqlConversationLog, make_turn: Any) -> None:
    caught: list[LogError] = []

    def append() -> None:
        try:
            log.append(make_turn("t1"))
        except LogError as error:
            caught.append(error)

    with log.writing("a long write"):
        thread = threading.Thread(target=append)
        thread.start()
        thread.join()
    assert "another write of this process" in str(caught[0])
    log.append(make_turn("t1"))


def test_a_full_disk_refuses_a_turn_whole_and_keeps_those_before(log: SqlConversationLog, make_turn: Any) -> None:
    with log.writing("limiting") as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
    stored: list[str] = []
    with pytest.raises(LogError, match="got a full disk; free some space"):
        for n in range(100):
            log.append(make_turn(f"t{n}", conversation_id=f"c{n}", answer="word " * 600))
            stored.append(f"t{n}")
    assert stored
    assert [turn.id for turn in log.turns()] == stored
    assert len(log.conversations(limit=100)) == len(stored)
    with log.writing("lifting the limit") as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    log.append(make_turn("after"))
    assert [turn.id for turn in log.turns()] == [*stored, "after"]


@pytest.mark.parametrize(("fields", "told"), [
    ({"query": "half a pair: \ud83d"}, "values that the log can hold"),
    ({"hits": (("a", float("nan")),)}, "values that the log can hold"),
    ({"created_at": datetime(2026, 11, 20)}, "a time with its zone"),
])
def test_a_turn_with_values_that_no_database_holds_is_refused_whole(
    log: SqlConversationLog, make_turn: Any, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(LogError, match=told):
        log.append(make_turn("t1", **fields))
    assert log.turn_count() == 0
    assert log.conversations(limit=1) == ()


def test_an_error_does_not_repeat_what_people_said(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1"))
    with pytest.raises(LogError) as caught:
        log.append(make_turn("t1", query="my card number is 1234"))
    assert "1234" not in str(caught.value)
    assert "1234" not in str(caught.value.__cause__)


def test_a_closed_log_says_so(database: Path, make_turn: Any) -> None:
    log = SqlConversationLog(str(database))
    log.close()
    log.close()
    with pytest.raises(LogError, match="expected an open log"):
        log.append(make_turn())
    with pytest.raises(LogError, match="expected an open log"):
        log.recent("alice", "c1", limit=1)


@pytest.mark.parametrize(("url", "told"), [
    ("sqlite://", "a log in memory would be lost"),
    ("nosuchdatabase://host/log", "expected a database that can be reached from here"),
    ("://", "expected a database URL or the path of a file"),
])
def test_an_address_that_can_not_be_a_log_is_refused(url: str, told: str) -> None:
    with pytest.raises(LogError, match=told):
        SqlConversationLog(url)


def test_a_password_does_not_stand_in_an_error() -> None:
    with pytest.raises(LogError) as caught:
        SqlConversationLog("nosuchdatabase://me:hunter2@host/log")
    assert "hunter2" not in str(caught.value)


def test_a_process_killed_in_mid_append_leaves_every_turn_that_it_acknowledged(database: Path) -> None:
    script = ("log = open_log(sys.argv[1])\n"
              "for n in range(100000):\n    log.append(turn(f't{n}'))\n    say(f't{n}')\n")
    with python(script, database) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += process.stdout.read().split()
    assert acknowledged[:2] == ["t0", "t1"]
    with SqlConversationLog(str(database)) as log:
        found = [turn.id for turn in log.turns()]
        with log.reading("checking") as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) - len(acknowledged) in (0, 1)


def test_processes_that_open_a_fresh_file_at_once_all_get_a_log(database: Path) -> None:
    script = ("say('ready')\nsys.stdin.readline()\nlog = open_log(sys.argv[1], busy_timeout_s=30)\n"
              "log.append(turn(sys.argv[2]))\nlog.close()\nsay('done')\n")
    processes = [python(script, database, f"t{n}") for n in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outcomes = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, error = process.communicate()
        outcomes.append((out, process.returncode, error if process.returncode else ""))
    assert outcomes == [("done\n", 0, "")] * 4
    with SqlConversationLog(str(database)) as log:
        assert {turn.id for turn in log.turns()} == {"t0", "t1", "t2", "t3"}


def test_an_old_sqlite_is_warned_of_once_a_process(tmp_path: Path) -> None:
    script = "for name in sys.argv[1:]:\n    open_log(name).close()\n"
    process = python(script, tmp_path / "a.db", tmp_path / "b.db")
    _, error = process.communicate()
    assert error.count("is older than 3.51.3") == (1 if sqlite3.sqlite_version_info < SAFE_SQLITE else 0)
