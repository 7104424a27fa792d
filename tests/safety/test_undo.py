"""The way back from a migration while its keys are retained at the source."""

import re
from collections.abc import Iterator

import httpx
import pytest
from keystore_harness import Testbed, wait_until

from pulumi_keystore.errors import Conflict, KeystoreError
from tests.safety.bed import SETTINGS, Bed


@pytest.fixture(scope="module")
def keeping() -> Iterator[Bed]:
    """A service that keeps the keys at the source for an hour."""
    with Testbed("ab", {**SETTINGS, "retain_s": "3600"}, lines=True) as testbed:
        made = Bed(testbed)
        yield made
        made.close()


def test_a_migration_is_undone_with_what_was_enrolled_since(keeping):
    acme = keeping.customer(40, first="a", second="b")
    row = acme.migrated("second")
    assert row["retained_until"]
    assert acme.admin.plan_migration(acme.name, "first")["retain_s"] == 3600
    assert len(acme.names("first")) == 40
    acme.enrol_keys(acme.some(5))
    done = keeping.keystore("migration", "undo", acme.name)
    assert done.returncode == 0, done.stderr
    acme.assert_complete("first")
    assert "Migration undone" in acme.actions
    wait_until(lambda: acme.names("second") == [], "the other side to be emptied")
    refusal = acme.refused(acme.admin.undo_migration, acme.name, row["id"])
    assert isinstance(refusal, Conflict)
    acme.assert_all_released()


def test_a_migration_is_undone_in_the_console(keeping):
    acme = keeping.customer(10, first="a", second="b")
    acme.migrated("second")
    service, path = keeping.testbed.service, f"/console/organizations/{acme.name}"
    with httpx.Client(base_url=service.url, timeout=60, follow_redirects=True) as browser:
        browser.post("/console/sign-in", data={"token": service.make_token(f"c-{acme.name}", "provider-admin")})
        page = browser.get(path).text
        assert "Undo the migration" in page
        fields = dict(re.findall(r'name="(form_token|migration)" value="([^"]+)"', page[page.index(f"{path}/undo") :]))
        assert "The migration was undone." in browser.post(f"{path}/undo", data=fields).text
        assert acme.active == "first"
        assert browser.post(f"{path}/undo", data=fields).status_code == 409
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")


def test_a_migration_is_undone_although_its_destination_is_gone(keeping):
    acme = keeping.customer(20, first="a", second="b")
    row = acme.migrated("second")
    with keeping.testbed.servers["b"].sealed_for_a_while():
        acme.admin.undo_migration(acme.name, row["id"])
        assert acme.active == "first"
        acme.assert_all_released()
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")


def test_nothing_is_undone_where_a_key_would_be_lost(keeping):
    acme = keeping.customer(20, first="a", second="b")
    row = acme.migrated("second")
    acme.enrol_keys(acme.some(1))
    with keeping.testbed.servers["b"].sealed_for_a_while():
        assert isinstance(acme.refused(acme.admin.undo_migration, acme.name, row["id"]), KeystoreError)
    assert acme.active == "second"
    acme.admin.undo_migration(acme.name, row["id"])
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")
