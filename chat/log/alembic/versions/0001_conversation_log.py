"""Conversations and turns, with triggers that refuse to change a turn.

A revision is history: it stays as it is when `schema.py` moves on, and so it repeats what stood there.
There is no way back down: a log isn't undone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

REFUSE_UPDATE = {
    "sqlite": (
        "CREATE TRIGGER turns_refuse_update BEFORE UPDATE ON turns BEGIN SELECT RAISE(ABORT, 'turns are append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION turns_refuse_update() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'turns are append-only'; END $$",
        "CREATE TRIGGER turns_refuse_update BEFORE UPDATE ON turns FOR EACH ROW EXECUTE FUNCTION turns_refuse_update()",
    ),
}


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("extra", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_created_at_owner_id", "conversations", ["created_at", "owner", "id"])
    op.create_table(
        "turns",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("action", sa.Text),
        sa.Column("fetch_probability", sa.Double),
        sa.Column("uncertainty", sa.Double),
        sa.Column("behavior_prob", sa.Double),
        sa.Column("policy_version", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("state", sa.JSON),
        sa.Column("hits", sa.JSON),
        sa.Column("fetched", sa.JSON),
        sa.Column("shown", sa.JSON),
        sa.Column("cited", sa.JSON),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("cached_input_tokens", sa.Integer),
        sa.Column("usage_source", sa.Text),
        sa.Column("counterfactuals", sa.JSON),
        sa.Column("price", sa.JSON),
        sa.Column("model", sa.Text),
        sa.Column("prompt_version", sa.Text),
        sa.Column("kb_version", sa.Text),
        sa.Column("latency_ms", sa.JSON),
        sa.Column("finish_reason", sa.Text),
        sa.Column("degraded", sa.JSON),
        sa.Column("background", sa.Boolean),
        sa.Column("transcript_mac", sa.Text),
        sa.Column("gold", sa.JSON),
        sa.Column("kind", sa.Text),
        sa.Column("extra", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_turns"),
        sa.ForeignKeyConstraint(["owner", "conversation_id"], ["conversations.owner", "conversations.id"],
                                name="fk_turns_conversations", ondelete="CASCADE"),
        sa.UniqueConstraint("id", name="uq_turns_id"),
        sa.UniqueConstraint("owner", "conversation_id", "position", name="uq_turns_owner_conversation_id_position"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_turns_owner_transcript_mac", "turns", ["owner", "transcript_mac"])
    for statement in REFUSE_UPDATE[op.get_context().dialect.name]:
        op.execute(statement)
