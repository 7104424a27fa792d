"""Alembic environment: runs on the connection the service gives it."""

from alembic import context

from pulumi_keystore.control_plane.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
