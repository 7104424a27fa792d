"""An organization has so many keys in escrow, and no more."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pulumi_keystore.control_plane.escrow.quota import Quota
from pulumi_keystore.control_plane.organizations import ledger
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Organization
from pulumi_keystore.errors import TooManyRequests


@pytest.fixture
def owners(factory):
    with factory.begin() as session:
        session.add_all(Organization(id=number, name=name, environment="cloud") for number, name in enumerate("ab", 1))
    return [1, 2]


def take(quota, session, owner, more):
    with quota.room(session, owner, more):
        pass


def enter(session, owner, count, first=0):
    session.add_all(
        ArchiveKeyEntry(organization_id=owner, user=f"u{number}", generation=1, fingerprint=b"")
        for number in range(first, first + count)
    )
    session.flush()


def test_it_is_refused_beyond_its_keys_and_no_other_is(factory, owners):
    quota = Quota(5)
    with factory() as session:
        mine, other = (session.get_one(Organization, number) for number in owners)
        take(quota, session, mine, 3)
        enter(session, 1, 3)
        with pytest.raises(TooManyRequests, match=r"'a' may have 5 archive keys in escrow: 2 left, 3 requested"):
            take(quota, session, mine, 3)
        take(quota, session, mine, 2)
        enter(session, 1, 2, 3)
        take(quota, session, mine, 0)
        with pytest.raises(TooManyRequests, match="0 left, 1 requested"):
            take(quota, session, mine, 1)
        take(quota, session, other, 5)


def test_what_failed_or_was_destroyed_leaves_its_room(factory, owners):
    quota = Quota(5)
    with factory() as session:
        mine = session.get_one(Organization, 1)
        for _ in range(20):
            take(quota, session, mine, 4)  # none of it was enrolled
        take(quota, session, mine, 5)
        enter(session, 1, 5)
        with pytest.raises(TooManyRequests):
            take(quota, session, mine, 1)
        session.delete(session.get_one(ArchiveKeyEntry, (1, "u0")))
        session.flush()
        take(quota, session, mine, 1)


def test_keys_are_counted_when_there_may_be_too_many_and_not_for_each(factory, owners, monkeypatch):
    counted = []
    known = ledger.count_keys
    monkeypatch.setattr(ledger, "count_keys", lambda *given: counted.append(given) or known(*given))
    quota = Quota(1000)
    with factory() as session:
        mine = session.get_one(Organization, 1)
        for _ in range(100):
            take(quota, session, mine, 10)
    assert len(counted) == 1


def test_many_at_a_time_have_no_more_than_one_after_the_other(factory, owners, monkeypatch):
    """All ask before any of them is in the ledger: who counts does not see the others there."""
    quota, together, taken, refused = Quota(20), threading.Barrier(16), [], []
    known = ledger.count_keys

    def count_keys(*given):
        time.sleep(0.02)
        return known(*given)

    monkeypatch.setattr(ledger, "count_keys", count_keys)

    def enrol(number):
        with factory.begin() as session:
            owner = session.get_one(Organization, 1)
            together.wait(60)
            try:
                with quota.room(session, owner, 2):
                    time.sleep(0.05)
                    enter(session, 1, 2, 2 * number)
                    taken.append(number)
                    session.commit()
            except TooManyRequests:
                refused.append(number)

    with ThreadPoolExecutor(16) as several:
        list(several.map(enrol, range(16)))
    assert len(taken) <= 10
    assert len(taken) + len(refused) == 16
    with factory() as session:
        assert known(session, session.get_one(Organization, 1)) == 2 * len(taken)


def test_who_ends_while_keys_are_counted_is_counted(factory, owners, monkeypatch):
    """The one who counts has not seen the other's keys, which are committed in this very moment."""
    quota, known = Quota(4), ledger.count_keys
    with factory() as session, factory() as other:
        mine = session.get_one(Organization, 1)
        room = quota.room(other, other.get_one(Organization, 1), 3)
        room.__enter__()
        enter(other, 1, 3)

        def count_keys(*given):
            found = known(*given)
            other.commit()
            room.__exit__(None, None, None)
            return found

        monkeypatch.setattr(ledger, "count_keys", count_keys)
        with pytest.raises(TooManyRequests), quota.room(session, mine, 2):
            pass
