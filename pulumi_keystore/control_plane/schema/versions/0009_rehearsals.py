"""How often alerts may be tested is told by the history: a monitor that is set anew forgets it."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Remove what monitors remembered of it."""
    op.drop_column("health_monitors", "tested_at")
