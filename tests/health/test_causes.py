"""Why a keystore is offline: each cause is told apart on real servers, and what to do fits it."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from keystore_harness import VaultServer
from keystore_harness.impostor import Impostor
from keystore_harness.tenant import Tenant

from pulumi_keystore.causes import STEPS, Cause


@contextmanager
def no_vault(testbed, status=200, body="<html>It works!</html>"):
    """Something that is no Vault answers, under a certificate that is right."""
    server = testbed.servers["a"]
    issued = testbed.ca.issue_server(server.name, "127.0.0.1")
    with Impostor(issued, status, body) as impostor, server.network.leading_to(impostor.port):
        yield


@contextmanager
def no_tls(testbed):
    """A listener answers that has its TLS turned off."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.05,), daemon=True).start()
        with testbed.servers["a"].network.leading_to(plain.server_port):
            yield
        plain.shutdown()


@contextmanager
def empty_server(testbed):
    """A server without its storage answers under the name."""
    server = testbed.servers["a"]
    empty = VaultServer(server.name, testbed.ca, node="empty")
    try:
        empty.start()
        with server.network.leading_to(empty.public_port):
            yield
    finally:
        empty.close()


@contextmanager
def standby_alone(testbed):
    """What a standby says that finds no active node (Vault and OpenBao say the same)."""
    with no_vault(testbed, 500, '{"errors": ["local node not active but active cluster node not found"]}'):
        yield


CAUSES = {
    Cause.EXPIRED: (lambda watch, _: watch.testbed.servers["a"].expired_certificate(), "has expired"),
    Cause.WRONG_NAME: (lambda watch, _: watch.testbed.servers["a"].wrong_name(), "for another name"),
    Cause.UNKNOWN_CA: (lambda watch, _: watch.testbed.servers["a"].new_authority(), "unknown CA"),
    Cause.TLS: (lambda watch, _: no_tls(watch.testbed), "TLS handshake fails"),
    Cause.SEALED: (lambda watch, _: watch.testbed.servers["a"].sealed_for_a_while(), "it needs 3 of 5 unseal shares"),
    Cause.UNINITIALIZED: (lambda watch, _: empty_server(watch.testbed), "not initialized"),
    Cause.REFUSED: (lambda watch, _: watch.testbed.servers["a"].network.refusing(), "refused"),
    Cause.TIMED_OUT: (lambda watch, _: watch.testbed.servers["a"].network.hang(), "deadline"),
    Cause.BROKEN_CONNECTION: (lambda watch, _: watch.testbed.servers["a"].network.resetting(), "the connection breaks"),
    Cause.NOT_VAULT: (lambda watch, _: no_vault(watch.testbed), "not a Vault server's"),
    Cause.FAILING: (lambda watch, _: no_vault(watch.testbed, 500, "{}"), "HTTP 500"),
    Cause.OVERLOADED: (lambda watch, _: no_vault(watch.testbed, 429, "{}"), "fewer requests"),
    Cause.NO_ACTIVE_NODE: (lambda watch, _: standby_alone(watch.testbed), "without an active node"),
    Cause.LOGIN_REFUSED: (lambda _, place: place.role_removed(), "refuses this client certificate"),
    Cause.NAME_REFUSED: (
        lambda _, place: place.role_changed(allowed_common_names="nobody"),
        "which allows other names",
    ),
    Cause.POLICY: (lambda _, place: place.access_removed(), "may not read"),
}
REFUSED = (Cause.LOGIN_REFUSED, Cause.NAME_REFUSED, Cause.POLICY)
ELSEWHERE = {
    Cause.DNS: "tests/unit/vault/test_resolver.py",
    Cause.PRIVATE_ADDRESS: "tests/unit/vault/test_resolver.py",
    Cause.ANOTHER_CLUSTER: "tests/safety/test_other_cluster.py",
    Cause.LOGIN_DISABLED: "tests/unit/vault/test_session.py",
    Cause.CLIENT_EXPIRED: "tests/unit/vault/test_session.py",
    Cause.MOUNT: "tests/integration/test_keystore.py",
}
"""Those that are seen elsewhere."""


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_told_with_its_steps(watch, cause):
    acme = watch()
    place = Tenant(acme.testbed.vaults["a"], acme.customer.tenancy("first"), 1)
    fault, says = CAUSES[cause]
    with fault(acme, place):
        reason = "Unable to authenticate" if cause in REFUSED else "Host unavailable"
        shown = acme.await_detail(says)
        assert (shown["status"], shown["reason"], shown["cause"]) == ("Offline", reason, cause)
        assert shown["steps"] == list(STEPS[cause])
    online = acme.await_status("Online", None, 60)
    assert (online["cause"], online["steps"]) == (None, [])


def test_every_cause_has_steps_and_a_test():
    assert set(STEPS) == set(Cause) == set(CAUSES) | set(ELSEWHERE)


def test_how_many_shares_were_given_is_told(watch):
    acme = watch()
    server = acme.testbed.servers["a"]
    with server.sealed_for_a_while():
        server.submit_share(server.shares[0])
        acme.await_status("Offline", "Host unavailable", 60)
        shown = acme.await_detail("and was given 1")
        assert shown["cause"] == "sealed"
        # What is tested when someone asks says the same.
        now = acme.customer.admin.status(acme.customer.name)["connection"]
        assert {name: now[name] for name in ("detail", "cause", "steps")} == {
            name: shown[name] for name in ("detail", "cause", "steps")
        }
    acme.await_status("Online", None, 60)


def test_the_command_says_what_to_do(watch, admin_token):
    acme = watch()
    with acme.testbed.servers["a"].sealed_for_a_while():
        acme.await_status("Offline", "Host unavailable", 60)
        done = acme.testbed.service.run("status", acme.customer.name, token=admin_token, check=False)
    assert done.returncode == 2
    assert f"1. {STEPS[Cause.SEALED][0]}" in done.stdout
    acme.await_status("Online", None, 60)
