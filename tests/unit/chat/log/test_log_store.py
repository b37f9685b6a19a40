"""The log in a database: what it keeps, in which order, for whom."""

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from chat.errors import LogError
from chat.log.records import ImportedTurn
from chat.log.schema import conversations, turns
from chat.log.sessions import import_sessions
from chat.log.store import PAGE, SqlConversationLog


def test_a_turn_is_read_back_as_it_was_written(log: SqlConversationLog, make_turn: Any) -> None:
    turn = make_turn()
    log.append(turn)
    assert log.turn("alice", "t1") == turn
    assert log.turns_of("alice", "c1") == (turn,)
    assert tuple(log.turns()) == (turn,)


def test_a_turn_is_its_owners_alone(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1", owner="alice"))
    assert log.turn("bob", "t1") is None
    assert log.turns_of("bob", "c1") == ()


def test_a_log_that_is_opened_again_holds_its_turns(database: Path, make_turn: Any) -> None:
    for turn_id in ("t1", "t2"):
        with SqlConversationLog(str(database)) as log:
            log.append(make_turn(turn_id))
    with SqlConversationLog(f"sqlite:///{database}", create=False) as log:
        assert [turn.id for turn in log.turns()] == ["t1", "t2"]


def test_turns_are_ordered_as_stored_when_the_clock_jumps_back(log: SqlConversationLog, make_turn: Any) -> None:
    late = make_turn("late")
    log.append(late)
    log.append(make_turn("early", created_at=late.created_at.replace(year=2020)))
    assert [turn.id for turn in log.turns_of("alice", "c1")] == ["late", "early"]
    assert [row["position"] for row in log.rows()] == [0, 1]


def test_a_front_ends_own_prompts_are_kept_but_are_no_part_of_what_was_said(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1", query="real"))
    log.append(make_turn("t2", query="Suggest a title", background=True))
    assert [exchange.query for exchange in log.recent("alice", "c1", limit=1)] == ["real"]
    assert log.turn_count() == 2


def test_an_imported_turn_is_not_served_as_history(log: SqlConversationLog, tmp_path: Path) -> None:
    file = tmp_path / "sessions.jsonl"
    file.write_text('{"id": "s1", "turns": [{"query": "q", "gold": ["a"], "kind": "faq"}]}\n')
    import_sessions(log, [file])
    (turn,) = log.turns_of("import", "s1")
    assert isinstance(turn, ImportedTurn)
    assert (turn.gold, turn.kind, turn.answer) == (("a",), "faq", None)
    assert log.recent("import", "s1", limit=3) == ()
    assert log.turn("import", turn.id) is None


def test_conversations_are_listed_page_by_page_latest_first(log: SqlConversationLog, make_turn: Any) -> None:
    began = make_turn().created_at
    for n in range(5):
        log.append(make_turn(f"t{n}", conversation_id=f"c{n}", created_at=began.replace(minute=min(n, 3))))
    log.append(make_turn("t9", conversation_id="c0", created_at=began.replace(minute=59)))
    first = log.conversations(limit=2)
    second = log.conversations(limit=2, before=first[-1])
    third = log.conversations(limit=2, before=second[-1])
    assert [one.id for one in (*first, *second, *third)] == ["c4", "c3", "c2", "c1", "c0"]
    assert [(one.turns, one.tokens) for one in third] == [(2, 864)]
    assert log.conversations(limit=2, before=third[-1]) == ()


def test_conversations_of_one_name_are_told_apart_by_owner(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1", owner="bob"))
    log.append(make_turn("t2", owner="alice"))
    assert [one.owner for one in log.conversations_named("c1")] == ["alice", "bob"]
    assert log.conversations_named("c2") == ()


def test_all_turns_are_read_over_the_edge_of_a_page(log: SqlConversationLog, tmp_path: Path) -> None:
    turn = '{"query": "q%d", "gold": null, "kind": "unlabelled"}'
    file = tmp_path / "sessions.jsonl"
    said = ", ".join(turn % n for n in range(PAGE + 1))
    file.write_text('{"id": "long", "turns": [' + said + "]}\n")
    import_sessions(log, [file])
    assert [turn.query for turn in log.turns()] == [f"q{n}" for n in range(PAGE + 1)]


def test_a_turn_can_not_be_changed(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1"))
    with pytest.raises(LogError, match="append-only"), log.writing("changing a turn") as connection:
        connection.execute(update(turns).values(answer="another"))
    assert log.turn("alice", "t1") == make_turn("t1")


def test_erasing_a_conversation_erases_its_turns_and_their_numbers_are_not_given_out_again(
    log: SqlConversationLog, make_turn: Any
) -> None:
    log.append(make_turn("t1", conversation_id="c1"))
    log.append(make_turn("t2", conversation_id="c2"))
    with log.writing("erasing") as connection:
        connection.execute(delete(conversations).where(conversations.c.id == "c2"))
    log.append(make_turn("t3", conversation_id="c3"))
    assert [(row["id"], row["sequence"]) for row in log.rows()] == [("t1", 1), ("t3", 3)]


def test_threads_append_at_once_while_others_read(database: Path, make_turn: Any) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(8)
    log = SqlConversationLog(str(database), busy_timeout_s=120)  # a slow machine is no fault

    def append(worker: int) -> None:
        try:
            start.wait()
            for n in range(20):
                log.append(make_turn(f"t{worker}-{n}", owner=f"owner{worker % 2}", conversation_id="shared"))
                assert len(log.recent(f"owner{worker % 2}", "shared", limit=1)) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=append, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({turn.id for turn in log.turns()}) == 160
    for owner in ("owner0", "owner1"):
        assert [row["position"] for row in log.rows(owner=owner)] == list(range(80))
    log.close()


def test_a_reader_sees_one_state_while_turns_are_stored(log: SqlConversationLog, make_turn: Any) -> None:
    log.append(make_turn("t1"))
    with log.reading("comparing") as connection:
        assert len(connection.execute(select(turns.c.id)).all()) == 1
        log.append(make_turn("t2"))
        assert len(connection.execute(select(turns.c.id)).all()) == 1
    assert log.turn_count() == 2
