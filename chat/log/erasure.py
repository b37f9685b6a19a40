"""Erase a conversation from the log, as a person may ask: its turns, and with them their ratings and verdicts.

Leaves out what stands elsewhere: files that were exported, backups, and what caches hold (`reward/judgements.py`).
"""

from sqlalchemy import delete

from chat.log.schema import conversations
from chat.log.store import SqlConversationLog


def erase_conversation(log: SqlConversationLog, owner: str, conversation_id: str) -> bool:
    """Whether there was such a conversation; now there is none, and SQLite has overwritten its pages. Raises: LogError."""
    with log.writing("erasing a conversation") as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        mine = (conversations.c.owner == owner) & (conversations.c.id == conversation_id)
        return connection.execute(delete(conversations).where(mine)).rowcount > 0
