"""`fetchgate feedback`, as it is typed, over a real log."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chat.log.ratings import Rating, ratings, record_rating
from chat.log.store import SqlConversationLog
from service.cli.feedback import app
from tests.unit.chat.log.conftest import TURN

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
EVIL = "<b>bad</b> [bold]x[/bold]\x1b[2J\x1b]0;title\x07\u202e\nsecond line"
run = CliRunner()
Run = Callable[..., Any]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    turn = replace(TURN, degraded=(), shown=("fee-late-payment", "gone"))
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        for turn_id, answer in (("t1", "₹450 [fee]"), ("t2", "₹500"), ("t3", "I don't know")):
            opened.append(replace(turn, id=turn_id, conversation_id=f"c-{turn_id}", query="What is the\x1b[31m fee?", answer=answer))
        opened.append(replace(TURN, id="weak", conversation_id="c-weak", degraded=("policy_failed",)))
        opened.append(replace(turn, id="t1-again", conversation_id="c-t1", query="that's wrong"))
        yield opened


@pytest.fixture
def typed(log: SqlConversationLog, tmp_path: Path) -> Run:
    return lambda *arguments: run.invoke(app, [*arguments, "--db", str(tmp_path / "log.db")], env={"COLUMNS": "200"})


def rate(log: SqlConversationLog, turn_id: str, rater: str, *, seconds: float = 0, **fields: Any) -> None:
    record_rating(log, Rating(turn_id, "alice", rater, "user", NOW + timedelta(seconds=seconds), **fields))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_review_shows_disagreement_what_is_set_aside_and_signals(log: SqlConversationLog, typed: Run) -> None:
    rate(log, "t1", "u1", good=True)
    rate(log, "t1", "u2", good=False, comment=EVIL)
    for n, good in enumerate((True, False, True)):
        rate(log, "t2", "waverer", good=good, comment=EVIL, seconds=60 * n)
    shown = typed("review")
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in ("t1", "1.00", "0.50", "alice/waverer", "went from one verdict", "said_wrong", "majority",
                                                 "<b>bad</b> [bold]x[/bold]"))
    assert not any(character in shown.stdout for character in "\x1b\x07\u202e")
    found = json.loads(typed("review", "--json").stdout)
    assert (found["ratings"], found["replaced"]) == (5, 2)
    assert [(one["id"], one["good"], one["disagreement"], one["votes"]) for one in found["turns"]] == [("t1", None, 1.0, 2)]
    assert [(one["id"], one["reason"]) for one in found["set_aside"]] == [("t2", "contradictory")]
    assert [one["rater"] for one in found["raters"]] == ["alice/u1", "alice/u2"]
    assert found["signals"]["counts"]["said_wrong"] == 1


def test_review_of_a_log_without_ratings(typed: Run) -> None:
    found = typed("review", "--json")
    assert (found.exit_code, json.loads(found.stdout)["ratings"]) == (0, 0)
    assert typed("review").exit_code == 0


@pytest.mark.parametrize("method", ["majority", "dawid-skene", "mace", "wawa"])
def test_export_gives_a_verdict_a_turn_but_none_of_degraded_ones(log: SqlConversationLog, typed: Run, method: str) -> None:
    for turn_id, good in (("t1", True), ("t2", False), ("weak", False)):
        for rater in ("u1", "u2"):
            rate(log, turn_id, rater, good=good)
    said = typed("export", "--consensus", "--method", method)
    assert [(one["id"], one["good"], one["method"], one["votes"]) for one in lines(said.stdout)] == [
        ("t1", True, method, 2), ("t2", False, method, 2)]


def test_export_gives_preference_pairs_with_the_faqs_texts(log: SqlConversationLog, typed: Run, tmp_path: Path) -> None:
    rate(log, "t2", "u1", good=True, ranking=("t2", "t1", "weak"), strength="better")
    faqs = tmp_path / "faqs.jsonl"
    faqs.write_text(json.dumps({"id": "fee-late-payment", "question": "Fee?", "answer": "It is ₹500."}))
    [pair] = lines(typed("export", "-", "--preferences", "--faqs", str(faqs)).stdout)
    assert pair == {"group": pair["group"], "prompt": "What is the\x1b[31m fee?", "context": ["Fee?\nIt is ₹500."], "chosen": "₹500",
                    "rejected": "₹450 [fee]", "margin": 0.6667}


def test_what_is_exported_can_be_imported(log: SqlConversationLog, typed: Run, tmp_path: Path) -> None:
    rate(log, "t1", "u1", good=False, comment=EVIL)
    rate(log, "t2", "u1", stars=4)
    out = tmp_path / "ratings.jsonl"
    assert typed("export", str(out)).exit_code == 0
    said = [(one["id"], one["rating"], one["role"]) for one in lines(out.read_text(encoding="utf-8"))]
    assert said == [("t1", "bad", "user"), ("t2", 4, "user")]
    first, second = typed("import", str(out)), typed("import", str(out))
    assert (first.exit_code, first.stdout, "imported 2 ratings, 0 were there" in first.stderr) == (0, "", True)
    assert "imported 0 ratings, 2 were there" in second.stderr
    assert [(one.role, one.owner, one.comment) for one in ratings(log)[2:]] == [("expert", "import", EVIL), ("expert", "import", None)]
    again = typed("export", str(out))
    assert (again.exit_code, "isn't there yet" in again.stderr) == (1, True)


def test_an_import_with_a_bad_line_stores_nothing(log: SqlConversationLog, typed: Run, tmp_path: Path) -> None:
    file = tmp_path / "ratings.jsonl"
    file.write_text('{"id": "t1", "rating": "good"}\n{"id": "t9", "rating": "good"}\n{"id": "t1", "rating": true}\n')
    result = typed("import", str(file), "--rater", "ann")
    assert result.exit_code == 1
    assert "ratings.jsonl:2: id: expected turns of this log" in result.stderr
    assert "ratings.jsonl:3: rating: expected" in result.stderr
    assert ratings(log) == ()
    assert "rater: expected who rated" in typed("import", str(file)).stderr


def test_misuse_is_told(typed: Run, tmp_path: Path) -> None:
    assert typed("export", "--preferences", "--consensus").exit_code == 2
    assert typed("export", "--consensus", "--method", "guess").exit_code == 2
    missing = run.invoke(app, ["review", "--db", str(tmp_path / "none.db")])
    assert (missing.exit_code, "no such file" in missing.stderr) == (1, True)
    assert typed("export", str(tmp_path / "no" / "out.jsonl")).exit_code == 1
