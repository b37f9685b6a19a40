"""`SqlConversationLog`: turns in, turns and conversations out; the ConversationLog port on SQLite or PostgreSQL.

Leaves out session files (`sessions.py`), exports (`export.py`) and what differs between databases (`database.py`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Select, and_, func, insert, select, tuple_

from chat.errors import LogError
from chat.log.database import Database
from chat.log.migrations import upgrade
from chat.log.records import LoggedTurn, Row, row_of, turn_of
from chat.log.schema import conversations, turns
from chat.ports import LoggedExchange
from chat.types import Action, Turn

PAGE = 1000
"""Rows read at a time when all are asked for."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a list of conversations shows of each."""

    owner: str
    id: str
    source: str
    """`chat` or `import`."""
    created_at: datetime
    turns: int
    tokens: int | None
    """Input and output tokens of its turns together; None: no turn was served."""


class SqlConversationLog:
    """The log in a database; safe for many threads at once. Every method raises LogError when the database fails."""

    def __init__(self, url: str, *, create: bool = True, busy_timeout_s: float = 5.0) -> None:
        """Open the log at a database URL or the path of an SQLite file, and bring its schema up to date.

        `create=False` refuses a file that isn't there. A write waits up to `busy_timeout_s` seconds for other writers.
        """
        self._database = Database(url, busy_timeout_s=busy_timeout_s, create=create)
        try:
            upgrade(self._database)
        except LogError:
            self._database.close()
            raise

    @property
    def path(self) -> Path | None:
        """The SQLite file; None when the log isn't a plain file."""
        return self._database.path

    def append(self, turn: Turn) -> None:
        """Store the turn durably; once this returns, it survives a crash."""
        row = row_of(turn)
        with self.writing(f"storing turn {turn.id}") as connection:
            self._ensure_conversation(connection, turn)
            in_it = and_(turns.c.owner == turn.owner, turns.c.conversation_id == turn.conversation_id)
            following = select(func.coalesce(func.max(turns.c.position) + 1, 0)).where(in_it).scalar_subquery()
            connection.execute(insert(turns).values(**row, position=following))

    def recent(self, owner: str, conversation_id: str, *, limit: int) -> tuple[LoggedExchange, ...]:
        """The last served turns of a conversation, oldest first; a front end's own prompts and what was refused aren't among them."""
        if limit < 1:
            return ()
        wanted = ("query", "answer", "action", "hits", "fetched", "cited")
        query = (
            select(*(turns.c[name] for name in wanted))
            .where(turns.c.owner == owner, turns.c.conversation_id == conversation_id)
            .where(turns.c.source == "chat", turns.c.background.is_(False), turns.c.refusal.is_(None))
            .order_by(turns.c.position.desc())
            .limit(limit)
        )
        return tuple(_exchange(row) for row in reversed(self._rows(query, "reading recent turns")))

    def find_conversation(self, owner: str, transcript_mac: str) -> str | None:
        """The conversation whose transcript, up to one of our answers, has this keyed hash; the latest of several."""
        query = (
            select(turns.c.conversation_id)
            .where(turns.c.owner == owner, turns.c.transcript_mac == transcript_mac)
            .order_by(turns.c.sequence.desc())
            .limit(1)
        )
        found = self._rows(query, "finding a conversation")
        return found[0]["conversation_id"] if found else None

    def turn(self, owner: str, turn_id: str) -> Turn | None:
        """The served turn of that id; None when the owner has none."""
        query = select(turns).where(turns.c.owner == owner, turns.c.id == turn_id)
        found = [turn_of(row) for row in self._rows(query, f"reading turn {turn_id}")]
        return found[0] if found and isinstance(found[0], Turn) else None

    def turns_of(self, owner: str, conversation_id: str) -> tuple[LoggedTurn, ...]:
        """All turns of a conversation, oldest first; () when there is none."""
        return tuple(turn_of(row) for row in self.rows(owner=owner, conversation_id=conversation_id))

    def turns(self) -> Iterator[LoggedTurn]:
        """All turns in the order in which they were stored, read page by page."""
        return map(turn_of, self.rows())

    def rows(self, *, owner: str | None = None, conversation_id: str | None = None) -> Iterator[Row]:
        """The rows behind `turns`, for exports. No lock is held between two pages, and turns stored meanwhile are seen."""
        query = select(turns).order_by(turns.c.sequence).limit(PAGE)
        if owner is not None:
            query = query.where(turns.c.owner == owner)
        if conversation_id is not None:
            query = query.where(turns.c.conversation_id == conversation_id)
        last = 0
        while page := self._rows(query.where(turns.c.sequence > last), "reading turns"):
            yield from page
            last = page[-1]["sequence"]

    def turn_count(self) -> int:
        """How many turns the log holds."""
        return int(self._rows(select(func.count().label("turns")).select_from(turns), "counting turns")[0]["turns"])

    def conversations(self, *, limit: int, before: Conversation | None = None) -> tuple[Conversation, ...]:
        """At most `limit` conversations, the latest first; `before` is the last one of the page before."""
        order = tuple_(conversations.c.created_at, conversations.c.owner, conversations.c.id)
        query = _summaries().order_by(*(column.desc() for column in order.clauses)).limit(max(limit, 0))
        if before is not None:
            query = query.where(order < tuple_(before.created_at, before.owner, before.id, types=_KEY_TYPES))
        return tuple(Conversation(**row) for row in self._rows(query, "listing conversations"))

    def conversations_named(self, conversation_id: str) -> tuple[Conversation, ...]:
        """The conversations of that id, one for each owner who has one."""
        query = _summaries().where(conversations.c.id == conversation_id).order_by(conversations.c.owner)
        return tuple(Conversation(**row) for row in self._rows(query, "finding a conversation"))

    def reading(self, doing: str) -> AbstractContextManager[Connection]:
        """A connection that sees one state of the log; `doing` says what for, in a LogError."""
        return self._database.reading(doing)

    def writing(self, doing: str) -> AbstractContextManager[Connection]:
        """The one writing connection: committed at the end, rolled back if anything is raised."""
        return self._database.writing(doing)

    def close(self) -> None:
        """Close the connections; the log can't be used after that."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ensure_conversation(self, connection: Connection, turn: Turn) -> None:
        """The conversation is there, and this transaction alone may add a turn to it."""
        values = {"owner": turn.owner, "id": turn.conversation_id, "source": "chat", "created_at": turn.created_at, "extra": {}}
        self._database.insert_new(conversations, values, connection)
        mine = and_(conversations.c.owner == turn.owner, conversations.c.id == turn.conversation_id)
        connection.execute(select(conversations.c.id).where(mine).with_for_update())

    def _rows(self, query: Select[*tuple[object, ...]], doing: str) -> list[Row]:
        with self.reading(doing) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


_KEY_TYPES = [conversations.c.created_at.type, conversations.c.owner.type, conversations.c.id.type]


def _summaries() -> Select[*tuple[object, ...]]:
    """Conversations with the number and the tokens of their turns."""
    mine = and_(turns.c.owner == conversations.c.owner, turns.c.conversation_id == conversations.c.id)
    count = select(func.count()).where(mine).scalar_subquery()
    tokens = select(func.sum(turns.c.input_tokens + turns.c.output_tokens)).where(mine).scalar_subquery()
    c = conversations.c
    return select(c.owner, c.id, c.source, c.created_at, count.label("turns"), tokens.label("tokens"))


def _exchange(row: Row) -> LoggedExchange:
    return LoggedExchange(
        query=row["query"],
        answer=row["answer"],
        action=Action(row["action"]),
        hits=tuple(faq_id for faq_id, _ in row["hits"]),
        fetched=tuple(row["fetched"]),
        cited=tuple(row["cited"]),
    )
