"""The policy pack by the real engine: in preview and in up."""

import json
import os
import re
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from keystore_harness import CertificateAuthority
from keystore_harness.engine import PulumiStack
from typer.testing import CliRunner

from pulumi_keystore import cli
from tests.conftest import ROOT
from tests.integration.conftest import declaring
from tests.integration.test_pulumi import team
from tests.integration.test_rules import WARNED, keystore, migration, monitor
from tests.policies.agreement import assert_agree

__all__ = ["declaring", "team"]


@pytest.fixture
def mistakes(engine, tmp_path):
    """The program that makes every mistake; what it asks the service for is never reached."""
    ca = CertificateAuthority()
    (tmp_path / "good.p12").write_bytes(ca.issue("acme").pkcs12("pw"))
    soon = datetime.now(UTC) + timedelta(days=7)
    (tmp_path / "soon.p12").write_bytes(ca.issue("acme", not_after=soon).pkcs12("pw"))
    environment = {"KEYSTORE_URL": "http://127.0.0.1:9", "KEYSTORE_TOKEN": "none"}
    with PulumiStack(engine, ROOT / "tests/policies/program", tmp_path / "state", environment) as stack:
        stack.configure({"folder": str(tmp_path)})
        yield stack


ALL = {f"KS{number}" for number in (100, 101, 102, 103, 104, 105, 106, 107, 108, 110, 111)}


def test_every_policy_speaks_in_preview_and_in_up_and_the_update_does_not_begin(mistakes, policy_pack):
    for command in (["preview"], ["up", "--yes"]):
        done = mistakes.run(*command, "--policy-pack", str(policy_pack), check=False)
        assert done.returncode != 0
        assert set(re.findall(r"\[(KS\d+)\]", done.stdout)) >= ALL, done.stdout
        assert "Traceback" not in done.stdout
        assert "mandatory" in done.stdout
        # A migration to legacy is refused by whatever class, or with none at all, it is declared.
        refused = "".join(re.findall(r"\[KS106\].*\n(?:    .*\n)*", done.stdout))
        assert all(name in refused for name in ("one", "derived", "bare")), done.stdout
        assert re.search(r"remediate.*no-secrets-in-clear", done.stdout)  # KS109 makes a secret of it
        assert "CANARY" not in done.stdout
    assert json.loads(mistakes.run("stack", "export").stdout)["deployment"].get("resources", [])[1:] == []


def test_the_pack_and_the_command_find_the_same_mistakes(mistakes, policy_pack):
    printed = mistakes.run("preview", "--policy-pack", str(policy_pack), check=False).stdout
    assert_agree(printed, mistakes.run("preview", "--json").stdout)


def named(name, declared, **options):
    kind, _, inputs, _ = declared
    return kind, name, inputs, options


DECLARED = {
    "nothing": [],
    "warned": [one for one, _ in WARNED],
    "sound": [
        ("Organization", "acme", {}, {}),
        named("ours", keystore(), protect=True),
        monitor(recipients=["a@example.com"]),
    ],
    "two": [
        named("b", keystore()),
        named("a", keystore()),
        named("to-a", migration(destination="a")),
        named("to-c", migration(destination="c", notify_email="ops@example.com")),
        monitor(keystore="d", webhook="https://hooks.example.com/CANARY", repeat_hours=48),
    ],
    "federal": [
        ("Organization", "acme", {"environment": "federal"}, {}),
        ("Keystore", "ours", {"organization": "acme", "kind": "legacy"}, {}),
        migration(),
    ],
}


@pytest.mark.parametrize("program", DECLARED.values(), ids=DECLARED)
def test_the_pack_and_the_command_agree_on_what_is_declared(declaring, policy_pack, program):
    """Programs that break a rule are refused by the provider before the pack sees them: tests/integration/test_rules."""
    with declaring("http://127.0.0.1:9", "none") as made:
        made.declare(*program)
        printed = made.stack.run("preview", "--policy-pack", str(policy_pack), check=False).stdout
        assert "Traceback" not in printed
        assert_agree(printed, made.stack.run("preview", "--json").stdout)


