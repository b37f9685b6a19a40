"""The tables of the conversation log.

What the log is. Every answer that went out is one row of `turns`: what was asked and answered, what the policy read and
decided and with which probability, which FAQs were found, shown and cited, what it cost, and what it would have cost had
every turn fetched. Policies are trained and judged, and savings reported, from nothing but these rows. So they are facts:

- *Append-only.* A turn is written once, whole, and never changed; triggers in the database refuse UPDATE. What is learnt
  about a turn afterwards (ratings, verdicts) belongs in other tables. DELETE exists for erasure alone, and deleting a
  conversation deletes its turns.
- *Ordered by `sequence`*, which the database counts up, not by the clock, which jumps. `position` counts the turns of one
  conversation from 0. Neither is ever given out again.
- *One owner a conversation.* An owner is an API key's id; two owners may use one conversation id and never meet.

Turns come from two sources. `chat` rows are complete (`chat.types.Turn`). `import` rows are labelled sessions
from files (`sessions.py`), owned by `IMPORT_OWNER`; they have a `gold` and a `kind`, and null for everything that only a
served turn knows. `extra` keeps the fields of such a file that this schema has no name for.

Each administrator's act is one row of `admin_acts`, as append-only as a turn: who did what to which FAQs, and which version
of the knowledge base that made of which.

What is learnt about a turn afterwards is rows of two further tables, as append-only as the turn: `ratings`, people's, of which the
latest of each rater counts; and `verdicts`, judges', of which the latest of each judge and arm counts. A verdict is on the answer
that was given, or on the one that the other action would have got (`arm`); that answer and its tokens stand beside it. `good` null is
a verdict that a judge couldn't give, and `reason` says why. Erasing a turn erases both.

Texts and numbers that are asked for by SQL are columns; the rest is JSON text, which `records.py` reads and writes.
Leaves out connections (`database.py`) and how the tables come to be (`migrations.py`): a change here is a revision there.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

REVISION = "0003"
"""The Alembic revision that these tables are at."""
IMPORT_OWNER = "import"
"""Owner of the conversations that were read from session files."""


class UtcDateTime(TypeDecorator[datetime]):
    """An instant; goes in with any zone, comes back in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.utcoffset() is None:
            raise ValueError(f"a time with its zone was expected, and {value.isoformat()} has none; use datetime.now(UTC)")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _json() -> JSON:
    return JSON(none_as_null=True)


metadata = MetaData(naming_convention={
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
})

conversations = Table(
    "conversations",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("source", Text, nullable=False),  # "chat" or "import"
    Column("created_at", UtcDateTime, nullable=False),
    Column("extra", _json(), nullable=False),
    Index(None, "created_at", "owner", "id"),
)

turns = Table(
    "turns",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("source", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("answer", Text),
    # the decision
    Column("action", Text),
    Column("fetch_probability", Double),
    Column("uncertainty", Double),
    Column("behavior_prob", Double),
    Column("policy_version", Text),
    Column("reason", Text),
    Column("state", _json()),
    # FAQs: [[id, similarity], ...], then lists of ids
    Column("hits", _json()),
    Column("fetched", _json()),
    Column("shown", _json()),
    Column("cited", _json()),
    # the cost
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cached_input_tokens", Integer),
    Column("usage_source", Text),
    Column("counterfactuals", _json()),
    Column("price", _json()),
    # the circumstances
    Column("model", Text),
    Column("prompt_version", Text),
    Column("kb_version", Text),
    Column("latency_ms", _json()),
    Column("finish_reason", Text),
    Column("degraded", _json()),
    Column("refusal", _json()),  # of a filter: where, category, version; null where nothing was refused
    Column("background", Boolean),
    Column("transcript_mac", Text),
    # the labels of an imported turn
    Column("gold", _json()),
    Column("kind", Text),
    Column("extra", _json(), nullable=False),
    ForeignKeyConstraint(["owner", "conversation_id"], ["conversations.owner", "conversations.id"], ondelete="CASCADE"),
    UniqueConstraint("id"),
    UniqueConstraint("owner", "conversation_id", "position"),
    Index(None, "owner", "transcript_mac"),
    sqlite_autoincrement=True,  # without it SQLite gives out the number of an erased last turn again
)

admin_acts = Table(
    "admin_acts",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("owner", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("ids", _json(), nullable=False),
    Column("kb_version_before", Text),
    Column("kb_version_after", Text),
    sqlite_autoincrement=True,
)

ratings = Table(
    "ratings",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("turn_id", Text, ForeignKey("turns.id", ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),  # the API key that brought it
    Column("rater", Text, nullable=False),
    Column("role", Text, nullable=False),  # "user" or "expert"
    Column("good", Boolean),
    Column("stars", Integer),  # 1 to 5
    Column("ranking", _json()),  # turn ids, best first
    Column("strength", Text),  # of the ranking's first over its second
    Column("comment", Text),
    Index(None, "turn_id", "rater"),
    sqlite_autoincrement=True,
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("turn_id", Text, ForeignKey("turns.id", ondelete="CASCADE"), nullable=False),
    Column("arm", Text, nullable=False),  # FETCH, NO_FETCH or STATIC
    Column("judge", Text, nullable=False),  # its version
    Column("good", Boolean),
    Column("hedged", Boolean),
    Column("safe", Boolean),
    Column("probability", Double),  # of Good
    Column("reason", Text, nullable=False),
    Column("quotes", _json(), nullable=False),
    Column("answer", Text),  # null: the turn's own
    Column("input_tokens", Integer),  # of that answer, and null where it is the turn's own
    Column("output_tokens", Integer),
    Column("judge_input_tokens", Integer),
    Column("judge_output_tokens", Integer),
    Column("cost", Double),  # of the judgement; null: unknown
    Column("currency", Text),
    Index(None, "turn_id", "judge"),
    sqlite_autoincrement=True,
)
