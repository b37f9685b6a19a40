"""The audit of administrators' acts, with triggers that refuse to change or delete one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REFUSE_CHANGE = {
    "sqlite": tuple(
        f"CREATE TRIGGER admin_acts_refuse_{change} BEFORE {change} ON admin_acts "
        "BEGIN SELECT RAISE(ABORT, 'admin_acts are append-only'); END"
        for change in ("update", "delete")
    ),
    "postgresql": (
        "CREATE FUNCTION admin_acts_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'admin_acts are append-only'; END $$",
        "CREATE TRIGGER admin_acts_refuse_change BEFORE UPDATE OR DELETE ON admin_acts "
        "FOR EACH ROW EXECUTE FUNCTION admin_acts_refuse_change()",
    ),
}


def upgrade() -> None:
    op.create_table(
        "admin_acts",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("ids", sa.JSON, nullable=False),
        sa.Column("kb_version_before", sa.Text),
        sa.Column("kb_version_after", sa.Text),
        sa.PrimaryKeyConstraint("sequence", name="pk_admin_acts"),
        sqlite_autoincrement=True,
    )
    for statement in REFUSE_CHANGE[op.get_context().dialect.name]:
        op.execute(statement)
