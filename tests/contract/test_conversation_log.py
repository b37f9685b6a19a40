"""What every ConversationLog must do: the log in a database and the fake in memory alike."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chat.errors import LogError
from chat.ports import ConversationLog, LoggedExchange
from chat.types import Action, Decision, Refusal, State, Turn, Usage


@pytest.fixture(params=["sql", "in_memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConversationLog]:
    if request.param == "sql":
        from chat.log.store import SqlConversationLog

        with closing(SqlConversationLog(str(tmp_path / "log.db"))) as opened:
            yield opened
    else:
        from tests.fakes import InMemoryLog

        yield InMemoryLog()


def turn(
    turn_id: str, *, owner: str = "alice", conversation: str = "c1", action: Action = Action.FETCH, mac: str | None = None,
    refusal: Refusal | None = None,
) -> Turn:
    return Turn(
        id=turn_id, conversation_id=conversation, owner=owner, created_at=datetime(2026, 11, 20, tzinfo=UTC),
        query=f"query of {turn_id}", answer=f"answer of {turn_id}", state=State((), (), f"query of {turn_id}", None),
        decision=Decision(action, 1.0, 0.0, 1.0, "always", "a rule"), hits=(("a", 0.9), ("b", 0.5)), fetched=("a",),
        shown=("a", "z"), cited=("z",), usage=Usage(10, 5), counterfactuals=(), model="m", prompt_version="p", kb_version="k",
        price=None, latency_ms={"total": 1.0}, finish_reason="stop", transcript_mac=mac, refusal=refusal,
    )


def queries(exchanges: tuple[LoggedExchange, ...]) -> list[str]:
    return [exchange.query.removeprefix("query of ") for exchange in exchanges]


def test_an_empty_log_has_no_turns_and_no_conversation(log: ConversationLog) -> None:
    assert log.recent("alice", "c1", limit=5) == ()
    assert log.find_conversation("alice", "mac") is None


@pytest.mark.parametrize("action", list(Action))
def test_a_turn_comes_back_as_the_exchange_that_it_was(log: ConversationLog, action: Action) -> None:
    log.append(turn("t1", action=action))
    expected = LoggedExchange("query of t1", "answer of t1", action, hits=("a", "b"), fetched=("a",), cited=("z",))
    assert log.recent("alice", "c1", limit=1) == (expected,)


def test_recent_gives_the_last_turns_oldest_first(log: ConversationLog) -> None:
    for turn_id in ("t1", "t2", "t3"):
        log.append(turn(turn_id))
    assert queries(log.recent("alice", "c1", limit=2)) == ["t2", "t3"]
    assert queries(log.recent("alice", "c1", limit=9)) == ["t1", "t2", "t3"]
    assert log.recent("alice", "c1", limit=0) == ()


def test_a_refused_turn_is_found_by_its_transcript_and_is_none_of_the_last_turns(log: ConversationLog) -> None:
    log.append(turn("t1"))
    log.append(turn("t2", mac="m2", refusal=Refusal("output", "secrets", "patterns-1")))
    log.append(turn("t3"))
    assert queries(log.recent("alice", "c1", limit=2)) == ["t1", "t3"]
    assert log.find_conversation("alice", "m2") == "c1"


def test_conversations_do_not_mix(log: ConversationLog) -> None:
    log.append(turn("t1", conversation="c1"))
    log.append(turn("t2", conversation="c2"))
    log.append(turn("t3", conversation="c1"))
    assert queries(log.recent("alice", "c1", limit=9)) == ["t1", "t3"]
    assert queries(log.recent("alice", "c2", limit=9)) == ["t2"]


def test_owners_never_meet_even_in_a_conversation_of_one_name(log: ConversationLog) -> None:
    log.append(turn("t1", owner="alice", mac="m1"))
    log.append(turn("t2", owner="bob", mac="m2"))
    assert queries(log.recent("alice", "c1", limit=9)) == ["t1"]
    assert queries(log.recent("bob", "c1", limit=9)) == ["t2"]
    assert log.recent("carol", "c1", limit=9) == ()
    assert log.find_conversation("bob", "m1") is None


def test_a_conversation_is_found_by_the_hash_of_any_of_its_transcripts(log: ConversationLog) -> None:
    log.append(turn("t1", conversation="c1", mac="m1"))
    log.append(turn("t2", conversation="c1", mac="m2"))
    log.append(turn("t3", conversation="c2", mac="m3"))
    assert [log.find_conversation("alice", mac) for mac in ("m1", "m2", "m3", "m4")] == ["c1", "c1", "c2", None]


def test_of_two_equal_transcripts_the_later_one_is_found(log: ConversationLog) -> None:
    log.append(turn("t1", conversation="older", mac="same"))
    log.append(turn("t2", conversation="newer", mac="same"))
    assert log.find_conversation("alice", "same") == "newer"


def test_a_turn_id_is_taken_once(log: ConversationLog) -> None:
    log.append(turn("t1", conversation="c1"))
    with pytest.raises(LogError, match=r"t1.*new.* id"):
        log.append(turn("t1", conversation="c2"))
    assert queries(log.recent("alice", "c1", limit=9)) == ["t1"]
    assert log.recent("alice", "c2", limit=9) == ()
