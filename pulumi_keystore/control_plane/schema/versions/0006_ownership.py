"""The mark of the Pulumi resource that manages an object."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add it; what there is bears none, and is managed by whoever declares it next."""
    for table in ("organizations", "keystores", "health_monitors"):
        op.add_column(table, sa.Column("owner_mark", sa.String(length=32), nullable=True))
