"""A log in a temporary folder, and turns to put in it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chat.log.store import SqlConversationLog
from chat.types import Action, Counterfactual, Decision, Evidence, Price, State, Turn, Usage

MakeTurn = Callable[..., Turn]

TURN = Turn(
    id="t1",
    conversation_id="c1",
    owner="alice",
    created_at=datetime(2026, 11, 20, 9, 30, 0, 123456, tzinfo=UTC),
    query="What does the card cost?",
    answer="Nothing in the first year [card-fee].",
    state=State(("hello",), (None,), "What does the card cost?", Evidence(0.81, None, False, 2)),
    decision=Decision(Action.FETCH, 0.75, 0.05, 0.9, "gate:7", "unsure"),
    hits=(("card-fee", 0.8125), ("card-limit", 1 / 3)),
    fetched=("card-fee", "card-limit"),
    shown=("card-fee", "card-limit", "greeting"),
    cited=("card-fee",),
    usage=Usage(420, 12, 100, "server"),
    counterfactuals=(Counterfactual("always_fetch", 620, 12, "same_answer"), Counterfactual("paper", 700, 12, "same_answer")),
    model="small-llm",
    prompt_version="p1",
    kb_version="kb1",
    price=Price(0.15, None, 0.6, "USD", "2026-11-01"),
    latency_ms={"retrieve": 1.5, "total": 230.25},
    finish_reason="stop",
    degraded=("policy_failed",),
    transcript_mac="mac-1",
)


@pytest.fixture
def make_turn() -> MakeTurn:
    """A full turn, with the fields that are given instead of its own."""
    return lambda turn_id="t1", **fields: replace(TURN, id=turn_id, **fields)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(database: Path) -> Iterator[SqlConversationLog]:
    with SqlConversationLog(str(database), busy_timeout_s=0.2) as opened:
        yield opened
