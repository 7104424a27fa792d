"""The real engine on the program in stacks/self-administered: preview, up, refresh, destroy."""

import os
import re
import signal
import subprocess
from base64 import b64encode
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from keystore_harness import wait_until
from keystore_harness.engine import PulumiStack, errors

from pulumi_keystore.client import Client
from tests.conftest import PASSWORD, ROOT, WHOLE, Customer


def assert_as_documented(output: str, words: str) -> None:
    """The lines of docs/getting-started.md with some words are in the output, but for names, numbers and dates."""
    page = (ROOT / "docs" / "getting-started.md").read_text()
    lines = [line for line in page.splitlines() if words in line and re.match("(keystore: |will )", line)]
    assert lines
    for line in lines:
        pattern = re.escape(line)
        for example in (
            r"https://[\w.\\]+:\d+",
            r"\d{4}\\-\d\d\\-\d\d",
            r"\b[\d,]+\b",
            r"\bacme/ours\b",
            r"\b(ours|other)\b",
        ):
            pattern = re.sub(example, r"\\S+", pattern)
        assert re.search(pattern, output), (pattern, output)


TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Team:
    """An infrastructure team with its stack."""

    customer: Customer
    stack: PulumiStack
    folder: Path

    def certificate(self, keystore: str, common_name: str | None = None, password: str = PASSWORD) -> None:
        """Put a newly issued PKCS#12 file where the stack's configuration names it."""
        issued = self.customer.testbed.ca.issue(common_name or self.customer.name)
        (self.folder / f"{keystore}.p12").write_bytes(issued.pkcs12(password))


@pytest.fixture
def team(customer: Callable[..., Customer], engine: Path, admin_token: str, tmp_path: Path):
    """A stack with everything configured and nothing declared yet."""
    acme = customer(keystores=())
    testbed = acme.testbed
    environment = {"KEYSTORE_URL": testbed.service.url, "KEYSTORE_TOKEN": admin_token}
    with PulumiStack(engine, ROOT, tmp_path / "state", environment) as stack:
        made = Team(acme, stack, tmp_path)
        (tmp_path / "ca.pem").write_text(testbed.ca.pem)
        values = {"organization": acme.name, "active": "first", "notifyEmail": f"ops@{acme.name}.example.com"}
        for keystore, letter in acme.letters.items():
            made.certificate(keystore)
            values[f"keystores.{keystore}.address"] = testbed.vaults[letter].address
            values[f"keystores.{keystore}.certificate"] = str(tmp_path / f"{keystore}.p12")
            values[f"keystores.{keystore}.serverCa"] = str(tmp_path / "ca.pem")
        stack.configure(values, {f"keystores.{keystore}.password": PASSWORD for keystore in acme.letters})
        yield made


def test_declare_then_nothing_to_do(team):
    assert "5 created" in team.stack.up().stdout
    team.customer.enrol(5)
    assert "5 unchanged" in team.stack.up().stdout
    assert "5 unchanged" in team.stack.preview().stdout
    assert "5 unchanged" in team.stack.refresh().stdout
    assert "5 unchanged" in team.stack.preview().stdout
    slash = team.customer.testbed.vaults["a"].address.replace("vault", "VAULT") + "/"
    team.stack.configure({"keystores.first.address": slash})
    assert "5 unchanged" in team.stack.preview().stdout
    team.customer.assert_complete("first")


def test_the_service_may_be_named_in_the_stack_configuration(team):
    environment = team.stack.environment
    url, token = environment.pop("KEYSTORE_URL"), environment.pop("KEYSTORE_TOKEN")
    team.stack.configure({"keystore:serviceUrl": url}, {"keystore:token": token})
    assert "5 created" in team.stack.up().stdout
    team.customer.enrol(3)
    team.stack.configure({"active": "second"})
    preview = team.stack.preview().stdout
    assert "will migrate 3 keys" in preview
    assert "warning" not in preview
    assert token not in preview
    assert team.stack.up().returncode == 0
    team.customer.assert_complete("second", empty="first")


