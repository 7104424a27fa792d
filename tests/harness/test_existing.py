"""The driver `existing`: only what leaves a server as it was, and nothing of ours is left on it."""

import hvac
import pytest
from keystore_harness import CertificateAuthority, ExistingServer, HarnessError, Unsupported, VaultServer


@pytest.fixture(scope="module")
def running():
    """A server that somebody else runs: reached under the name its certificate holds."""
    with VaultServer("localhost", CertificateAuthority()) as server:
        server.client().sys.disable_auth_method("cert")
        yield server


def existing(running, **options):
    return ExistingServer(f"https://localhost:{running.port}", running.root_token, running.ca.pem, **options)


def test_organizations_faults_and_nothing_left(running, toxiproxy):
    mounts = set(running.client().sys.list_mounted_secrets_engines()["data"])
    with existing(running, network=toxiproxy) as server:
        acme = server.admit("acme")
        credentials = acme.credentials()
        acme.add("user@example.com")
        assert credentials.login().list("archive-keys/acme")
        with server.network.refusing(), pytest.raises(OSError, match="refused"):
            credentials.login()
        with acme.role_removed(), pytest.raises(hvac.exceptions.VaultError):
            credentials.login()
        credentials.login()
    client = running.client()
    assert set(client.sys.list_mounted_secrets_engines()["data"]) == mounts
    assert "cert/" not in client.sys.list_auth_methods()["data"]
    assert "keystore-acme" not in client.sys.list_policies()["data"]["policies"]


def test_it_is_sealed_only_by_who_can_unseal_it(running):
    with existing(running) as server, pytest.raises(Unsupported), server.sealed_for_a_while():
        pass
    assert not running.sealed
    with existing(running, shares=running.shares) as server:
        with server.sealed_for_a_while():
            assert running.sealed
        assert not running.sealed


@pytest.mark.parametrize("verb", ["kill", "paused", "disk_full", "restart", "expired_certificate"])
def test_what_would_break_it_is_refused(running, verb):
    with existing(running) as server, pytest.raises(Unsupported, match="somebody else runs"):
        getattr(server, verb)()


def test_an_organization_that_is_there_already_is_not_touched(running):
    running.client().sys.enable_auth_method("cert")
    running.admit("theirs")
    with existing(running) as server, pytest.raises(HarnessError, match="choose another organization"):
        server.admit("theirs")
    assert running.client().read("auth/cert/certs/keystore-theirs") is not None
    running.client().sys.disable_auth_method("cert")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "http://localhost:8200"}, "expected https://HOST:PORT"),
        ({"url": "https://localhost:1"}, "cannot be reached"),
        ({"token": "wrong"}, "refuses the token"),
        ({"ca_pem": CertificateAuthority().pem}, "cannot be reached .SSLError"),
    ],
    ids=["no address", "nobody there", "wrong token", "wrong CA"],
)
def test_a_mistake_is_one_clear_line(running, change, says):
    given = {
        "url": f"https://localhost:{running.port}", "token": running.root_token, "ca_pem": running.ca.pem, **change,
    }  # fmt: skip
    with pytest.raises(HarnessError, match=says) as caught, ExistingServer(**given):
        pass
    assert "\n" not in str(caught.value)
