"""Renaming a resource is not the end of what it manages: Pulumi creates the new one first, and then deletes the old."""

import pytest

from pulumi_keystore.errors import ManagedElsewhere, NotFound
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
            "address": acme.testbed.vaults[acme.letters[name]].address,
            "certificate": certificates[name],
            "certificate_password": PASSWORD,
            "server_ca": acme.testbed.ca.pem,
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


def test_of_two_stacks_with_one_monitor_the_one_that_is_destroyed_takes_nothing_away(
    acme, made, declared, declaring, admin_token
):
    made.declare(declared["keystore"]("first", "first"), declared["monitor"]("watch"))
    made.stack.up()
    with declaring(acme.testbed.service.url, admin_token, "another") as other:
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


# What renaming comes to at the service, without an engine: the new resource puts, then the old one deletes.

OLD, NEW = "0123456789abcdef", "fedcba9876543210"
WATCH = {"recipients": ["ops@example.com"]}


def kept(acme, delete, *arguments):
    """The warning with which the deletion by the old resource is answered."""
    with pytest.raises(ManagedElsewhere) as refused:
        delete(acme.name, *arguments, mark=OLD)
    return refused.value.summary


def test_a_renamed_organization_stays(acme):
    acme.admin.put_organization(acme.name, mark=OLD)
    assert "was managed by another" in acme.admin.put_organization(acme.name, mark=NEW)["warnings"][0]
    assert "Organization taken over" in acme.actions
    assert "managed by another Pulumi resource now, and stays" in kept(acme, acme.admin.delete_organization)
    acme.admin.delete_organization(acme.name, mark=NEW)


def test_of_two_that_declare_the_same_the_later_one_manages_it(acme):
    declaration = acme.declaration("first")
    for mark in (OLD, NEW):
        acme.admin.put_keystore(acme.name, "first", declaration, mark=mark)
        acme.admin.put_monitor(acme.name, "first", WATCH, mark=mark)
    assert acme.actions.count("Keystore taken over") == acme.actions.count("Health monitor taken over") == 1
    assert "and stays" in kept(acme, acme.admin.delete_monitor, "first")
    assert "and stays" in kept(acme, acme.admin.delete_keystore, "first")
    acme.admin.delete_monitor(acme.name, "first", mark=NEW)
    acme.admin.delete_keystore(acme.name, "first", mark=NEW)


def test_an_update_takes_back_what_another_one_took(acme):
    declaration, renewed = acme.declaration("first"), acme.declaration("first")
    acme.admin.put_keystore(acme.name, "first", declaration, mark=NEW)
    acme.admin.put_keystore(acme.name, "first", declaration, mark=OLD)
    assert "was managed by another" in acme.admin.swap_keystore(acme.name, "first", renewed, mark=NEW)["warnings"][0]
    assert "and stays" in kept(acme, acme.admin.delete_keystore, "first")


def test_what_a_person_made_anew_stays(acme):
    acme.register("first")
    acme.admin.put_monitor(acme.name, "first", WATCH, mark=OLD)
    acme.admin.delete_monitor(acme.name, "first")
    acme.admin.put_monitor(acme.name, "first", WATCH)
    assert "was created again by another owner, and stays" in kept(acme, acme.admin.delete_monitor, "first")


def test_a_person_deletes_whatever_manages_it(acme):
    acme.admin.put_keystore(acme.name, "first", acme.declaration("first"), mark=OLD)
    acme.admin.put_monitor(acme.name, "first", WATCH, mark=OLD)
    acme.admin.delete_monitor(acme.name, "first")
    acme.admin.delete_keystore(acme.name, "first")
    with pytest.raises(NotFound):
        acme.admin.keystore(acme.name, "first")


def test_a_resource_without_a_mark_manages_only_what_bears_none(acme):
    """Its state was written by a version before there were marks."""
    acme.register("first")
    acme.admin.put_monitor(acme.name, "first", WATCH, mark=OLD)
    with pytest.raises(ManagedElsewhere):
        acme.admin.delete_monitor(acme.name, "first", mark="")
    acme.admin.delete_monitor(acme.name, "first")
    acme.admin.delete_keystore(acme.name, "first", mark="")
