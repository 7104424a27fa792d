"""`kill -9` at the very moments between a test, its record, a mail, and that it was sent."""

import contextlib

import pytest
from keystore_harness import Testbed, wait_until, workspace
from keystore_harness.program import Program
from keystore_harness.service import ServiceProcess

from pulumi_keystore import failpoints
from pulumi_keystore.client import Client
from pulumi_keystore.errors import KeystoreError
from tests.conftest import SETTINGS
from tests.health.conftest import FAILED, MINUTE_S, RESUMED

LAUNCHER = "tests.torture.launcher"


@pytest.fixture
def scene():
    """A monitored keystore, and a service that can be killed at named moments."""
    control = workspace.current().subfolder("moments")
    testbed = Testbed("a", {**SETTINGS, "health_check_interval_s": str(MINUTE_S), "health_check_s": "2"})
    program = Program(module=LAUNCHER, environment={"TORTURE": str(control)})
    testbed.service = ServiceProcess(testbed.service.settings, testbed.timeline, program)
    with testbed, Client(testbed.service.url, testbed.service.make_token("ops", "provider-admin")) as admin:
        admin.put_organization("acme")
        testbed.admit("a", "acme")
        admin.put_keystore("acme", "first", testbed.declaration("a", "acme", "pw"))
        admin.put_monitor("acme", "first", {"recipients": ["a@example.com", "b@example.com"]})
        yield testbed, admin, control


def test_a_death_at_every_moment_of_an_incident_loses_and_doubles_no_mail(scene):
    testbed, admin, control = scene
    points = sorted(failpoints.MONITOR)

    def revive() -> None:
        process = testbed.service._process
        while process is None or process.poll() is not None:
            # The next moment may come before it has answered.
            with contextlib.suppress(RuntimeError):
                testbed.service.start()
            process = testbed.service._process

    def status() -> str | None:
        revive()
        try:
            return str(admin.health("acme", "first")["status"])
        except KeystoreError:
            return None

    def arrived() -> list[str]:
        """Each mail once by its Message-ID: one that was sent and not written down as sent comes again as the same."""
        revive()
        return sorted({message["Message-ID"]: str(message["Subject"]) for message in testbed.mailbox.messages}.values())

    def die_at_each() -> None:
        (control / "next").write_text("\n".join(f"{point} kill" for point in points))
        (control / "next").rename(control / "plan")

    def died() -> bool:
        """Tell whether it died at each moment; the last one leaves an empty plan."""
        revive()
        return not (control / "plan").exists()

    wait_until(lambda: status() == "Online", "it to be online")
    with testbed.servers["a"].sealed_for_a_while():
        die_at_each()
        wait_until(lambda: arrived() == [FAILED] * 2 and died(), "a mail to each administrator, and each death")
    die_at_each()
    wait_until(lambda: len(arrived()) == 4 and died(), "the good news, and each death")
    wait_until(lambda: status() == "Online", "it to be online")
    assert arrived() == [FAILED] * 2 + [RESUMED] * 2
    reached = {line for file in control.glob("reached-*") for line in file.read_text().split()}
    assert reached >= failpoints.MONITOR
