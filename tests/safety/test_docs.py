"""Each section of docs/recovery.md, done as it says by a person who has only the page."""

import os
import re
import secrets
import shlex
import subprocess

import pytest
from keystore_harness import wait_until
from keystore_harness.binary import find_vault

from tests.conftest import ROOT
from tests.safety.test_older_database import lose_everything, suspended

TEXT = (ROOT / "docs" / "recovery.md").read_text()


def commands(section):
    """Return the commands of a section's transcript."""
    found = re.findall(rf"```console {section}\n(.*?)```", TEXT, re.DOTALL)
    assert len(found) == 1, section
    lines = found[0].splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


def follow(bed, acme, section, ended=(0,)):
    """Run a transcript for an organization; `pulumi up` declares its keystores again."""
    for program, *arguments in commands(section):
        if program == "pulumi":
            bed.admin.put_organization(acme.name)
            for keystore in acme.letters:
                acme.register(keystore)
            continue
        said = bed.keystore(*(argument.replace("acme", acme.name) for argument in arguments))
        assert said.returncode in ended, said.stderr + said.stdout


def test_every_section_with_commands_is_followed():
    assert set(re.findall(r"```console (\S+)", TEXT)) == {
        "lost-database", "older-database", "older-vault", "lost-keys", "rebuilt-server", "gone-server",
    }  # fmt: skip


def test_the_database_is_lost(bed):
    acme = bed.customer(25, first="a", second="b")
    acme.migrated("second")
    acme.await_no_clean_up()
    lose_everything(bed)
    acme.admin, acme.escrow_client = bed.admin, bed.escrow_client
    follow(bed, acme, "lost-database")
    acme.assert_complete("second", empty="first")
    acme.assert_all_released()


def test_the_database_is_of_yesterday(bed, tmp_path):
    acme = bed.customer(25, first="a", second="b")
    bed.testbed.service.dump_database(tmp_path / "yesterday.dump")
    acme.enrol_keys(acme.some(5))
    acme.migrated("second")
    acme.enrol_keys(acme.some(5, "today"))
    wait_until(lambda: acme.remembers("b", 35), "the checkpoint")
    acme.await_no_clean_up()
    bed.testbed.service.restore_database(tmp_path / "yesterday.dump")
    suspended(acme)
    # A suspended keystore may well be one that is empty: status tells by its exit status, too.
    follow(bed, acme, "older-database", ended=(0, 2))
    acme.assert_complete("second", empty="first")
    acme.assert_all_released()


def test_the_vault_is_of_yesterday(bed):
    acme = bed.customer(25, first="c", second="b")
    yesterday = bed.testbed.servers["c"].snapshot()
    late = acme.some(4)
    acme.enrol_keys(late)
    bed.testbed.servers["c"].restore(yesterday)
    # It takes a moment until the server has loaded everything again.
    wait_until(lambda: bed.keystore("verify", acme.name).returncode == 2, "the server")
    follow(bed, acme, "older-vault", ended=(2,))
    gone = f"late-0@{acme.name}"
    del late[gone], acme.keys[gone]
    assert acme.enrol_keys(late)["restored"] == 3
    acme.admin.give_up_keys(acme.name, [gone], "device gone")
    acme.assert_complete("first")
    acme.assert_all_released()
    acme.migrated("second")


def test_keys_that_are_lost_for_good(bed):
    acme = bed.customer(5, first="a", second="b")
    gone = f"old-laptop@{acme.name}"
    acme.enrol_keys({gone: b"o" * 32})
    name = next(name for name, key in acme.place("a").stored().items() if key == b"o" * 32)
    acme.place("a").remove(name)
    follow(bed, acme, "lost-keys")
    del acme.keys[gone]
    acme.migrated("second")
    acme.assert_complete("second", empty="first")


def test_the_server_was_rebuilt(bed):
    acme = bed.customer(5, first="a", second="b")
    other = bed.testbed.rebuilt("b")
    other.admit(acme.tenancy("second"))
    with bed.testbed.lines["b"].leading_to(other.port):
        follow(bed, acme, "rebuilt-server")
        acme.assert_all_released()
        assert set(acme.place("b", server=other).stored().values()) == set(acme.keys.values())
    other.close()


def test_the_server_is_gone_for_good(bed):
    acme = bed.customer(5, first="a", second="b")
    with acme.may_not_delete("first"):
        acme.migrated("second")
        number = str(acme.pending()[0]["id"])
        listing, (program, *arguments) = commands("gone-server")
        assert program == "keystore"
        assert bed.keystore(*(word.replace("acme", acme.name) for word in listing[1:])).returncode == 0
        given_up = [number if word == "1" else word.replace("acme", acme.name) for word in arguments]
        assert bed.keystore(*given_up).returncode == 0
        acme.admin.delete_keystore(acme.name, "first")
    acme.assert_complete("second")


@pytest.mark.parametrize("words", [("The database is older",), ("The database is lost", "The Vault server is older")])
def test_the_other_pages_lead_here(words):
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("upgrade.md", "contract.md", "recovery.md"))
    for title in words:
        anchor = title.lower().replace(" ", "-")
        assert f"## {title}" in TEXT
        assert title == "The database is lost" or f"#{anchor}" in pages


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("user", ["user-1@acme.example.com", "Müller@" + "long." * 40 + "example.com"])
def test_one_key_is_read_by_hand(bed, tmp_path, user, version):
    acme = bed.customer(version=version, first="a")
    acme.enrol_keys({user: secrets.token_bytes(32)})
    (script,) = re.findall(r"```sh by-hand\n(.*?)```", TEXT, re.DOTALL)
    script = script.replace("user-1@acme.example.com", user).replace('"acme/', f'"{acme.name}/')
    script = script.replace("=archive-keys", f"={acme.mounts['first']}")
    server = bed.testbed.servers["a"]
    (tmp_path / "bao").symlink_to(find_vault())
    (tmp_path / "ca.pem").write_text(bed.testbed.ca.pem)
    environment = {
        name: value
        for product in ("BAO", "VAULT")
        for name, value in (
            (f"{product}_ADDR", server.storage_url),
            (f"{product}_CACERT", str(tmp_path / "ca.pem")),
            (f"{product}_TOKEN", server.root_token),
        )
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "archive.key").read_bytes() == acme.keys[user]
