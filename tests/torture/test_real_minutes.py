"""An incident in real time, minutes of 60 seconds, with kill -9 of the service in every one of them. A quarter of an hour."""

import time
from datetime import datetime

import pytest
from keystore_harness import Testbed, wait_until

from pulumi_keystore.client import Client
from tests.conftest import WHOLE
from tests.health.conftest import FAILED, RESUMED


@pytest.mark.skipif(not WHOLE, reason="takes a quarter of an hour: run it by `make torture`")
@pytest.mark.timeout(1500)
def test_kill_9_in_every_minute_of_a_real_incident_changes_no_mail():
    with (
        Testbed("a") as testbed,
        Client(testbed.service.url, testbed.service.make_token("ops", "provider-admin")) as admin,
    ):
        admin.put_organization("acme")
        testbed.admit("a", "acme")
        admin.put_keystore("acme", "first", testbed.declaration("a", "acme", "pw"))
        admin.put_monitor("acme", "first", {"recipients": ["a@example.com", "b@example.com"]})
        wait_until(lambda: admin.health("acme", "first")["status"] == "Online", "the first test", 90)
        testbed.servers["a"].seal()
        wait_until(lambda: admin.health("acme", "first")["status"] == "Offline", "the first failed test", 90)
        failed_at = datetime.fromisoformat(admin.health("acme", "first")["since"])
        arrived = {}

        def live(minutes: float) -> None:
            until, restart = time.monotonic() + minutes * 60, time.monotonic() + 41
            while time.monotonic() < until:
                for message in testbed.mailbox.messages:
                    arrived.setdefault(message["Message-ID"], (str(message["Subject"]), datetime.now().astimezone()))
                if time.monotonic() > restart:
                    testbed.service.kill()
                    testbed.service.start()
                    restart = time.monotonic() + 41
                time.sleep(0.5)

        live(7)
        assert [subject for subject, _ in arrived.values()] == [FAILED] * 2
        assert all(300 <= (at - failed_at).total_seconds() <= 375 for _, at in arrived.values()), (failed_at, arrived)
        testbed.servers["a"].unseal()
        live(8)
        assert [subject for subject, _ in arrived.values()] == [FAILED] * 2 + [RESUMED] * 2
