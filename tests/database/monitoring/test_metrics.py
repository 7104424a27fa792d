"""Metrics of many organizations are right, and cost a few questions to the database, however many there are."""

from datetime import timedelta
from types import SimpleNamespace

from sqlalchemy import event, insert

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import metrics
from pulumi_keystore.control_plane.keystores.tables import Verification
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring.tables import HealthSample, KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime.database import sessions
from pulumi_keystore.control_plane.runtime.settings import Settings

PLANE = SimpleNamespace(settings=Settings())
NOW = now_utc()
MINUTE = int(NOW.timestamp() // 60)


def fill(session, numbers):
    """Make organizations with two keys and a keystore that was offline for 15 of the 60 minutes before."""
    numbers = list(numbers)
    session.execute(
        insert(Organization),
        [{"id": n, "name": f"org-{n}", "environment": "cloud", "created_at": NOW} for n in numbers],
    )
    session.execute(
        insert(Keystore),
        [{"id": n, "organization_id": n, "name": "first", "kind": "self-administered", "revision": 1,
          "created_at": NOW - timedelta(days=1)} for n in numbers],
    )  # fmt: skip
    for n in numbers:
        session.get_one(Organization, n).active_keystore_id = n
    session.execute(
        insert(ArchiveKeyEntry),
        [{"organization_id": n, "user": user, "generation": 1, "fingerprint": b"x", "escrowed_at": NOW}
         for n in numbers for user in ("a", "b")],
    )  # fmt: skip
    session.execute(
        insert(KeystoreHealth),
        [{"keystore_id": n, "phase": 0.0, "minute": MINUTE, "online": True, "seconds": 0.25, "since": NOW,
          "tested_at": NOW, "lacking": n % 2} for n in numbers],
    )  # fmt: skip
    session.execute(
        insert(HealthSample),
        [{"keystore_id": n, "minute": MINUTE - back, "online": back >= 15, "at": NOW - timedelta(minutes=back)}
         for n in numbers for back in range(70)],
    )  # fmt: skip


def values(text):
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_each_value_is_that_of_its_keystore(engine):
    with sessions(engine)() as session:
        fill(session, range(1, 4))
        session.add(
            Verification(organization_id=2, at=NOW, keystore="first", keys=2, missing=1, damaged=2, surplus=0, named={})
        )
        session.add(
            Migration(id="m", organization_id=3, source_id=3, destination_id=3, source="s", destination="d",
                      state="running", phase="copy", mode="maintenance", total=9, done=4, verified=1, requested_by="x",
                      started_at=NOW)
        )  # fmt: skip
        session.get_one(Organization, 3).maintenance_by = "m"
        session.flush()
        found = values(metrics.exposition(session, PLANE, None, NOW, each=True))
        one = values(metrics.exposition(session, PLANE, "org-2", NOW))
    label = '{keystore="first",organization="org-2"}'
    assert found[f"keystore_online{label}"] == 1
    assert found[f"keystore_reliability_ratio{label}"] == 0.75
    assert found[f"keystore_health_check_duration_seconds{label}"] == 0.25
    assert found['keystore_archive_keys{organization="org-1"}'] == 2
    assert [found[f'keystore_archive_keys_missing{{organization="org-{n}"}}'] for n in (1, 2, 3)] == [1, 3, 1]
    assert [found[f'keystore_migration_running{{organization="org-{n}"}}'] for n in (1, 2, 3)] == [0, 0, 1]
    assert found['keystore_migration_keys{organization="org-3",state="copied"}'] == 4
    labelled = {name: value for name, value in one.items() if "{" in name}
    assert labelled == {name: value for name, value in found.items() if "org-2" in name}


def test_the_questions_do_not_grow_with_the_organizations(engine):
    asked = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    counts = []
    with sessions(engine)() as session:
        for first, last in ((1, 5), (5, 60)):
            fill(session, range(first, last))
            session.flush()
            session.expunge_all()
            asked.clear()
            metrics.exposition(session, PLANE, None, NOW, each=True)
            counts.append(len(asked))
    assert counts[0] == counts[1] <= 19


def test_those_of_the_service_name_no_organization(engine):
    with sessions(engine)() as session:
        fill(session, range(1, 4))
        session.flush()
        text = metrics.exposition(session, PLANE, None, NOW)
    found = values(text)
    assert b"org-" not in text
    assert found["keystore_organizations"] == 3
    # Two lack a key, and nobody is told of any.
    assert found['keystore_organizations_with_problem{problem="keys-missing"}'] == 2
    assert found['keystore_organizations_with_problem{problem="no-alerts"}'] == 3
    assert found['keystore_organizations_with_problem{problem="offline"}'] == 0
    assert found["keystore_migrations_running"] == 0
