"""The policies, each by a table of what it finds and what it lets pass; and where declarations are read from."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keystore_harness import CertificateAuthority
from pulumi.dynamic.dynamic import serialize_provider
from typer.testing import CliRunner

from pulumi_keystore import cli, rules
from pulumi_keystore.errors import InvalidInput
from pulumi_keystore.policy.declared import Declared, Position, of_inputs, parse, read
from pulumi_keystore.policy.policies import POLICIES, Settings, check
from pulumi_keystore.resources.health_monitor import HealthMonitorProvider
from pulumi_keystore.resources.keystore import KeystoreResourceProvider
from pulumi_keystore.resources.keystore_migration import KeystoreMigrationProvider
from pulumi_keystore.resources.organization import OrganizationProvider

CA = CertificateAuthority()
_SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x"}


def pfx(days=365):
    from base64 import b64encode  # noqa: PLC0415 - only here

    return b64encode(CA.issue("acme", not_after=datetime.now(UTC) + timedelta(days=days)).pkcs12("pw")).decode()


GOOD = pfx()


def keystore(name="first", **changes):
    props = {
        "organization": "acme",
        "name": name,
        "kind": "self-administered",
        "address": f"https://{name}.example.com:8200",
        "certificate": GOOD,
        "certificate_password": "pw",
        "server_ca": None,
    }
    protected = changes.pop("protected", True)
    props = {key: value for key, value in {**props, **changes}.items() if value is not None}
    return Declared("keystore", name, props, protected=protected)


def monitor(keystore_="first", **changes):
    props = {"organization": "acme", "keystore": keystore_, "recipients": ["a@example.com"], **changes}
    return Declared("monitor", f"watch {keystore_}", props)


def migration(name="active", **changes):
    props = {"organization": "acme", "destination": "first", "notify_email": "ops@example.com", **changes}
    return Declared("migration", name, {key: value for key, value in props.items() if value is not None})


def organization(environment="cloud"):
    return Declared("organization", "acme", {"name": "acme", "environment": environment})


WELL = [organization(), keystore(), keystore("second"), monitor(), monitor("second"), migration()]


def test_what_is_well_is_well():
    assert check(WELL) == []


@pytest.mark.parametrize(
    ("declared", "policy", "level"),
    [
        ([keystore(address="https://10.0.0.1:8200"), monitor()], "KS004", "error"),
        ([keystore(address="https://0x7f.1:8200"), monitor()], "KS004", "error"),
        ([keystore(address="https://vault.internal:8200"), monitor()], "KS005", "error"),
        ([keystore(address="https://first.example.com:8200/v1"), monitor()], "KS003", "error"),
        ([keystore(certificate_password="wrong"), monitor()], "KS011", "error"),
        ([keystore(kind="other")], "KS030", "error"),
        ([keystore(kind="legacy")], "KS042", "error"),
        ([keystore(organization="No Such"), monitor(organization="No Such")], "KS031", "error"),
        ([keystore(), monitor(recipients=[])], "KS039", "error"),
        ([keystore(), monitor(offline_minutes=0)], "KS040", "error"),
        ([keystore(), monitor(offline_minutes="x")], "KS040", "error"),
        ([keystore(), monitor(webhook="https://127.0.0.1/")], "KS041", "error"),
        ([keystore(), monitor(webhook="https://hooks.example.com/x", webhook_format="teams")], "KS046", "error"),
        ([keystore(), monitor(), migration(mode="later")], "KS038", "error"),
        ([keystore(certificate=pfx(7)), monitor()], "KS101", "warning"),
        ([keystore()], "KS102", "warning"),
        ([keystore(), monitor("second")], "KS102", "warning"),
        ([keystore(), monitor(recipients=[], webhook="https://hooks.example.com/x")], "KS103", "warning"),
        ([keystore(), monitor(offline_minutes=10)], "KS104", "warning"),
        ([keystore(), monitor(repeat_hours=48)], "KS104", "warning"),
        ([keystore(), monitor(), migration(notify_email=None)], "KS105", "warning"),
        ([Declared("keystore", "first", {"organization": "acme", "kind": "legacy"}), migration()], "KS106", "error"),
        ([organization("federal"), keystore(), monitor()], "KS107", "error"),
        ([keystore(protected=False), monitor()], "KS108", "warning"),
        ([of_inputs("monitor", "m", {**monitor().props, "webhook": "https://h.example.com/"}, protected=None)],
         "KS109", "error"),
        ([keystore(), monitor(), migration("one"), migration("two")], "KS110", "error"),
        ([keystore(), keystore("second", address="https://FIRST.example.com:8200/"), monitor(), monitor("second")],
         "KS111", "error"),
        ([keystore(address="https://faß.de:8200"), keystore("second", address="https://xn--fa-hia.de:8200")],
         "KS111", "error"),
        ([keystore(), monitor(), monitor("frist")], "KS112", "warning"),
        ([keystore(), monitor(), migration(destination="frist")], "KS112", "warning"),
        (parse("keystores: [{organization: acme, name: first, kind: legacy, adress: x}]", Path(), "x"), "KS043", "error"),
        (parse("keystores: [{organization: acme, name: first, kind: legacy}]", Path(), "x"), "KS108", "warning"),
    ],
)  # fmt: skip
def test_what_each_policy_finds(declared, policy, level):
    found = {finding.rule.id: finding for finding in check(declared)}
    assert policy in found
    assert found[policy].rule.severity == level
    assert found[policy].remedy


OURS = {
    "organization": {"name": "acme", "environment": "federal"},
    "keystore": {"organization": "acme", "name": "old", "kind": "legacy"},
    "migration": {"organization": "acme", "destination": "old", "notify_email": "ops@example.com"},
    "monitor": {"organization": "acme", "keystore": "old", "recipients": ["ops@example.com"]},
}


def state(kind, token, **inputs):
    return {"type": token, "urn": f"urn:pulumi:a::b::{token}::{kind}", "inputs": {**OURS[kind], **inputs}}


@pytest.mark.parametrize("token", ["pulumi-python:dynamic:Resource", "pulumi-python:dynamic/theirs:Thing"])
def test_what_has_one_of_our_providers_is_judged_as_ours_whatever_its_type(token):
    providers = {
        "organization": OrganizationProvider(), "keystore": KeystoreResourceProvider(),
        "migration": KeystoreMigrationProvider(), "monitor": HealthMonitorProvider(),
    }  # fmt: skip
    states = [state(kind, token, __provider=serialize_provider(provider)) for kind, provider in providers.items()]
    declared = parse(json.dumps({"deployment": {"resources": states}}), Path(), "state")
    assert [one.kind for one in declared] == list(providers)
    assert {"KS106", "KS107"} <= {finding.rule.id for finding in check(declared)}


def test_what_derives_from_our_class_is_judged_as_ours():
    class Theirs(KeystoreMigrationProvider):
        """Pickled by its value, as it is in no module that could be imported."""

    Theirs.__module__ = "__main__"
    one = state("migration", "pulumi-python:dynamic/theirs:Move", __provider=serialize_provider(Theirs()))
    assert [declared.kind for declared in parse(json.dumps({"deployment": {"resources": [one]}}), Path(), "x")] == [
        "migration"
    ]


@pytest.mark.parametrize("kind", ["keystore", "migration", "monitor"])
@pytest.mark.parametrize("provider", [_SECRET, "A" * 2**20 + "AAAA", "x", None], ids=["hidden", "long", "torn", "none"])
def test_what_looks_like_ours_is_judged_as_ours_where_its_provider_cannot_be_read(kind, provider):
    one = state(kind, "pulumi-python:dynamic/theirs:Thing", __provider=provider)
    assert [declared.kind for declared in parse(json.dumps({"deployment": {"resources": [one]}}), Path(), "x")] == [
        kind
    ]


@pytest.mark.parametrize("provider", ["x", "", "!" * 9, "pulumi_keystore.resources.keystore", 5, None, ["a"]])
def test_what_is_of_others_is_not_judged(provider):
    one = {"type": "pulumi-python:dynamic:Resource", "urn": "x", "inputs": {"__provider": provider, "length": 5}}
    other = {"type": "aws:s3/bucket:Bucket", "urn": "x", "inputs": OURS["migration"]}
    assert parse(json.dumps({"deployment": {"resources": [one, other]}}), Path(), "x") == []


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "organizations", "keystores", "migrations", "monitors", "steps", "deployment", "resources", "newState",
            "inputs", "type", "urn", "op", "__provider", "name", "organization", "kind", "address", "certificate",
            "recipients", "offline_minutes", "webhook", "keystore", "destination", "notify_email", "mode", "protect",
        ]),
        inner | st.sampled_from(["pulumi-python:dynamic/keystore:Keystore", "legacy", "acme"]), max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@given(ANY)
def test_whatever_is_declared_is_judged_or_refused_and_never_crashes(document):
    try:
        declared = parse(json.dumps(document), Path("/nowhere"), "file")
    except InvalidInput:
        return
    for finding in check(declared):
        assert finding.rule.id in rules.RULES


def test_every_policy_has_a_case():
    cases = {mark.args[1][n][1] for mark in test_what_each_policy_finds.pytestmark for n in range(len(mark.args[1]))}
    assert {policy.id for policy in POLICIES} <= cases
    assert [*POLICIES] == [rule for rule in rules.RULES.values() if rule.is_policy and rule is not rules.NOT_CHECKED]


def test_what_cannot_be_judged_is_said_and_is_no_error():
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    inputs = {**keystore().props, "address": unknown, "certificate": _SECRET, "certificate_password": "[secret]"}
    one = of_inputs("keystore", "first", inputs, protected=True)
    found = check([one, monitor()])
    assert {finding.rule.id for finding in found} == {"KS100"}
    assert sorted(finding.message.split()[0] for finding in found) == ["address", "certificate", "certificate_password"]
    hidden = of_inputs("monitor", "watch", {"organization": unknown, "keystore": unknown, "recipients": [unknown]}, protected=None)  # fmt: skip
    assert {finding.rule for finding in check([keystore(), hidden])} == {rules.NOT_CHECKED}


def test_settings_change_what_is_expected():
    declared = [keystore(certificate=pfx(50)), monitor(offline_minutes=10)]
    assert [finding.rule.id for finding in check(declared)] == ["KS104"]
    assert [finding.rule.id for finding in check(declared, Settings(60, 10))] == ["KS101"]


FILE = """
organizations:
  - name: acme
