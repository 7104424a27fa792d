"""Health checks of real keystores, and the mails about it, with a real SMTP server. A minute is a second here."""

import os
import signal
import time
from base64 import b64encode
from datetime import datetime, timedelta

import pytest
from keystore_harness import wait_until
from keystore_harness.processes import stop_in_its_tracks
from keystore_harness.service import WorkerProcess
from keystore_harness.tenant import Tenant

from tests.health.conftest import FAILED, RESUMED


def place(watched) -> Tenant:
    return Tenant(watched.testbed.servers["a"], watched.customer.tenancy("first"), 1)


def test_a_sealed_server_is_offline_and_administrators_are_told_once_each_way(watch):
    acme = watch(recipients=2)
    server = acme.testbed.servers["a"]
    server.seal()
    try:
        shown = acme.await_status("Offline", "Host unavailable")
        assert shown["detail"].startswith("sealed: unseal the server")
        acme.await_mails(FAILED)
        # It goes on, and nobody is told again before a day has passed.
        time.sleep(3)
        acme.await_mails(FAILED)
    finally:
        server.unseal()
    acme.await_status("Online")
    acme.await_mails(FAILED, RESUMED)
    assert set(acme.recipients) <= set(acme.testbed.mailbox.recipients)
    first = next(m for m in acme.testbed.mailbox.messages if acme.recipients[0] in m["To"])
    text = first.get_content()
    assert "can no longer communicate with your keystore" in text
    assert "sealed: unseal the server" in text
    assert acme.customer.declaration("first")["address"] in text


def test_four_minutes_are_no_outage(watch):
    acme = watch()
    server = acme.testbed.servers["a"]
    with server.sealed_for_a_while():
        acme.await_status("Offline", "Host unavailable")
        time.sleep(2)
    acme.await_status("Online")
    time.sleep(8)
    assert acme.mails() == []
    assert {"online", "offline"} <= set(acme.health()["reliability"]["buckets"])


def test_a_refused_certificate_is_another_reason(watch):
    acme = watch()
    with place(acme).role_removed():
        shown = acme.await_status("Offline", "Unable to authenticate")
        assert "auth/cert/certs" in shown["detail"]
    acme.await_status("Online")
    with place(acme).access_removed():
        shown = acme.await_status("Offline", "Unable to authenticate")
        assert "may not read archive keys" in shown["detail"]
    acme.await_status("Online")


def test_a_revoked_certificate_is_unable_to_authenticate(watch):
    acme = watch()
    server = acme.testbed.servers["a"]
    issued = acme.testbed.ca.issue(acme.customer.name)
    declared = {**acme.customer.declaration("first"), "certificate": b64encode(issued.pkcs12("CANARY-pfx-password"))}
    declared["certificate"] = declared["certificate"].decode()
    acme.customer.admin.swap_keystore(acme.customer.name, "first", declared)
    credentials = place(acme).credentials()
    object.__setattr__(credentials, "issued", issued)
    with place(acme).certificate_revoked(credentials):
        acme.await_status("Offline", "Unable to authenticate")
    acme.await_status("Online")
    assert server.active


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("refusing", "refused"),
        ("hang", "deadline"),
        ("drip", "deadline"),
        ("resetting", "breaks"),
    ],
)
def test_what_the_network_does_is_host_unavailable(watch, fault, says):
    acme = watch()
    with getattr(acme.testbed.servers["a"].network, fault)():
        shown = acme.await_status("Offline", "Host unavailable")
        assert says in shown["detail"] or "closes" in shown["detail"] or "TLS" in shown["detail"]
        assert shown["duration_s"] < 30  # it would never end by itself
    acme.await_status("Online")


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_an_answer_that_is_no_vault_servers_is_host_unavailable(watch, status):
    acme = watch()
    with acme.testbed.servers["a"].answering(status):
        acme.await_status("Offline", "Host unavailable")
    acme.await_status("Online")


def test_a_quota_of_the_server_is_no_outage(watch):
    """The server is well, and the right one; it is asked again, and then it says so."""
    acme = watch()
    server, mount = acme.testbed.servers["a"], acme.customer.tenancy("first").mount
    with server.rate_limited(0.01, f"{mount}/"):
        warned = wait_until(lambda: (shown := acme.health())["warning"] and shown, "a warning", 60)
        assert "asks for fewer requests (HTTP 429)" in warned["warning"]
        assert warned["status"] == "Online"
        assert "offline" not in warned["reliability"]["buckets"]
    wait_until(lambda: acme.health()["warning"] is None, "the warning to end", 60)


def test_garbage_with_status_200_is_host_unavailable(watch):
    acme = watch()
    with acme.testbed.servers["a"].answering(200, "<html>it works</html>"):
        acme.await_status("Offline", "Host unavailable")


