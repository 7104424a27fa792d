"""Health: monitors, the tests of every minute, webhooks; and sessions of the console."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add what is new; the first tests are made in the minute after the upgrade."""
    op.create_table(
        "keystore_health",
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Float(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=True),
        sa.Column("claimed_by", sa.String(length=100), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("online", sa.Boolean(), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("warning", sa.String(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tested_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["keystore_id"],
            ["keystores.id"],
            name=op.f("fk_keystore_health_keystore_id_keystores"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("keystore_id", name=op.f("pk_keystore_health")),
    )
    op.create_table(
        "health_samples",
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"],
            ["keystores.id"],
            name=op.f("fk_health_samples_keystore_id_keystores"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("keystore_id", "minute", name=op.f("pk_health_samples")),
    )
    op.create_index(op.f("ix_health_samples_at"), "health_samples", ["at"], unique=False)
    op.create_table(
        "health_monitors",
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("recipients", postgresql.JSONB(), nullable=False),
        sa.Column("webhook_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("webhook_host", sa.String(length=300), nullable=True),
        sa.Column("offline_minutes", sa.Integer(), nullable=False),
        sa.Column("repeat_hours", sa.Integer(), nullable=False),
        sa.Column("online_minutes", sa.Integer(), nullable=False),
        sa.Column("alert", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"],
            ["keystores.id"],
            name=op.f("fk_health_monitors_keystore_id_keystores"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("keystore_id", name=op.f("pk_health_monitors")),
    )
    op.create_table(
        "hooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.String(length=100), nullable=False),
        sa.Column("url_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hooks")),
        sa.UniqueConstraint("event_id", name=op.f("uq_hooks_event_id")),
    )
    op.create_table(
        "console_sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("token_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["tokens.id"], name=op.f("fk_console_sessions_token_id_tokens"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_console_sessions")),
    )
