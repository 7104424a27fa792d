"""Renaming a resource is not the end of what it manages: Pulumi creates the new one first, and then deletes the old."""

import json

import pytest

from pulumi_keystore.errors import NotFound
from tests.conftest import PASSWORD
from tests.integration.test_state import both


@pytest.fixture
def declared(acme):
    """What is declared of each, by what it is called in the program."""
    certificates = both(acme)

    def keystore(resource, name):
        inputs = {
            "name": name,
            "organization": acme.name,
            "kind": "self-administered",
            "address": acme.land.vaults[acme.letters[name]].address,
            "certificate": certificates[name],
            "certificate_password": PASSWORD,
            "server_ca": acme.land.authority.pem,
        }
        return ("Keystore", resource, inputs, {})

    def monitor(resource, recipient="ops@example.com", **more):
        watch = {"keystore": "first", "organization": acme.name, "recipients": [recipient], **more}
        return ("HealthMonitor", resource, watch, {})

    def organization(resource):
        return ("Organization", resource, {"name": acme.name}, {})

    return {"keystore": keystore, "monitor": monitor, "organization": organization}


def test_a_renamed_monitor_stays(acme, made, declared):
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch"))
    made.stack.up()
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch-first"))
    said = made.stack.up().stdout
    assert "1 created" in said
    assert "1 deleted" in said
    assert "is managed by another Pulumi resource now, and stays" in said
    assert acme.admin.monitor(acme.name, "first")["recipients"] == ["ops@example.com"]
    assert "unchanged" in made.stack.refresh().stdout
    assert "Health monitor taken over" in acme.actions
    made.stack.destroy()
    with pytest.raises(NotFound):
        acme.admin.monitor(acme.name, "first")


def test_a_renamed_standby_keystore_stays(acme, made, declared):
    made.declare(declared["keystore"]("first", "first"), declared["keystore"]("second", "second"))
    made.stack.up()
    made.declare(declared["keystore"]("first", "first"), declared["keystore"]("spare", "second"))
    said = made.stack.up().stdout
    assert "the keystore 'second' was managed by another Pulumi resource" in said
    assert acme.admin.keystore(acme.name, "second")["name"] == "second"
    made.stack.destroy()
    with pytest.raises(NotFound):
        acme.admin.keystore(acme.name, "second")


def test_a_renamed_organization_stays(acme, made, declared):
    made.declare(declared["organization"]("customer"))
    made.stack.up()
    made.declare(declared["organization"]("acme"))
    made.stack.up()
    assert acme.admin.organization(acme.name)["name"] == acme.name


def test_what_is_replaced_by_hand_stays(acme, made, declared):
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch"))
    made.stack.up()
    state = json.loads(made.stack.run("stack", "export").stdout)
    urn = next(one["urn"] for one in state["deployment"]["resources"] if one["urn"].endswith("::watch"))
    made.stack.run("up", "--yes", "--replace", urn)
    assert acme.admin.monitor(acme.name, "first")["recipients"] == ["ops@example.com"]


def test_of_two_stacks_with_one_monitor_the_one_that_is_destroyed_takes_nothing_away(
    acme, made, declared, declaring, admin_token
):
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch"))
    made.stack.up()
    with declaring(acme.land.service.url, admin_token, "another") as other:
        other.declare(declared["monitor"]("theirs", "others@example.com"))
        refused = other.stack.up(check=False)
        assert "set adopt=True" in refused.stdout
        assert acme.admin.monitor(acme.name, "first")["recipients"] == ["ops@example.com"]
        other.declare(declared["monitor"]("theirs", "others@example.com", adopt=True))
        assert "was managed by another Pulumi resource" in other.stack.up().stdout
        made.declare(declared["keystore"]("first", "first"))
        assert "and stays" in made.stack.up().stdout
        assert acme.admin.monitor(acme.name, "first")["recipients"] == ["others@example.com"]
        other.stack.destroy()


def test_a_person_deletes_whatever_manages_it(acme, made, declared):
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch"))
    made.stack.up()
    acme.admin.delete_monitor(acme.name, "first")
    with pytest.raises(NotFound):
        acme.admin.monitor(acme.name, "first")
    assert "1 created" in made.stack.run("up", "--yes", "--refresh").stdout


def test_state_without_a_mark_manages_only_what_bears_none(acme, made, declared):
    """As written by a version before there were marks."""
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch"))
    made.stack.up()
    state = json.loads(made.stack.run("stack", "export", "--show-secrets").stdout)
    for resource in state["deployment"]["resources"]:
        resource.get("outputs", {}).pop("mark", None)
    file = made.file.with_name("unmarked.json")
    file.write_text(json.dumps(state))
    made.stack.run("stack", "import", "--file", str(file))
    made.declare(declared["keystore"]("first", "first"))
    assert "and stays" in made.stack.up().stdout
    assert acme.admin.monitor(acme.name, "first")["recipients"] == ["ops@example.com"]