def test_one_keystore_that_hangs_delays_no_other(watch, customer):
    acme = watch()
    others = [customer(0, keystores=("second",)) for _ in range(3)]
    with acme.testbed.servers["a"].network.hang():
        acme.await_status("Offline", "Host unavailable")
        begun = datetime.now().astimezone()
        time.sleep(6)
        for other in others:
            shown = acme.customer.admin.health(other.name, "second")
            assert shown["status"] == "Online", shown
            assert datetime.fromisoformat(shown["tested_at"]) > begun + timedelta(seconds=3.5)
            # A slow machine may miss a minute that is a second; the deadline of the one that hangs is two.
            latest = shown["reliability"]["buckets"][-7:]
            assert "offline" not in latest
            assert latest.count("online") >= 4


def test_a_service_that_is_paused_makes_no_outage(watch):
    acme = watch()
    service = acme.testbed.service
    stop_in_its_tracks(service.pid)
    time.sleep(9)
    os.kill(service.pid, signal.SIGCONT)
    acme.await_status("Online")
    hour = acme.health()["reliability"]
    assert "offline" not in hour["buckets"]
    assert hour["ratio"] == 1.0
    # What was not tested is not known.
    assert hour["buckets"][-9:].count("unknown") >= 5
    time.sleep(7)
    assert acme.mails() == []


def test_while_the_service_makes_no_tests_it_says_so(watch):
    acme = watch()
    service = acme.testbed.service
    service.kill()
    settings = dict(service.settings)
    service.settings["health_checks"] = "false"
    try:
        service.start()
        shown = acme.await_status("Offline", "No request")
        assert "service has not run its own test" in shown["detail"]
        service.kill()
    finally:
        service.settings.clear()
        service.settings.update(settings)
        service.start()
    acme.await_status("Online")
    assert "offline" not in acme.health()["reliability"]["buckets"]
    assert acme.mails() == []


def test_after_a_migration_it_is_unknown_for_five_minutes(watch):
    acme = watch(keys=3, keystores=("first", "second"))
    customer = acme.customer
    assert customer.migrate("second")["state"] == "succeeded"
    shown = acme.health("second")
    assert (shown["status"], shown["reason"]) == ("Unknown", "Unknown")
    wait_until(lambda: acme.health("second")["status"] == "Online", "it to be known")
    ended = datetime.fromisoformat(customer.admin.migrations(customer.name)[0]["ended_at"])
    assert datetime.now().astimezone() - ended > timedelta(seconds=3.5)


def test_nobody_is_told_of_a_keystore_that_is_not_in_use(watch):
    acme = watch(keys=1, keystores=("first", "second"))
    assert acme.customer.migrate("second")["state"] == "succeeded"
    with acme.testbed.servers["a"].sealed_for_a_while():
        acme.await_status("Offline", "Host unavailable")
        time.sleep(8)
    assert acme.mails() == []


def test_mail_that_is_not_accepted_comes_later_and_once(watch):
    acme = watch()
    mailbox = acme.testbed.mailbox
    mailbox.refuse_with = "421 try later"
    try:
        with acme.testbed.servers["a"].sealed_for_a_while():
            time.sleep(9)
        assert acme.mails() == []
    finally:
        mailbox.refuse_with = None
    acme.await_mails(FAILED, RESUMED, timeout_s=60)
    sent = [m["Message-ID"] for m in mailbox.messages if acme.recipients[0] in m["To"]]
    assert len(sent) == len(set(sent)) == 2


def test_several_processes_together_test_each_minute_once(watch):
    acme = watch()
    service = acme.testbed.service
    with WorkerProcess(service), WorkerProcess(service):
        time.sleep(3)
        log = acme.testbed.servers["a"].audit_log
        role = acme.customer.tenancy("first").role_name
        begun, lines = time.monotonic(), len(log.read_text().splitlines())
        time.sleep(10)
        elapsed = time.monotonic() - begun
        new = log.read_text().splitlines()[lines:]
        logins = [line for line in new if '"type":"response"' in line and "auth/cert/login" in line and role in line]
    # Never more than one a minute; fewer where the machine has no time for them.
    assert 1 <= len(logins) <= elapsed + 2
    buckets = acme.health()["reliability"]["buckets"]
    assert "offline" not in buckets
    assert "online" in buckets[-8:-1]


def test_kill_9_at_every_minute_of_an_incident_changes_no_mail(watch):
    acme = watch(recipients=2)
    service, server = acme.testbed.service, acme.testbed.servers["a"]
    server.seal()
    for _ in range(8):
        time.sleep(0.9)
        service.kill()
        service.start()
    server.unseal()
    for _ in range(8):
        time.sleep(0.9)
        service.kill()
        service.start()
    acme.await_mails(FAILED, RESUMED)
    time.sleep(3)
    acme.await_mails(FAILED, RESUMED)
