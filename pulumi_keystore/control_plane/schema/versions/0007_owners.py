"""Which organization a mail is about, why an hour was offline; indexes for lists that come page by page."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column("mails", sa.Column("organization_id", sa.Integer, server_default="0", nullable=False))
    op.create_index("ix_mails_organization_id", "mails", ["organization_id", "created_at"])
    op.drop_index("ix_history_organization_id", "history")
    op.create_index("ix_history_organization_id", "history", ["organization_id", "id"])
    op.add_column("health_hours", sa.Column("reason", sa.String(40)))
    op.add_column("health_hours", sa.Column("cause", sa.String(20)))
    op.create_index("ix_tokens_created_at", "tokens", ["created_at", "id"])
    op.create_index("ix_clean_ups_keystore_id", "clean_ups", ["keystore_id", "id"])
