"""The schema that the versions make is the one that the tables declare."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from pulumi_keystore.control_plane import tables  # noqa: F401 - declares every table
from pulumi_keystore.control_plane.runtime.database import connect, upgrade_schema
from pulumi_keystore.control_plane.runtime.tables import Base


def test_every_table_is_as_declared(empty_database_url):
    engine = connect(empty_database_url)
    upgrade_schema(engine)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
    engine.dispose()


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(empty_database_url):
    engine = connect(empty_database_url)
    upgrade_schema(engine)
    upgrade_schema(engine)
    engine.dispose()
