"""Connections that nobody uses end; a keystore that does not answer holds up no other organization's."""

import threading
from types import SimpleNamespace

import pytest
from keystore_harness import wait_until

from pulumi_keystore.control_plane.keystores import connections
from pulumi_keystore.control_plane.keystores.connections import Connection, Connections
from pulumi_keystore.control_plane.runtime import background


@pytest.fixture
def pool(monkeypatch):
    """Return a pool with three idle connections of organization 1, which hang when they end, and three of 2."""
    ended, goes_on = [], threading.Event()

    def close(_, connection):
        if connection.organization_id == 1:
            goes_on.wait()
        ended.append(connection)

    monkeypatch.setattr(background, "TURN_S", 0.2)
    monkeypatch.setattr(connections, "_ENDING_S", 0.5)
    monkeypatch.setattr(Connections, "_close", close)
    made = Connections(None)
    for number in (1, 2):
        made._idle[(number, 1)] = [Connection(None, None, number, "x", float("-inf")) for _ in range(3)]
    yield SimpleNamespace(made=made, ended=ended, goes_on=goes_on)
    goes_on.set()


def test_connections_that_hang_when_they_end_hold_up_those_of_no_other_organization(pool):
    pool.made.close_idle()
    assert [connection.organization_id for connection in pool.ended] == [2, 2, 2]
    assert pool.made._idle == {}
    pool.made.close_idle()
    pool.goes_on.set()
    wait_until(lambda: pool.made.close_idle() or len(pool.ended) == 6, "the others to end")
    assert len(set(map(id, pool.ended))) == 6
    assert not pool.made._retired


def test_the_end_of_the_service_waits_for_those_that_answer(pool):
    pool.made.close_all()
    assert [connection.organization_id for connection in pool.ended] == [2, 2, 2]


def test_one_that_was_used_lately_stays(pool):
    pool.made._idle[(2, 1)][1].idle_since = float("inf")
    pool.made.close_idle()
    assert len(pool.ended) == 2
    assert len(pool.made._idle[(2, 1)]) == 1


def test_a_connection_that_has_ended_meanwhile_is_not_ended_again(pool):
    connection = pool.made._idle[(2, 1)][0]
    pool.made.close_idle()
    pool.made._end(connection)
    assert pool.ended.count(connection) == 1
