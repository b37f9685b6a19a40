"""`fetchgate log`, as it is typed."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from chat.log.store import SqlConversationLog
from chat.types import Refusal
from service.cli.log import app

RECORD = {"id": "s1", "turns": [{"query": "q", "answer": "a", "gold": ["f1"], "kind": "faq"}]}
run = CliRunner()


@pytest.fixture
def filled(database: Path, make_turn: Any) -> Path:
    with SqlConversationLog(str(database)) as log:
        log.append(make_turn("t1", query="What does [bold]it[/bold] cost?\x1b[2J"))
        log.append(make_turn("t2", query="And then?", cited=(), counterfactuals=()))
    return database


@pytest.fixture
def session_file(tmp_path: Path) -> Path:
    file = tmp_path / "sessions.jsonl"
    file.write_text(json.dumps(RECORD) + "\n")
    return file


def test_show_lists_conversations(filled: Path) -> None:
    result = run.invoke(app, ["show", "--db", str(filled)])
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ("c1", "alice", "chat", "2026-11-20 09:30", "864"))


def test_show_prints_conversations_as_json(filled: Path) -> None:
    result = run.invoke(app, ["show", "--json", "--db", str(filled)])
    assert json.loads(result.stdout) == [{"owner": "alice", "id": "c1", "source": "chat", "turns": 2, "tokens": 864,
                                          "created_at": "2026-11-20T09:30:00.123456+00:00"}]


def test_show_prints_the_turns_of_a_conversation(filled: Path) -> None:
    result = run.invoke(app, ["show", "c1", "--db", str(filled)], env={"COLUMNS": "120"})
    first, second = [line for line in result.stdout.splitlines() if "FETCH" in line]
    assert all(word in first for word in ("What does [bold]it[/bold] cost?", "card-fee", "432", "200"))
    assert [cell.strip() for cell in second.strip("│").split("│")] == ["And then?", "FETCH", "", "432", "-", "-"]
    assert "\x1b[2J" not in result.stdout


def test_show_says_which_filter_refused_a_turn_and_as_what(filled: Path, make_turn: Any) -> None:
    refusal = Refusal("output", "hate", "patterns:7")
    with SqlConversationLog(str(filled)) as log:
        log.append(make_turn("t3", query="Say it", refusal=refusal))
    shown = run.invoke(app, ["show", "c1", "--db", str(filled)], env={"COLUMNS": "160"})
    first, _, third = [line for line in shown.stdout.splitlines() if "FETCH" in line]
    assert "output: hate (patterns:7)" in third
    assert "hate" not in first
    turns = json.loads(run.invoke(app, ["show", "c1", "--json", "--db", str(filled)]).stdout)
    assert [turn["refusal"] for turn in turns] == [None, None, {"where": "output", "category": "hate", "filter": "patterns:7"}]


def test_show_gives_the_last_turns_when_limited(filled: Path) -> None:
    result = run.invoke(app, ["show", "c1", "--limit", "1", "--json", "--db", str(filled)])
    assert [turn["id"] for turn in json.loads(result.stdout)] == ["t2"]


def test_show_asks_for_the_owner_of_an_id_that_two_have(filled: Path, make_turn: Any) -> None:
    with SqlConversationLog(str(filled)) as log:
        log.append(make_turn("t3", owner="bob", query="Mine"))
    asked = run.invoke(app, ["show", "c1", "--db", str(filled)])
    assert asked.exit_code == 2
    assert "alice, bob" in asked.stderr
    told = run.invoke(app, ["show", "c1", "--owner", "bob", "--json", "--db", str(filled)])
    assert [turn["query"] for turn in json.loads(told.stdout)] == ["Mine"]


def test_an_imported_conversation_shows_its_queries(database: Path, session_file: Path) -> None:
    assert run.invoke(app, ["import", str(session_file), "--db", str(database)]).exit_code == 0
    result = run.invoke(app, ["show", "s1", "--db", str(database)])
    assert result.exit_code == 0
    assert "q" in result.stdout


def test_import_tells_what_it_did_and_skips_what_is_there(database: Path, session_file: Path) -> None:
    first = run.invoke(app, ["import", str(session_file), "--db", str(database)])
    second = run.invoke(app, ["import", str(session_file), "--db", str(database)])
    assert (first.exit_code, first.stdout) == (0, "")
    assert "imported 1 sessions with 1 turns, skipped 0" in first.stderr
    assert "imported 0 sessions with 0 turns, skipped 1" in second.stderr


def test_sessions_go_to_standard_output_and_nothing_else_does(database: Path, session_file: Path) -> None:
    run.invoke(app, ["import", str(session_file), "--db", str(database)])
    result = run.invoke(app, ["export", "-", "--db", str(database)])
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [RECORD]


def test_turns_go_to_standard_output_when_asked_for(filled: Path) -> None:
    result = run.invoke(app, ["export", "-", "--format", "turns", "--db", str(filled)])
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["t1", "t2"]


def test_the_ending_of_a_file_tells_its_format(filled: Path, tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.parquet"):
        assert run.invoke(app, ["export", str(tmp_path / name), "--db", str(filled)]).exit_code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "c1"
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").num_rows == 2


@pytest.mark.parametrize("arguments", [
    ["export", "out.txt"], ["export", "-", "--format", "parquet"], ["export", "out", "--format", "csv"], ["export"],
    ["show", "--limit", "0"], ["import"], ["nosuch"],
])
def test_misuse_exits_with_2(filled: Path, arguments: list[str]) -> None:
    database = ["--db", str(filled)] if arguments != ["nosuch"] else []
    result = run.invoke(app, [*arguments, *database])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


@pytest.mark.parametrize(("arguments", "told"), [
    (["show", "--db", "none.db"], "none.db: expected a conversation log, got no such file"),
    (["show", "c9", "--db", "DB"], "error: expected a conversation of the log, got 'c9'"),
    (["export", "none/out.jsonl", "--db", "DB"], "none/out.jsonl: can't be written"),
    (["import", "none.jsonl", "--db", "DB"], "none.jsonl: can't be read"),
    (["import", "none.jsonl", "--db", "none/log.db"], "expected the folder"),
])
def test_a_failure_is_one_line_and_exits_with_1(filled: Path, arguments: list[str], told: str) -> None:
    result = run.invoke(app, [str(filled) if argument == "DB" else argument for argument in arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_database_may_come_from_the_environment(filled: Path) -> None:
    result = run.invoke(app, ["show", "--json"], env={"FETCHGATE_DATABASE": f"sqlite:///{filled}"})
    assert [one["id"] for one in json.loads(result.stdout)] == ["c1"]


def test_every_command_and_option_has_help() -> None:
    import typer

    group = typer.main.get_command(app)
    assert sorted(group.commands) == ["audit", "erase", "export", "import", "label", "show"]  # type: ignore[attr-defined]
    for command in group.commands.values():  # type: ignore[attr-defined]
        assert command.help
        assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] in ([], ["help"])


def test_an_erased_conversation_is_gone_with_its_text_and_another_owner_s_stays(filled: Path, make_turn: Any) -> None:
    with SqlConversationLog(str(filled)) as log:
        log.append(make_turn("t3", owner="bob", query="Mine"))
        log.append(make_turn("t4", conversation_id="c2", query="something about zebras"))
    for options in (["c1", "--owner", "alice"], ["c2"]):
        result = run.invoke(app, ["erase", *options, "--yes", "--db", str(filled)])
        assert result.exit_code == 0, result.output
    with SqlConversationLog(str(filled)) as log:
        assert [row["id"] for row in log.rows()] == ["t3"]
    assert all(b"zebras" not in file.read_bytes() for file in filled.parent.iterdir())
