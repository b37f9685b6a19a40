"""What is learnt about a turn after it: people's ratings and judges' verdicts; and, of a turn, whether a filter refused it.

Triggers refuse to change a rating or a verdict; erasing a turn erases those about it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _refuse_update(table: str) -> dict[str, tuple[str, ...]]:
    return {
        "sqlite": (f"CREATE TRIGGER {table}_refuse_update BEFORE UPDATE ON {table} "
                   f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END",),
        "postgresql": (
            f"CREATE FUNCTION {table}_refuse_update() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{table} are append-only'; END $$",
            f"CREATE TRIGGER {table}_refuse_update BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_refuse_update()",
        ),
    }


def upgrade() -> None:
    op.add_column("turns", sa.Column("refusal", sa.JSON))
    op.create_table(
        "ratings",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("rater", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("good", sa.Boolean),
        sa.Column("stars", sa.Integer),
        sa.Column("ranking", sa.JSON),
        sa.Column("strength", sa.Text),
        sa.Column("comment", sa.Text),
        sa.PrimaryKeyConstraint("sequence", name="pk_ratings"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_ratings_turns", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ratings_turn_id_rater", "ratings", ["turn_id", "rater"])
    op.create_table(
        "verdicts",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("judge", sa.Text, nullable=False),
        sa.Column("good", sa.Boolean),
        sa.Column("hedged", sa.Boolean),
        sa.Column("safe", sa.Boolean),
        sa.Column("probability", sa.Double),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("quotes", sa.JSON, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("judge_input_tokens", sa.Integer),
        sa.Column("judge_output_tokens", sa.Integer),
        sa.Column("cost", sa.Double),
        sa.Column("currency", sa.Text),
        sa.PrimaryKeyConstraint("sequence", name="pk_verdicts"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_verdicts_turns", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_verdicts_turn_id_judge", "verdicts", ["turn_id", "judge"])
    for table in ("ratings", "verdicts"):
        for statement in _refuse_update(table)[op.get_context().dialect.name]:
            op.execute(statement)
