"""Keystores in namespaces: what is pinned to a place or a login names its namespace; rows so far are in the root."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the namespace of keystores and tokens; namespace and mount are one path in places, and in clean-ups."""
    for table in ("keystores", "token_journal"):
        op.add_column(table, sa.Column("namespace", sa.String(128), server_default="", nullable=False))
    op.alter_column(
        "clean_ups", "mount", new_column_name="path", existing_type=sa.String(128), type_=sa.String(257),
        existing_nullable=True,
    )  # fmt: skip
    op.drop_index("ix_keystores_place", "keystores")
    place = sa.text("ltrim(namespace || '/' || mount, '/')")
    op.create_index("ix_keystores_place", "keystores", ["organization_id", "cluster_id", place], unique=True)
