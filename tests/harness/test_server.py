"""Each verb of one server: a client sees the fault, and healing is complete. By either driver."""

import itertools
import json
import os
import time

import hvac
import pytest
import requests
from keystore_harness import HarnessError

REFUSED = (hvac.exceptions.VaultError, requests.exceptions.RequestException)


@pytest.fixture(scope="module")
def acme(server):
    return server.admit("acme")


@pytest.fixture(scope="module")
def login(acme):
    credentials = acme.credentials("password")
    return credentials.login


@pytest.fixture(autouse=True)
def healed(server, login):
    """After every test the server is as it was: a client logs in and writes, and no fault is left open."""
    yield
    login()
    assert server.active
    assert [fault.what for fault in server.timeline.faults if fault.end is None] == []


def test_a_started_server_is_unsealed_and_speaks_tls_under_its_names(server):
    assert not server.sealed
    assert server.address.startswith("https://vault-h.example.com:")
    assert set(server.host_map) == {f"{name}:{server.port}" for name in (server.name, server.alias)}
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{server.port}/v1/sys/health", timeout=5)
    assert server.version[0] in ("OpenBao", "Vault")


def test_requests_are_audited_without_their_values(server, login, acme):
    name = acme.add("audited@example.com", b"A" * 32)
    login().read(f"archive-keys/acme/{name}")
    lines = server.audit_log.read_text()
    assert any(json.loads(line)["request"].get("path", "").endswith(name) for line in lines.splitlines())
    assert "QUFBQUFB" not in lines
    acme.remove(name)


def test_of_31_sets_of_shares_just_the_16_of_three_or_more_unseal(server):
    unsealed = []
    subsets = [c for size in range(1, 6) for c in itertools.combinations(range(5), size)]
    assert len(subsets) == 31
    for subset in subsets:
        server.seal()
        try:
            server.unseal(server.shares[index] for index in subset)
        except HarnessError:
            assert server.sealed
        else:
            unsealed.append(subset)
    if server.sealed:
        server.unseal()
    assert len(unsealed) == 16
    assert all(len(subset) >= 3 for subset in unsealed)


def test_a_wrong_share_and_one_share_three_times_do_not_unseal(server):
    with server.sealed_for_a_while():
        assert [server.submit_share(server.shares[0]) for _ in range(3)] == [1, 1, 1]
        server.forget_shares()
        for share in server.shares[:2]:
            server.submit_share(share)
        with pytest.raises(hvac.exceptions.VaultError):
            server.submit_share("AAAA" * 11)
        assert server.sealed
        server.forget_shares()


def test_sealed(server, login):
    with server.sealed_for_a_while(), pytest.raises(hvac.exceptions.VaultDown):
        login()


def test_sealed_after_a_restart(server, login):
    with server.restarted_sealed(), pytest.raises(hvac.exceptions.VaultDown):
        login()


def test_a_fault_is_healed_whatever_happens_meanwhile(server):
    with pytest.raises(ZeroDivisionError), server.sealed_for_a_while():
        1 / 0  # noqa: B018


def test_killed_and_back_with_its_data(server, login, acme):
    name, pid = acme.add("kept@example.com"), server.pid
    kept = acme.record(name)
    with server.killed():
        with pytest.raises(requests.exceptions.ConnectionError):
            login()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert server.pid != pid
    assert acme.record(name) == kept
    acme.remove(name)


def test_paused(server):
    with server.paused():
        started = time.monotonic()
        with pytest.raises(requests.exceptions.Timeout):
            server.client(timeout_s=1).sys.read_seal_status()
        assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("verb", "reason"),
    [("expired_certificate", "expired"), ("wrong_name", "mismatch"), ("new_authority", "unable to get local issuer")],
)
def test_a_certificate_that_clients_must_refuse(server, login, verb, reason):
    with getattr(server, verb)(), pytest.raises(requests.exceptions.SSLError, match=reason):
        login()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs root to be mounted")
def test_disk_full(server, login, acme):
    with server.disk_full(), pytest.raises(REFUSED):
        acme.add("no-room@example.com")
    name = acme.add("room@example.com")
    assert name in acme.names()
    acme.remove(name)


def test_a_snapshot_brings_back_what_was_deleted(server, acme):
    name = acme.add("snapshot@example.com")
    kept, snapshot = acme.record(name), server.snapshot()
    acme.remove(name)
    assert acme.record(name) is None
    server.restore(snapshot)
    assert acme.record(name) == kept
    acme.remove(name)


