"""Pulumi's own options on keystores, by the real engine: what exists is adopted, protected and retained."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

from tests.conftest import PASSWORD


def keystore(acme, options=None, **changes):
    return "Keystore", "first", {"organization": acme.name, **acme.declaration("first"), **changes}, options or {}


def test_what_is_registered_already_is_taken_over_with_adopt_alone(acme, made):
    acme.register("first")
    before = acme.admin.keystore(acme.name, "first")
    acme.enrol(3)
    made.declare(keystore(acme))
    refused = made.stack.up(check=False)
    assert refused.returncode != 0
    assert "is registered with another certificate; " in refused.stdout
    assert "adopt" in refused.stdout
    made.declare(keystore(acme, {"import_": f"{acme.name}/first"}))
    refused = made.stack.up(check=False)
    assert refused.returncode != 0
    assert "what exists already is not imported, but declared" in refused.stdout
    assert "Traceback" not in refused.stdout
    by_command = made.stack.run(
        "import", "pulumi-python:dynamic/keystore:Keystore", "first", f"{acme.name}/first", "--yes", check=False
    )
    # The SDK's own words, before any of ours is asked: docs/resources.md quotes them, and says what to do.
    assert "KeyError: '__provider'" in by_command.stdout
    assert acme.admin.keystore(acme.name, "first") == before
    adopting = keystore(acme, adopt=True)
    made.declare(adopting)
    assert "1 created" in made.stack.up().stdout
    assert acme.admin.keystore(acme.name, "first")["certificate_fingerprint"] != before["certificate_fingerprint"]
    assert "2 unchanged" in made.stack.preview().stdout
    acme.assert_complete("first")


def test_a_protected_keystore_is_not_destroyed_and_a_retained_one_stays_registered(acme, made):
    known = acme.declaration("first")
    made.declare(keystore(acme, {"protect": True}, **known))
    made.stack.up()
    refused = made.stack.destroy(check=False)
    assert refused.returncode != 0
    assert "protect" in refused.stdout
    made.declare()
    assert made.stack.up(check=False).returncode != 0
    assert acme.admin.keystore(acme.name, "first")["name"] == "first"
    made.declare(keystore(acme, {"retain_on_delete": True}, **known))
    made.stack.up()
    made.declare()
    made.stack.up()
    assert acme.admin.keystore(acme.name, "first")["name"] == "first"
    assert PASSWORD not in str(made.stack.export())


def test_a_certificate_that_ends_soon_is_told_of_in_each_preview_though_nothing_changes(acme, made):
    soon = acme.testbed.ca.issue(acme.name, not_after=datetime.now(UTC) + timedelta(days=7)).pkcs12(PASSWORD)
    made.declare(keystore(acme, certificate=b64encode(soon).decode()))
    made.stack.up()
    preview = made.stack.preview().stdout
    assert "2 unchanged" in preview
    assert f"warning: {acme.name}/first: KS101: the certificate expires on 20" in preview
