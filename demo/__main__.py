"""Two real Vault servers, the service, and real `pulumi up`s: declare, change, refuse, migrate, break, heal."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import signal
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keystore_harness import HarnessError, Testbed, wait_until
from keystore_harness.binary import find_vault, version_of
from keystore_harness.engine import PulumiStack, errors
from rich.console import Console
from rich.markup import escape

from pulumi_keystore import key_release
from pulumi_keystore.client import Client

ROOT = Path(__file__).resolve().parent.parent
ORGANIZATION = "acme"
EMAIL = "ops@acme.example.com"
USERS = 1000
# Less patience than the default half minute, so that the outage of the demo is short.
SETTINGS = {"retry_s": "3", "cleanup_retry_s": "2"}
REQUESTS_A_SECOND = 400

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
_INTERESTING = re.compile(r"^((info: )?will |warning:|keystore:|[+~] [a-z_]+\s*:|[+~-] \d+ |\d+ unchanged)")


class DemoFailedError(Exception):
    """Something is not as it has to be."""


class Demo:
    """The story, step by step; each step checks what it shows."""

    def __init__(self, testbed: Testbed, engine: Path) -> None:
        self.testbed = testbed
        self.engine = engine
        self.folder = testbed.folder
        self.keys = {f"user-{n:04}@acme.example.com": secrets.token_bytes(32) for n in range(1, USERS + 1)}
        self.password = secrets.token_urlsafe(16)
        self._step = 0

    def run(self) -> None:
        """Tell the story."""
        service = self.testbed.service
        self.token = service.make_token("infrastructure-team", "provider-admin")
        self.admin = Client(service.url, self.token)
        self.escrow_client = Client(service.url, service.make_token("authority", "authority"))
        environment = {"KEYSTORE_URL": service.url, "KEYSTORE_TOKEN": self.token}
        self.stack = PulumiStack(self.engine, ROOT, self.folder / "pulumi", environment, "demo")
        self.stack.__enter__()
        self.set_up_vaults()
        self.declare()
        self.enrol()
        self.change_certificate()
        self.refuse_addresses()
        self.refuse_certificate()
        self.migrate()
        self.migrate_back_through_an_outage()
        self.look_back()

    # Steps.

    def set_up_vaults(self) -> None:
        """Give the organization its place on both servers."""
        self.step("Give the organization its place on both servers: KV mount, policy, certificate role")
        for letter in "ab":
            self.testbed.admit(letter, ORGANIZATION)
            self.say(f"{self.testbed.vaults[letter].address}: archive-keys/{ORGANIZATION}/ for the role keystore-acme")
        (self.folder / "ca.pem").write_text(self.testbed.ca.pem)

    def declare(self) -> None:
        """First `pulumi up`."""
        self.step("Declare an organization with two keystores; the first is the active one")
        values = {"organization": ORGANIZATION, "active": "first", "notifyEmail": EMAIL, "administrators[0]": EMAIL}
        for name, letter in (("first", "a"), ("second", "b")):
            self.issue(name)
            values[f"keystores.{name}.address"] = self.testbed.vaults[letter].address
            values[f"keystores.{name}.certificate"] = str(self.folder / f"{name}.p12")
            values[f"keystores.{name}.serverCa"] = str(self.folder / "ca.pem")
        passwords = {f"keystores.{name}.password": self.password for name in ("first", "second")}
        self.stack.configure(values, passwords)
        self.up()
        self.check("active keystore", self.active, "first")

    def enrol(self) -> None:
        """Put the users' keys into escrow."""
        self.step(f"{USERS:,} users put their archive keys into escrow")
        started = time.monotonic()
        body = {"keys": {user: b64encode(key).decode() for user, key in self.keys.items()}}
        answer = self.escrow_client.request("POST", "organizations", ORGANIZATION, "archive-keys", body=body)
        seconds = time.monotonic() - started
        self.check("keys enrolled", answer["enrolled"], USERS)
        self.say(f"{USERS / seconds:,.0f} keys/s, each read back")

    def change_certificate(self) -> None:
        """Make a validated swap."""
        self.step("Change the client certificate: a validated swap")
        before = self.fingerprint()
        self.issue("first")
        self.up()
        self.check("certificate swapped", self.fingerprint() != before, expected=True)

    def refuse_addresses(self) -> None:
        """Two addresses that preview refuses."""
        right = self.testbed.vaults["a"].address
        for what, wrong in (("a path", f"{right}/v1/archive-keys"), ("an IP address", "https://127.0.0.1:8200")):
            self.step(f"Try a URL with {what}: refused in preview")
            self.stack.configure({"keystores.first.address": wrong})
            self.preview(fails=True)
            self.check("address in use", self.address(), right)
        self.stack.configure({"keystores.first.address": right})

    def refuse_certificate(self) -> None:
        """Try a certificate that may not log in."""
        self.step("Try a certificate that may not log in: refused, the old pair is still in use")
        before, kept = self.fingerprint(), (self.folder / "first.p12").read_bytes()
        self.issue("first", common_name="somebody-else")
        self.up(fails=True)
        self.check("certificate in use is the old one", self.fingerprint(), before)
        self.check_readable(3)
        (self.folder / "first.p12").write_bytes(kept)

    def migrate(self) -> None:
        """All keys to the second keystore."""
        self.step("Migrate all keys to the second keystore")
        self.stack.configure({"active": "second"})
        self.preview()
        self.up()
        self.check("active keystore", self.active, "second")
        self.check("keys at the first keystore", self.count("a"), 0)
        self.show_rate()

    def migrate_back_through_an_outage(self) -> None:
        """Let an outage break a migration, then repeat it."""
        self.step("Migrate back, and seal the first server in the middle")
        self.say(f"(the first server takes {REQUESTS_A_SECOND} requests a second now, so that there is a middle)")
        self.stack.configure({"active": "first"})
        server = self.testbed.vaults["a"]
        with self.limited(), self.sealed_after(USERS // 4):
            self.up(fails=True)
            self.check("first server sealed", server.sealed, expected=True)
            self.check("active keystore", self.active, "second")
            self.check("keys at the second keystore", self.count("b"), USERS)
            self.check_readable(3)
        self.say("unsealed again")
        wait_until(lambda: self.count("a") == 0, "the copies at the first keystore to be removed")
        self.check("keys at the first keystore", self.count("a"), 0)
        self.step("Migrate back again")
        self.up()
        self.check("active keystore", self.active, "first")
        self.check("keys at the second keystore", self.count("b"), 0)
        self.show_rate()

    def look_back(self) -> None:
        """History, mails, and the proof that no key is lost."""
        self.step("What the history says")
        self.say(self.testbed.service.run("history", ORGANIZATION, token=self.token).stdout.rstrip())
        self.step("The mails that arrived")
        wait_until(lambda: len(self.testbed.mailbox.messages) >= 6, "six mails")  # noqa: PLR2004
        for message in self.testbed.mailbox.messages:
            self.say(f"to {message['To']}: {message['Subject']}")
        self.step("Is every key still there?")
        started = time.monotonic()
        self.check_readable(USERS)
        self.say(f"read one by one through the authority's API in {time.monotonic() - started:.1f} s")

    # What the steps are made of.

    def issue(self, keystore: str, common_name: str = ORGANIZATION) -> None:
        """Issue a client certificate as a PKCS#12 file."""
        path = self.folder / f"{keystore}.p12"
        path.touch(mode=0o600)
        path.write_bytes(self.testbed.ca.issue(common_name).pkcs12(self.password))

    def up(self, *, fails: bool = False) -> None:
        """Run `pulumi up` and show what matters of its output."""
        self._pulumi("up", "--yes", "--skip-preview", fails=fails)

    def preview(self, *, fails: bool = False) -> None:
        """Run `pulumi preview` and show what matters of its output."""
        self._pulumi("preview", "--diff", fails=fails)

    def _pulumi(self, *arguments: str, fails: bool) -> None:
        started = time.monotonic()
        console.print(f"  [bold]$ pulumi {arguments[0]}[/]")
        done = self.stack.run(*arguments, check=False)
        told = errors(done.stdout)
        for line in dict.fromkeys(map(str.strip, done.stdout.splitlines())):
            if line in told or _INTERESTING.match(line):
                console.print(f"      {line}", markup=False)
        outcome = f"exit status {done.returncode}, {time.monotonic() - started:.1f} s"
        console.print(f"      [dim]{outcome}[/]")
        if bool(done.returncode) != fails:
            raise DemoFailedError(f"`pulumi {arguments[0]}` ended unexpectedly:\n{done.stdout}")

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Let the first server take only so many requests a second."""
        client = self.testbed.vaults["a"].client()
        client.write_data("sys/quotas/rate-limit/demo", data={"rate": REQUESTS_A_SECOND, "path": "archive-keys/"})
        try:
            yield
        finally:
            client.delete("sys/quotas/rate-limit/demo")

    @contextlib.contextmanager
    def sealed_after(self, keys: int) -> Iterator[None]:
        """Seal the first server once that many keys have moved; unseal it at the end whatever happens."""
        server, stop = self.testbed.vaults["a"], threading.Event()

        def watch() -> None:
            with Client(self.testbed.service.url, self.token) as client:
                while not stop.wait(0.02):
                    latest = client.request("GET", "organizations", ORGANIZATION, "migrations")[0]
                    if latest["state"] == "running" and latest["done"] >= keys:
                        server.seal()
                        self.say(f"sealed the first server after {latest['done']:,} of {latest['total']:,} keys")
                        return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            if server.sealed:
                server.unseal()

    @property
    def active(self) -> str:
        """Name of the active keystore."""
        return str(self.admin.organization(ORGANIZATION)["active_keystore"])

    def address(self) -> str:
        """Address of the first keystore, as the service has it."""
        return str(self.admin.keystore(ORGANIZATION, "first")["address"])

    def fingerprint(self) -> str:
        """Fingerprint of the first keystore's certificate."""
        return str(self.admin.keystore(ORGANIZATION, "first")["certificate_fingerprint"])

    def count(self, letter: str) -> int:
        """Count the entries in the organization's path on a server, asking the server itself."""
        listed = self.testbed.vaults[letter].client().list(f"archive-keys/{ORGANIZATION}")
        # A folder holds what the keystore remembers of decisions.
        return sum(not name.endswith("/") for name in listed["data"]["keys"]) if listed else 0

    def show_rate(self) -> None:
        """Show how fast the last migration was."""
        row = self.admin.request("GET", "organizations", ORGANIZATION, "migrations")[0]
        self.say(f"{row['done']:,} keys at {row['rate']:,.0f} keys/s, each read back")

    def check_readable(self, number: int) -> None:
        """Read keys as the authority service does, and compare them with what the users put into escrow."""
        path = ("organizations", ORGANIZATION, "archive-keys", "release")
        equal = 0
        for user, key in list(self.keys.items())[:number]:
            mine = X25519PrivateKey.generate()
            public = b64encode(mine.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
            answer = self.escrow_client.request("POST", *path, body={"user": user, "public_key": public})
            opened = key_release.open_sealed(b64decode(answer["sealed_key"]), mine, ORGANIZATION, user)
            equal += secrets.compare_digest(opened, key)
        self.check("keys readable and equal", equal, number)

    def step(self, text: str) -> None:
        """Begin a step."""
        self._step += 1
        console.print(f"\n[bold cyan]{self._step}. {escape(text)}[/]")

    def say(self, text: str) -> None:
        """Say something about the step."""
        for line in text.splitlines():
            console.print(f"  {line}", markup=False)

    def check(self, what: str, found: object, expected: object) -> None:
        """Show a fact; raise where it is not as expected."""
        if found != expected:
            raise DemoFailedError(f"{what}: {found!r}, expected {expected!r}")
        shown = f"{found:,}" if isinstance(found, int) and not isinstance(found, bool) else found
        console.print(f"  [green]✓[/] {what}: {'yes' if found is True else escape(str(shown))}")

    def keep(self) -> None:
        """Print how to go on by hand, and wait for Ctrl-C."""
        settings = self.folder / "environment"
        settings.touch(mode=0o600)
        names = [*(n for n in self.stack.environment if n.startswith(("PULUMI_", "KEYSTORE_"))), "PATH"]
        path = f"{ROOT / '.venv/bin'}{os.pathsep}{self.stack.environment['PATH']}"
        environment = {**self.stack.environment, "PATH": path}
        settings.write_text("".join(f"export {name}='{environment[name]}'\n" for name in names))
        self.step("Everything is left running. Go on by hand in another terminal:")
        self.say(
            f"cd {ROOT} && source {settings}\n"
            f"keystore status {ORGANIZATION}\n"
            "pulumi config set active second && pulumi up\n"
            f"keystore migration watch {ORGANIZATION}        # in a third terminal, while it runs\n"
            f"keystore history {ORGANIZATION}\n"
            f"kill -STOP {self.testbed.servers['b'].pid}                # make the second server hang; -CONT heals it\n"
            "Ctrl-C here ends everything and removes it."
        )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()

    def close(self) -> None:
        """Remove the stack's settings file from the checkout."""
        self.stack.__exit__()


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C (make demo KEEP=1)")
    options = parser.parse_args()
    engine = os.environ.get("PULUMI_ENGINE")
    if not engine:
        console.print("demo: run it with `make demo`, which finds the Pulumi engine first")
        return 2
    # However it is told to stop, servers and folders have to go: also in the background, where Ctrl-C is ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    try:
        product, version = version_of(find_vault())
        what = f"starting two {product} {version} servers, SMTP, PostgreSQL and the service"
        console.print(f"[bold]pulumi-keystore demo[/]: {what} ...")
        with Testbed("ab", SETTINGS) as testbed:
            console.print(f"  ready in {time.monotonic() - started:.1f} s; the service is on {testbed.service.url}")
            demo = Demo(testbed, Path(engine))
            try:
                demo.run()
                console.print(f"\n[bold green]All as it should be[/], {time.monotonic() - started:.0f} s.")
                if options.keep:
                    demo.keep()
            finally:
                demo.close()
    except (DemoFailedError, HarnessError) as failure:
        console.print(f"\n[bold red]demo failed:[/] {escape(str(failure))}")
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything is being stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