def test_too_many_requests(server, login, acme):
    client = login()

    def twenty_requests():
        for _ in range(20):
            client.list("archive-keys/acme")

    with server.rate_limited(1), pytest.raises(hvac.exceptions.RateLimitExceeded):
        twenty_requests()
    twenty_requests()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_answers_with_a_status(server, login, status):
    with server.answering(status) as impostor, pytest.raises(hvac.exceptions.VaultError, match="the harness answers"):
        login()
    assert impostor.requests == 1


# What the organization's own administrator may do wrong.


def test_role_removed(login, acme):
    token = login()
    with acme.role_removed():
        with pytest.raises(hvac.exceptions.VaultError):
            login()
        with pytest.raises(hvac.exceptions.Forbidden):
            token.list("archive-keys/acme")


def test_access_removed(login, acme):
    with acme.access_removed(), pytest.raises(hvac.exceptions.Forbidden):
        login().list("archive-keys/acme")
    login().list("archive-keys/acme")


def test_certificate_revoked(acme, login):
    credentials = acme.credentials()
    token = credentials.login()
    with acme.certificate_revoked(credentials):
        with pytest.raises(hvac.exceptions.VaultError):
            credentials.login()
        with pytest.raises(hvac.exceptions.Forbidden):
            token.list("archive-keys/acme")
        login()
    credentials.login()


def test_an_expired_client_certificate_is_refused(acme):
    with pytest.raises(REFUSED):
        acme.credentials(expired=True).login()


def test_another_ones_client_certificate_is_refused(acme):
    with pytest.raises(hvac.exceptions.VaultError):
        acme.credentials(common_name="somebody-else").login()


@pytest.mark.parametrize("version", [1, 2])
def test_keys_tampered_with_and_put_back(server, version):
    from keystore_harness import Tenancy  # noqa: PLC0415

    org = server.admit(Tenancy(f"tampered-{version}", f"tampered-{version}"), version=version)
    first, second = org.add("first"), org.add("second")
    before = org.stored()
    with org.flipped_bit(first):
        changed = org.stored()
        assert changed[second] == before[second]
        assert bytes(a ^ b for a, b in zip(changed[first], before[first], strict=True)) == b"\1" + bytes(31)
    assert org.stored() == before
    with org.swapped(first, second):
        assert org.stored() == {first: before[second], second: before[first]}
    assert org.stored() == before
    with org.deleted(first):
        assert org.stored() == {second: before[second]}
    assert org.stored() == before
    with org.added("surplus") as surplus:
        assert set(org.stored()) == {first, second, surplus}
    assert org.stored() == before
    for name in org.names():
        org.remove(name)


# The network between the server and its clients.


def seconds(call) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_latency(server, login):
    with server.network.latency(300):
        assert seconds(login) > 0.29


def test_bandwidth(server, login, acme):
    record = {"format": "1", "archive_key": "A" * 60_000}
    acme.put("large", record)
    client = login()
    with server.network.bandwidth(50):
        assert seconds(lambda: client.read("archive-keys/acme/large")) > 1  # 60 kB at 50 kB a second
    acme.remove("large")


@pytest.mark.parametrize("verb", ["hang", "drip", "losing_answers"])
def test_no_answer_in_time(server, verb):
    address = f"https://127.0.0.1:{server.port}/v1/sys/health"
    ca = server.folder / "ca-of-this-test.pem"
    ca.write_text(server.ca.pem)
    with getattr(server.network, verb)(), pytest.raises(requests.exceptions.RequestException):
        requests.get(address, timeout=1.5, verify=str(ca))


def test_connections_reset(server, login):
    with server.network.resetting(), pytest.raises(requests.exceptions.ConnectionError, match="reset"):
        login()


def test_an_idle_connection_reset(server, login):
    client = login()
    client.list("archive-keys/acme")
    server.network.reset()
    # hvac's pool finds the connection dead; whichever it does, a new one is let through.
    try:
        client.list("archive-keys/acme")
    except requests.exceptions.ConnectionError:
        client.list("archive-keys/acme")


def test_unreachable(server, login):
    with server.network.refusing(), pytest.raises(requests.exceptions.ConnectionError):
        login()