keystores:
  - {organization: acme, name: first, kind: self-administered, address: "https://first.example.com:8200",
     certificate: acme.p12, certificate_password_env: CHECK_PASSWORD, protect: true}
monitors:
  - {organization: acme, keystore: first, recipients: [a@example.com]}
migrations:
  - {organization: acme, destination: first, notify_email: ops@example.com}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "acme.p12").write_bytes(CA.issue("acme").pkcs12("CANARY-password"))
    monkeypatch.setenv("CHECK_PASSWORD", "CANARY-password")
    made = tmp_path / "keystores.yaml"
    made.write_text(FILE)
    return made


def test_a_file_of_declarations(file):
    declared = read(file)
    assert [one.kind for one in declared] == ["organization", "keystore", "migration", "monitor"]
    assert check(declared) == []
    assert "CANARY" not in repr(declared)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no declarations"),
        ("[]", "holds no declarations"),
        ("nothing: {}", "holds no declarations"),
        ("keystores: {a: b}", "is not a list"),
        ("keystores: [1]", "is not a list"),
        ("keystores:\n  - {a: [}", "neither YAML nor JSON at line 2"),
        ("a: &x [1]\nb: *x", "neither YAML nor JSON"),
        ("keystores: [!!python/object/apply:os.system ['true']]", "neither YAML nor JSON"),
        ("[" * 5000, "neither YAML nor JSON"),
    ],
)
def test_what_is_no_file_of_declarations(tmp_path, text, says):
    with pytest.raises(InvalidInput, match=says):
        parse(text, tmp_path, "it")


