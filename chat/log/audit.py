"""The audit of administrators' acts: rows that are added and never changed.

An act has its row before it is done, so that none is done without; one that fails afterwards has a second row that undoes it.
Leaves out the acts themselves (`service/`).
"""

from dataclasses import asdict, dataclass, fields
from datetime import datetime

from sqlalchemy import insert, select

from chat.log.schema import admin_acts
from chat.log.store import SqlConversationLog


@dataclass(frozen=True, slots=True)
class AdminAct:
    """What an administrator did."""

    created_at: datetime
    """UTC."""
    owner: str
    """The API key's id, `local` without keys."""
    act: str
    """`put` or `delete`; `undo`: the act before, by the same owner, failed after all."""
    ids: tuple[str, ...]
    """Of the FAQs."""
    kb_version_before: str | None
    """None: not known."""
    kb_version_after: str | None


def record_act(log: SqlConversationLog, act: AdminAct) -> None:
    """Store an act durably. Raises: LogError."""
    with log.writing(f"recording the act {act.act}") as connection:
        connection.execute(insert(admin_acts).values(asdict(act)))


def latest_acts(log: SqlConversationLog, *, limit: int) -> tuple[AdminAct, ...]:
    """At most `limit` acts, the latest first. Raises: LogError."""
    query = select(*(admin_acts.c[name] for name in _FIELDS)).order_by(admin_acts.c.sequence.desc()).limit(limit)
    with log.reading("reading the audit") as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return tuple(AdminAct(**{**row, "ids": tuple(row["ids"])}) for row in rows)


_FIELDS = tuple(field.name for field in fields(AdminAct))
