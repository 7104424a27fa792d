"""Background work on keystores: what one organization's server does, or a mistake with it, is no other one's affair."""

import threading
import time

import pytest

from pulumi_keystore.control_plane.keystores import verification
from pulumi_keystore.control_plane.keystores.checkpoints import Checkpoints
from pulumi_keystore.control_plane.keystores.clean_ups import CleanUps
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side, Verification
from pulumi_keystore.control_plane.keystores.verification import Audits
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime.database import upgrade_schema
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import HostUnavailable


@pytest.fixture
def plane(database_url, tmp_path):
    """Two organizations with a key each; the keystore of the first one is hostile."""
    settings = Settings(database_url=database_url, data=tmp_path, master_key_file=None)
    with opened(settings, upgrade_schema) as database:
        with database.plane.transaction() as session:
            for number, name in ((1, "hostile"), (2, "other")):
                session.add(Organization(id=number, name=name, environment="cloud"))
                session.flush()
                session.add(
                    Keystore(id=number, organization_id=number, name="k", kind="self-administered", address="https://k")
                )
                session.add(ArchiveKeyEntry(organization_id=number, user="u", generation=1, fingerprint=b"x"))
                session.flush()
                session.get_one(Organization, number).active_keystore_id = number
        yield database.plane


@pytest.mark.parametrize("fault", [HostUnavailable("it hangs"), ZeroDivisionError()])
def test_an_organization_that_cannot_be_looked_through_holds_up_no_other(plane, monkeypatch, fault):
    seen = []

    def verify(plane, organization, *, until):
        seen.append(organization)
        assert until < time.monotonic() + 3600
        if organization == "hostile":
            raise fault
        with plane.transaction() as session:
            session.merge(
                Verification(
                    organization_id=2,
                    at=verification.now_utc(),
                    keystore="k",
                    keys=1,
                    missing=0,
                    damaged=0,
                    surplus=0,
                    named={},
                )
            )

    monkeypatch.setattr(verification, "verify", verify)
    audits = Audits(plane)
    for _ in range(4):
        audits.work()
    assert sorted(seen) == ["hostile", "other"]


def test_an_organization_that_is_looked_through_for_an_hour_holds_up_no_other(plane, monkeypatch):
    done, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def verify(plane, organization, *, until):
        if organization == "hostile":
            go_on.wait(30)
            ended.set()
        else:
            done.set()

    monkeypatch.setattr(verification, "verify", verify)
    audits = Audits(plane)
    try:
        audits.work()
        audits.work()
        assert done.wait(20)
        assert not ended.is_set()
    finally:
        go_on.set()


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("aa.1", None),
        ("mfsgcqdbmnwwkltfpbqw24dmmuxgg33n.1", "ada@acme.example.com"),
        ("7777.1", None),
        ("a.1", None),
        (".1", None),
        ("b" * 2000 + ".1", None),
    ],
)
def test_a_name_is_that_of_a_user_that_there_can_be_or_of_nobody(name, user):
    """A NUL, which the first one encodes, cannot be asked the database for."""
    assert verification._user_of(name) == user


def test_a_mistake_with_one_clean_up_ends_no_other(plane, monkeypatch):
    with plane.transaction() as session:
        for number in (1, 2):
            session.add(CleanUp(migration_id="m", keystore_id=number, side=Side.SOURCE, state=CleanUpState.PENDING))
    attempted = []

    def attempt(self, number):
        attempted.append(number)
        raise ZeroDivisionError

    monkeypatch.setattr(CleanUps, "_attempt", attempt)
    CleanUps(plane).work()
    assert len(attempted) == 2


def test_the_clean_ups_of_one_organization_hold_up_no_other(plane, monkeypatch):
    with plane.transaction() as session:
        for number in range(3, 23):
            session.add(Keystore(id=number, organization_id=1, name=f"k{number}", kind="self-administered"))
        session.flush()
        for number in (*range(3, 23), 2):
            session.add(CleanUp(migration_id="m", keystore_id=number, side=Side.SOURCE, state=CleanUpState.PENDING))
            session.flush()
    other_is_there, attempted = threading.Event(), []

    def attempt(self, number):
        with plane.transaction() as session:
            keystore_id = session.get_one(CleanUp, number).keystore_id
        attempted.append(keystore_id)
        if keystore_id == 2:
            other_is_there.set()
        assert other_is_there.wait(10)

    monkeypatch.setattr(CleanUps, "_attempt", attempt)
    CleanUps(plane).work()
    assert attempted.index(2) <= 1


def test_a_mistake_with_one_checkpoint_ends_no_other(plane, monkeypatch):
    left = []

    def leave(self, organization_id):
        if organization_id == 1:
            raise ZeroDivisionError
        left.append(organization_id)

    monkeypatch.setattr(Checkpoints, "_leave", leave)
    checkpoints = Checkpoints(plane)
    for number in (1, 2):
        checkpoints.note(number)
    checkpoints.work()
    assert left == [2]
