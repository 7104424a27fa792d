"""What the rule of deletion needs: stamps of decisions, places, keys that were given up or destroyed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what is new; clean-ups and tokens that are left belong to the places where their keystores are now."""
    op.add_column("organizations", sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("organizations", sa.Column("epoch_nonce", sa.String(length=32), server_default="", nullable=False))
    op.add_column("organizations", sa.Column("suspended", sa.String(), nullable=True))
    op.add_column("organizations", sa.Column("checkpointed", sa.BigInteger(), server_default="0", nullable=False))
    op.create_index("ix_keystores_place", "keystores", ["organization_id", "cluster_id", "mount"], unique=True)
    op.add_column("archive_keys", sa.Column("number", sa.BigInteger(), sa.Identity(), nullable=False))
    op.add_column("archive_keys", sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True))
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
        "verifications",
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("keystore", sa.String(), nullable=False),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("damaged", sa.Integer(), nullable=False),
        sa.Column("surplus", sa.Integer(), nullable=False),
        sa.Column("named", sa.dialects.postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_verifications_organization_id_organizations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_verifications")),
    )
    op.add_column("grants", sa.Column("organization_id", sa.Integer(), server_default="0", nullable=False))
    op.create_index(op.f("ix_grants_organization_id"), "grants", ["organization_id"], unique=False)
    op.add_column("grants", sa.Column("cluster_id", sa.String(length=100), server_default="", nullable=False))
    op.add_column("clean_ups", sa.Column("cluster_id", sa.String(length=100), nullable=True))
    op.add_column("clean_ups", sa.Column("mount", sa.String(length=128), nullable=True))
    op.add_column(
        "clean_ups",
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.add_column("keystore_health", sa.Column("lacking", sa.Integer(), server_default="0", nullable=False))
    op.add_column("keystore_health", sa.Column("surplus", sa.Integer(), server_default="0", nullable=False))
    op.add_column("keystore_health", sa.Column("alerted", sa.Boolean(), server_default="false", nullable=False))
    op.execute(
        "update clean_ups set cluster_id = keystores.cluster_id, mount = keystores.mount "
        "from keystores where keystores.id = clean_ups.keystore_id"
    )
    op.execute(
        "update grants set organization_id = keystores.organization_id, "
        "cluster_id = coalesce(keystores.cluster_id, '') "
        "from keystores where keystores.id = grants.keystore_id"
    )
