"""History stays as it was written, whoever holds the connection."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from pulumi_keystore.control_plane.organizations import history
from pulumi_keystore.control_plane.organizations.tables import Organization


@pytest.mark.parametrize("statement", ["update history set actor = 'x'", "delete from history", "truncate history"])
def test_it_cannot_be_changed(engine, factory, statement):
    with factory.begin() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        history.append(session, 1, "ops", "Keystore added", "first")
    with pytest.raises(DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))
    with engine.connect() as connection:
        assert connection.execute(text("select actor, action, detail from history")).all() == [
            ("ops", "Keystore added", "first")
        ]