def test_a_new_certificate_is_one_update_in_place(team):
    team.stack.up()
    team.customer.enrol(5)
    before = team.customer.admin.keystore(team.customer.name, "first")
    team.certificate("first")
    preview = team.stack.preview().stdout
    assert "~ certificate" in preview
    assert "1 to update" in preview
    assert "/first: updates in place, no keys move: client certificate expiring 20" in preview
    assert before["certificate_fingerprint"] not in preview
    assert_as_documented(preview, "acme/ours: ")
    assert "1 updated" in team.stack.up().stdout
    after = team.customer.admin.keystore(team.customer.name, "first")
    assert after["certificate_fingerprint"] != before["certificate_fingerprint"]
    team.customer.assert_complete("first")


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("{}/v1", "KS003"),
        ("https://127.0.0.1:8200", "KS004"),
        ("https://2130706433:8200", "KS004"),
        ("https://vault.example.com", "KS002"),
    ],
)
def test_a_bad_address_is_refused_in_preview_in_one_line(team, address, rule):
    team.stack.up()
    team.customer.enrol(3)
    team.stack.configure({"keystores.first.address": address.format(team.customer.testbed.vaults["a"].address)})
    for command in (team.stack.preview, team.stack.up) if WHOLE or rule == "KS003" else (team.stack.preview,):
        refused = command(check=False)
        assert refused.returncode != 0
        assert TRACEBACK not in refused.stdout
        errors = [line for line in refused.stdout.splitlines() if rule in line]
        assert errors
        assert all("property address" in line and "expected" in line for line in errors)
    team.customer.assert_complete("first")


def test_a_missing_file_setting_or_keystore_is_one_line(team):
    for changes, message in (
        ({"keystores.first.certificate": "/nonexistent.p12"}, "certificate: /nonexistent.p12 cannot be read"),
        ({"keystores.first.serverCa": "/nonexistent.pem"}, "server_ca: /nonexistent.pem cannot be read"),
        ({"active": "third"}, "active: there is no keystore 'third'; choose one of first, second"),
    ):
        before = team.stack.settings.read_text()
        team.stack.configure(changes)
        failed = team.stack.preview(check=False)
        assert failed.returncode != 0
        assert message in failed.stdout
        assert TRACEBACK not in failed.stdout
        assert len(errors(failed.stdout)) == 1
        team.stack.settings.write_text(before)


def test_a_bad_certificate_or_password_is_refused_in_preview_without_being_shown(team):
    team.stack.up()
    team.stack.configure({}, {"keystores.first.password": "CANARY-wrong"})
    refused = team.stack.preview(check=False)
    assert refused.returncode != 0
    assert "KS011" in refused.stdout
    assert "CANARY" not in refused.stdout
    (team.folder / "first.p12").write_bytes(b"CANARY not a PKCS#12 file")
    refused = team.stack.preview(check=False)
    assert "KS010" in refused.stdout
    assert "CANARY" not in refused.stdout
    assert b64encode(b"CANARY not a").decode()[:12] not in refused.stdout


def test_a_certificate_that_may_not_log_in_fails_the_update_and_the_old_pair_stays(team):
    team.stack.up()
    team.customer.enrol(5)
    before = team.customer.admin.keystore(team.customer.name, "first")
    team.certificate("first", "stranger")
    failed = team.stack.up(check=False)
    assert failed.returncode != 0
    assert TRACEBACK not in failed.stdout
    assert "refuses this client certificate for the role" in failed.stdout
    assert team.customer.admin.keystore(team.customer.name, "first") == before
    team.customer.assert_complete("first")


def test_a_changed_destination_migrates_and_tells_so_in_preview(team):
    team.stack.up()
    team.customer.enrol(200)
    team.stack.configure({"active": "second"})
    preview = team.stack.preview().stdout
    assert "will migrate 200 keys from first (https://vault-a." in preview
    assert '~ destination: "first" => "second"' in preview
    assert_as_documented(preview, "will migrate")
    assert team.customer.active == "first"
    up = team.stack.up().stdout
    assert "migrating 200 keys from first" in up
    assert "Migration succeeded" in up
    team.customer.assert_complete("second", empty="first")
    assert "5 unchanged" in team.stack.up().stdout
    assert "5 unchanged" in team.stack.refresh().stdout


