"""Keystores in namespaces and on mounts with slashes, on real servers, and one place under two names."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from keystore_harness import Tenancy, Testbed
from keystore_harness.tenant import Tenant

from pulumi_keystore.client import Client
from pulumi_keystore.declarations.tenancy import default_role
from pulumi_keystore.errors import Conflict, KeystoreError
from tests.conftest import Customer, retire


@dataclass
class Housed(Customer):
    """A customer whose keystores may be in namespaces."""

    places: dict[str, Tenancy] = field(default_factory=dict)

    def tenancy(self, keystore: str) -> Tenancy:
        return self.places[keystore]

    def declaration(self, keystore: str, **changes: Any) -> dict[str, Any]:
        there = self.tenancy(keystore)
        return super().declaration(keystore, **{"namespace": there.namespace, "role": there.role_name, **changes})

    def tenant(self, keystore: str) -> Tenant:
        """What the server's administrator sees, by the header `X-Vault-Namespace`, which the product never uses."""
        return Tenant(self.testbed.vaults[self.letters[keystore]], self.tenancy(keystore), self.versions[keystore])

    def stored(self, keystore: str) -> dict[str, bytes]:
        return self.tenant(keystore).stored()

    def refused(self, keystore: str, **changes: Any) -> KeystoreError:
        """Return the error that a new keystore is refused with, which has the place of another but for some changes."""
        with pytest.raises(KeystoreError) as refusal:
            self.admin.put_keystore(self.name, "another", self.declaration(keystore, **changes))
        return refusal.value

    def role_in_root(self, path: str, version: int = 1) -> str:
        """Make a role in the root namespace that may use a path, which leads into another namespace."""
        letter, role = self.letters["first"], f"from-above-{self.name}"
        vault, there = self.testbed.vaults[letter], Tenancy(self.name, path, role)
        vault.enable_role(role, there.policy(version), there.role_parameters(vault.ca.pem, self.name))
        return role


Make = Callable[..., Housed]


@pytest.fixture
def housed(testbed: Testbed, admin: Client, escrow_client: Client) -> Iterator[Make]:
    """Return a maker of organizations by the namespace, mount and version of each keystore; `NS` is one of their own."""
    names = []

    def make(*places: tuple[str, str, int], keys: int = 0) -> Housed:
        name = f"org-{secrets.token_hex(4)}"
        names.append(name)
        made = Housed(name, testbed, admin, escrow_client)
        for keystore, (namespace, mount, version) in zip(("first", "second"), places, strict=False):
            own = mount.replace("KV", f"kv-{name}")
            made.places[keystore] = Tenancy(name, own, default_role(name), namespace.replace("NS", f"ns-{name}"))
            made.versions[keystore] = version
        admin.put_organization(name)
        for keystore in made.places:
            made.admit(keystore)
            made.register(keystore)
        if keys:
            made.enrol(keys)
        return made

    yield make
    retire(testbed, names)


@pytest.mark.parametrize(
    ("namespace", "mount", "version"),
    [("", "team/KV", 1), ("", "a/b/KV", 2), ("NS", "archive-keys", 1), ("NS/child", "kv", 2), ("NS/child", "a/b.c", 1)],
)
def test_keys_are_enrolled_and_released_in_a_namespace_and_on_a_mount_with_slashes(housed, namespace, mount, version):
    acme = housed((namespace, mount, version))
    there = acme.tenancy("first")
    shown = acme.admin.keystore(acme.name, "first")
    assert (shown["namespace"], shown["mount"], shown["kv_version"]) == (there.namespace, there.mount, version)
    acme.enrol(5)
    acme.assert_complete("first")
    assert acme.admin.status(acme.name)["connection"]["status"] == "Online"
    # The same certificate, renewed: the usual edit.
    acme.admin.swap_keystore(acme.name, "first", acme.declaration("first"))
    acme.assert_complete("first")


def test_a_mount_of_the_same_name_in_the_root_namespace_stays_empty(housed):
    acme = housed(("NS", "archive-keys", 1))
    in_root = acme.testbed.admit("a", Tenancy(acme.name), 1)
    acme.enrol(5)
    acme.assert_complete("first")
    assert in_root.names() == []


