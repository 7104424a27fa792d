"""Sessions of the console: however often somebody signs in, there are so many at a time."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.identity import sessions, tokens
from pulumi_keystore.control_plane.identity.tables import ConsoleSession
from pulumi_keystore.errors import NotAuthenticated


@pytest.fixture
def session(factory):
    with factory() as session:
        yield session


def test_the_oldest_session_ends_where_there_is_one_too_many(session, monkeypatch):
    monkeypatch.setattr(sessions, "_MOST", 3)
    _, mine = tokens.create(session, "test", "one", "viewer")
    _, others = tokens.create(session, "test", "other", "viewer")
    now = now_utc()
    _, elsewhere = sessions.begin(session, others, now)
    cookies = [sessions.begin(session, mine, now + timedelta(seconds=n))[1] for n in range(5)]
    later = now + timedelta(seconds=9)
    assert session.scalar(select(func.count()).select_from(ConsoleSession)) == 4
    for cookie in (*cookies[2:], elsewhere):
        sessions.resume(session, cookie, later)
    for cookie in cookies[:2]:
        with pytest.raises(NotAuthenticated):
            sessions.resume(session, cookie, later)
