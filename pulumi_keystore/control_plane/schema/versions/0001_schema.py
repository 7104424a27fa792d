"""The schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "clean_ups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("cluster_id", sa.String(length=100), nullable=True),
        sa.Column("mount", sa.String(length=128), nullable=True),
        sa.Column("side", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clean_ups")),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_facts")),
    )
    op.create_table(
        "token_journal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("cluster_id", sa.String(length=100), server_default="", nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("token_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_journal")),
    )
    op.create_index(op.f("ix_token_journal_keystore_id"), "token_journal", ["keystore_id"], unique=False)
    op.create_index(op.f("ix_token_journal_organization_id"), "token_journal", ["organization_id"], unique=False)
    op.create_table(
        "history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=140), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history")),
    )
    op.create_index(op.f("ix_history_organization_id"), "history", ["organization_id"], unique=False)
    op.create_table(
        "hooks",
        sa.Column("event_id", sa.String(length=100), nullable=False),
        sa.Column("url_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hooks")),
        sa.UniqueConstraint("event_id", name=op.f("uq_hooks_event_id")),
    )
    op.create_table(
        "late_keys",
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=512, collation="C"), nullable=False),
        sa.Column("verified", sa.Boolean(), server_default="false", nullable=False),
        sa.PrimaryKeyConstraint("migration_id", "user_id", name=op.f("pk_late_keys")),
    )
    op.create_table(
        "mails",
        sa.Column("message_id", sa.String(length=100), nullable=False),
        sa.Column("recipient", sa.String(length=254), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mails")),
        sa.UniqueConstraint("message_id", name=op.f("uq_mails_message_id")),
    )
    op.create_table(
        "organizations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("environment", sa.String(length=16), nullable=False),
        sa.Column("active_keystore_id", sa.Integer(), nullable=True),
        sa.Column("maintenance_by", sa.String(length=36), nullable=True),
        sa.Column("online", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("mirror_id", sa.Integer(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("epoch_nonce", sa.String(length=32), server_default="", nullable=False),
        sa.Column("suspended", sa.String(), nullable=True),
        sa.Column("checkpointed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("owner_mark", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
        sa.UniqueConstraint("name", name=op.f("uq_organizations_name")),
    )
    op.create_table(
        "shards",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("migration_id", sa.String(length=36), nullable=False),
        sa.Column("work", sa.String(length=16), nullable=False),
        sa.Column("after_user", sa.String(length=512, collation="C"), nullable=True),
        sa.Column("upto_user", sa.String(length=512, collation="C"), nullable=True),
        sa.Column("state", sa.String(length=16), server_default="free", nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=True),
        sa.Column("heartbeats", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("annotated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
    )
    op.create_index(op.f("ix_shards_migration_id"), "shards", ["migration_id"], unique=False)
    op.create_index("ix_shards_state", "shards", ["state", "migration_id"], unique=False)
    op.create_table(
        "archive_keys",
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(length=512, collation="C"), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("escrowed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_archive_keys_organization_id_organizations")
        ),
        sa.PrimaryKeyConstraint("organization_id", "user_id", name=op.f("pk_archive_keys")),
    )
    op.create_index("ix_archive_keys_number", "archive_keys", ["organization_id", "number"], unique=False)
    op.create_table(
        "destroyed_keys",
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(length=512, collation="C"), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_destroyed_keys_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "user_id", "fingerprint", name=op.f("pk_destroyed_keys")),
    )
    op.create_table(
        "keystores",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("address", sa.String(length=300), nullable=True),
        sa.Column("mount", sa.String(length=128), nullable=True),
        sa.Column("role", sa.String(length=128), nullable=True),
        sa.Column("server_ca", sa.String(), nullable=True),
        sa.Column("certificate_pem", sa.String(), nullable=True),
        sa.Column("certificate_key_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("certificate_fingerprint", sa.String(length=64), nullable=True),
        sa.Column("certificate_not_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kv_version", sa.Integer(), nullable=True),
        sa.Column("cluster_id", sa.String(length=100), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("proved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owner_mark", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_keystores_organization_id_organizations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keystores")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_keystores_organization_id")),
    )
    op.create_index("ix_keystores_place", "keystores", ["organization_id", "cluster_id", "mount"], unique=True)
    op.create_table(
        "legacy_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(length=512, collation="C"), nullable=False),
        sa.Column("key_sealed", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_legacy_keys_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legacy_keys")),
    )
    op.create_index("ix_legacy_keys_owner", "legacy_keys", ["organization_id", "user_id"], unique=False)
    op.create_table(
        "migrations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("destination_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("mode", sa.String(length=16), server_default="maintenance", nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("verified", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancel_by", sa.String(length=140), nullable=True),
        sa.Column("held_s", sa.Double(), nullable=True),
        sa.Column("receipt", postgresql.JSONB(), nullable=True),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notify_email", sa.String(length=254), nullable=True),
        sa.Column("requested_by", sa.String(length=140), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("copy_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("copy_ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verify_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verify_ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_migrations_organization_id_organizations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migrations")),
    )
    op.create_index(
        "ix_migrations_running",
        "migrations",
        ["organization_id"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_tokens_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_table(
        "verifications",
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("keystore", sa.String(), nullable=False),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("damaged", sa.Integer(), nullable=False),
        sa.Column("surplus", sa.Integer(), nullable=False),
        sa.Column("named", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_verifications_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_verifications")),
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
        sa.Column("owner_mark", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"], ["keystores.id"], name=op.f("fk_health_monitors_keystore_id_keystores"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("keystore_id", name=op.f("pk_health_monitors")),
    )
    op.create_table(
        "health_samples",
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"], ["keystores.id"], name=op.f("fk_health_samples_keystore_id_keystores"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("keystore_id", "minute", name=op.f("pk_health_samples")),
    )
    op.create_index(op.f("ix_health_samples_at"), "health_samples", ["at"], unique=False)
    op.create_table(
        "keystore_health",
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Double(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=True),
        sa.Column("claimed_by", sa.String(length=100), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("online", sa.Boolean(), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("warning", sa.String(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lacking", sa.Integer(), server_default="0", nullable=False),
        sa.Column("surplus", sa.Integer(), server_default="0", nullable=False),
        sa.Column("alerted", sa.Boolean(), server_default="false", nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"], ["keystores.id"], name=op.f("fk_keystore_health_keystore_id_keystores"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("keystore_id", name=op.f("pk_keystore_health")),
    )
    # ### end Alembic commands ###

    op.create_foreign_key(
        "fk_organizations_active_keystore_id_keystores", "organizations", "keystores", ["active_keystore_id"], ["id"]
    )
    # History is append-only, whoever holds the connection.
    op.execute(
        """
        create function refuse_history_change() returns trigger language plpgsql as
        $$ begin raise exception 'history is append-only'; end $$
        """
    )
    op.execute(
        """
        create trigger history_is_append_only before update or delete or truncate on history
        for each statement execute function refuse_history_change()
        """
    )
