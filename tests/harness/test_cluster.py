"""Each verb of a cluster: a client sees the fault, and healing is complete. By either driver."""

import time

import pytest
from hvac.exceptions import VaultError
from requests.exceptions import RequestException

REFUSED = (VaultError, RequestException)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def acme(cluster):
    return cluster.admit("acme")


@pytest.fixture(scope="module")
def login(acme):
    return acme.credentials().login


@pytest.fixture(autouse=True)
def healed(cluster, login, acme):
    """After every test three nodes vote, one leads, clients are led to it, and it writes."""
    yield
    cluster.wait_until_whole()
    login()
    acme.remove(acme.add("healed@example.com"))
    assert [fault.what for fault in cluster.timeline.faults if fault.end is None] == []


def test_a_started_cluster_has_one_leader_and_three_votes(cluster, login):
    assert cluster.voters() == {f"vault-k.example.com-{number}" for number in (1, 2, 3)}
    assert len(cluster.standbys) == 2
    login()


def test_leader_killed_and_nothing_acknowledged_is_lost(cluster, login, acme):
    old, name = cluster.leader, acme.add("acknowledged@example.com")
    kept = acme.record(name)
    with cluster.leader_stopped() as leader:
        assert leader is not old
        login()
        assert acme.record(name) == kept
        acme.add("meanwhile@example.com")
    assert "meanwhile@example.com" in str([acme.record(name) for name in acme.names()])
    for name in acme.names():
        acme.remove(name)


def test_two_of_three_killed_nobody_writes(cluster):
    last = cluster.leader
    with cluster.without(*cluster.standbys), pytest.raises(REFUSED):
        last.client(timeout_s=5).write_data("archive-keys/acme/nobody", data={"archive_key": ""})


def test_a_sealed_standby_behind_a_healthy_leader(cluster, login):
    standby = cluster.standbys[0]
    with standby.restarted_sealed():
        assert standby.sealed
        login()


def test_removed_and_joined_again(cluster, login):
    node = cluster.standbys[0]
    with cluster.removed(node):
        assert len(cluster.voters()) == 2
        login()
    assert node.node in cluster.voters()


def test_partitioned_leader_is_replaced_by_the_majority(cluster, login):
    old = cluster.leader
    with cluster.partitioned(old):
        assert cluster.leader is not old
        login()


def test_partitioned_standby_goes_unnoticed(cluster, login):
    leader = cluster.leader
    with cluster.partitioned(cluster.standbys[0]):
        assert cluster.leader is leader
        login()


def test_a_slow_network_between_nodes(cluster, acme):
    leader, (first, second) = cluster.leader, cluster.standbys
    with cluster.link(leader, first).latency(200), cluster.link(leader, second).latency(200):
        started = time.monotonic()
        name = acme.add("slow@example.com")
        assert time.monotonic() - started > 0.2
    acme.remove(name)


def test_sealed(cluster, login):
    with cluster.sealed_for_a_while(), pytest.raises(REFUSED):
        login()
