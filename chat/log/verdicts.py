"""Judges' verdicts in the log: rows that are added and never changed, of which the latest of each judge and arm counts.

A verdict is on the answer that a turn gave, or on one that was written for it afterwards: the other action's, or any of an imported
turn that nobody answered. Such an answer and its tokens stand in the verdict's row. Leaves out judging (`reward/`) and what is judged
when (`evaluation/labelling.py`).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from itertools import islice

from sqlalchemy import ColumnElement, Select, and_, insert, select

from chat.log.records import Row
from chat.log.schema import turns, verdicts
from chat.log.store import PAGE, SqlConversationLog
from chat.types import Action

LOOKED_UP = 500
"""Turns whose verdicts are looked up at once."""


@dataclass(frozen=True, slots=True)
class LoggedVerdict:
    """A judge's word on one answer of a turn."""

    turn_id: str
    created_at: datetime
    """UTC."""
    arm: Action
    """The action whose answer was judged."""
    judge: str
    """The judge's version."""
    good: bool | None
    """None: the judge gave no verdict; `reason` says why."""
    reason: str
    hedged: bool | None = None
    safe: bool | None = None
    probability: float | None = None
    """Of Good, in [0, 1]."""
    quotes: tuple[str, ...] = ()
    answer: str | None = None
    """What was judged; None: the turn's own answer."""
    input_tokens: int | None = None
    """Of that answer; None where it is the turn's own."""
    output_tokens: int | None = None
    judge_input_tokens: int | None = None
    """Of the judgement; None: nothing was counted."""
    judge_output_tokens: int | None = None
    cost: float | None = None
    """Of the judgement, in `currency`; None: unknown."""
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class BothArms:
    """A turn of which both arms were looked at by one judge."""

    turn_id: str
    owner: str
    conversation_id: str
    taken: Action | None
    """None: an imported turn, in which nobody took an action."""
    fetch: bool | None
    skip: bool | None
    """Good or not; None: missing."""


def record_verdicts(log: SqlConversationLog, given: Sequence[LoggedVerdict]) -> None:
    """Store verdicts durably, all or none. Raises: LogError, also for a turn that isn't in the log."""
    if not given:
        return
    with log.writing(f"storing {len(given)} verdicts") as connection:
        connection.execute(insert(verdicts), [asdict(one) | {"arm": one.arm.value} for one in given])


def latest_verdicts(
    log: SqlConversationLog, *, judge: str | None = None, turn_ids: Collection[str] | None = None
) -> Iterator[LoggedVerdict]:
    """The latest verdict of each turn, judge and arm, in the order in which they were stored; of one judge or some turns if asked for.

    A missing verdict after a given one counts: it is the judge's latest word. Raises: LogError.
    """
    if turn_ids is None:
        yield from _latest(log, judge)
        return
    rest = iter(dict.fromkeys(turn_ids))
    while some := list(islice(rest, LOOKED_UP)):
        yield from _latest(log, judge, verdicts.c.turn_id.in_(some))


def both_arms(log: SqlConversationLog, judge: str) -> tuple[BothArms, ...]:
    """The turns of which this judge has looked at both arms, whether or not it had a verdict; in the order of the verdicts."""
    found: dict[str, dict[Action, bool | None]] = {}
    for one in latest_verdicts(log, judge=judge):
        found.setdefault(one.turn_id, {})[one.arm] = one.good
    pairs = {turn: arms for turn, arms in found.items() if Action.FETCH in arms and Action.NO_FETCH in arms}
    rows = _turns(log, pairs)
    return tuple(BothArms(turn, rows[turn]["owner"], rows[turn]["conversation_id"],
                          None if rows[turn]["action"] is None else Action(rows[turn]["action"]), arms[Action.FETCH], arms[Action.NO_FETCH])
                 for turn, arms in pairs.items() if turn in rows)


def _latest(log: SqlConversationLog, judge: str | None, *where: ColumnElement[bool]) -> Iterator[LoggedVerdict]:
    """Page by page, so that no lock is held between two; verdicts that are stored meanwhile may be seen."""
    c = verdicts.c
    newer = verdicts.alias("newer")
    replaced = select(newer.c.sequence).where(
        and_(newer.c.turn_id == c.turn_id, newer.c.judge == c.judge, newer.c.arm == c.arm, newer.c.sequence > c.sequence)).exists()
    query = select(verdicts).where(~replaced, *where).order_by(c.sequence).limit(PAGE)
    if judge is not None:
        query = query.where(c.judge == judge)
    last = 0
    while page := _rows(log, query.where(c.sequence > last)):
        yield from map(_verdict, page)
        last = page[-1]["sequence"]


def _rows(log: SqlConversationLog, query: Select[*tuple[object, ...]]) -> list[Row]:
    with log.reading("reading verdicts") as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _turns(log: SqlConversationLog, turn_ids: Collection[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    rest = iter(turn_ids)
    while some := list(islice(rest, LOOKED_UP)):
        query = select(turns.c.id, turns.c.owner, turns.c.conversation_id, turns.c.action).where(turns.c.id.in_(some))
        found |= {row["id"]: row for row in _rows(log, query)}
    return found


_FIELDS = tuple(field.name for field in fields(LoggedVerdict))


def _verdict(row: Row) -> LoggedVerdict:
    return LoggedVerdict(**{**{name: row[name] for name in _FIELDS}, "arm": Action(row["arm"]), "quotes": tuple(row["quotes"])})
