"""What people, networks, backups and names do, in any order: no acknowledged key is lost, and there is a way out.

A hypothesis state machine on real servers. Its oracle remembers every key that was acknowledged, and reads the servers
by itself, with their root tokens. A key that a person has destroyed, by restoring a snapshot that lacks it over the only
server that held it, is the one that may be gone; the product has to name it then.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from keystore_harness import wait_until
from keystore_harness.processes import stop_in_its_tracks
from keystore_harness.server import VaultServer

from pulumi_keystore.errors import KeystoreError
from tests.conftest import WHOLE, retire
from tests.safety.bed import Acme, Bed

RUNS, STEPS = (200, 30) if WHOLE else (1, 16)
RUNS = int(os.environ.get("SAFETY_RUNS", RUNS))
SEED = int(os.environ.get("SAFETY_SEED", "0"))
LETTERS = st.sampled_from(["a", "b"])
KEYSTORES = st.sampled_from(["first", "second"])


class Life(RuleBasedStateMachine):
    """One organization between two servers."""

    bed: Bed
    others: dict[str, VaultServer]
    """Servers of the same names that are other clusters, and know the organization: the product could write there."""
    seen: ClassVar[Counter[str]] = Counter()
    """What has come about in all runs, so that it can be seen that something has."""

    # A beginning.

    @initialize(version=st.sampled_from([1, 1, 2]))
    def begin(self, version: int) -> None:
        self.acme: Acme = self.bed.customer(10, version=version, first="a", second="b")
        for other in self.others.values():
            other.admit(self.acme.tenancy("first"), version=version)
        self.heal = ExitStack()
        self.excused: set[str] = set()
        self.attempted: dict[str, bytes] = {}
        self.snapshots: dict[str, bytes] = {}
        self.sealed: set[str] = set()
        self.elsewhere: set[str] = set()
        self.helpless: set[str] = set()
        self.folder = Path(self.heal.enter_context(tempfile.TemporaryDirectory()))
        self.dump: Path | None = None
        self.users = 0
        self.seen["runs"] += 1

    def ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Ask for something that may be refused: then nothing has happened."""
        try:
            return call(*arguments, **options)
        except KeystoreError as error:
            self.seen[f"refused: {error.code}"] += 1
            return None

    # What clients do.

    @rule(count=st.integers(1, 40))
    def enrol(self, count: int) -> None:
        self.users += 1
        keys = self.acme.some(count, f"u{self.users}")
        if self.ask(self.acme.enrol_keys, keys) is None:
            self.attempted |= keys

    # Whether something was refused is no precondition: it depends on the servers, and rules are chosen without them.
    @rule()
    def repeat(self) -> None:
        if self.attempted and self.ask(self.acme.enrol_keys, dict(self.attempted)) is not None:
            self.attempted.clear()

    @rule(letter=LETTERS, count=st.integers(20, 120))
    def enrol_while_packets_come_late(self, letter: str, count: int) -> None:
        self.users += 1
        keys, line = self.acme.some(count, f"u{self.users}"), self.bed.testbed.lines[letter]
        thread = threading.Thread(target=self.ask, args=(self.acme.enrol_keys, keys))
        thread.start()
        time.sleep(0.05)
        with line.outage(late_s=1.5):
            time.sleep(1)
        thread.join()
        self.attempted |= {user: key for user, key in keys.items() if user not in self.acme.keys}
        self.repeat()
        line.await_quiet()

    # What administrators do.

    @rule(destination=KEYSTORES, mode=st.sampled_from(["maintenance", "online"]), stay=st.booleans())
    def migrate(self, destination: str, mode: str, stay: bool) -> None:
        row = self.ask(self.acme.admin.start_migration, self.acme.name, destination, None, mode)
        if row and row["id"] and stay:
            self.ask(self.acme.finish, row)

    @rule()
    def cancel(self) -> None:
        running = self.ask(self.acme.admin.organization, self.acme.name)
        if running and running["maintenance"]:
            self.ask(self.acme.admin.cancel_migration, self.acme.name, running["maintenance"])

    @rule(keystore=KEYSTORES)
    def rotate_the_certificate(self, keystore: str) -> None:
        self.ask(self.acme.swap, keystore)

    @rule(keystore=KEYSTORES, letter=LETTERS)
    def edit_the_address(self, keystore: str, letter: str) -> None:
        if letter in self.elsewhere:
            return  # what answers there now would be meant, and is what would be used
        role = self.acme.tenancy(keystore).role_name
        answer = self.ask(self.acme.swap, keystore, address=self.bed.testbed.servers[letter].address, role=role)
        if answer is not None:
            self.acme.letters[keystore] = letter

    @rule(keystore=KEYSTORES)
    def delete_and_declare_again(self, keystore: str) -> None:
        if self.acme.letters[keystore] in self.elsewhere:
            return  # as above
        self.ask(self.acme.admin.delete_keystore, self.acme.name, keystore)
        self.ask(self.acme.register, keystore)

    @rule(letter=LETTERS)
    def take_the_right_to_delete(self, letter: str) -> None:
        if letter not in self.helpless | self.sealed:
            self.helpless.add(letter)
            self._policy(letter, delete=False)

    @rule(letter=LETTERS)
    def give_it_back(self, letter: str) -> None:
        if letter in self.helpless - self.sealed:
            self.helpless.remove(letter)
            self._policy(letter, delete=True)

    def _policy(self, letter: str, *, delete: bool) -> None:
        tenancy = self.acme.tenancy("first")
        text = tenancy.policy(self.acme.versions["first"])
        client = self.bed.testbed.servers[letter].client()
        client.sys.create_or_update_policy(tenancy.role_name, text if delete else text.replace(', "delete"', ""))

    @rule()
    def clean_up_now(self) -> None:
        for row in self.ask(self.acme.pending) or []:
            self.ask(self.acme.admin.retry_clean_up, self.acme.name, row["id"])

    @rule()
    def recover(self) -> None:
        plan = self.ask(self.acme.admin.plan_recovery, self.acme.name)
        if plan and plan["suspended"]:
            self.ask(self.acme.admin.recover, self.acme.name, plan["code"])

    @rule()
    def verify(self) -> None:
        self.ask(self.acme.admin.verify, self.acme.name)

    # What happens to servers, names, backups and processes.

    @rule(letter=LETTERS)
    def seal(self, letter: str) -> None:
        if letter not in self.sealed:
            self.sealed.add(letter)
            self.bed.testbed.servers[letter].seal()

    @rule(letter=LETTERS)
    def unseal(self, letter: str) -> None:
        if letter in self.sealed:
            self.bed.testbed.servers[letter].unseal()
            self.sealed.remove(letter)

    @rule(letter=LETTERS)
    def lead_the_name_to_another_cluster(self, letter: str) -> None:
        if letter not in self.elsewhere:
            self.elsewhere.add(letter)
            self.bed.testbed.lines[letter].lead_to(self.others[letter].port)

    @rule(letter=LETTERS)
    def lead_it_back(self, letter: str) -> None:
        if letter in self.elsewhere:
            self.elsewhere.remove(letter)
            self.bed.testbed.lines[letter].lead_to(self.bed.testbed.servers[letter].port)

    @rule(letter=LETTERS)
    def take_a_snapshot(self, letter: str) -> None:
        if letter not in self.sealed:
            self.snapshots[letter] = self.bed.testbed.servers[letter].snapshot()

    @rule(letter=LETTERS)
    def restore_the_snapshot(self, letter: str) -> None:
        if letter not in self.snapshots or self.sealed:
            return
        service = self.bed.testbed.service
        stop_in_its_tracks(service.pid)
        try:
            time.sleep(0.5)  # what was on its way has arrived
            before = self.there()
            server = self.bed.testbed.servers[letter]
            server.restore(self.snapshots[letter])
            wait_until(lambda: self._answers(letter), "the server to answer again")
            # Only this deed of a person can have taken them.
            self.excused |= before - self.there()
            self._policy(letter, delete=letter not in self.helpless)
        finally:
            os.kill(service.pid, signal.SIGCONT)

    def _answers(self, letter: str) -> bool:
        mount = self.acme.mounts["first"]
        with suppress(Exception):
            return f"{mount}/" in self.bed.testbed.servers[letter].client().sys.list_mounted_secrets_engines()["data"]
        return False

    @rule()
    def dump_the_database(self) -> None:
        self.dump = self.folder / f"{time.monotonic_ns()}.dump"
        self.bed.testbed.service.dump_database(self.dump)

    @rule()
    def restore_the_database(self) -> None:
        if self.dump is not None:
            self.bed.testbed.service.restore_database(self.dump)

    @rule()
    def kill_the_service(self) -> None:
        self.bed.testbed.service.restart()

    # What must hold.

    def there(self) -> set[str]:
        """Return the users whose acknowledged key lies somewhere, unchanged."""
        found = {key for keys in self.acme.everywhere().values() for key in keys}
        return {user for user, key in self.acme.keys.items() if key in found}

    @invariant()
    def no_acknowledged_key_is_gone(self) -> None:
        if not hasattr(self, "acme") or self.sealed:
            return
        gone: set[str] = set()
        for _ in range(3):  # a key may move from the server read last to the one read first
            gone = set(self.acme.keys) - self.there() - self.excused
            if not gone:
                return
        raise AssertionError(f"{len(gone)} acknowledged keys lie nowhere: {sorted(gone)[:5]}")

    def teardown(self) -> None:
        if not hasattr(self, "acme"):
            return
        self.seen["keys"] += len(self.acme.keys)
        self.seen["keys in no snapshot that was restored"] += len(self.excused)
        for action in self.acme.actions:
            self.seen[action] += 1
        try:
            self.come_to_rest()
            self.everything_is_readable_or_named()
            self.there_is_a_way_on()
            print(f"run {self.seen['runs']}: {len(self.acme.keys)} keys", flush=True)
        finally:
            self.heal.close()
            retire(self.bed.testbed, [self.acme.name])

    def come_to_rest(self) -> None:
        """Mend everything outside the product; then do what its own hints say."""
        for letter in ("a", "b"):
            self.unseal(letter)
            self.lead_it_back(letter)
            self.helpless.add(letter)
            self.give_it_back(letter)
        acme = self.acme
        wait_until(lambda: not self._running(), "the migration to end", interval_s=0.2)
        for keystore in acme.letters:
            self.ask(acme.register, keystore)  # as `pulumi up` does
        # Each keystore has been looked at by then, whoever asks for nothing.
        time.sleep(3 * float(self.bed.testbed.service.settings["health_check_interval_s"]))
        wait_until(self._recovered, "the recovery", interval_s=0.5)
        wait_until(self._cleaned, "the clean-ups", interval_s=0.5)
        if acme.admin.verify(acme.name)["surplus"]["count"]:
            # Enrolled a moment before an older database came back, and perhaps acknowledged: the health check tells.
            wait_until(self._surplus_is_told, "the health check to tell of keys that are not in the ledger")
            acme.admin.recover(acme.name, acme.admin.plan_recovery(acme.name)["code"])
            self.seen["taken into the ledger"] += 1
        active = acme.admin.organization(acme.name)["active_keystore"]
        assert active in acme.letters

    def _running(self) -> bool:
        found = self.ask(self.acme.admin.migrations, self.acme.name)
        return found is None or any(row["phase"] != "ended" for row in found)

    def _recovered(self) -> bool:
        self.recover()
        found = self.ask(self.acme.admin.organization, self.acme.name)
        return found is not None and found["suspended"] is None

    def _surplus_is_told(self) -> bool:
        health = self.acme.admin.status(self.acme.name)["health"]
        return health is not None and "not in the ledger" in (health["warning"] or "")

    def _cleaned(self) -> bool:
        self.recover()
        return self.ask(self.acme.pending) == []

    def everything_is_readable_or_named(self) -> None:
        acme = self.acme
        self.no_acknowledged_key_is_gone()
        report = acme.admin.verify(acme.name)
        named = {*report["missing"]["names"], *report["damaged"]["names"]}
        for user, key in acme.keys.items():
            try:
                assert acme.released(user) == key
            except KeystoreError as error:
                assert user in self.excused, f"{user} is not released: {error}"
                assert user in named or error.status == 404, f"{user} is not named"

    def there_is_a_way_on(self) -> None:
        acme = self.acme
        report = acme.admin.verify(acme.name)
        if report["missing"]["names"]:
            acme.admin.give_up_keys(acme.name, report["missing"]["names"], "lost with a snapshot")
        for user in report["damaged"]["names"]:
            acme.admin.destroy_key(acme.name, user, "damaged")
        there = "second" if acme.active == "first" else "first"
        if acme.letters["first"] != acme.letters["second"]:
            row = acme.migrate(there)
            assert row["ending"] == "Migration succeeded", row
            acme.await_no_clean_up()
            assert acme.names("first" if there == "second" else "second") == []


@pytest.mark.timeout(0 if WHOLE else 900)
def test_whatever_happens_no_acknowledged_key_is_lost_and_there_is_a_way_out(bed):
    Life.bed, Life.others = bed, {letter: bed.testbed.rebuilt(letter) for letter in ("a", "b")}
    wanted = settings(
        max_examples=RUNS,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    print(f"SAFETY_SEED={SEED}: {RUNS} runs of {STEPS} steps")
    run_state_machine_as_test(seeded(SEED)(Life), settings=wanted)
    print(dict(Life.seen.most_common()))