def test_previews_and_stacks_are_read():
    inputs = {"__provider": "x", **keystore().props, "certificate": _SECRET, "certificate_password": _SECRET}
    state = {"type": "pulumi-python:dynamic/keystore:Keystore", "urn": "urn:pulumi:d::p::t::first", "inputs": inputs}
    other = {"type": "aws:s3/bucket:Bucket", "urn": "urn:pulumi:d::p::t::x", "inputs": {}}
    preview = {"steps": [{"op": "create", "newState": state}, {"op": "delete", "oldState": state}, {"newState": other}]}
    stack = {"version": 3, "deployment": {"resources": [{**state, "protect": True}, other]}}
    for document, protected in ((preview, False), (stack, True)):
        (one,) = parse(json.dumps(document), None, "it")
        assert (one.kind, one.name, one.protected) == ("keystore", "first", protected)
        assert one.hidden == {"certificate", "certificate_password"}
        assert not one.plain


@pytest.mark.parametrize(
    ("stack", "at"),
    [
        (["../venv/lib/python3.11/site-packages/pulumi_keystore/resources/keystore.py#1", "main%20it.py#7"], ("main it.py", 7, None)),
        ([".venv/lib/python3.11/site-packages/pulumi/x.py#3", "parts/vaults.py#12,5", "__main__.py#1"], ("parts/vaults.py", 12, 5)),
        (["pulumi_keystore/resources/keystore.py#1", "a/../../b.py#4", "__main__.py#2"], ("__main__.py", 2, None)),
        (["__main__.py#0", "__main__.py#x", "__main__.py", "#3", "__main__.py#1,0"], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_program_of_a_preview_is_where_it_is_written(stack, at):
    state = {"type": "pulumi-python:dynamic/keystore:Keystore", "urn": "u::first", "inputs": dict(keystore().props)}
    frames = [{}, *({"sourcePosition": f"project:///{frame}"} for frame in stack)]
    (one,) = parse(json.dumps({"steps": [{"newState": {**state, "stackTrace": frames}}]}), None, "it")
    found = one.position("address")
    assert found == (Position(at[1], at[2], at[0]) if at else None)


@pytest.mark.parametrize(
    "stack", [None, "x", {}, [None, 5, [], {"sourcePosition": 5}], [{"sourcePosition": "x"}] * 1000]
)
def test_a_stack_that_is_none_says_nothing_of_where_it_is_written(stack):
    state = {"type": "pulumi-python:dynamic/keystore:Keystore", "urn": "u::first", "inputs": dict(keystore().props)}
    (one,) = parse(json.dumps({"steps": [{"newState": {**state, "stackTrace": stack}}]}), None, "it")
    assert one.position() is None


def run(*words, text=None):
    return CliRunner().invoke(cli.app, ["check", *words], input=text)


def test_the_command(file):
    assert run(str(file)).exit_code == 0
    bad = FILE.replace("https://first", "https://10.0.0.1:1/").replace("recipients: [a@example.com]", "webhook: x")
    file.write_text(bad)
    done = run(str(file))
    assert done.exit_code == 1
    assert "KS041" in done.output
    rows = json.loads(run(str(file), "--format", "json").stdout)
    assert {row["level"] for row in rows} == {"error", "warning"}
    tree = ET.fromstring(run(str(file), "--format", "junit").stdout)
    assert (tree.get("tests"), int(tree.get("failures"))) == ("4", 2)
    log = json.loads(run(str(file), "--format", "sarif").stdout)
    assert {result["ruleId"] for result in log["runs"][0]["results"]} == {row["id"] for row in rows}
    assert "CANARY" not in done.output


def test_a_missing_file_or_variable_is_a_finding_and_not_the_end(file):
    file.write_text(FILE.replace("acme.p12", "gone.p12").replace("CHECK_PASSWORD", "NO_SUCH_VARIABLE") + "  - {a: 1}\n")
    done = run(str(file))
    assert done.exit_code == 1
    found = [(finding.rule.id, finding.message) for finding in check(read(file))]
    assert ("KS045", f"certificate: {file.parent / 'gone.p12'} cannot be read (No such file or directory)") in found
    assert ("KS045", "certificate_password_env: the environment has no NO_SUCH_VARIABLE") in found
    assert "KS043" in [rule for rule, _ in found]


def test_findings_say_where_it_is_written(file):
    file.write_text(
        FILE.replace("https://first.example.com:8200", "https://10.0.0.1:1").replace("protect: true", "x: 1")
    )
    at = {finding.rule.id: finding.at for finding in check(read(file))}
    assert (at["KS004"].line, at["KS004"].column) == (5, 64)
    assert (at["KS043"].line, at["KS043"].column) == (6, 71)
    assert (at["KS108"].line, at["KS108"].column) == (5, 5)
    assert f"at: {file}:5:64" in run(str(file)).output
    assert "4 declarations: 2 errors, 1 warning, 0 notes" in run(str(file)).output


def test_warnings_fail_where_that_is_asked_for(file):
    file.write_text(FILE.replace(", notify_email: ops@example.com", ""))
    assert run(str(file)).exit_code == 0
    assert run(str(file), "--strict").exit_code == 1
