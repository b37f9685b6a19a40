"""POST /v1/feedback against the running service and a real log: whose answer, which rating, what is kept."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import delete

from chat.log.ratings import MAX_COMMENT_CHARS, latest, ratings
from chat.log.schema import turns
from chat.log.store import SqlConversationLog
from service.keys import Scope, create_key
from tests.e2e.conftest import Service

Start = Callable[..., Service]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(tmp_path / "log.db")) as opened:
        yield opened


@pytest.fixture
def service(start: Start, log: SqlConversationLog) -> Service:
    return start(database=log)


def ask(service: Service, key: str = "none", question: str = "late fee?") -> str:
    """The id of a new answer."""
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=key) as sdk:
        return sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": question}]).id


def rate(service: Service, body: object, key: str = "none") -> httpx.Response:
    return httpx.post(f"{service.url}/v1/feedback", json=body, headers={"Authorization": f"Bearer {key}"})


def test_an_answer_of_the_openai_client_is_rated_by_its_id(service: Service, log: SqlConversationLog) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as sdk:
        done = sdk.chat.completions.create(model="fetchgate", messages=[{"role": "user", "content": "late fee?"}])
        said = sdk.post("/feedback", body={"id": done.id, "rating": "bad", "comment": "it was ₹500"}, cast_to=dict[str, Any])
    assert said == {"object": "feedback", "id": done.id, "rating": "bad", "replaced": False}
    [kept] = ratings(log)
    assert (kept.turn_id, kept.owner, kept.rater, kept.role, kept.good, kept.comment) == (
        done.id, "local", "local", "user", False, "it was ₹500")


def test_a_streamed_answer_is_rated_by_the_id_of_any_chunk(service: Service, log: SqlConversationLog) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as sdk:
        stream = sdk.chat.completions.create(model="fetchgate", stream=True, messages=[{"role": "user", "content": "late fee?"}])
        ids = {chunk.id for chunk in stream}
        assert len(ids) == 1
        said = sdk.post("/feedback", body={"id": ids.pop(), "rating": 4}, cast_to=dict[str, Any])
    assert said["rating"] == 4
    assert [rating.stars for rating in ratings(log)] == [4]


def test_a_later_rating_of_the_same_rater_replaces_the_earlier_and_both_are_kept(service: Service, log: SqlConversationLog) -> None:
    turn = ask(service)
    replies = [rate(service, {"id": turn, "rating": rating}).json()["replaced"] for rating in ("good", "bad")]
    other = rate(service, {"id": turn, "rating": 5, "rater": "user-7"}).json()["replaced"]
    assert (replies, other) == ([False, True], False)
    assert len(ratings(log)) == 3
    assert [(rating.rater, rating.good, rating.stars) for rating in latest(ratings(log))] == [("local", False, None), ("user-7", None, 5)]


def test_a_repeat_is_one_rating_and_gets_the_same_reply(service: Service, log: SqlConversationLog) -> None:
    turn = ask(service)
    rate(service, {"id": turn, "rating": "good"})
    body = {"id": turn, "rating": "bad", "comment": "no"}
    first, second = rate(service, body), rate(service, body)
    assert first.json() == second.json() == {"object": "feedback", "id": turn, "rating": "bad", "replaced": True}
    assert len(ratings(log)) == 2


def test_others_answers_and_unknown_ones_look_the_same(start: Start, log: SqlConversationLog) -> None:
    (mine, kept_mine), (theirs, kept_theirs) = create_key(), create_key()
    service = start(database=log, keys=(kept_mine, kept_theirs))
    turn = ask(service, mine)
    foreign, unknown = rate(service, {"id": turn, "rating": "bad"}, theirs), rate(service, {"id": "chatcmpl-no", "rating": "bad"}, theirs)
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.json() == unknown.json()
    assert foreign.json()["error"]["type"] == "not_found_error"
    assert turn not in foreign.text
    assert foreign.headers["x-should-retry"] == "false"
    assert ratings(log) == ()
    assert rate(service, {"id": turn, "rating": "bad"}, mine).status_code == 200
    own = ask(service, theirs)
    ranked = [rate(service, {"id": own, "rating": "good", "ranking": [own, other]}, theirs) for other in (turn, "chatcmpl-no")]
    assert [(reply.status_code, reply.json()["error"]["param"]) for reply in ranked] == [(400, "ranking")] * 2
    assert ranked[0].json() == ranked[1].json()


def test_a_key_needs_the_scope_feedback(start: Start, log: SqlConversationLog) -> None:
    key, kept = create_key([Scope.CHAT])
    service = start(database=log, keys=(kept,))
    turn = ask(service, key)
    assert rate(service, {"id": turn, "rating": "good"}, key).status_code == 403
    assert rate(service, {"id": turn, "rating": "good"}, "fg-another").status_code == 401
    assert ratings(log) == ()


def test_an_erased_answer_takes_its_ratings_along_and_gets_no_more(service: Service, log: SqlConversationLog) -> None:
    turn = ask(service)
    rate(service, {"id": turn, "rating": "good"})
    with log.writing("erasing a turn") as connection:
        connection.execute(delete(turns).where(turns.c.id == turn))
    assert ratings(log) == ()
    assert rate(service, {"id": turn, "rating": "good"}).status_code == 404


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rating": True}, "rating"), ({"rating": 4.0}, "rating"), ({"rating": 0}, "rating"), ({"rating": 6}, "rating"),
    ({"rating": -1}, "rating"),
    ({"rating": 10**400}, "rating"), ({"rating": "Good"}, "rating"), 
    ({"rating": "5"}, "rating"), ({"rating": None}, "rating"), ({"rating": [5]}, "rating"),
    ({"rating": {}}, "rating"), ({"id": None}, "id"), ({"id": 7}, "id"), ({"id": ""}, "id"),
    ({"id": "x" * 201}, "id"), ({"id": "a\x00"}, "id"),
    ({"comment": 7}, "comment"), ({"comment": "a\x00b"}, "comment"), ({"comment": "x" * (MAX_COMMENT_CHARS + 1)}, "comment"),
    ({"comment": "x" * 1_000_000}, "comment"), ({"comment": ["a"]}, "comment"), ({"ranking": "ab"}, "ranking"),
    ({"ranking": []}, "ranking"),
    ({"ranking": ["TURN"]}, "ranking"), ({"ranking": ["TURN", "TURN"]}, "ranking"), ({"ranking": ["TURN", 3]}, "ranking"),
    ({"ranking": ["chatcmpl-1", "chatcmpl-2"]}, "ranking"), ({"ranking": ["TURN", "chatcmpl-1"]}, "ranking"),
    ({"ranking": ["TURN", *(f"t{n}" for n in range(20))]}, "ranking"), ({"strength": "better"}, "strength"),
    ({"rater": 5}, "rater"), ({"rater": "x" * 201}, "rater"), ({"rater": "a\x1b[2J"}, "rater"),
]


def test_what_is_no_rating_is_a_400_that_names_the_field(service: Service, log: SqlConversationLog) -> None:
    turn = ask(service)
    for change, param in BAD:
        body = {"id": turn, "rating": "good"} | change
        if isinstance(body.get("ranking"), list):
            body["ranking"] = [turn if one == "TURN" else one for one in body["ranking"]]
        reply = rate(service, body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), (str(change)[:80], reply.text)
        assert reply.json()["error"]["type"] == "invalid_request_error"
        assert len(reply.text) < 500
    assert ratings(log) == ()


def test_what_is_no_object_is_a_400(service: Service) -> None:
    for sent in (b"[]", b"null", b'"good"', b"{", b"", b"\xff", b"[" * 100_000, b'{"id": "x", "rating": NaN}'):
        reply = httpx.post(f"{service.url}/v1/feedback", content=sent, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400, sent[:20]
        assert reply.json()["error"]["message"]


def test_half_a_surrogate_pair_is_a_400(service: Service) -> None:
    turn = ask(service)
    sent = b'{"id": "%b", "rating": "good", "comment": "\\ud83d"}' % turn.encode()
    reply = httpx.post(f"{service.url}/v1/feedback", content=sent, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "comment")


def test_a_form_of_another_site_is_refused(service: Service) -> None:
    reply = httpx.post(f"{service.url}/v1/feedback", content=b'{"id": "x", "rating": "good"}', headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415


def test_unknown_fields_and_nulls_are_ignored_and_an_empty_comment_is_none(service: Service, log: SqlConversationLog) -> None:
    turn = ask(service)
    body = {"id": turn, "rating": "good", "comment": " \n", "ranking": None, "rater": None, "model": "x", "role": "expert", "owner": "fg-1",
            "created_at": "1999-01-01T00:00:00Z"}
    assert rate(service, body).status_code == 200
    [kept] = ratings(log)
    assert (kept.comment, kept.role, kept.owner, kept.created_at.year > 2000) == (None, "user", "local", True)


def test_answers_are_ranked_with_a_strength(service: Service, log: SqlConversationLog) -> None:
    first, second = ask(service, question="late fee?"), ask(service, question="late fee ?")
    body = {"id": first, "rating": "good", "ranking": [second, first], "strength": "slightly"}
    assert rate(service, body).status_code == 200
    assert [(rating.ranking, rating.strength) for rating in ratings(log)] == [((second, first), "slightly")]


def test_a_comment_is_kept_as_it_is_and_stays_out_of_the_application_log(
    service: Service, log: SqlConversationLog, caplog: pytest.LogCaptureFixture
) -> None:
    comment = "<b>wrong</b>\x1b[31m\nmail me: ann@example.com"
    with caplog.at_level("INFO"):
        assert rate(service, {"id": ask(service), "rating": "bad", "comment": comment}).status_code == 200
    assert [rating.comment for rating in ratings(log)] == [comment]
    assert "rating of chatcmpl-" in caplog.text
    assert "ann@example.com" not in caplog.text


def test_a_log_that_fails_is_a_503_to_be_tried_again(start: Start) -> None:
    service = start()
    reply = rate(service, {"id": ask(service), "rating": "good"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "log_unavailable")
    assert int(reply.headers["Retry-After"]) > 0
