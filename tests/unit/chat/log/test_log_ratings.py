"""Ratings in the log: the latest counts, all are kept, none is changed, and they go with their turn."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from chat.errors import LogError, SessionFileError, UnknownTurnError
from chat.log.rating_records import rating_object, rating_of, read_ratings
from chat.log.ratings import Rating, latest, ratings, record_rating, record_ratings
from chat.log.schema import ratings as table
from chat.log.schema import turns
from chat.log.store import SqlConversationLog

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def rating(turn_id: str = "t1", **fields: Any) -> Rating:
    said: dict[str, Any] = {"owner": "alice", "rater": "u1", "role": "user", "created_at": NOW, "good": True}
    return Rating(turn_id, **(said | fields))


@pytest.fixture
def filled(log: SqlConversationLog, make_turn: Callable[..., Any]) -> SqlConversationLog:
    for turn in (make_turn("t1"), make_turn("t2"), make_turn("t3", owner="bob", conversation_id="c9")):
        log.append(turn)
    return log


def test_a_rating_comes_back_as_it_was(filled: SqlConversationLog) -> None:
    full = rating(good=None, stars=4, ranking=("t2", "t1"), strength="slightly", comment="nghe ổn \n<b>\x1b[31m")
    record_rating(filled, full)
    record_rating(filled, rating("t2", rater="u2", good=False))
    assert ratings(filled) == (full, rating("t2", rater="u2", good=False))
    assert ratings(filled, turn_id="t2") == (rating("t2", rater="u2", good=False),)


def test_the_latest_of_each_rater_counts_and_a_repeat_is_none(filled: SqlConversationLog) -> None:
    later = NOW + timedelta(minutes=1)
    assert [record_rating(filled, one) for one in (
        rating(), rating(created_at=later), rating(good=False), rating(good=False), rating(rater="u2"), rating())] == [
            False, False, True, True, False, True]
    assert len(ratings(filled)) == 4
    assert latest(ratings(filled)) == (rating(rater="u2"), rating())


def test_two_owners_raters_of_one_name_are_two(filled: SqlConversationLog) -> None:
    record_ratings(filled, [rating(owner="import", role="expert", rater="ann")])
    record_rating(filled, rating(rater="ann", good=False))
    assert [(one.role, one.good) for one in latest(ratings(filled))] == [("expert", True), ("user", False)]


@pytest.mark.parametrize(("turn_id", "ranking", "param"), [("t3", (), "id"), ("t9", (), "id"), ("t1", ("t1", "t3"), "ranking")])
def test_only_ones_own_turns_are_rated(filled: SqlConversationLog, turn_id: str, ranking: tuple[str, ...], param: str) -> None:
    with pytest.raises(UnknownTurnError) as refused:
        record_rating(filled, rating(turn_id, ranking=ranking))
    assert refused.value.param == param
    assert ratings(filled) == ()


@pytest.mark.parametrize("change", [update(table).values(good=False), update(table).values(comment=None)])
def test_a_rating_cant_be_changed(filled: SqlConversationLog, change: Any) -> None:
    record_rating(filled, rating())
    with pytest.raises(LogError, match="append-only"), filled.writing("changing a rating") as connection:
        connection.execute(change)
    assert ratings(filled) == (rating(),)


def test_an_erased_turn_takes_its_ratings_along(filled: SqlConversationLog) -> None:
    record_rating(filled, rating())
    record_rating(filled, rating("t2"))
    with filled.writing("erasing") as connection:
        connection.execute(delete(turns).where(turns.c.id == "t1"))
    assert [one.turn_id for one in ratings(filled)] == ["t2"]
    with pytest.raises(UnknownTurnError):
        record_rating(filled, rating())


@pytest.mark.parametrize(("fields", "said"), [
    ({"good": None}, "rating"), ({"stars": 3}, "rating"), ({"good": None, "stars": 0}, "rating"), ({"role": "admin"}, "role"),
    ({"rater": ""}, "rater"), ({"rater": "a\nb"}, "rater"), ({"strength": "better"}, "strength"), ({"ranking": ("t1",)}, "ranking"),
    ({"ranking": ("t1", "t1")}, "ranking"), ({"ranking": ("t2", "t3")}, "ranking"), ({"comment": "x" * 4001}, "comment"),
    ({"ranking": ("t1", "t2"), "strength": "very"}, "strength"),
])
def test_what_is_no_rating_is_refused_by_its_field(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}: "):
        rating(**fields)


@pytest.mark.parametrize("one", [
    rating(), rating(good=False, comment="no"), rating(good=None, stars=5), rating(good=None, ranking=("t1", "t2"), strength="unsure"),
])
def test_a_rating_goes_out_and_comes_in_again(one: Rating) -> None:
    back = rating_of(json.loads(json.dumps(rating_object(one))), owner="import", role="expert", rater=None, now=datetime.now(UTC))
    assert back == Rating(**{**{name: getattr(one, name) for name in Rating.__slots__}, "owner": "import", "role": "expert"})


def test_a_file_of_experts_ratings_is_read_whole_or_not_at_all(filled: SqlConversationLog, tmp_path: Path) -> None:
    file = tmp_path / "ratings.jsonl"
    good = [{"id": "t1", "rating": "good", "rater": "ann"},
            {"id": "t3", "rating": 2, "comment": "stale", "created_at": "2026-01-02T03:04:05Z"}]
    file.write_text("\n".join(map(json.dumps, good)) + "\n\n", encoding="utf-8-sig")
    found = read_ratings(file, filled, rater="bo", now=NOW)
    assert [(one.turn_id, one.rater, one.role, one.owner, one.created_at.year) for one in found] == [
        ("t1", "ann", "expert", "import", 2026), ("t3", "bo", "expert", "import", 2026)]
    assert (record_ratings(filled, found), record_ratings(filled, found)) == (2, 0)
    bad = [*good, {"id": "t9", "rating": "good"}, {"id": "t1", "rating": 9}, "no", {"id": "t1", "ranking": ["t1", "t8"]}]
    file.write_text("\n".join(map(json.dumps, bad)) + "\n{", encoding="utf-8")
    with pytest.raises(SessionFileError) as refused:
        read_ratings(file, filled, rater="bo", now=NOW)
    said = str(refused.value)
    for line, words in ((3, "id: expected turns of this log"), (4, "rating: expected"), (5, "body: expected an object"),
                        (6, "ranking: expected turns of this log, got 't8'"), (7, "doesn't parse")):
        assert f"ratings.jsonl:{line}: {words}" in said or words in said.split(f"ratings.jsonl:{line}: ")[1].splitlines()[0]
    assert "Nothing was imported" in said
    assert len(ratings(filled)) == 2


@pytest.mark.parametrize(("content", "said"), [
    (b"", "at least one rating"), (b"\xff\xfe", "expected UTF-8"), (b'{"id": "t1", "rating": "good"}', "rater: expected who rated"),
    (b'{"id": "t1", "rating": "good", "rater": "a", "created_at": "yesterday"}', "created_at: expected"),
    (b'{"id": "t1", "rating": "good", "rater": "a", "created_at": "2026-01-02"}', "created_at: expected"),
])
def test_a_file_that_cant_be_used_says_why(filled: SqlConversationLog, tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "ratings.jsonl"
    file.write_bytes(content)
    with pytest.raises(SessionFileError, match=said):
        read_ratings(file, filled, rater=None, now=NOW)
    with pytest.raises(SessionFileError, match="can't be read"):
        read_ratings(tmp_path / "none", filled, rater=None, now=NOW)