def test_a_failed_migration_fails_the_update_and_the_next_one_succeeds(team):
    team.stack.up()
    team.customer.enrol(500)
    team.stack.configure({"active": "second"})
    with subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--color", "never"],
        cwd=team.stack.project, env=team.stack.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as up:  # fmt: skip
        path = ("organizations", team.customer.name, "migrations")

        def moving():
            rows = team.customer.admin.request("GET", *path)
            return rows and rows[0]["done"] > 50

        wait_until(moving, "keys to move")
        with team.customer.testbed.vaults["b"].sealed_for_a_while():
            output = up.communicate(timeout=120)[0]
    assert up.returncode != 0
    assert TRACEBACK not in output
    assert "Migration failed: destination not reachable" in output
    assert "all keys are still in first" in output
    assert team.customer.active == "first"
    assert team.stack.up().returncode == 0
    team.customer.assert_complete("second", empty="first")


@contextmanager
def updating(team):
    """An update that migrates, in the moment in which keys begin to move."""
    team.stack.up()
    team.customer.enrol(500)
    team.stack.configure({"active": "second"})
    with subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--color", "never"],
        cwd=team.stack.project, env=team.stack.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, text=True,
    ) as up:  # fmt: skip
        wait_until(lambda: team.customer.admin.organization(team.customer.name)["maintenance"], "the migration")
        yield up


def assert_moved_once(team):
    wait_until(lambda: not team.customer.stored("first"), "the source to be empty")
    team.customer.assert_complete("second", empty="first")
    assert len(team.customer.admin.request("GET", "organizations", team.customer.name, "migrations")) == 1
    assert "5 unchanged" in team.stack.preview().stdout


def test_an_update_that_is_killed_leaves_the_migration_running_and_the_next_one_attaches(team):
    with updating(team) as up:
        for process in [psutil.Process(up.pid), *psutil.Process(up.pid).children(recursive=True)]:
            process.kill()
    team.stack.run("cancel", "--yes", check=False)
    assert "1 updated" in team.stack.up().stdout
    assert_moved_once(team)


def test_ctrl_c_leaves_the_migration_running_and_the_next_update_knows_of_it(team):
    with updating(team) as up:
        os.killpg(up.pid, signal.SIGINT)
        output = up.communicate(timeout=60)[0]
    assert TRACEBACK not in output
    team.stack.run("cancel", "--yes", check=False)
    team.stack.up()
    assert_moved_once(team)


def test_drift_is_shown_by_refresh_and_mended_by_up(team):
    team.stack.up()
    acme = team.customer
    acme.enrol(3)
    server = acme.testbed.vaults["a"]
    acme.admin.swap_keystore(
        acme.name, "first", acme.declaration("first", address=f"https://{server.alias}:{server.port}")
    )
    refreshed = team.stack.refresh().stdout
    assert f'"{server.address}" => "https://{server.alias}:{server.port}"' in refreshed
    assert "~ certificate" in refreshed
    mended = team.stack.up().stdout
    assert "1 updated" in mended
    words = f"/first: updates in place, no keys move: address https://{server.alias}:{server.port} → {server.address}; "
    assert words in mended
    assert acme.admin.keystore(acme.name, "first")["address"] == server.address
    acme.migrate("second")
    assert '~ destination: "first" => "second"' in team.stack.refresh().stdout
    assert "Migration succeeded" in team.stack.up().stdout
    acme.assert_complete("first", empty="second")


def test_health_monitors_are_declared_drift_and_are_mended(team):
    acme, stack = team.customer, team.stack
    hook = "https://hooks.example.com/CANARY-hook"
    stack.configure({"administrators": '["a@example.com"]'}, {"webhook": hook})
    stack.run("config", "set", "--path", "administrators[0]", "nobody")
    refused = stack.run("preview", check=False)
    assert refused.returncode != 0
    assert "is not an e-mail address [KS033]" in refused.stdout
    stack.run("config", "set", "--path", "administrators[0]", "a@example.com")
    assert "7 created" in stack.up().stdout
    assert acme.admin.monitor(acme.name, "first")["recipients"] == ["a@example.com"]
    for shown in (stack.preview().stdout, stack.refresh().stdout):
        assert "7 unchanged" in shown
    assert "CANARY-hook" not in stack.run("stack", "export").stdout
    acme.admin.put_monitor(acme.name, "first", {"recipients": ["b@example.com"], "repeat_hours": 1})
    drift = stack.refresh().stdout
    assert '"a@example.com" => "b@example.com"' in drift
    assert "~ repeat_hours" in drift
    assert "~ webhook" in drift or "- webhook" in drift
    assert "1 updated" in stack.up().stdout
    mended = acme.admin.monitor(acme.name, "first")
    assert (mended["recipients"], mended["webhook_host"]) == (["a@example.com"], "hooks.example.com")
    assert "7 deleted" in stack.destroy().stdout


