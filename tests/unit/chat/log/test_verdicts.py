"""Verdicts go into the log and come back, the latest of each judge and arm; a turn's erasure takes them along."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from chat.errors import LogError
from chat.log.schema import turns, verdicts
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LOOKED_UP, BothArms, LoggedVerdict, both_arms, latest_verdicts, record_verdicts
from chat.types import Action
from tests.conftest import ROOT

NOON = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
FULL = LoggedVerdict("t1", NOON, Action.NO_FETCH, "llm:m", True, "as the FAQ says", hedged=False, safe=True, probability=0.75,
                     quotes=("a quote", "ünd another"), answer="It is so.", input_tokens=120, output_tokens=7, judge_input_tokens=900,
                     judge_output_tokens=40, cost=0.0125, currency="USD")


def verdict(turn_id: str = "t1", arm: Action = Action.FETCH, good: bool | None = True, judge: str = "local:1") -> LoggedVerdict:
    return LoggedVerdict(turn_id, NOON, arm, judge, good, "because")


@pytest.fixture
def filled(log: SqlConversationLog, make_turn: Any) -> SqlConversationLog:
    for name in ("t1", "t2", "t3"):
        log.append(make_turn(name))
    return log


def latest(log: SqlConversationLog, **which: Any) -> list[LoggedVerdict]:
    return list(latest_verdicts(log, **which))


def test_a_verdict_comes_back_as_it_went_in(filled: SqlConversationLog) -> None:
    bare = verdict("t2", good=None)
    record_verdicts(filled, [FULL, bare])
    assert latest(filled) == [FULL, bare]


def test_the_latest_of_each_judge_and_arm_counts_and_the_others_stay(filled: SqlConversationLog) -> None:
    first, other_arm, other_judge = verdict(), verdict(arm=Action.NO_FETCH), verdict(judge="people")
    record_verdicts(filled, [first, other_arm, other_judge])
    later = verdict(good=None)
    record_verdicts(filled, [later])
    assert latest(filled) == [other_arm, other_judge, later], "a missing verdict after a given one counts"
    with filled.reading("counting") as connection:
        assert len(connection.execute(verdicts.select()).all()) == 4


def test_one_judge_or_some_turns_are_asked_for(filled: SqlConversationLog) -> None:
    given = [verdict(name, judge=judge) for name in ("t1", "t2", "t3") for judge in ("a", "b")]
    record_verdicts(filled, given)
    assert latest(filled, judge="b") == given[1::2]
    assert latest(filled, turn_ids=["t3", "t1", "t1", "nobody"]) == [*given[:2], *given[4:]]
    assert latest(filled, judge="a", turn_ids=("t2",)) == [given[2]]
    assert latest(filled, turn_ids=()) == latest(filled, judge="c") == []


def test_many_turns_are_looked_up_in_parts(filled: SqlConversationLog) -> None:
    record_verdicts(filled, [verdict("t1"), verdict("t3")])
    asked = ["t1", *(f"none-{n}" for n in range(2 * LOOKED_UP)), "t3"]
    assert [one.turn_id for one in latest(filled, turn_ids=asked)] == ["t1", "t3"]


def test_verdicts_on_a_turn_that_is_not_there_are_refused_together(filled: SqlConversationLog) -> None:
    with pytest.raises(LogError):
        record_verdicts(filled, [verdict("t1"), verdict("nobody")])
    assert latest(filled) == []
    record_verdicts(filled, [])


def test_a_verdict_is_never_changed_and_goes_with_its_turn(filled: SqlConversationLog) -> None:
    record_verdicts(filled, [verdict("t1"), verdict("t2")])
    with pytest.raises(LogError), filled.writing("changing") as connection:
        connection.execute(update(verdicts).values(good=False))
    with filled.writing("erasing") as connection:
        connection.execute(delete(turns).where(turns.c.id == "t1"))
    assert [one.turn_id for one in latest(filled)] == ["t2"]


def test_both_arms_are_paired_with_the_action_that_was_taken(log: SqlConversationLog, make_turn: Any, tmp_path: Path) -> None:
    log.append(make_turn("t1"))
    log.append(make_turn("t2", conversation_id="c2", owner="bob"))
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps({"id": "s1", "turns": [{"query": "q", "gold": None, "kind": "k"}]}) + "\n")
    import_sessions(log, [file])
    imported = "import:s1:0"
    record_verdicts(log, [verdict("t1"), verdict("t1", Action.NO_FETCH, good=False), verdict("t2"), verdict(imported, good=None),
                          verdict(imported, Action.NO_FETCH), verdict("t2", Action.NO_FETCH, judge="another")])
    assert both_arms(log, "local:1") == (
        BothArms("t1", "alice", "c1", Action.FETCH, fetch=True, skip=False),
        BothArms(imported, "import", "s1", None, fetch=None, skip=True),
    )
    assert both_arms(log, "nobody") == ()


WRITER = """
import sys
from datetime import UTC, datetime
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action
with SqlConversationLog(sys.argv[1]) as log:
    for batch in range(10_000):
        arms = (Action.FETCH, Action.NO_FETCH)
        record_verdicts(log, [LoggedVerdict("t1", datetime.now(UTC), arm, f"j{batch}", True, "r") for arm in arms])
        print(batch, flush=True)
"""


def test_a_kill_loses_no_batch_that_was_stored_and_leaves_none_half(filled: SqlConversationLog, database: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(database)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(5)]
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    stored = [one.judge for one in latest(filled)]
    assert {f"j{batch}" for batch in told} <= set(stored)
    assert all(stored.count(judge) == 2 for judge in stored)
