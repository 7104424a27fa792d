"""Migrations in shares that many workers take: shares, grants, late keys, and what a migration tells of itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what is new; a migration under way is planned anew by its workflow and finds its own copies."""
    op.create_table(
        "shares",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("work", sa.String(length=16), nullable=False),
        sa.Column("after_user", sa.String(length=512, collation="C"), nullable=True),
        sa.Column("upto_user", sa.String(length=512, collation="C"), nullable=True),
        sa.Column("state", sa.String(length=16), server_default="free", nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=True),
        sa.Column("beats", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("remark", sa.String(), nullable=True),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shares")),
    )
    op.create_index(op.f("ix_shares_migration_id"), "shares", ["migration_id"], unique=False)
    op.create_index("ix_shares_state", "shares", ["state", "migration_id"], unique=False)
    op.create_table(
        "late_keys",
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=512, collation="C"), nullable=False),
        sa.Column("verified", sa.Boolean(), server_default="false", nullable=False),
        sa.PrimaryKeyConstraint("migration_id", "user_id", name=op.f("pk_late_keys")),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("token_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_keystore_id"), "grants", ["keystore_id"], unique=False)
    for column in (
        sa.Column("mode", sa.String(length=16), server_default="maintenance", nullable=False),
        sa.Column("verified", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancel_by", sa.String(length=140), nullable=True),
        sa.Column("held_s", sa.Float(), nullable=True),
        sa.Column("receipt", postgresql.JSONB(), nullable=True),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verify_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verify_ended_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("migrations", column)
