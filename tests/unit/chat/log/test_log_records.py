"""Turns to rows and back."""

from datetime import UTC
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from chat.errors import LogError
from chat.log import schema
from chat.log.records import row_of, turn_of
from chat.log.store import SqlConversationLog
from chat.types import Action, Counterfactual, Decision, Evidence, Price, Refusal, State, Turn, Usage

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
some = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)  # SQLite keeps no sign of a zero
share = st.floats(0, 1).map(lambda x: x + 0.0)
count = st.integers(0, 2**31 - 1)
ids = st.lists(text, max_size=3).map(tuple)


@st.composite
def states(draw: st.DrawFn) -> State:
    earlier = draw(st.lists(st.tuples(text, st.none() | st.sampled_from(Action)), max_size=3))
    cosine, yes = st.none() | some, st.booleans()
    evidence = st.builds(Evidence, cosine, cosine, yes, st.none() | count, cosine, cosine, count, count, count, cosine, cosine, yes, cosine,
                         yes)
    queries, actions = tuple(query for query, _ in earlier), tuple(action for _, action in earlier)
    return State(queries, actions, draw(text), draw(st.none() | evidence))


turns = st.builds(
    Turn,
    id=text, conversation_id=text, owner=text, query=text, answer=text,
    created_at=st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0)),
    state=states(),
    decision=st.builds(Decision, st.sampled_from(Action), share, some, st.floats(0, 1, exclude_min=True), text, text),
    hits=st.lists(st.tuples(text, some), max_size=3).map(tuple), fetched=ids, shown=ids, cited=ids,
    usage=st.builds(Usage, count, count, st.none() | count, st.sampled_from(["server", "model", "local", "none"])),
    counterfactuals=st.lists(
        st.builds(Counterfactual, text, count, count, st.sampled_from(["same_answer", "static_answer"])), max_size=2,
    ).map(tuple),
    model=text, prompt_version=text, kb_version=text,
    price=st.none() | st.builds(Price, some, st.none() | some, some, text, text),
    latency_ms=st.dictionaries(text, some, max_size=3),
    finish_reason=st.sampled_from(["stop", "length", "content_filter", "cancelled", "error"]),
    degraded=ids, background=st.booleans(), transcript_mac=st.none() | text,
    refusal=st.none() | st.builds(Refusal, st.sampled_from(["input", "output"]), text, text),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turn=turns)
def test_any_turn_comes_out_of_the_database_as_it_went_in(log: SqlConversationLog, turn: Turn) -> None:
    with pytest.raises(ZeroDivisionError), log.writing("storing for a moment") as connection:
        connection.execute(insert(schema.conversations).values(
            owner=turn.owner, id=turn.conversation_id, source="chat", created_at=turn.created_at, extra={}))
        connection.execute(insert(schema.turns).values(**row_of(turn), position=0))
        found = turn_of(dict(connection.execute(select(schema.turns)).mappings().one()))
        assert found == turn
        assert repr(found) == repr(turn)  # 1 equals 1.0 and True; what a reader prints must not change either
        raise ZeroDivisionError  # rolls back: the next example finds an empty log


def test_a_number_that_is_not_finite_is_refused_rather_than_stored_as_unknown(make_turn: Any) -> None:
    decision = Decision(Action.FETCH, 0.5, float("nan"), 1.0, "v", "r")
    with pytest.raises(LogError, match="uncertainty: expected a finite number, got nan"):
        row_of(make_turn(decision=decision))


def test_a_row_that_was_tampered_with_is_reported_with_its_id(make_turn: Any) -> None:
    row = {**row_of(make_turn("t1")), "state": {"previous_queries": []}}
    with pytest.raises(LogError, match="turn 't1': expected a record as this version writes it"):
        turn_of(row)


def test_a_row_of_a_time_when_evidence_was_four_figures_still_loads(log: SqlConversationLog, make_turn: Any) -> None:
    turn = make_turn("t1", state=State((), (), "q", Evidence(0.5, 0.1, True, 2)))
    old = {"top1_similarity": 0.5, "margin": 0.1, "top1_in_prompt": True, "turns_since_fetch": 2}
    row = {**row_of(turn), "state": {"previous_queries": [], "previous_actions": [], "query": "q", "evidence": old}}
    with log.writing("storing an old row") as connection:
        connection.execute(insert(schema.conversations).values(
            owner=turn.owner, id=turn.conversation_id, source="chat", created_at=turn.created_at, extra={}))
        connection.execute(insert(schema.turns).values(**row, position=0))
    assert log.turn(turn.owner, "t1") == turn
