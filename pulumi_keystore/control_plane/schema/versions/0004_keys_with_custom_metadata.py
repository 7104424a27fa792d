"""Shares count the keys with custom metadata, so that one sentence tells of all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Replace each share's own sentence by a number."""
    op.add_column("shares", sa.Column("annotated", sa.Integer(), server_default="0", nullable=False))
    op.drop_column("shares", "remark")
