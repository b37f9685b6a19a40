"""Turns to rows of the log and back, without loss.

A row is what one line of `turns` holds, JSON columns as Python values. Leaves out SQL (`store.py`) and the plain format of
imported sessions (`sessions.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from chat.errors import LogError
from chat.types import Action, Counterfactual, Decision, Evidence, Price, Refusal, State, Turn, Usage

Row = Mapping[str, Any]
"""A line of `turns` by column name."""


@dataclass(frozen=True, slots=True)
class ImportedTurn:
    """A labelled turn that came from a session file; nobody served it."""

    id: str
    conversation_id: str
    owner: str
    created_at: datetime
    """UTC, when it was imported."""
    query: str
    answer: str | None
    gold: tuple[str, ...] | None
    """FAQ ids that answer it; () needs none, None is unlabelled."""
    kind: str


LoggedTurn = Turn | ImportedTurn


def row_of(turn: Turn) -> dict[str, Any]:
    """A served turn as a row, but for its position. Raises: LogError when a number isn't finite."""
    decision, usage = turn.decision, turn.usage
    for name in ("fetch_probability", "uncertainty", "behavior_prob"):
        if not math.isfinite(value := getattr(decision, name)):  # SQLite would store NaN as null
            raise LogError(f"turn {turn.id}: {name}: expected a finite number, got {value}; nothing was stored")
    return {
        "id": turn.id, "owner": turn.owner, "conversation_id": turn.conversation_id, "created_at": turn.created_at,
        "source": "chat", "query": turn.query, "answer": turn.answer,
        "action": decision.action.value, "fetch_probability": decision.fetch_probability, "uncertainty": decision.uncertainty,
        "behavior_prob": decision.behavior_prob, "policy_version": decision.policy_version, "reason": decision.reason,
        "state": asdict(turn.state),
        "hits": turn.hits, "fetched": turn.fetched, "shown": turn.shown, "cited": turn.cited,
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens, "usage_source": usage.source,
        "counterfactuals": [asdict(other) for other in turn.counterfactuals],
        "price": None if turn.price is None else asdict(turn.price),
        "model": turn.model, "prompt_version": turn.prompt_version, "kb_version": turn.kb_version,
        "latency_ms": dict(turn.latency_ms), "finish_reason": turn.finish_reason, "degraded": turn.degraded,
        "refusal": None if turn.refusal is None else asdict(turn.refusal),
        "background": turn.background, "transcript_mac": turn.transcript_mac, "extra": {},
    }


def turn_of(row: Row) -> LoggedTurn:
    """The turn that a row holds. Raises: LogError when the row isn't one that we wrote."""
    try:
        return _served(row) if row["source"] == "chat" else _imported(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogError(f"turn {row.get('id')!r}: expected a record as this version writes it, got one that doesn't fit "
                       f"({error}); restore the log from a backup") from error


def _imported(row: Row) -> ImportedTurn:
    return ImportedTurn(
        id=row["id"], conversation_id=row["conversation_id"], owner=row["owner"], created_at=row["created_at"],
        query=row["query"], answer=row["answer"], gold=None if row["gold"] is None else tuple(row["gold"]), kind=row["kind"],
    )


def _served(row: Row) -> Turn:
    return Turn(
        id=row["id"], conversation_id=row["conversation_id"], owner=row["owner"], created_at=row["created_at"],
        query=row["query"], answer=row["answer"],
        state=_state(row["state"]),
        decision=Decision(
            action=Action(row["action"]), fetch_probability=row["fetch_probability"], uncertainty=row["uncertainty"],
            behavior_prob=row["behavior_prob"], policy_version=row["policy_version"], reason=row["reason"],
        ),
        hits=tuple((faq_id, similarity) for faq_id, similarity in row["hits"]),
        fetched=tuple(row["fetched"]), shown=tuple(row["shown"]), cited=tuple(row["cited"]),
        usage=Usage(row["input_tokens"], row["output_tokens"], row["cached_input_tokens"], row["usage_source"]),
        counterfactuals=tuple(Counterfactual(**other) for other in row["counterfactuals"]),
        model=row["model"], prompt_version=row["prompt_version"], kb_version=row["kb_version"],
        price=None if row["price"] is None else Price(**row["price"]),
        latency_ms=row["latency_ms"], finish_reason=row["finish_reason"], degraded=tuple(row["degraded"]),
        background=row["background"], transcript_mac=row["transcript_mac"],
        refusal=None if row["refusal"] is None else Refusal(**row["refusal"]),
    )


def _state(stored: Mapping[str, Any]) -> State:
    return State(
        previous_queries=tuple(stored["previous_queries"]),
        previous_actions=tuple(None if action is None else Action(action) for action in stored["previous_actions"]),
        query=stored["query"],
        evidence=None if stored["evidence"] is None else Evidence(**stored["evidence"]),
    )
