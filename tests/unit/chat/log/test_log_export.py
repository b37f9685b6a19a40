"""The log out to files."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from chat.errors import LogError
from chat.log import export
from chat.log.export import export_parquet, export_ratings, export_sessions, export_turns, export_verdicts
from chat.log.ratings import Rating, record_rating
from chat.log.schema import turns
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action

RECORD = {"id": "s1", "domain": "cards", "turns": [{"query": "q", "gold": ["f1"], "kind": "faq", "language": "hi"}]}
EXPORTS = [export_sessions, export_turns, export_parquet]
Export = Callable[..., None]


@pytest.fixture
def filled(log: SqlConversationLog, make_turn: Any, tmp_path: Path) -> SqlConversationLog:
    """One served turn and one imported."""
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(RECORD) + "\n")
    log.append(make_turn("t1"))
    import_sessions(log, [file])
    file.unlink()
    return log


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sessions_are_written_as_they_were_imported(filled: SqlConversationLog, tmp_path: Path) -> None:
    export_sessions(filled, tmp_path / "out.jsonl")
    served, imported = lines(tmp_path / "out.jsonl")
    assert imported == RECORD
    assert served["id"] == "c1"


def test_what_was_exported_imports_again_unchanged(filled: SqlConversationLog, tmp_path: Path) -> None:
    export_sessions(filled, tmp_path / "first.jsonl")
    with SqlConversationLog(str(tmp_path / "second.db")) as other:
        import_sessions(other, [tmp_path / "first.jsonl"])
        export_sessions(other, tmp_path / "second.jsonl")
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()


def test_turns_are_written_with_all_that_is_known(filled: SqlConversationLog, tmp_path: Path) -> None:
    export_turns(filled, tmp_path / "out.jsonl")
    served, imported = lines(tmp_path / "out.jsonl")
    assert list(served) == [column.name for column in turns.columns]
    assert served["created_at"] == "2026-11-20T09:30:00.123456+00:00"
    assert served["state"]["evidence"]["top1_similarity"] == 0.81
    assert (served["hits"], served["gold"]) == ([["card-fee", 0.8125], ["card-limit", 1 / 3]], None)
    assert (imported["action"], imported["gold"], imported["extra"]) == (None, ["f1"], {"language": "hi"})


def test_parquet_has_typed_columns_and_json_text_for_what_is_nested(
    filled: SqlConversationLog, make_turn: Any, tmp_path: Path
) -> None:
    export_parquet(filled, tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    kinds = {name: str(table.schema.field(name).type) for name in (
        "sequence", "position", "created_at", "query", "fetch_probability", "input_tokens", "background", "state")}
    assert kinds == {"sequence": "int64", "position": "int32", "created_at": "timestamp[us, tz=UTC]", "query": "string",
                     "fetch_probability": "double", "input_tokens": "int32", "background": "bool", "state": "string"}
    served, imported = table.to_pylist()
    turn = make_turn("t1")
    assert served["created_at"] == turn.created_at
    assert (served["query"], served["fetch_probability"], served["background"]) == (turn.query, 0.75, False)
    assert json.loads(served["hits"]) == [list(hit) for hit in turn.hits]
    assert json.loads(served["latency_ms"]) == turn.latency_ms
    assert (imported["action"], imported["input_tokens"], json.loads(imported["gold"])) == (None, None, ["f1"])


def test_parquet_is_written_in_groups_and_holds_every_turn(
    log: SqlConversationLog, tmp_path: Path
) -> None:
    turn = {"query": "q", "gold": None, "kind": "unlabelled"}
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"id": "s", "turns": [turn] * (export.ROW_GROUP + 3)}) + "\n")
    import_sessions(log, [file])
    seen: list[int] = []
    export_parquet(log, tmp_path / "out.parquet", progress=seen.append)
    with pyarrow.parquet.ParquetFile(tmp_path / "out.parquet") as written:
        assert [written.metadata.row_group(n).num_rows for n in range(written.num_row_groups)] == [export.ROW_GROUP, 3]
        assert written.read(["position"])["position"].to_pylist() == list(range(export.ROW_GROUP + 3))
    assert seen == [export.ROW_GROUP, 3]


@pytest.mark.parametrize("write", EXPORTS)
def test_an_empty_log_exports_an_empty_file(log: SqlConversationLog, tmp_path: Path, write: Export) -> None:
    out = tmp_path / "out"
    write(log, out)
    if write is export_parquet:
        assert pyarrow.parquet.read_table(out).num_rows == 0
    else:
        assert out.read_bytes() == b""


@pytest.mark.parametrize("write", EXPORTS)
def test_an_export_that_is_broken_off_leaves_the_old_file_and_no_other(
    filled: SqlConversationLog, tmp_path: Path, write: Export
) -> None:
    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "out").write_text("the old one")
    with pytest.raises(KeyboardInterrupt):
        write(filled, folder / "out", progress=interrupt)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"out": "the old one"}
    write(filled, folder / "out")
    assert [file.name for file in folder.iterdir()] == ["out"]
    assert b"the old one" not in (folder / "out").read_bytes()


@pytest.mark.parametrize("write", EXPORTS)
def test_an_export_never_takes_the_place_of_the_log(filled: SqlConversationLog, database: Path, write: Export) -> None:
    with pytest.raises(LogError, match="got the log itself"):
        write(filled, database)
    assert filled.turn_count() == 2


@pytest.mark.parametrize("write", EXPORTS)
def test_an_export_into_a_missing_folder_is_an_error(filled: SqlConversationLog, tmp_path: Path, write: Export) -> None:
    with pytest.raises(LogError, match=r"can't be written .*; check its folder"):
        write(filled, tmp_path / "none" / "out")


@pytest.mark.parametrize("write", EXPORTS)
def test_an_export_does_not_take_the_place_of_what_is_no_file(filled: SqlConversationLog, tmp_path: Path, write: Export) -> None:
    with pytest.raises(LogError, match="expected a file to export to, got something else"):
        write(filled, tmp_path)


def test_a_link_is_followed_and_stays(filled: SqlConversationLog, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export_turns(filled, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(lines(tmp_path / "real")) == 2


def test_verdicts_and_ratings_are_exported_with_those_that_later_ones_replace(filled: SqlConversationLog, tmp_path: Path) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    record_verdicts(filled, [LoggedVerdict("t1", now, Action.FETCH, "judge", good, "why", quotes=("a", "b")) for good in (False, True)])
    for good in (True, False):
        record_rating(filled, Rating("t1", "alice", "ann", "user", now, good=good))
    export_verdicts(filled, tmp_path / "verdicts.parquet")
    export_ratings(filled, tmp_path / "ratings.parquet")
    verdicts, ratings = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("verdicts", "ratings"))
    assert [(row["turn_id"], row["arm"], row["good"], json.loads(row["quotes"])) for row in verdicts] == [
        ("t1", "FETCH", False, ["a", "b"]), ("t1", "FETCH", True, ["a", "b"])]
    assert [(row["rater"], row["good"], row["created_at"]) for row in ratings] == [("ann", True, now), ("ann", False, now)]
