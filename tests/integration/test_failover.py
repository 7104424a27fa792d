"""PostgreSQL of several hosts: the primary dies, and the service goes on with the standby that takes its place."""

import httpx
import pytest
from keystore_harness import ServiceProcess, workspace
from keystore_harness.database import Database
from keystore_harness.interceptor import Plan
from keystore_harness.standby import Standby

from pulumi_keystore.client import Client
from pulumi_keystore.control_plane.runtime.leadership import SUPERSEDED_STATUS


@pytest.fixture
def primary():
    with Database(workspace.current().subfolder("p"), Plan(hang_s=1)) as database:
        yield database


@pytest.fixture
def standby(primary):
    with Standby(primary, workspace.current().subfolder("s")) as standby:
        yield standby


def test_the_service_goes_on_with_the_standby_that_was_promoted(primary, standby):
    # The one that cannot be written to comes first: it is passed over, and not taken for a database of today.
    url = f"postgresql://postgres:@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres?sslmode=disable"
    service = ServiceProcess({"database_url": url})
    service.start()
    try:
        client = Client(service.url, service.make_token("ops", "provider-admin"))
        client.put_organization("acme")
        assert primary.ask("select name from organizations") == "acme"
        standby.catch_up()

        primary.die()
        # What leads by a lock in the database leads no more, and whatever runs the service starts it again.
        assert service.wait(120) == SUPERSEDED_STATUS
        standby.promote()
        service.start()
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        assert [row["name"] for row in client.organizations()] == ["acme"]
        client.put_organization("other")
        assert primary.ask("select count(*) from organizations", standby.url) == "2"
    finally:
        service.stop()
