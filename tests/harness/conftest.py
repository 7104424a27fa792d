"""Servers by either driver; Docker is installed and started where that can be done."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from keystore_harness import Toxiproxy, VaultCluster, VaultServer, wait_until
from keystore_harness.drivers import daemon, driver
from keystore_harness.errors import HarnessError
from keystore_harness.workspace import MARK

from tests import debian
from tests.conftest import WHOLE


def docker_missing() -> str | None:
    """Why there is no Docker daemon, None if there is one."""
    try:
        daemon.client().close()
    except HarnessError as error:
        return str(error)
    return None


@pytest.fixture(scope="session")
def docker() -> Iterator[None]:
    """A Docker daemon: the one that runs, or on a Debian machine as root one of ours, which test runs share."""
    reason = docker_missing()
    if reason is not None and not debian.can_install():
        # CI is a Debian machine as root: there, this is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no containers: {reason}")
    with DAEMON.with_suffix(".users").open("w") as users:
        with only_one():
            if docker_missing() is not None:
                start_daemon()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with only_one():
                fcntl.flock(users, fcntl.LOCK_UN)
                with suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    end_daemon()


DAEMON = Path(tempfile.gettempdir()) / "pulumi-keystore-dockerd"
"""Beside it: who uses the daemon that we started (.users), who starts or ends it now (.lock), its process id (.pid)."""


@contextmanager
def only_one() -> Iterator[None]:
    with DAEMON.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start_daemon() -> None:
    debian.install("dockerd", "docker.io", "iptables")
    with DAEMON.with_suffix(".log").open("wb") as log:
        # Not of this run: others use it, too, and must not lose it when this one ends.
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        started = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True, env=environment)
    DAEMON.with_suffix(".pid").write_text(str(started.pid))
    wait_until(lambda: docker_missing() is None, "the Docker daemon", 60)


def end_daemon() -> None:
    """End the daemon if it is ours; nobody uses it."""
    file = DAEMON.with_suffix(".pid")
    with suppress(OSError, ValueError, psutil.Error):
        running = psutil.Process(int(file.read_text()))
        if running.name() == "dockerd":
            running.terminate()
            running.wait(60)
    file.unlink(missing_ok=True)


@pytest.fixture(scope="session", params=["process", "container"] if WHOLE else ["process"])
def any_driver(request: pytest.FixtureRequest):
    if request.param == "container":
        request.getfixturevalue("docker")
    return driver(request.param)


# Of one module each: servers cost something even while nobody asks them anything.
@pytest.fixture(scope="module")
def server(any_driver, toxiproxy: Toxiproxy) -> Iterator[VaultServer]:
    # A snapshot is restored beside what is there, after the disk has been filled once.
    disk = 192 if os.geteuid() == 0 else None
    with VaultServer("vault-h.example.com", driver=any_driver, network=toxiproxy, disk_mb=disk) as started:
        yield started


@pytest.fixture(scope="module")
def cluster(any_driver, toxiproxy: Toxiproxy) -> Iterator[VaultCluster]:
    with VaultCluster("vault-k.example.com", driver=any_driver, network=toxiproxy) as started:
        yield started
