"""Organizations by the expiry of their certificates come page by page, also where many certificates expire at once."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Have the index sort what expires at the same moment."""
    op.drop_index("ix_keystores_certificate_not_after", "keystores")
    op.create_index("ix_keystores_certificate_not_after", "keystores", ["certificate_not_after", "id"])
