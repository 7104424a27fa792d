"""Each program in stacks/ by the real engine on real servers: up, up again, refresh, destroy, and what it is for."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from keystore_harness import Testbed
from keystore_harness.engine import PulumiStack

from pulumi_keystore.client import Client
from tests.conftest import PASSWORD, ROOT, SETTINGS, Customer
from tests.policies.agreement import assert_agree
from tests.stacks.vault_provider import serving

TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Program:
    """A program of stacks/ for one customer, configured and not run yet."""

    stack: PulumiStack
    customer: Customer
    folder: Path
    policy_pack: Path

    def certificate(self, name: str, organization: str = "") -> str:
        """Issue a client certificate as a file; return its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self.customer.testbed.ca.issue(organization or self.customer.name).pkcs12(PASSWORD))
        return str(path)

    def keystore(self, letter: str, prefix: str = "") -> dict[str, str]:
        """The configuration of a keystore on a server."""
        certificate = self.certificate(f"{prefix or letter}.p12".replace("/", "-"))
        values = {
            "address": self.customer.testbed.vaults[letter].address,
            "certificate": certificate,
            "serverCa": str(self.folder / "ca.pem"),
        }
        return {f"{prefix}.{name}" if prefix else name: value for name, value in values.items()}

    def lifecycle(self, resources: int) -> None:
        """Make it, find that nothing changes, take it away."""
        assert f"{resources} created" in self.stack.up().stdout
        self.assert_judged_alike()
        for again in (self.stack.up(), self.stack.refresh()):
            assert f"{resources} unchanged" in again.stdout
            assert TRACEBACK not in again.stdout
        assert f"{resources} deleted" in self.stack.destroy().stdout
        assert PASSWORD not in json.dumps(self.stack.export())

    def assert_judged_alike(self) -> None:
        """The policy pack says the same of the program as `keystore check` says of what it has made."""
        printed = self.stack.run("up", "--yes", "--skip-preview", "--policy-pack", str(self.policy_pack)).stdout
        assert_agree(printed, json.dumps(self.stack.export()))


Make = Callable[..., Any]


@pytest.fixture
def program(customer: Callable[..., Customer], engine: Path, policy_pack: Path, tmp_path: Path) -> Make:
    """Make a program of a folder of stacks/, for a customer: a new one by default."""

    @contextmanager
    def make(
        name: str, acme: Customer | None = None, environment: Mapping[str, str] | None = None
    ) -> Iterator[Program]:
        acme = acme or customer(keystores=())
        service = acme.testbed.service
        known = {"KEYSTORE_URL": service.url, "KEYSTORE_TOKEN": service.make_token("ops", "provider-admin")}
        with PulumiStack(engine, ROOT / "stacks" / name, tmp_path / "state", {**known, **(environment or {})}) as stack:
            (tmp_path / "ca.pem").write_text(acme.testbed.ca.pem)
            yield Program(stack, acme, tmp_path, policy_pack)

    return make


def test_provider_to_self_administered_and_back(program):
    with program("provider-to-self-administered") as moving:
        acme = moving.customer
        acme.letters = {"provider": "a", "self-administered": "b"}
        acme.versions = dict.fromkeys(acme.letters, 1)
        moving.stack.configure(
            {
                "organization": acme.name,
                **moving.keystore("a", "provider"),
                **moving.keystore("b", "self-administered"),
                "administrators[0]": f"security@{acme.name}.example.com",
                "notifyEmail": f"ops@{acme.name}.example.com",
                "active": "provider",
            },
            {"provider.password": PASSWORD, "self-administered.password": PASSWORD},
        )
        moving.lifecycle(6)
        moving.stack.up()
        acme.enrol(20)
        for there, here in (("self-administered", "provider"), ("provider", "self-administered")):
            moving.stack.configure({"active": there})
            assert f"will migrate 20 keys from {here} (" in moving.stack.preview().stdout
            assert "Migration succeeded" in moving.stack.up().stdout
            acme.assert_complete(there, empty=here)
            assert "6 unchanged" in moving.stack.up().stdout


