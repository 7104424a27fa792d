"""The control plane as a process under test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from keystore_harness import backup, workspace
from keystore_harness.ports import free_port, wait_until
from keystore_harness.processes import go_on, stop_in_its_tracks
from keystore_harness.program import Process, Program
from keystore_harness.timeline import Timeline

_START_TIMEOUT_S = 90


class ServiceProcess:
    """`keystore serve` on 127.0.0.1 with its own data folder. Use it as a context manager.

    Args:
        settings: Further settings, as KEYSTORE_… without the prefix, in lower case.
        timeline: Where its faults are recorded, one of its own by default.
        program: What is run, the installed `keystore` command by default.

    Raises:
        HarnessError: The product is not installed.

    """

    def __init__(
        self, settings: Mapping[str, str], timeline: Timeline | None = None, program: Program | None = None
    ) -> None:
        self.program = program or Program()
        self.port = free_port()
        self.folder = workspace.current().subfolder("service")
        self.timeline = timeline or Timeline()
        self.data = self.folder / "data"
        self.log = self.folder / "service.log"
        self.settings = dict(settings)
        self._process: Process | None = None
        self._token = ""

    @property
    def command(self) -> list[str]:
        """The words that the `keystore` command begins with."""
        return self.program.command

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        """The URL of its database: the one it was given, or the one it embeds, on a socket in its data folder."""
        return self.settings.get("database_url", f"postgresql://postgres:@/postgres?host={self.data / 'postgres'}")

    @property
    def pid(self) -> int:
        """Process id of the running service."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of the process; nothing of the caller's but PATH and HOME."""
        given = {f"KEYSTORE_{name.upper()}": value for name, value in self.settings.items()}
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": os.environ.get("HOME", str(self.folder)),
            "KEYSTORE_DATA": str(self.data),
            "KEYSTORE_PORT": str(self.port),
            **workspace.current().environment,
            **given,
        }

    def start(self) -> None:
        """Start the process; return when it answers.

        Raises:
            RuntimeError: It ends instead; the message holds the end of its log.

        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = self.program.start(["serve"], self.environment, self.log)
        wait_until(self._answers, "the service to answer", _START_TIMEOUT_S)
        self.timeline.end("service", "killed", "stopped")

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the service ended with status {self._process.poll()}:\n{tail}")
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):  # noqa: S310 - our own URL
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """Kill -9 the process (not its database, which is another process); return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.timeline.begin("service", "killed")

    def wait(self, timeout_s: float) -> int:
        """Wait until the process has ended by itself; return its exit status."""
        assert self._process is not None  # noqa: S101
        status = self._process.wait(timeout_s)
        self._process = None
        return status

    def stop(self) -> None:
        """Ask the process to end; return when it has, with its database."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the service; start it again at the end whatever happens."""
        self.stop()
        self.timeline.begin("service", "stopped")
        try:
            yield
        finally:
            self.start()

    def restart(self) -> float:
        """Kill -9 and start again; return the seconds until it answered."""
        self.kill()
        started = time.monotonic()
        self.start()
        return time.monotonic() - started

    def dump_database(self, path: Path, *, url: str = "") -> None:
        """Write a backup of its database to a file, while it runs.

        Args:
            path: Where to.
            url: Where the database is reached, its usual URL by default; past a proxy, say (`Database.direct_url`).

        Raises:
            HarnessError: It cannot be made.

        """
        backup.dump(url or self.database_url, path)
        self.timeline.note("service", "database dumped")

    def restore_database(self, path: Path, *workers: WorkerProcess, url: str = "") -> None:
        """Kill the service and its workers, restore a backup of its database, and start them again.

        Args:
            path: The backup.
            *workers: Those that work on the same database.
            url: Where the database is reached, as for `dump_database`.

        Raises:
            HarnessError: It cannot be restored.

        """
        running = [worker for worker in workers if worker.running]
        for worker in running:
            worker.kill()
        self.kill()
        backup.restore(url or self.database_url, path)
        self.timeline.note("service", "older database restored")
        self.start()
        for worker in running:
            worker.start()

    def lose_everything(self) -> None:
        """Remove its database and master key, as when its machine burns down, and start it anew with nothing."""
        self.stop()
        wait_until(lambda: not (self.data / "postgres" / "postmaster.pid").exists(), "the database to end")
        shutil.rmtree(self.data)
        self.timeline.note("service", "database and master key lost")
        self.start()

    def learn(self, public: str, port: int) -> None:
        """Let a further public address (host:port) lead to a port of 127.0.0.1; the service is started again."""
        known = json.loads(self.settings.get("host_map") or "{}")
        self.settings["host_map"] = json.dumps({**known, public: f"127.0.0.1:{port}"})
        self.restart()

    def run(self, *arguments: str, check: bool = True, token: str = "") -> subprocess.CompletedProcess[str]:
        """Run the `keystore` command against this service, in a pipe."""
        environment = {**self.environment, "KEYSTORE_URL": self.url}
        if token:
            environment["KEYSTORE_TOKEN"] = token
        return self.program.run(arguments, environment, check=check)

    def make_token(self, name: str, role: str, organization: str | None = None) -> str:
        """Make an API token: the first one by way of the database, further ones, which is faster, by the service."""
        if self._token:
            body = {"name": name, "role": role, "organization": organization}
            # Refused where the database is an older one by now.
            with contextlib.suppress(OSError, ValueError):
                return self._ask_for_token(body)
        scope = ["--organization", organization] if organization else []
        arguments = ["token", "create", name, "--role", role, *scope, "--local"]
        made = self.program.result(arguments, {**self.environment, "KEYSTORE_URL": self.url}, self.log)
        if role == "provider-admin" and organization is None:
            self._token = made
        return made

    def _ask_for_token(self, body: dict[str, str | None]) -> str:
        request = urllib.request.Request(  # noqa: S310 - our own service
            f"{self.url}/v1/tokens",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            return str(json.loads(response.read())["token"])

    def __enter__(self) -> ServiceProcess:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the service and remove its folder; safe to call twice."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class WorkerProcess:
    """`keystore worker` for a running service, as on another machine. Use it as a context manager.

    Args:
        service: The service it works for; its command and its database are the worker's, too.
        settings: Further settings.

    """

    def __init__(self, service: ServiceProcess, settings: Mapping[str, str] | None = None) -> None:
        self._program = service.program
        given = {**service.settings, "slots": "4", **(settings or {})}
        self._environment = {
            **service.environment,
            **{f"KEYSTORE_{name.upper()}": value for name, value in given.items()},
            "KEYSTORE_DATABASE_URL": service.database_url,
            "KEYSTORE_MASTER_KEY_FILE": str(service.data / "master.key"),
        }
        self._timeline = service.timeline
        self.log = service.folder / f"worker-{free_port()}.log"
        self._told = 0
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the running worker."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process of it."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; return when it is ready."""
        # What an earlier process has said is not this one's.
        self._told = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._program.start(["worker"], self._environment, self.log)
        wait_until(self._ready, "the worker to be ready", _START_TIMEOUT_S)
        self._timeline.end("worker", "killed")

    def _ready(self) -> bool:
        text = self.log.read_bytes()[self._told :].decode(errors="replace") if self.log.exists() else ""
        if not self.running:
            raise RuntimeError(f"the worker ended:\n{text[-3000:]}")
        return " is ready" in text

    def kill(self) -> None:
        """Kill -9 the process; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._timeline.begin("worker", "killed")

    def stop(self) -> int:
        """Ask the process to end; return its exit status."""
        assert self._process is not None  # noqa: S101
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        self._process = None
        return status

    def pause(self) -> None:
        """Stop the process in its tracks."""
        stop_in_its_tracks(self.pid)
        self._timeline.begin("worker", "paused")

    def resume(self) -> None:
        """Let it go on."""
        go_on(self.pid)
        self._timeline.end("worker", "paused")

    def __enter__(self) -> WorkerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
