"""Organizations, a page at a time."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.declarations.problems import Order

NOW = now_utc()


@pytest.fixture
def session(factory):
    with factory() as session:
        names = [f"org-{number:04}" for number in range(250)] + ["acme_1", "acme-1"]
        rows = [{"name": name, "environment": "cloud", "created_at": now_utc()} for name in names]
        session.execute(insert(Organization), rows)
        yield session


def names(rows):
    return [row.name for row in rows]


def listed(session, after="", limit=registry.PAGE, search="", order=Order.NAME):
    return names(session.scalars(registry.listed(session, after, search, order).limit(limit)))


def pages(session, order):
    found, page = [], listed(session, order=order)
    while page:
        found += page
        page = listed(session, page[-1], order=order)
    return found


def test_pages_hold_each_organization_once_in_one_order(session):
    found, page = [], listed(session)
    while page:
        assert len(page) <= registry.PAGE
        found += page
        page = listed(session, page[-1])
    assert found == names(session.scalars(select(Organization).order_by(Organization.name)))
    assert len(found) == 252


def test_a_search_takes_its_words_literally(session):
    assert listed(session, search="acme_") == ["acme_1"]
    assert listed(session, search="%") == []
    assert listed(session, "org-0100", 3, "-01") == ["org-0101", "org-0102", "org-0103"]


def test_each_order_shows_each_organization_once(session):
    """Whose certificates expire at one moment, too; those without one have no place in the order of certificates."""
    rows = session.scalars(select(Organization).order_by(Organization.id)).all()
    for row in rows[:200]:
        end = NOW + timedelta(days=row.id % 60)
        keystore = Keystore(organization_id=row.id, name="k", kind="self-administered", certificate_not_after=end)
        session.add(keystore)
        session.flush()
        row.active_keystore_id = keystore.id
    session.flush()
    by_name = sorted(row.name for row in rows)
    assert pages(session, Order.NAME_DESCENDING) == by_name[::-1]
    assert pages(session, Order.NEWEST) == [row.name for row in rows[::-1]]
    expiring = pages(session, Order.CERTIFICATE)
    assert len(set(expiring)) == len(expiring) == 200
    ends = {row.name: row.id % 60 for row in rows}
    assert [ends[name] for name in expiring] == sorted(ends[name] for name in expiring)


@pytest.mark.parametrize("order", [Order.NEWEST, Order.CERTIFICATE])
def test_after_an_organization_that_was_deleted_a_list_begins_anew(session, order):
    assert listed(session, "deleted", 1, order=order) == listed(session, "", 1, order=order)
