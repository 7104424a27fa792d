"""Two Vault servers, the service, and a folder with a Pulumi program that declares keystores on them: to try things."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keystore_harness.errors import HarnessError
from keystore_harness.testbed import Testbed

ORGANIZATION = "acme"
_PROJECT = """\
name: keystores
runtime:
  name: python
  options:
    toolchain: pip
    virtualenv: {virtualenv}
"""
_PROGRAM = '''\
"""An organization with a keystore on each of two Vault servers; `active` says which one is in use."""

from pathlib import Path

import pulumi

from pulumi_keystore import HealthMonitor, Keystore, KeystoreMigration, Organization

config = pulumi.Config()
acme = Organization("acme")
ours = {{
    name: Keystore(
        name,
        organization=acme.name,
        kind="self-administered",
        address=address,
        certificate=Path("acme.p12"),
        certificate_password=config.require_secret("password"),
        server_ca=Path("ca.pem").read_text(),
    )
    for name, address in (("first", "{first}"), ("second", "{second}"))
}}
active = ours[config.get("active") or "first"]
KeystoreMigration("active", organization=acme.name, destination=active.name, notify_email="ops@acme.example.com")
for name, keystore in ours.items():
    HealthMonitor(name, organization=acme.name, keystore=keystore.name, recipients=["ops@acme.example.com"])
'''
NEXT = """\
Two Vault servers and the service are running. In another terminal:

    cd {folder}
    source environment
    pulumi up                     # declare the organization and its keystores
    keystore status acme
    pulumi config set active second
    pulumi up                     # move its keys to the other server

The console is at {url}/console;
`echo $KEYSTORE_TOKEN` shows the token to sign in with. To see an outage, stop a
server with `kill -STOP {pid}`; `kill -CONT {pid}` lets it go on.

Ctrl-C here stops everything and removes it, the folder included."""


@contextmanager
def landscape(folder: Path) -> Iterator[str]:
    """Start everything and write the folder; yield what to do next. All of it is removed at the end.

    Raises:
        HarnessError: The folder is there already, or something cannot be started.

    """
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        hint = "name another folder" if isinstance(error, FileExistsError) else "see who may write there"
        raise HarnessError(f"cannot make the folder {folder} ({error.strerror}); {hint}") from None
    try:
        with Testbed("ab", {"health_check_interval_s": "10"}) as testbed:
            _write(folder, testbed)
            yield NEXT.format(folder=folder, url=testbed.service.url, pid=testbed.servers["b"].pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, testbed: Testbed) -> None:
    password, addresses = secrets.token_urlsafe(16), {}
    for name, letter in (("first", "a"), ("second", "b")):
        testbed.admit(letter, ORGANIZATION)
        addresses[name] = testbed.vaults[letter].address
    (folder / "Pulumi.yaml").write_text(_PROJECT.format(virtualenv=sys.prefix))
    (folder / "__main__.py").write_text(_PROGRAM.format(**addresses))
    (folder / "ca.pem").write_text(testbed.ca.pem)
    (folder / "acme.p12").write_bytes(testbed.ca.issue(ORGANIZATION).pkcs12(password))
    (folder / "state").mkdir()
    environment = {
        "KEYSTORE_URL": testbed.service.url,
        "KEYSTORE_TOKEN": testbed.service.make_token("quickstart", "provider-admin"),
        "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": secrets.token_urlsafe(16),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}$PATH",
        "CERTIFICATE_PASSWORD": password,
    }
    lines = [f'export {name}="{value}"' for name, value in environment.items()]
    # The first time there is no stack yet; that of later times holds the password already.
    lines.append("pulumi stack select dev 2> /dev/null || pulumi stack init dev")
    lines.append('printf %s "$CERTIFICATE_PASSWORD" | pulumi config set --secret password')
    (folder / "environment").write_text("\n".join(lines) + "\n")