def test_legacy_to_provider(program):
    with program("legacy-to-provider") as moving:
        acme = moving.customer
        acme.letters, acme.versions = {"provider": "a"}, {"provider": 1}
        moving.stack.configure(
            {
                "organization": acme.name,
                **moving.keystore("a"),
                "notifyEmail": f"ops@{acme.name}.example.com",
                "move": "false",
            },
            {"password": PASSWORD},
        )
        moving.lifecycle(4)
        moving.stack.up()
        acme.enrol(20)
        assert acme.active == "legacy"
        assert acme.stored("provider") == {}
        moving.stack.configure({"move": "true"})
        assert "will migrate 20 keys from legacy" in moving.stack.preview().stdout
        assert "Migration succeeded" in moving.stack.up().stdout
        acme.assert_complete("provider")
        assert "5 unchanged" in moving.stack.refresh().stdout


def test_certificate_rotation(program):
    with program("certificate-rotation") as rotating:
        acme = rotating.customer
        settings = rotating.keystore("a")
        folder = str(Path(rotating.certificate("certificates/2026-11.p12")).parent)
        rotating.stack.configure(
            {
                "organization": acme.name,
                "address": settings["address"],
                "serverCa": settings["serverCa"],
                "certificates": folder,
            },
            {"password": PASSWORD},
        )
        rotating.lifecycle(3)
        rotating.stack.up()
        before = acme.admin.keystore(acme.name, "own")["certificate_fingerprint"]
        rotating.certificate("certificates/2027-10.p12")
        preview = rotating.stack.preview().stdout
        assert "~ certificate" in preview
        assert "1 to update" in preview
        rotating.stack.up()
        after = acme.admin.keystore(acme.name, "own")["certificate_fingerprint"]
        assert after != before
        assert rotating.stack.run("stack", "output", "fingerprint").stdout.strip() == after
        rotating.certificate("certificates/2028-09.p12", "stranger")
        refused = rotating.stack.up(check=False)
        assert refused.returncode != 0
        assert "refuses this client certificate for the role" in refused.stdout
        assert acme.admin.keystore(acme.name, "own")["certificate_fingerprint"] == after
        shutil.rmtree(folder)
        refused = rotating.stack.preview(check=False)
        assert "certificates: there is no file *.p12 in" in refused.stdout
        assert TRACEBACK not in refused.stdout


def test_many_organizations(program, testbed, admin):
    with program("many-organizations") as many:
        names = [f"{many.customer.name}-{n}" for n in range(3)]
        lines = ["organization,address,certificate,administrators"]
        for name in names:
            testbed.admit("a", name)
            many.certificate(f"{name}.p12", name)
            lines.append(
                f"{name},{testbed.vaults['a'].address},{name}.p12,ops@{name}.example.com it@{name}.example.com"
            )
        table = many.folder / "organizations.csv"
        table.write_text("\n".join(lines))
        many.stack.configure(
            {"table": str(table), "serverCa": str(many.folder / "ca.pem")},
            {f"passwords.{name}": PASSWORD for name in names},
        )
        many.lifecycle(10)
        many.stack.up()
        table.write_text("\n".join(lines[:-1]))
        preview = many.stack.preview().stdout
        assert "3 to delete" in preview
        assert "3 deleted" in many.stack.up().stdout
        assert [found["name"] for found in admin.organizations() if found["name"] in names] == names[:2]
        assert len(admin.monitor(names[0], "own")["recipients"]) == 2
        table.write_text("organization,url\n")
        refused = many.stack.preview(check=False)
        assert "the first line lacks address, certificate, administrators" in refused.stdout
        assert TRACEBACK not in refused.stdout


