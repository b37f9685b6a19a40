"""A log with verdicts, made up turn by turn and read as an export is: real tables, nothing in a database."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow
import pyarrow.parquet

from report.source import TurnTable, open_parquet

BEGAN = datetime(2026, 10, 1, 8, 0, tzinfo=UTC)
Row = Mapping[str, object]
PRICE = {"input": 10.0, "cached_input": 1.0, "output": 20.0, "currency": "USD", "version": "2026-10-1"}
"""A million input tokens cost 10 dollars, cached ones 1, output 20."""
JUDGE = "local:1"


def turn(conversation: str, position: int = 0, action: str = "FETCH", tokens: tuple[int, int] = (100, 10), *, minutes: float = 0.0,
         policy: str = "p1", score: float = 0.2, costs: Mapping[str, tuple[int, int]] | None = None, cached: int | None = None,
         price: Mapping[str, object] | None = PRICE, model: str = "m", **rest: object) -> Row:
    """A served turn `c-0` of a conversation `c`; `costs` is baseline to its input and output tokens."""
    named = [{"baseline": name, "input_tokens": used[0], "output_tokens": used[1], "output_method": "same_answer"}
             for name, used in (costs or {}).items()]
    return {
        "id": f"{conversation}-{position}", "owner": "o", "conversation_id": conversation, "position": position,
        "created_at": BEGAN + timedelta(minutes=minutes), "source": "chat", "query": "what is it?", "answer": "this", "action": action,
        "fetch_probability": 1 - score, "uncertainty": 0.0, "policy_version": policy, "hits": "[]", "input_tokens": tokens[0],
        "output_tokens": tokens[1], "cached_input_tokens": cached, "usage_source": "server", "counterfactuals": json.dumps(named),
        "price": None if price is None else json.dumps(price), "model": model, "latency_ms": "{}", "degraded": "[]", "refusal": None,
        "background": False,
    } | rest


def verdict(turn_id: str, arm: str, good: bool | None, *, judge: str = JUDGE, tokens: tuple[int, int] | None = None,
            answer: str | None = None, reason: str = "because") -> Row:
    """A judge's word; `tokens` are those of an answer that was written for it."""
    used = (None, None) if tokens is None else tokens
    return {"turn_id": turn_id, "created_at": BEGAN, "arm": arm, "judge": judge, "good": good, "reason": reason,
            "answer": answer if tokens is None or answer is not None else "written", "input_tokens": used[0], "output_tokens": used[1]}


def both(turn_id: str, *, fetch: bool | None, skip: bool | None) -> list[Row]:
    """Words on both arms."""
    return [verdict(turn_id, "FETCH", fetch), verdict(turn_id, "NO_FETCH", skip)]


def rating(turn_id: str, rater: str, *, good: bool | None = None, stars: int | None = None) -> Row:
    """A person's word."""
    return {"turn_id": turn_id, "created_at": BEGAN, "owner": "o", "rater": rater, "role": "user", "good": good, "stars": stars}


def opened(folder: Path, turns: Sequence[Row], verdicts: Sequence[Row] = (), ratings: Sequence[Row] = ()) -> TurnTable:
    """The tables of these rows, numbered in their order."""
    paths = {name: _written(folder / f"{name}.parquet", rows)
             for name, rows in (("turns", turns), ("verdicts", verdicts), ("ratings", ratings)) if rows}
    return open_parquet(paths["turns"], paths.get("verdicts"), paths.get("ratings"))


def _written(path: Path, rows: Sequence[Row]) -> Path:
    numbered = [{"sequence": number, **row} for number, row in enumerate(rows, 1)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(numbered), path)
    return path