def test_the_command_says_where_in_the_program_it_is_written(mistakes, tmp_path):
    preview = tmp_path / "preview.json"
    preview.write_text(mistakes.run("preview", "--json").stdout)
    done = CliRunner().invoke(cli.app, ["check", str(preview), "--format", "json"])
    rows = json.loads(done.stdout)
    assert {row["id"] for row in rows} >= ALL - {"KS101"}  # whose certificate is secret in a preview
    program = (ROOT / "tests/policies/program/__main__.py").read_text().splitlines()
    made = {"organization": "Organization(", "keystore": "Keystore(", "migration": "Migration(", "monitor": "Monitor("}
    for row in rows:
        kind, name = row["resource"].split(" ", 1)
        assert row["file"] == "__main__.py"
        written = " ".join(program[row["line"] - 1 :][:2])
        assert re.search(re.escape(made[kind]) + r"|super\(\).__init__|Theirs\(|Bare\(", written), row
        assert name in written or "name" in written, row


def test_levels_and_limits_are_chosen_and_weak_timings_mended(mistakes, policy_pack, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "all": "advisory",
                "keystore-is-monitored": "mandatory",
                "keystore-certificate-expires-soon": {"enforcementLevel": "advisory", "certificate_days": 1},
                "monitor-alerts-in-time": "remediate",
            }
        )
    )
    done = mistakes.run("preview", "--policy-pack", str(policy_pack), "--policy-pack-config", str(config), check=False)
    told = set(re.findall(r"\[(KS\d+)\]", done.stdout))
    assert "KS102" in told
    assert not {"KS101", "KS104"} & told, done.stdout
    assert "remediate" in done.stdout
    assert done.returncode != 0


def test_what_is_only_advised_does_not_hold_up_an_update(team, policy_pack):
    done = team.stack.run("up", "--yes", "--policy-pack", str(policy_pack))
    assert "5 created" in done.stdout
    assert {"KS102", "KS108"} <= set(re.findall(r"\[(KS\d+)\]", done.stdout))
    assert "advisory" in done.stdout
    # It would find nothing if it fired for every program.
    assert "no-secrets-in-clear" not in done.stdout


@pytest.mark.timeout(600)
def test_the_wheel_makes_a_pack_elsewhere(mistakes, tmp_path):
    """As policies/README.md says it: the wheel in an environment of its own, and two files."""
    uv, folder = os.environ.get("UV", "uv"), tmp_path / "pack"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    wheels = tmp_path / "wheels"
    for command in (
        [uv, "build", "--quiet", "--system-certs", "--wheel", "--out-dir", str(wheels), str(ROOT)],
        [uv, "build", "--quiet", "--system-certs", "--wheel", "--out-dir", str(wheels), str(ROOT / "policies")],
        [uv, "venv", "--quiet", str(folder / ".venv")],
        [uv, "pip", "install", "--quiet", "--system-certs", "--python", str(folder / ".venv/bin/python"),
         "--find-links", str(wheels), "keystore-policies"],
    ):  # fmt: skip
        subprocess.run(command, check=True, timeout=300, env=clean)
    readme = (ROOT / "policies/README.md").read_text()
    (folder / "__main__.py").write_text(re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1])
    (folder / "PulumiPolicy.yaml").write_text((ROOT / "policies/PulumiPolicy.yaml").read_text())
    version = tomllib.loads((ROOT / "policies/pyproject.toml").read_text())["project"]["version"]
    [wheel] = wheels.glob("keystore_policies-*.whl")
    assert wheel.name.startswith(f"keystore_policies-{version}-")
    assert f"\nversion: {version}\n" in (folder / "PulumiPolicy.yaml").read_text()
    done = mistakes.run("preview", "--policy-pack", str(folder), check=False)
    assert set(re.findall(r"\[(KS\d+)\]", done.stdout)) >= ALL, done.stdout