def test_automation_moves_the_keys_or_says_why_not(program):
    with program("self-administered") as moving:
        acme, stack = moving.customer, moving.stack
        stack.configure(
            {
                "organization": acme.name,
                "active": "first",
                **moving.keystore("a", "keystores.first"),
                **moving.keystore("b", "keystores.second"),
            },
            {"keystores.first.password": PASSWORD, "keystores.second.password": PASSWORD},
        )
        stack.up()
        acme.enrol(20)

        def move(*arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
            command = [sys.executable, ROOT / "stacks" / "automation" / "move.py", stack.name, *arguments]
            return subprocess.run(
                command, env=stack.environment, input=answer, capture_output=True, text=True, timeout=120, check=False
            )

        told = move("second", answer="no\n")
        assert told.returncode == 1
        assert "will migrate 20 keys from first (" in told.stdout
        acme.assert_complete("first")
        refused = move("third", "--yes")
        assert refused.returncode == 1
        assert refused.stderr == "error: active: there is no keystore 'third'; choose one of first, second\n"
        moved = move("second", "--yes")
        assert moved.returncode == 0, moved.stderr
        assert moved.stdout.splitlines()[-1] == "20 archive keys are now in second"
        acme.assert_complete("second", empty="first")
        assert move().returncode == 2


@pytest.fixture
def unprepared() -> Iterator[Customer]:
    """A customer, and a server on which nothing was prepared."""
    with Testbed("a", SETTINGS) as testbed, ExitStack() as clients:
        root, service = testbed.vaults["a"].client(), testbed.service
        root.sys.disable_auth_method("cert")
        root.sys.disable_audit_device("file")
        admin, escrow_client = (
            clients.enter_context(Client(service.url, service.make_token(role, role)))
            for role in ("provider-admin", "authority")
        )
        yield Customer("acme", testbed, admin, escrow_client, letters={"vault": "a"}, versions={"vault": 1})


def test_vault_tenancy_in_a_namespace(program, unprepared):
    acme, server = unprepared, unprepared.testbed.servers["a"]
    server.enable_namespace("team/child")
    with serving(server.client) as environment, program("vault-tenancy", acme, environment) as inside:
        inside.certificate("certificates/acme.p12", "acme")
        inside.stack.configure(
            {
                "organizations[0]": "acme",
                "clientCa": str(inside.folder / "ca.pem"),
                "serverCa": str(inside.folder / "ca.pem"),
                "certificates": str(inside.folder / "certificates"),
                "address": server.address,
                "namespace": "team/child",
                "mount": "kv/archive-keys",
                "retainMount": "false",
            },
            {"passwords.acme": PASSWORD},
        )
        # The keystore is proved with the policy of the tenancy: that is all that it takes.
        inside.lifecycle(8)
    assert "kv/archive-keys/" not in server.client(namespace="team/child").sys.list_mounted_secrets_engines()["data"]


def test_vault_tenancy_by_a_stand_in_for_the_plugin_of_pulumi_vault(program, unprepared):
    acme, server = unprepared, unprepared.testbed.servers["a"]
    with serving(server.client) as environment, program("vault-tenancy", acme, environment) as both:
        names = ["acme", "globex"]
        for name in names:
            both.certificate(f"certificates/{name}.p12", name)
        both.stack.configure(
            {
                **{f"organizations[{number}]": name for number, name in enumerate(names)},
                "clientCa": str(both.folder / "ca.pem"),
                "serverCa": str(both.folder / "ca.pem"),
                "certificates": str(both.folder / "certificates"),
                "auditFile": str(server.audit_log),
                "address": server.address,
            },
            {f"passwords.{name}": PASSWORD for name in names},
        )
        both.stack.configure({"retainMount": "false"})
        both.lifecycle(14)
        assert "archive-keys/" not in server.client().sys.list_mounted_secrets_engines()["data"]
        both.stack.configure({"retainMount": "true"})
        both.stack.up()
        acme.enrol(5)
        acme.assert_complete("vault")
        # Destroying is refused by the keystore that holds keys, before anything of its server is touched.
        refused = both.stack.destroy(check=False)
        assert refused.returncode != 0
        assert "is active and holds 5 archive keys" in refused.stdout
        acme.assert_complete("vault")
