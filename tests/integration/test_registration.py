"""`keystore register`, `edit`, `prove` and `delete`: what the console and Pulumi do, typed by a person."""

import json
import os
from base64 import b64decode

import pytest

from tests.conftest import PASSWORD


@pytest.fixture
def typed(customer, admin_token, tmp_path):
    """Return an organization whose servers know it, and what runs the command for it; files are in a folder."""
    acme = customer(keystores=())
    acme.admit("first")
    acme.admit("second")
    (tmp_path / "ca.pem").write_text(acme.testbed.ca.pem)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")

    def file(name, letter="first"):
        path = tmp_path / name
        path.write_bytes(b64decode(acme.declaration(letter)["certificate"]))
        return str(path)

    def run(command, name, *arguments, check=True):
        given = (command, acme.name, name, *arguments)
        return acme.testbed.service.run(*given, token=admin_token, check=check)

    ca, password = str(tmp_path / "ca.pem"), str(tmp_path / "password")
    return acme, run, file, ("--password-file", password, "--server-ca", ca)


def test_a_keystore_is_registered_edited_proved_and_deleted(typed):
    acme, run, file, rest = typed
    address = acme.testbed.vaults["a"].address
    one = file("one.p12")
    shown = json.loads(
        run("register", "first", "--address", address, "--certificate", one, *rest, "--format", "json").stdout
    )
    assert (shown["active"], shown["address"], shown["kind"]) == (True, address, "self-administered")
    # Safe to repeat.
    assert (
        "revision                 1"
        in run("register", "first", "--address", address, "--certificate", one, *rest).stdout
    )
    acme.enrol(3)
    # The certificate alone, and its CA stays; then the address alone, and the certificate stays.
    edited = json.loads(run("edit", "first", "--certificate", file("two.p12"), *rest[:2], "--format", "json").stdout)
    assert edited["certificate_fingerprint"] != shown["certificate_fingerprint"]
    assert (edited["server_ca"], edited["address"]) == (shown["server_ca"], address)
    again = json.loads(
        run("edit", "first", "--address", address.upper().replace("HTTPS", "https"), "--format", "json").stdout
    )
    assert (again["certificate_fingerprint"], again["revision"]) == (edited["certificate_fingerprint"], 2)
    assert "first is proved: https://vault-a.example.com" in run("prove", "first").stdout
    assert acme.admin.keystore(acme.name, "first")["proved_at"] > again["proved_at"]
    run("register", "second", "--address", acme.testbed.vaults["b"].address, "--certificate", one, *rest)
    run("delete", "second", "--yes")
    assert [row["name"] for row in acme.admin.keystores(acme.name)] == ["first"]
    acme.assert_complete("first")


def test_what_is_refused_changes_nothing_and_names_the_option(typed, tmp_path):
    acme, run, file, rest = typed
    address, one = acme.testbed.vaults["a"].address, file("one.p12")
    run("register", "first", "--address", address, "--certificate", one, *rest)
    acme.enrol(2)
    before = acme.admin.keystore(acme.name, "first")
    (tmp_path / "wrong").write_text("wrong")
    (tmp_path / "huge").write_bytes(os.urandom(3 << 20))
    for command, name, arguments, status, says in (
        ("register", "second", ["--address", "https://10.0.0.1:8200", "--certificate", one, *rest], 1, "--address: "),
        ("register", "second", ["--certificate", one, *rest], 1, "KS001"),
        ("register", "second", ["--address", address], 1, "KS010"),
        ("register", "second", ["--address", address, "--certificate", one, *rest], 1, "at this very place already"),
        ("register", "second", ["--address", address, "--certificate", str(tmp_path / "none")], 64, "No such file"),
        (
            "register",
            "first",
            ["--address", address, "--certificate", file("two.p12"), *rest],
            1,
            "another certificate",
        ),
        ("edit", "first", [], 64, "nothing to change"),
        ("edit", "first", ["--address", "http://vault.example.com:8200"], 1, "--address: "),
        ("edit", "first", ["--address", acme.testbed.vaults["b"].address], 1, "lacks 2 of the 2 archive keys"),
        ("edit", "first", ["--certificate", one, "--password-file", str(tmp_path / "wrong")], 1, "KS011"),
        ("edit", "first", ["--certificate", str(tmp_path / "huge")], 1, "KS016"),
        ("edit", "first", ["--password-file", rest[1]], 64, "nothing to change"),
        ("edit", "none", ["--address", address], 1, "has no keystore 'none'"),
        ("prove", "none", [], 1, "has no keystore 'none'"),
        ("delete", "first", ["--yes"], 1, "is active and holds 2 archive keys"),
        ("delete", "first", [], 1, "aborted"),
    ):
        done = run(command, name, *arguments, check=False)
        assert (done.returncode, says in done.stderr) == (status, True), (command, arguments, done.stderr)
        assert PASSWORD not in done.stderr + done.stdout
    assert [row["name"] for row in acme.admin.keystores(acme.name)] == ["first"]
    after = acme.admin.keystore(acme.name, "first")
    assert {**after, "proved_at": ""} == {**before, "proved_at": ""}
    acme.assert_complete("first")


def test_a_keystore_that_cannot_be_relied_on_is_not_proved(typed):
    acme, run, file, rest = typed
    run("register", "first", "--address", acme.testbed.vaults["a"].address, "--certificate", file("one.p12"), *rest)
    proved = acme.admin.keystore(acme.name, "first")["proved_at"]
    with acme.testbed.servers["a"].sealed_for_a_while():
        done = run("prove", "first", check=False)
    assert (done.returncode, "sealed" in done.stderr) == (1, True)
    assert acme.admin.keystore(acme.name, "first")["proved_at"] == proved
    assert "Prove" not in " ".join(acme.actions)


def test_a_legacy_keystore_is_neither_proved_nor_edited(customer, admin_token):
    acme = customer(keystores=())
    acme.admin.put_keystore(acme.name, "old", {"kind": "legacy"})
    for arguments in (("prove",), ("edit", "--address", "https://vault.example.com:8200")):
        given = (arguments[0], acme.name, "old", *arguments[1:])
        done = acme.testbed.service.run(*given, token=admin_token, check=False)
        assert (done.returncode, "is a legacy keystore" in done.stderr) == (1, True)
