"""Lists of many organizations: each problem is found by an index of those that have it. Health checks tell a cause."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Note at each keystore whether anybody is alerted, and add the indexes."""
    op.add_column("keystores", sa.Column("alerts", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("keystore_health", sa.Column("cause", sa.String(20), nullable=True))
    op.execute(
        "UPDATE keystores SET alerts = true FROM health_monitors WHERE keystore_id = keystores.id"
        " AND (recipients <> '[]'::jsonb OR webhook_sealed IS NOT NULL)"
    )
    op.create_index("ix_organizations_active_keystore_id", "organizations", ["active_keystore_id"])
    for name, table, column, where in (
        ("ix_organizations_suspended", "organizations", "id", "suspended IS NOT NULL"),
        ("ix_organizations_busy", "organizations", "name", "maintenance_by IS NOT NULL"),
        ("ix_keystores_no_alerts", "keystores", "id", "NOT alerts"),
        ("ix_keystores_certificate_not_after", "keystores", "certificate_not_after", None),
        ("ix_keystore_health_offline", "keystore_health", "keystore_id", "NOT online"),
        ("ix_keystore_health_lacking", "keystore_health", "keystore_id", "lacking > 0"),
        ("ix_keystore_health_tested_at", "keystore_health", "tested_at", None),
        ("ix_verifications_unsound", "verifications", "organization_id", "missing + damaged > 0"),
        ("ix_migrations_failed", "migrations", "ended_at", "state = 'failed'"),
    ):
        op.create_index(name, table, [column], postgresql_where=sa.text(where) if where else None)
    op.create_index("ix_migrations_latest", "migrations", ["organization_id", "started_at"])
