"""Organizations, a page at a time."""

import pytest
from sqlalchemy import insert, select

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.organizations.tables import Organization


@pytest.fixture
def session(factory):
    with factory() as session:
        names = [f"org-{number:04}" for number in range(250)] + ["acme_1", "acme-1"]
        rows = [{"name": name, "environment": "cloud", "created_at": now_utc()} for name in names]
        session.execute(insert(Organization), rows)
        yield session


def names(rows):
    return [row.name for row in rows]


def listed(session, after="", limit=registry.PAGE, search=""):
    return names(session.scalars(registry.by_name(after, search).limit(limit)))


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
