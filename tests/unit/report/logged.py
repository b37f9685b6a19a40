"""Turns to put into a real log, and a log in a folder: what the tests of sources and of whole reports share."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow
import pyarrow.parquet

from chat.log.export import parquet_schema
from chat.log.records import row_of
from chat.log.store import SqlConversationLog
from chat.types import Action, Counterfactual, Decision, Price, State, Turn, Usage
from report.source import TurnTable, open_parquet

BEGAN = datetime(2026, 10, 1, 8, 0, tzinfo=UTC)
DOLLARS = Price(10.0, None, 10.0, "USD", "2026-09-01")


def turn(
    number: int, conversation: str = "c1", *, paid: int = 60, costs: Mapping[str, int] | None = None, minutes: float | None = None,
    policy: str = "p1", price: Price | None = DOLLARS, model: str = "m", query: str = "?", background: bool = False,
    degraded: tuple[str, ...] = (), owner: str = "o",
) -> Turn:
    """A skip that paid 60 tokens of the 100 that always fetching would have cost, unless something else is said."""
    wanted = {"always_fetch": 100} if costs is None else costs
    return Turn(
        id=f"t{number}", conversation_id=conversation, owner=owner,
        created_at=BEGAN + timedelta(minutes=number if minutes is None else minutes),
        query=query, answer="!", state=State((), (), "?", None), decision=Decision(Action.NO_FETCH, 0.25, 0.1, 1.0, policy, "made"),
        hits=(("f1", 0.9), ("f2", 0.8)), fetched=(), shown=(), cited=(), usage=Usage(paid, 0),
        counterfactuals=tuple(Counterfactual(name, tokens, 0, "same_answer") for name, tokens in wanted.items()), model=model,
        prompt_version="1", kb_version="1", price=price, latency_ms={"retrieve": 2.0}, finish_reason="stop", background=background,
        degraded=degraded,
    )


def table_of(folder: Path, *turns: Turn) -> TurnTable:
    """The tables of these turns, as an export of their log would have them: no database is written."""
    places: Counter[str] = Counter()
    rows = []
    for sequence, one in enumerate(turns, 1):
        rows.append({"sequence": sequence, "position": places[one.conversation_id]} | {
            name: json.dumps(value) if isinstance(value, (dict, list, tuple)) else value for name, value in row_of(one).items()})
        places[one.conversation_id] += 1
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, parquet_schema()), folder / "turns.parquet")
    return open_parquet(folder / "turns.parquet")


@contextmanager
def log_of(folder: Path, *turns: Turn) -> Iterator[SqlConversationLog]:
    """A log of these turns."""
    with SqlConversationLog(str(folder / "log.db")) as log:
        for one in turns:
            log.append(one)
        yield log
