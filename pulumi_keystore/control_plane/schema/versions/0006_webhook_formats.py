"""What webhooks are called with, and when a monitor was last tried."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("health_monitors", sa.Column("webhook_format", sa.String(16), server_default="json", nullable=False))
    op.add_column("health_monitors", sa.Column("tested_at", sa.DateTime(timezone=True)))
    op.add_column("hooks", sa.Column("format", sa.String(16), server_default="json", nullable=False))
