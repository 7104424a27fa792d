"""Messages that were refused for good are given up; calls know what their URLs were sealed for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns."""
    for table in ("mails", "hooks"):
        op.add_column(table, sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("hooks", sa.Column("sealed_for", sa.String(64), server_default="", nullable=False))
