"""Session files into the log, and the log's conversations as plain sessions.

Leaves out the plain format (`plain.py`) and writing files (`export.py`).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, tuple_

from chat.errors import SessionFileError
from chat.log.plain import PlainSession, PlainTurn, as_object, numbered_sessions
from chat.log.schema import IMPORT_OWNER, conversations, turns
from chat.log.store import SqlConversationLog

BATCH = 200
"""Sessions that are looked up or written at once."""
UNLABELLED = "unlabelled"
"""`kind` of a served turn, which nobody has labelled."""

Progress = Callable[[int], None]
"""Called with the number of sessions done since the last call."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, in sessions and turns."""

    sessions: int
    turns: int
    skipped: int
    """Sessions that were in the log already."""


def import_sessions(log: SqlConversationLog, paths: Sequence[Path], *, progress: Progress | None = None) -> Imported:
    """Store the sessions of all files, or of none: one transaction. A session that is there with the same content is skipped.

    The files are checked before the log is locked; while it is, no turn can be stored.
    Raises: SessionFileError naming file, line and field; also for an id that is there with other content. LogError.
    """
    for path in paths:
        for _ in numbered_sessions(path):
            pass
    done = Imported(0, 0, 0)
    with log.writing("importing sessions") as connection:
        now = datetime.now(UTC)
        for path in paths:
            for batch in _batches(numbered_sessions(path)):
                new = _unknown(connection, path, batch)
                _insert(connection, new, now)
                done = Imported(done.sessions + len(new), done.turns + sum(len(session.turns) for session in new),
                                done.skipped + len(batch) - len(new))
                if progress is not None:
                    progress(len(batch))
    return done


def plain_sessions(log: SqlConversationLog) -> Iterator[PlainSession]:
    """Every conversation as a plain session, in the order in which they began; the log's state at one moment.

    A front end's own prompts are left out, and so is what a filter refused. Where two owners have one id, the id of a served one is
    `owner/id`.
    """
    first = func.min(turns.c.sequence).label("first")
    began = select(turns.c.owner, turns.c.conversation_id, first).group_by(turns.c.owner, turns.c.conversation_id).subquery()
    query = (
        select(conversations.c.owner, conversations.c.id, conversations.c.extra)
        .join(began, (began.c.owner == conversations.c.owner) & (began.c.conversation_id == conversations.c.id))
        .order_by(began.c.first)
    )
    shared_ids = select(conversations.c.id).group_by(conversations.c.id).having(func.count() > 1)
    with log.reading("reading sessions") as connection:
        shared = set(connection.execute(shared_ids).scalars())
        for rows in connection.execute(query, execution_options={"yield_per": BATCH}).partitions(BATCH):
            found = _turns_of(connection, [(row.owner, row.id) for row in rows])
            for row in rows:
                if said := found.get((row.owner, row.id)):
                    session_id = f"{row.owner}/{row.id}" if row.id in shared and row.owner != IMPORT_OWNER else row.id
                    yield PlainSession(session_id, tuple(said), row.extra)


def _batches(records: Iterator[tuple[int, PlainSession]]) -> Iterator[list[tuple[int, PlainSession]]]:
    while batch := list(islice(records, BATCH)):
        yield batch


def _unknown(connection: Connection, path: Path, batch: Iterable[tuple[int, PlainSession]]) -> list[PlainSession]:
    """The sessions of a batch that aren't in the log. Raises: SessionFileError for one that is there with other content."""
    lines = {session.id: (line, session) for line, session in batch}
    mine = (conversations.c.owner == IMPORT_OWNER, conversations.c.id.in_(list(lines)))
    stored = connection.execute(select(conversations.c.id, conversations.c.extra).where(*mine)).all()
    said = _turns_of(connection, [(IMPORT_OWNER, row.id) for row in stored])
    for row in stored:
        line, session = lines.pop(row.id)
        there = PlainSession(row.id, tuple(said.get((IMPORT_OWNER, row.id), ())), row.extra)
        if _canonical(there) != _canonical(session):
            raise SessionFileError(f"{path}:{line}: id: expected an id that is new to the log, or the same session again, got "
                                   f"{row.id!r}, which is there with other content; give it another id. Nothing was imported.")
    return [session for _, session in lines.values()]


def _canonical(session: PlainSession) -> str:
    return json.dumps(as_object(session), sort_keys=True)


def _insert(connection: Connection, sessions: Sequence[PlainSession], now: datetime) -> None:
    if not sessions:
        return
    common = {"owner": IMPORT_OWNER, "source": "import", "created_at": now}
    connection.execute(insert(conversations), [{**common, "id": session.id, "extra": session.extra} for session in sessions])
    connection.execute(insert(turns), [
        {**common, "id": f"{IMPORT_OWNER}:{session.id}:{position}", "conversation_id": session.id, "position": position,
         "query": turn.query, "answer": turn.answer, "gold": turn.gold, "kind": turn.kind, "extra": turn.extra}
        for session in sessions for position, turn in enumerate(session.turns)
    ])


def _turns_of(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[PlainTurn]]:
    """The plain turns of some conversations, by owner and id."""
    c = turns.c
    query = (
        select(c.owner, c.conversation_id, c.source, c.query, c.answer, c.gold, c.kind, c.extra)
        .where(tuple_(c.owner, c.conversation_id).in_(keys), c.background.is_not(True), c.refusal.is_(None))
        .order_by(c.sequence)
    )
    found: dict[tuple[str, str], list[PlainTurn]] = {}
    for row in connection.execute(query) if keys else ():
        gold = None if row.gold is None else tuple(row.gold)
        turn = PlainTurn(row.query, row.answer, gold, row.kind or UNLABELLED, row.extra)
        found.setdefault((row.owner, row.conversation_id), []).append(turn)
    return found
