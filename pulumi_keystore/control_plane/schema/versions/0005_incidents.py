"""Why each minute was offline and how long its test took, hours of a month, incidents, and servers' certificates."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns and tables."""
    for name, kind in (("reason", sa.String(40)), ("cause", sa.String(20)), ("seconds", sa.Float())):
        op.add_column("health_samples", sa.Column(name, kind))
    for name in ("server_not_before", "server_not_after"):
        op.add_column("keystore_health", sa.Column(name, sa.DateTime(timezone=True)))
    op.create_index("ix_keystore_health_server_not_after", "keystore_health", ["server_not_after"])
    op.create_table(
        "health_hours",
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tested", sa.Integer(), nullable=False),
        sa.Column("online", sa.Integer(), nullable=False),
        sa.Column("slowest_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"], ["keystores.id"], "fk_health_hours_keystore_id_keystores", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("keystore_id", "hour", name="pk_health_hours"),
    )
    op.create_index("ix_health_hours_hour", "health_hours", ["hour"])
    op.create_table(
        "incidents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("keystore_id", sa.Integer(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.String(40)),
        sa.Column("cause", sa.String(20)),
        sa.Column("detail", sa.String()),
        sa.Column("alerts", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["keystore_id"], ["keystores.id"], "fk_incidents_keystore_id_keystores", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
    )
    op.create_index("ix_incidents_begun_at", "incidents", ["begun_at"])
    op.create_index("ix_incidents_latest", "incidents", ["keystore_id", "id"])
