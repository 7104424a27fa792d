"""One organization with 25 keys between two real servers, and everything that can be done to it, again and again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from keystore_harness import Testbed, wait_until, workspace
from keystore_harness.database import Database
from keystore_harness.interceptor import Interceptor, Plan
from keystore_harness.program import Program
from keystore_harness.server import VaultServer
from keystore_harness.service import ServiceProcess
from keystore_harness.tenant import Tenant

from pulumi_keystore.client import Client
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import HostUnavailable, KeystoreError
from tests.conftest import Customer

KEYS = 25
LAUNCHER = "tests.torture.launcher"
SETTINGS = {
    "retry_s": "3",
    "request_s": "3",
    "cleanup_retry_s": "0.2",
    "shard_size": "10",
    "stall_s": "20",
    "lease_s": "2",
    # Their calls would be counted, and be failed, among those of the migration.
    "health_checks": "false",
}
ENDINGS = {
    "Migration succeeded",
    "Migration failed: source not reachable",
    "Migration failed: destination not reachable",
    "Migration failed: destination data failed verification",
    "Migration canceled: migration process stalled",
}


class Stage:
    """Two servers, a database, a service, and a customer whose keys go to and fro."""

    def __init__(self, stack: ExitStack, *, intercepted: bool, failpoints: bool = False, **settings: str) -> None:
        self.plan, self.database_plan = Plan(1.0), Plan(1.0)
        self.control = workspace.current().subfolder("control")
        self.testbed = Testbed("ab", {**SETTINGS, **settings})
        self.database = stack.enter_context(Database(workspace.current().subfolder("db") / "d", self.database_plan))
        given = {**self.testbed.service.settings, "database_url": self.database.url}
        if intercepted:
            targets = {}
            for vault in self.testbed.vaults.values():
                interceptor = Interceptor(vault, self.testbed.ca.issue("acme"), self.plan)
                stack.enter_context(interceptor)
                targets[f"{vault.name}:{vault.port}"] = f"127.0.0.1:{interceptor.port}"
            given["host_map"] = json.dumps(targets)
        program = Program(module=LAUNCHER, environment={"TORTURE": str(self.control)}) if failpoints else Program()
        self.testbed.service = ServiceProcess(given, self.testbed.timeline, program)
        stack.enter_context(self.testbed)
        service = self.testbed.service
        self.admin_token = service.make_token("ops", "provider-admin")
        self.admin = stack.enter_context(Client(service.url, self.admin_token))
        escrow_client = stack.enter_context(Client(service.url, service.make_token("authority", "authority")))
        self.customer = Customer("acme", self.testbed, self.admin, escrow_client)
        self.admin.put_organization("acme")
        for keystore in ("first", "second"):
            self.customer.admit(keystore)
            self._register(keystore)
        self.customer.enrol(KEYS)
        self.here, self.there = "first", "second"
        self.cells = 0

    def _register(self, keystore: str) -> None:
        """Register a keystore; on a busy machine its server may answer later than the cells want it to."""
        deadline = time.monotonic() + 120
        while True:
            try:
                self.customer.register(keystore)
            except HostUnavailable:
                assert time.monotonic() < deadline
            else:
                return

    # One cell: a migration that something happens to.

    def start(self) -> dict[str, Any] | None:
        """Ask for a migration as a user does: again if there was no answer; None if it is refused."""
        deadline = time.monotonic() + 120
        while True:
            try:
                row = self.admin.start_migration("acme", self.there)
            except KeystoreError as error:
                if error.status not in (500, 503):
                    return None
                assert time.monotonic() < deadline, error
                self.revive()
                time.sleep(0.05)
            else:
                return row

    def finish(self, row: dict[str, Any], timeout_s: float = 240) -> dict[str, Any]:
        """Wait for the end of a migration; start the service again where it has ended."""

        def ended() -> dict[str, Any] | None:
            self.revive()
            try:
                now = self.admin.migration("acme", row["id"])
            except KeystoreError:
                return None
            return now if now["phase"] == "ended" else None

        try:
            # Asking makes calls to the database, too: not too often.
            return wait_until(ended, "the migration to end", timeout_s, 0.15) or {}
        except TimeoutError:
            with suppress(KeystoreError):
                print(self.admin.migration("acme", row["id"]))
            print(self.testbed.service.log.read_text(errors="replace")[-6000:])
            raise

    def finish_cleanly(self, row: dict[str, Any]) -> dict[str, Any]:
        """Wait for the end of a migration, and until nothing of it is left: a busy server may not let it at once."""
        ended = self.finish(row)
        self.await_clean_up(row)
        return ended

    def revive(self) -> None:
        """Start the service again if it has ended by itself, as a supervisor does."""
        process = self.testbed.service._process
        if process is None or process.poll() is not None:
            self.testbed.service.start()

    def settle(self, row: dict[str, Any] | None) -> str:
        """See that the right side has every key and the other nothing; return how it ended."""
        self.cells += 1
        if row is None or row["id"] is None:
            if self.customer.active == self.there:
                # Decided before the answer to the request was lost.
                self.here, self.there = self.there, self.here
            ending = "refused"
        else:
            row = self.finish(row)
            ending = row["ending"]
            assert ending in ENDINGS, row
            assert (row["state"] == "succeeded") == (self.customer.active == self.there), row
            if row["state"] == "succeeded":
                self.here, self.there = self.there, self.here
            told = [line["action"] for line in self.customer.history()]
            assert told.count(ending) >= 1
            self.await_clean_up(row)
        self.assert_whole()
        return ending

    def await_clean_up(self, row: dict[str, Any]) -> None:
        def clean() -> bool:
            self.revive()
            with suppress(KeystoreError):
                return self.admin.migration("acme", row["id"])["clean_up_pending"] == []
            return False

        wait_until(clean, "the clean-up", 240, 0.05)

    def assert_whole(self) -> None:
        """Every key is where it should be, once; nothing of ours is on the other side, canaries included."""
        assert self.customer.active == self.here
        assert self.admin.organization("acme")["maintenance"] is None
        wanted = {key_name(user, 1): key for user, key in self.customer.keys.items()}
        assert self.customer.stored(self.here) == wanted
        # A canary of a request that was never answered is removed in the background.
        wait_until(lambda: self.customer.stored(self.there) == {}, f"{self.there} to be empty", interval_s=0.1)

    # Moments.

    def stop_at(self, point: str) -> dict[str, Any]:
        """Start a migration; return when it has come to a moment, where it waits for `go`."""
        self.plan_moments(f"{point} wait")
        row = self.start()
        assert row is not None
        wait_until(lambda: self.struck, f"the moment {point}", interval_s=0.01)
        return row

    def server(self, keystore: str) -> VaultServer:
        return self.testbed.servers[self.customer.letters[keystore]]

    def place(self, keystore: str) -> Tenant:
        """What an administrator can do with the customer's keys on a server."""
        return Tenant(self.server(keystore), self.customer.tenancy(keystore), self.customer.versions[keystore])

    def plan_moments(self, *lines: str) -> None:
        for name in ("go", "struck", "plan"):
            (self.control / name).unlink(missing_ok=True)
        (self.control / "next").write_text("\n".join(lines))
        (self.control / "next").rename(self.control / "plan")

    def go(self) -> None:
        (self.control / "go").touch()

    def clear_moments(self) -> None:
        (self.control / "plan").unlink(missing_ok=True)
        self.go()

    @property
    def struck(self) -> str | None:
        with suppress(FileNotFoundError):
            return (self.control / "struck").read_text() or None
        return None

    @property
    def reached(self) -> set[str]:
        return {line for file in self.control.glob("reached-*") for line in file.read_text().split()}


@contextmanager
def stage(**options: Any) -> Iterator[Stage]:
    with ExitStack() as stack:
        made = Stage(stack, **options)
        try:
            yield made
        finally:
            made.clear_moments()
            made.plan.clear()
            made.database_plan.clear()
