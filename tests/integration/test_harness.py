"""The harness itself: each verb's fault is real, and healing is complete."""

import itertools
import os
import subprocess
import time

import hvac
import pytest
import requests
from keystore_harness import CertificateAuthority, Landscape, VaultServer, free_port, wait_until


@pytest.fixture(scope="module")
def server():
    with VaultServer("vault-h.example.com", CertificateAuthority()) as started:
        yield started


def ready(server: VaultServer) -> bool:
    return bool(server.client().sys.list_auth_methods())


def test_a_started_server_is_unsealed_and_speaks_tls_under_its_names(server):
    assert not server.sealed
    assert ready(server)
    assert server.address.startswith("https://vault-h.example.com:")
    assert set(server.host_map) == {f"{name}:{server.port}" for name in (server.name, server.alias)}
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{server.port}/v1/sys/health", timeout=5)


def test_of_31_sets_of_shares_just_the_16_of_three_or_more_unseal(server):
    client, unsealed = server.client(token=None), []
    subsets = [c for size in range(1, 6) for c in itertools.combinations(range(5), size)]
    assert len(subsets) == 31
    for subset in subsets:
        server.seal()
        for index in subset:
            if not client.sys.submit_unseal_key(key=server.shares[index])["sealed"]:
                break
        if not server.sealed:
            unsealed.append(subset)
        else:
            client.sys.submit_unseal_key(reset=True)
    if server.sealed:
        server.unseal()
    wait_until(lambda: ready(server), "the server")
    assert len(unsealed) == 16
    assert all(len(subset) >= 3 for subset in unsealed)


def test_a_wrong_share_and_one_share_three_times_do_not_unseal(server):
    with server.sealed_for_a_while():
        client = server.client(token=None)
        for _ in range(3):
            client.sys.submit_unseal_key(key=server.shares[0])
        assert server.sealed
        assert client.sys.read_seal_status()["progress"] == 1
        client.sys.submit_unseal_key(reset=True)
        for share in server.shares[:2]:
            client.sys.submit_unseal_key(key=share)
        with pytest.raises(hvac.exceptions.VaultError):
            client.sys.submit_unseal_key(key="AAAA" * 11)
        assert server.sealed
        client.sys.submit_unseal_key(reset=True)
    assert ready(server)


def test_a_sealed_server_refuses_and_heals(server):
    with server.sealed_for_a_while(), pytest.raises(hvac.exceptions.VaultDown):
        ready(server)
    assert ready(server)


def test_a_fault_is_healed_whatever_happens_meanwhile(server):
    with pytest.raises(ZeroDivisionError), server.sealed_for_a_while():
        1 / 0  # noqa: B018
    assert ready(server)


def test_a_killed_server_is_gone_and_comes_back_with_its_data(server):
    server.enable_mount("kept", 1)
    server.client().write_data("kept/x", data={"y": "z"})
    pid = server.pid
    with server.killed():
        with pytest.raises(requests.exceptions.ConnectionError):
            ready(server)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert server.pid != pid
    assert server.client().read("kept/x")["data"] == {"y": "z"}


def test_a_paused_server_takes_connections_and_never_answers(server):
    with server.paused():
        started = time.monotonic()
        with pytest.raises(requests.exceptions.Timeout):
            requests.get(
                f"https://127.0.0.1:{server.port}/v1/sys/health", timeout=1, verify=str(server.folder / "ca.pem")
            )
        assert time.monotonic() - started < 3
    assert ready(server)


def test_nothing_is_left_when_it_ends():
    with VaultServer("vault-x.example.com", CertificateAuthority()) as server:
        folder, pid = server.folder, server.pid
        keys = list(folder.rglob("*.key"))
        assert keys
        assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_cannot_start_says_why_and_leaves_nothing():
    port = free_port()
    with subprocess.Popen(
        ["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"], stderr=subprocess.DEVNULL
    ) as taken:
        server = VaultServer("vault-y.example.com", CertificateAuthority())
        server.port = port
        wait_until(lambda: _listens(port), "the other server")
        with pytest.raises(RuntimeError, match="address already in use"), server:
            pass
        taken.kill()
    assert not server.folder.exists()


def _listens(port: int) -> bool:
    try:
        requests.get(f"http://127.0.0.1:{port}", timeout=1)
    except requests.exceptions.ConnectionError:
        return False
    return True


def test_a_landscape_whose_service_cannot_start_says_why_and_leaves_nothing():
    land = Landscape("a", {"smtp_url": "nonsense"})
    with pytest.raises(RuntimeError, match="the SMTP URL is not one"), land:
        pass
    assert not land.folder.exists()
