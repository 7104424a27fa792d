"""The command where a person sits before it: what it asks on a terminal, what a shell completes, how it ends."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from keystore_harness.service import WorkerProcess

KEYSTORE = Path(sys.executable).parent / "keystore"
PATIENCE_S = 120


class Terminal:
    """A command on a terminal of its own: it is typed to, and what it shows is waited for."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = ""
        self._process = subprocess.Popen(
            [KEYSTORE, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)

    def expect(self, text: str) -> None:
        """Wait until it shows a text."""
        ends = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < ends, f"not shown: {text!r}\n{self.shown}"
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    self.shown += os.read(self._ours, 65_536).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert text in self.shown, f"ended without {text!r}\n{self.shown}"

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._ours, f"{line}\n".encode())

    def end(self) -> int:
        """Wait until it ends; return its exit status."""
        status = self._process.wait(PATIENCE_S)
        with suppress(OSError):
            while select.select([self._ours], [], [], 0)[0] and (more := os.read(self._ours, 65_536)):
                self.shown += more.decode(errors="replace")
        os.close(self._ours)
        return status


@pytest.fixture
def terminal(testbed, admin_token):
    environment = {
        "PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TERM": "xterm", "COLUMNS": "80",
        "KEYSTORE_URL": testbed.service.url, "KEYSTORE_TOKEN": admin_token,
    }  # fmt: skip
    return lambda *arguments: Terminal(*arguments, **environment)


def test_a_migration_is_shown_and_asked_about_before_it_starts(customer, terminal):
    acme = customer(keys=5)
    one = terminal("migration", "start", acme.name, "second")
    one.expect("Email address to notify (none for no one):")
    shown = re.sub(" +", " ", one.shown)
    for line in ("source first (https://", "destination second (https://", "keys 5", "moves yes"):
        assert line in shown
    one.type("none")
    one.expect("Start the migration?")
    one.type("n")
    assert one.end() == 1
    assert acme.active == "first"
    assert acme.admin.migrations(acme.name) == []

    again = terminal("migration", "start", acme.name, "second")
    again.expect("Email address to notify")
    again.type("none")
    again.expect("Start the migration?")
    again.type("y")
    again.expect("Migration succeeded")
    assert again.end() == 0
    acme.assert_complete("second", empty="first")


def test_what_cannot_be_undone_is_asked_about(customer, terminal):
    acme = customer(keys=1, keystores=("first",))
    [user] = acme.keys
    one = terminal("key", "destroy", acme.name, user, "--reason", "the user has left")
    one.expect("Type the user id to continue:")
    one.type("yes")
    assert one.end() == 1
    assert acme.released(user) == acme.keys[user]


@pytest.mark.parametrize(("typed", "completed"), [("migr", "migration"), ("reliab", "reliability"), ("doc", "doctor")])
def test_a_shell_completes_commands(typed, completed):
    script = (
        f'eval "$({KEYSTORE} --show-completion bash)"; COMP_WORDS=({KEYSTORE} {typed}); COMP_CWORD=1; '
        f'_keystore_completion {KEYSTORE}; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.split() == [completed], done.stderr


def test_a_worker_that_is_told_to_stop_ends_well(testbed):
    worker = WorkerProcess(testbed.service)
    worker.start()
    assert worker.stop() == 0
    said = worker.log.read_text()
    assert "Traceback" not in said
    assert "abnormal" not in said
