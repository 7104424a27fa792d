"""The small parts: errors, names, records, sealing, redaction, and what may import what."""

import base64
import os
import pickle
import re
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pulumi_keystore
from docs.generate import PAGES
from pulumi_keystore import errors, rules
from pulumi_keystore.control_plane.runtime.logs import redact
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.declarations.tenancy import CANARY_PREFIX, Tenancy, key_name
from pulumi_keystore.errors import KeystoreError, RuleViolation, from_problem
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError

ROOT = Path(__file__).parents[2]


def all_errors(base: type[KeystoreError] = KeystoreError) -> list[type[KeystoreError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_over_http_and_through_the_workflow(kind):
    error = kind("what\nhappened", hint="do  this", prop="address", rule="KS001")
    again = from_problem(error.to_problem())
    assert type(again) is kind
    assert str(again) == str(error) == "what happened [KS001]; do this"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_error_tree_is_the_one_drawn_in_its_docstring():
    drawn = errors.__doc__ or ""
    for kind in all_errors():
        assert kind.__name__ in drawn
    assert len({kind.code for kind in all_errors()}) == len(all_errors())


def test_public_names_are_sorted_and_there():
    assert list(pulumi_keystore.__all__) == sorted(pulumi_keystore.__all__)
    for name in pulumi_keystore.__all__:
        assert getattr(pulumi_keystore, name).__doc__
    with pytest.raises(AttributeError):
        pulumi_keystore.nothing  # noqa: B018


def test_the_page_of_stability_lists_every_public_name():
    page = (ROOT / "docs" / "stability.md").read_text()
    [listed] = [line for line in page.splitlines() if line.startswith("| `pulumi_keystore` |")]
    assert set(re.findall(r"`(\w+)`", listed)) - {"pulumi_keystore"} == set(pulumi_keystore.__all__)


def test_all_parts_have_one_version():
    projects = [ROOT / folder / "pyproject.toml" for folder in (".", "harness", "policies")]
    versions = {tomllib.loads(path.read_text())["project"]["version"] for path in projects}
    versions.add(yaml.safe_load((ROOT / "policies" / "PulumiPolicy.yaml").read_text())["version"])
    versions.add(re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1])
    assert versions == {metadata.version("pulumi-keystore")}


def test_every_rule_has_its_own_id_and_the_generated_pages_are_current():
    assert [rule.id for rule in rules.RULES.values()] == sorted(rules.RULES)
    for name, page in PAGES.items():
        assert (ROOT / "docs" / name).read_text() == page(), "run `make docs`"


def test_the_service_and_the_command_start_without_pulumi():
    code = "import sys, pulumi_keystore.cli, pulumi_keystore.control_plane.processes; sys.exit('pulumi' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_program_does_not_pay_for_the_http_library():
    code = "import sys; from pulumi_keystore import *; sys.exit('httpx' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_two_users_never_share_a_place(one, other):
    names = {key_name(user, 1) for user in (one, other)}
    assert (
        len(names) == len({one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")})
        if _encodable(one, other)
        else True
    )
    for name in names:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz234567890189-.")
        assert len(name) < 255
        assert not name.startswith(CANARY_PREFIX)


def _encodable(*texts: str) -> bool:
    return all(text.encode("utf-8", "surrogatepass") == text.encode("utf-8", "replace") for text in texts)


USERS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=50)


@given(st.binary(min_size=32, max_size=32), USERS, st.integers(1, 1000), st.text(max_size=50))
def test_a_record_is_read_as_it_was_written(key, user, generation, origin):
    record = ArchiveKey("acme", user, generation, key, origin)
    again = ArchiveKey.from_body(record.to_body())
    assert again == record
    assert again.same_key(record)
    assert base64.b64encode(key).decode() not in repr(record)


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
def test_anything_else_is_a_damaged_record(body):
    with pytest.raises(DamagedRecordError):
        ArchiveKey.from_body(body)


@pytest.mark.parametrize("version", [1, 2])
def test_the_policy_gives_create_without_update(version):
    policy = Tenancy("acme").policy(version)
    for block in policy.split("path ")[1:]:
        if "acme" in block:
            assert "update" not in block
            assert "archive-keys/" in block
    assert Tenancy("acme").role_parameters("ca", "acme")["token_no_default_policy"] is True


def test_what_is_sealed_opens_only_in_its_own_place_with_its_own_key():
    key, other = MasterKey(os.urandom(32)), MasterKey(os.urandom(32))
    sealed = key.seal("purpose", "row", b"secret")
    assert key.open("purpose", "row", sealed) == b"secret"
    assert key.seal("purpose", "row", b"secret") != sealed
    for opener, purpose, row, text in (
        (other, "purpose", "row", sealed),
        (key, "other", "row", sealed),
        (key, "purpose", "other", sealed),
        (key, "purpose", "row", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (key, "purpose", "row", b"\x02" + sealed[1:]),
        (key, "purpose", "row", b""),
    ):
        with pytest.raises(KeystoreError, match="does not open"):
            opener.open(purpose, row, text)


def test_a_master_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "deep" / "master.key"
    sealed = MasterKey.load_or_create(path).seal("p", "r", b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert MasterKey.load_or_create(path).open("p", "r", sealed) == b"x"
    assert path.read_text().strip() not in repr(MasterKey.load_or_create(path))


@pytest.mark.parametrize(
    "event",
    [
        {"password": "CANARY"},
        {"certificate_password": "CANARY"},
        {"archive_key": "CANARY"},
        {"event": "token ks_0123456789abcdef_CANARYcanaryCANARY was used"},
        {"event": "hvs.CANARYCANARYCANARYCANARYCANARY"},
        {"event": "s.CANARYCANARYCANARYCANARYCANARY"},
        {"exception": "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----"},
        {"event": "postgresql://user:CANARY@host/db"},
    ],
)
def test_logs_are_redacted_by_name_and_by_form(event):
    assert "CANARY" not in str(redact(None, "info", dict(event)))


def test_logs_keep_what_is_no_secret():
    event = {"event": "request", "method": "GET", "status": 200, "user": "a", "shard": 7, "detail": "5 keys moved"}
    assert redact(None, "info", dict(event)) == event


def test_a_violation_is_one_line_with_property_rule_and_fix():
    error = rules.ADDRESS_PORT.violation("'x' has no port")
    assert isinstance(error, RuleViolation)
    assert str(error).startswith("address: 'x' has no port [KS002]; expected a port from 1 to 65535")


def test_one_module_alone_deletes_archive_keys():
    """What `erase` removes in `vault` itself is canaries and checkpoints."""
    package = ROOT / "pulumi_keystore"
    callers = {str(path.relative_to(package)) for path in package.rglob("*.py") if ".erase(" in path.read_text()}
    inside = {"vault/archive_keys.py", "vault/keystore.py"}
    assert callers == {"control_plane/keystores/removal.py", *inside}