@pytest.mark.parametrize("version", [1, 2])
def test_keys_migrate_into_a_namespace_and_back(housed, version):
    acme = housed(("", "archive-keys" if version == 1 else "KV", version), ("NS/child", "kv/keys", version), keys=20)
    assert acme.migrate("second")["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")
    assert acme.migrate("first")["ending"] == "Migration succeeded"
    acme.assert_complete("first", empty="second")
    assert acme.admin.clean_ups(acme.name) == []


def test_one_place_under_two_names_is_refused(housed):
    acme = housed(("NS", "kv", 1), keys=3)
    there = acme.tenancy("first")
    role = acme.role_in_root(there.path)
    for namespace, mount, used in (("", there.path, role), (there.namespace, "kv", there.role_name)):
        refusal = acme.refused("first", namespace=namespace, mount=mount, role=used)
        assert isinstance(refusal, Conflict)
        assert f"'first' is at this very place already: {there.path}/{acme.name}/ on cluster" in refusal.summary
    acme.assert_complete("first")


def test_a_keystore_may_be_spelled_anew_and_its_clean_up_still_finds_the_keys(housed):
    acme = housed(("NS", "kv", 1), ("", "archive-keys", 1), keys=5)
    there = acme.tenancy("first")
    with acme.tenant("first").may_not_delete():
        assert acme.migrate("second")["ending"] == "Migration succeeded"
        [pending] = acme.admin.clean_ups(acme.name)
        assert pending["place"].startswith(f"{there.path}/{acme.name}/ on cluster")
        role = acme.role_in_root(there.path)
        acme.admin.swap_keystore(
            acme.name, "first", acme.declaration("first", namespace="", mount=there.path, role=role)
        )
        acme.admin.request("POST", "organizations", acme.name, "clean-ups", str(pending["id"]), "retry")
    acme.assert_complete("second", empty="first")
    assert acme.admin.clean_ups(acme.name) == []


def test_another_namespace_is_another_place(housed):
    acme = housed(("NS", "kv", 1), keys=3)
    elsewhere = f"{acme.tenancy('first').namespace}-2"
    acme.testbed.admit("a", Tenancy(acme.name, "kv", namespace=elsewhere), 1)
    with pytest.raises(KeystoreError, match="lacks 3 of the 3 archive keys"):
        acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", namespace=elsewhere))
    assert acme.admin.put_keystore(acme.name, "another", acme.declaration("first", namespace=elsewhere))
    acme.assert_complete("first")


def test_what_leads_into_a_mount_or_nowhere_is_refused_and_letters_are_as_they_are(housed):
    acme = housed(("NS", "kv", 1))
    namespace = acme.tenancy("first").namespace
    assert "is a path in another mount" in acme.refused("first", mount=f"kv/{acme.name}").summary
    assert "does not exist" in acme.refused("first", mount="KV").summary
    for missing in (namespace.upper(), f"{namespace}/child"):
        refusal = acme.refused("first", namespace=missing)
        assert "refuses this client certificate" in refusal.summary
        assert f"the namespace '{missing}' exists and its auth/cert/certs has this role" in (refusal.hint or "")
    for changes, rule in (
        ({"namespace": "root"}, "KS044"),
        ({"namespace": f"{namespace}/"}, "KS044"),
        ({"namespace": f"/{namespace}"}, "KS044"),
        ({"mount": "kv/"}, "KS034"),
        ({"mount": f"//{namespace}/kv"}, "KS034"),
        ({"mount": "a/../kv"}, "KS034"),
        ({"mount": "sys/kv"}, "KS034"),
    ):
        assert f"[{rule}]" in str(acme.refused("first", **changes))


def test_the_command_shows_the_namespace(housed, testbed, admin_token):
    acme = housed(("NS", "kv", 1), ("", "archive-keys", 1))
    for keystore, shown in (("first", acme.tenancy("first").namespace), ("second", "root")):
        table = testbed.service.run("show", acme.name, keystore, token=admin_token).stdout
        assert f"namespace {shown}" in " ".join(table.split())
