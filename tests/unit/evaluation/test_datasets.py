"""Sessions are read as labelled turns, and what can't be used is named by file, line and field."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.datasets import LabelledTurn, Session, Split, read_helpdesk, read_sessions
from evaluation.errors import DatasetError, EvaluationError

TURN = {"query": "what is the late fee", "gold": ["fee-late"], "kind": "faq"}


def written(tmp_path: Path, *records: Any) -> Path:
    path = tmp_path / "sessions.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def session(**turn: Any) -> dict[str, Any]:
    return {"id": "s-1", "turns": [TURN, TURN | turn]}


def test_a_session_is_read_turn_by_turn(tmp_path: Path) -> None:
    asked = {"query": "kab tak?", "answer": "3 din", "gold": [], "kind": "followup", "language": "hinglish"}
    assert read_sessions(written(tmp_path, {"id": "s-1", "turns": [TURN, asked]})) == (
        Session("s-1", (LabelledTurn("what is the late fee", None, ("fee-late",), "faq", None),
                        LabelledTurn("kab tak?", "3 din", (), "followup", "hinglish"))),
    )


def test_unlabelled_is_none_and_needing_nothing_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "a", "turns": [TURN | {"gold": None}, TURN | {"gold": []}]})
    (read,) = read_sessions(path)
    assert [turn.gold for turn in read.turns] == [None, ()]


def test_fields_that_measuring_does_not_need_are_ignored(tmp_path: Path) -> None:
    plain = read_sessions(written(tmp_path, {"id": "a", "turns": [TURN]}))
    extended = read_sessions(written(tmp_path, {"id": "a", "domain": "cards", "turns": [TURN | {"rater": 7}]}))
    assert plain == extended


def test_sessions_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, *({"id": name, "turns": [TURN]} for name in "cab"))
    assert [read.id for read in read_sessions(path)] == ["c", "a", "b"]


@pytest.mark.parametrize(("record", "field", "said"), [
    (session(query="  \n"), "turns[1].query", "only white space"),
    (session(query=7), "turns[1].query", "expected text, got 7"),
    (session(gold="fee-late"), "turns[1].gold", "expected a list of FAQ ids"),
    (session(gold=["fee-late", "fee-late"]), "turns[1].gold", "each FAQ id once"),
    ({"id": "s-1", "turns": [{"query": "q", "kind": "faq"}]}, "turns[0].gold", "no such field"),
    (session(kind=""), "turns[1].kind", "expected text"),
    (session(answer=["yes"]), "turns[1].answer", "expected text, or null"),
    (session(language=""), "turns[1].language", "expected text, or null"),
    (session(language=5), "turns[1].language", "got 5"),
    ({"id": "s-1", "turns": []}, "turns", "at least one turn"),
    ({"turns": [TURN]}, "id", "expected text"),
    ("{not json", "", "doesn't parse"),
])
def test_a_bad_record_is_named_by_file_line_and_field(tmp_path: Path, record: Any, field: str, said: str) -> None:
    path = written(tmp_path, {"id": "good", "turns": [TURN]}, record)
    with pytest.raises(DatasetError) as caught:
        read_sessions(path)
    assert f"{path}:2: {field}" in str(caught.value)
    assert said in str(caught.value)


def test_an_id_may_stand_in_a_file_once(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": "a", "turns": [TURN]}, {"id": "a", "turns": [TURN]})
    with pytest.raises(DatasetError, match=r":2: id: .*line 1 already"):
        read_sessions(path)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="can't be read"):
        read_sessions(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match="at least one session"):
        read_sessions(written(tmp_path))


def test_every_dataset_error_is_an_evaluation_error() -> None:
    assert issubclass(DatasetError, EvaluationError)


@pytest.mark.parametrize("split", ["train", "dev", "calibration", "test"])
def test_the_help_desk_can_be_read_by_split(split: Split) -> None:
    turns = [turn for read in read_helpdesk(split) for turn in read.turns]
    assert len(turns) > 100
    assert all(turn.gold is not None for turn in turns)


def test_a_split_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(DatasetError, match="expected one of train, dev, calibration, test, got 'validation'"):
        read_helpdesk("validation")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "sessions", "turns"), [("mtrag", 77, 578), ("dstc11", 2320, 11303)])
def test_public_sets_are_read_whole(shared_data: Path, name: str, sessions: int, turns: int) -> None:
    read = read_sessions(shared_data / name / "sessions.jsonl")
    assert (len(read), sum(len(one.turns) for one in read)) == (sessions, turns)
