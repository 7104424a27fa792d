"""Which organization a mail is about; indexes for lists that come page by page."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column("mails", sa.Column("organization_id", sa.Integer, server_default="0", nullable=False))
    op.drop_index("ix_history_organization_id", "history")
    op.create_index("ix_history_organization_id", "history", ["organization_id", "id"])
    op.create_index("ix_tokens_created_at", "tokens", ["created_at", "id"])
    op.create_index("ix_clean_ups_keystore_id", "clean_ups", ["keystore_id", "id"])
