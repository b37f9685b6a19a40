"""A log's verdicts beside its ratings, and beside another judge's."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chat.log.ratings import Rating, record_ratings
from chat.log.sessions import import_sessions
from chat.log.store import SqlConversationLog
from chat.log.verdicts import LoggedVerdict, record_verdicts
from chat.types import Action
from evaluation.errors import EvaluationError
from evaluation.log_agreement import judge_version, judges_agreement, people_agreement

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TURNS = '{"query": "a", "answer": "x", "gold": [], "kind": "faq"}, {"query": "b", "answer": "y", "gold": null, "kind": "chat"}'
SESSIONS = '{"id": "%s", "turns": [' + TURNS + "]}"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    (tmp_path / "sessions.jsonl").write_text("".join(SESSIONS % name + "\n" for name in ("one", "two", "three")))
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        import_sessions(opened, [tmp_path / "sessions.jsonl"])
        yield opened


def turns(log: SqlConversationLog) -> list[str]:
    return [row["id"] for row in log.rows()]


def say(log: SqlConversationLog, judge: str, *words: bool | None, answer: str | None = None, arm: Action = Action.FETCH) -> None:
    record_verdicts(log, [LoggedVerdict(turn, NOON, arm, judge, word, "because", answer=answer)
                          for turn, word in zip(turns(log), words, strict=False)])


def rate(log: SqlConversationLog, *words: bool | None) -> None:
    record_ratings(log, [Rating(turn, "import", "ann", "expert", NOON, good=word)
                         for turn, word in zip(turns(log), words, strict=False) if word is not None])


def test_people_s_consensus_is_compared_on_the_turns_that_were_rated_and_judged(log: SqlConversationLog) -> None:
    say(log, "local:1", True, False, None, True, False)
    rate(log, True, True, False, None, False, True)
    found, _ = people_agreement(log, "local")
    counts = found.confusion
    assert (found.judge, found.against, found.conversations) == ("local:1", "people", 3)
    assert (counts.good_good, counts.good_bad, counts.bad_missing, counts.bad_bad, counts.cases) == (1, 1, 1, 1, 4)
    assert {one.kind for one in found.kinds} == {"faq", "chat"}


def test_a_verdict_on_an_answer_that_nobody_was_given_isn_t_beside_a_rating(log: SqlConversationLog) -> None:
    say(log, "local:1", True, True)
    say(log, "local:1", False, False, answer="another", arm=Action.NO_FETCH)
    rate(log, True, True)
    assert people_agreement(log, "local:1")[0].confusion.good_good == 2


def test_two_judges_are_compared_where_both_looked_at_one_answer(log: SqlConversationLog) -> None:
    say(log, "local:1", True, False, True)
    say(log, "reference:any", True, True)
    say(log, "local:1", True, answer="an answer", arm=Action.NO_FETCH)
    say(log, "reference:any", True, answer="another one", arm=Action.NO_FETCH)
    found, _ = judges_agreement(log, "local", "reference")
    assert (found.judge, found.against, found.confusion.cases, found.confusion.good_bad) == ("local:1", "reference:any", 2, 1)


def test_the_hash_is_of_what_was_compared(log: SqlConversationLog) -> None:
    say(log, "local:1", True, False)
    rate(log, True, False)
    first = people_agreement(log, "local")[1]
    assert first == people_agreement(log, "local")[1]
    say(log, "local:1", False, False)
    assert first != people_agreement(log, "local")[1]


def test_of_several_versions_the_one_with_the_most_verdicts_is_meant_unless_one_is_named(log: SqlConversationLog) -> None:
    say(log, "local:1", True)
    say(log, "local:2", True, False)
    assert (judge_version(log, "local"), judge_version(log, "local:1")) == ("local:2", "local:1")


def test_what_is_missing_is_named_with_the_command_that_brings_it(log: SqlConversationLog) -> None:
    with pytest.raises(EvaluationError, match=r"found those of none.*log label --judge local"):
        people_agreement(log, "local")
    say(log, "local:1", True)
    with pytest.raises(EvaluationError, match="feedback import"):
        people_agreement(log, "local")
    rate(log, None, True)
    with pytest.raises(EvaluationError, match="label and rate more"):
        people_agreement(log, "local")