def test_what_the_console_changes_is_drift(team, testbed, admin_token):
    acme = team.customer
    team.stack.up()
    with httpx.Client(base_url=testbed.service.url, timeout=60) as browser:
        browser.post("/console/sign-in", data={"token": admin_token})
        form = browser.get(f"/console/organizations/{acme.name}/keystores/first/edit").text
        token = re.search(r'name="form_token" value="([0-9a-f]+)"', form)[1]
        upload = testbed.ca.issue(acme.name).pkcs12(PASSWORD)
        sent = browser.post(
            f"/console/organizations/{acme.name}/keystores/first/edit",
            data={
                "form_token": token,
                "address": testbed.vaults["a"].address,
                "server_ca": testbed.ca.pem,
                "certificate_password": PASSWORD,
            },
            files={"certificate": ("acme.p12", upload)},
        )
        assert sent.status_code == 200
        draft = re.search(r'name="draft" value="([^"]+)"', sent.text)[1]
        path = f"/console/organizations/{acme.name}/keystores/first/edit/save"
        assert browser.post(path, data={"form_token": token, "draft": draft}).status_code == 303
    assert "~ certificate" in team.stack.refresh().stdout
    assert "1 updated" in team.stack.up().stdout


def test_destroy_is_refused_while_keys_are_held_and_works_without(team):
    team.stack.configure({"administrators": '["ops@example.com"]'}, {})
    team.stack.up()
    assert "7 deleted" in team.stack.destroy().stdout
    team.stack.up()
    team.customer.enrol(4)
    refused = team.stack.destroy(check=False)
    assert refused.returncode != 0
    assert "is active and holds 4 archive keys" in refused.stdout
    assert "migrate them to another keystore first" in refused.stdout
    assert "`pulumi up` declares them again" in " ".join(refused.stdout.split())
    # The keystore is in use and watched, and whoever is alerted of it still is.
    assert team.customer.admin.monitor(team.customer.name, "first")["recipients"] == ["ops@example.com"]
    team.stack.up()
    assert "7 unchanged" in team.stack.preview().stdout
    team.customer.assert_complete("first")


def test_service_down_wrong_token_and_wrong_role_are_one_line_each(team, testbed):
    stack, acme = team.stack, team.customer
    stack.up()
    acme.enrol(3)
    team.certificate("first")
    before = acme.admin.keystore(acme.name, "first")
    good = dict(stack.environment)
    viewer = testbed.service.make_token("viewer", "viewer")
    for changes, message in (
        ({"KEYSTORE_URL": "http://127.0.0.1:9"}, "does not answer"),
        ({"KEYSTORE_TOKEN": "ks_0123456789abcdef_CANARY"}, "the API token is missing or not valid"),
        ({"KEYSTORE_TOKEN": viewer}, "the role viewer may not change keystores"),
    ):
        stack.environment.update(changes)
        failed = stack.run("up", "--yes", "--skip-preview", check=False)
        assert failed.returncode != 0
        assert message in failed.stdout
        assert TRACEBACK not in failed.stdout
        assert "CANARY" not in failed.stdout
        stack.environment.update(good)
    assert acme.admin.keystore(acme.name, "first") == before


def test_a_token_of_one_organization_sees_no_other(customer, testbed):
    acme, other = customer(keys=1), customer(keys=1)
    with Client(testbed.service.url, testbed.service.make_token("ops", "customer-cloud-admin", acme.name)) as client:
        assert client.organization(acme.name)["archive_keys"] == 1
        assert [row["name"] for row in client.request("GET", "organizations")] == [acme.name]
        for path in ((), ("keystores",), ("history",), ("migrations",)):
            with pytest.raises(Exception, match="there is no"):
                client.request("GET", "organizations", other.name, *path)
