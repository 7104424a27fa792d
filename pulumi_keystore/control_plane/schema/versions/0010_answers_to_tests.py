"""What each receiver answered to the latest test of alerts: a page that is loaded again shows it, and sends nothing."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column."""
    op.add_column("health_monitors", sa.Column("rehearsal", JSONB(), nullable=True))
