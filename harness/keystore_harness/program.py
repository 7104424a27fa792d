"""The product's own command as a process: started as a user starts it, or, where hundreds are, forked from a warm one.

The imports of `keystore serve` take three seconds of processor. `fork_from_now_on` lets a server process of
`multiprocessing` do them once; each further process is forked from it, and differs from one that was started in its
name in the process list, and in that libraries were loaded before it got its environment.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from keystore_harness import workspace
from keystore_harness.errors import HarnessError

_LONGEST_S = 120
_forked = False


class Process(Protocol):
    """What is needed of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status when it has ended; raise `subprocess.TimeoutExpired` if that takes longer."""

    def kill(self) -> None:
        """Kill it, if it runs."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal, if it runs."""


class Program:
    """What is run: an installed command, or a Python module in its place.

    Args:
        command: The words it begins with; by default the installed `keystore`.
        module: A module that is run instead, of which the `keystore` command is a part.
        environment: What it gets beside what each process is given.

    Raises:
        HarnessError: The product is not installed.

    """

    def __init__(
        self, command: Sequence[str] = (), *, module: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        self.forked = _forked and not command
        self._module = module
        self._environment = dict(environment or {})
        further = ["env", *(f"{name}={value}" for name, value in self._environment.items())] if environment else []
        self.command = [*further, *(command or ([sys.executable, "-m", module] if module else [_installed()]))]
        """The words that each process is started with, where it is not forked."""

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Start a process that has nothing but this environment, and whose output is added to a file."""
        if self.forked:
            return _Forked(self._module, arguments, {**environment, **self._environment}, log, log)
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                [*self.command, *arguments], env=dict(environment), stdout=output, stderr=output, start_new_session=True
            )

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end, always one that is started; return what it printed."""
        return subprocess.run(  # noqa: S603 - our own command
            [*self.command, *arguments], env=dict(environment),
            capture_output=True, text=True, timeout=_LONGEST_S, check=check,
        )  # fmt: skip

    def result(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> str:
        """Run a process to its end; return its one line of output. What else it says is added to a file.

        Raises:
            subprocess.CalledProcessError: It fails.

        """
        if not self.forked:
            return self.run(arguments, environment).stdout.strip()
        # Not a file: the line may be a secret.
        output = log.with_name(f"output-{secrets.token_hex(4)}")
        os.mkfifo(output, 0o600)
        with os.fdopen(os.open(output, os.O_RDONLY | os.O_NONBLOCK), "rb") as line:
            output_of = _Forked(self._module, arguments, {**environment, **self._environment}, output, log)
            status = output_of.wait(_LONGEST_S)
            output.unlink()
            if status:
                raise subprocess.CalledProcessError(status, ["keystore", *arguments], stderr=log.read_text())
            return line.read().decode().strip()


def fork_from_now_on() -> None:
    """Fork what is started from now on, for tests: not with modules that expect to be imported anew each time."""
    global _forked  # noqa: PLW0603 - one a process, as the server of `multiprocessing` is
    _context.set_forkserver_preload(["keystore_harness.warm"])
    _forked = True


_context = multiprocessing.get_context("forkserver")


class _Forked:
    """A process that was forked."""

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path, errors: Path
    ) -> None:
        given = (module, list(arguments), dict(environment), str(output), str(errors))
        self._process = _context.Process(target=become, args=given, daemon=True)
        with _marked():
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None  # noqa: S101
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired("keystore", timeout or 0)
        return status

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


@contextmanager
def _marked() -> Iterator[None]:
    """Let a server process that is started now bear the mark of this run: what is forked from it bears it, too."""
    before = os.environ.get(workspace.MARK)
    os.environ.update(workspace.current().environment)
    try:
        yield
    finally:
        del os.environ[workspace.MARK]
        if before is not None:
            os.environ[workspace.MARK] = before


def become(module: str, arguments: list[str], environment: dict[str, str], output: str, errors: str) -> None:
    """Be a process that has just been started: its session, output, environment and arguments."""
    os.setsid()
    for descriptor, path in ((1, output), (2, errors)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["keystore", *arguments]
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        # Imported here: the harness can do without the product.
        from pulumi_keystore.cli import main  # noqa: PLC0415

        main()


def _installed() -> str:
    beside = Path(sys.executable).parent / "keystore"
    found = str(beside) if beside.exists() else shutil.which("keystore")
    if found is None:
        raise HarnessError("no `keystore` command, so no service to test; run `pip install 'pulumi-keystore[server]'`")
    return found
