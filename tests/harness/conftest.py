"""Servers by either driver; Docker is installed and started where that can be done."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from keystore_harness import Toxiproxy, VaultCluster, VaultServer, wait_until
from keystore_harness.drivers import container, driver
from keystore_harness.errors import HarnessError
from keystore_harness.workspace import current

from tests import debian


def docker_missing() -> str | None:
    """Why there is no Docker daemon, None if there is one."""
    try:
        container.client().close()
    except HarnessError as error:
        return str(error)
    return None


@pytest.fixture(scope="session")
def docker() -> Iterator[None]:
    """A Docker daemon: the one that runs, or on a Debian machine as root one of ours."""
    reason = docker_missing()
    if reason is None:
        yield
        return
    if not debian.can_install():
        # CI is a Debian machine as root: there, this is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no containers: {reason}")
    debian.install("dockerd", "docker.io", "iptables")
    log = (current().folder / "dockerd.log").open("wb")
    # Not of this run: the containers it started before would be killed by a run that cleans up after this one.
    daemon = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: docker_missing() is None, "the Docker daemon", 60)
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)
        log.close()


@pytest.fixture(scope="session", params=["process", "container"])
def any_driver(request: pytest.FixtureRequest):
    if request.param == "container":
        request.getfixturevalue("docker")
    return driver(request.param)


@pytest.fixture(scope="session")
def server(any_driver, toxiproxy: Toxiproxy) -> Iterator[VaultServer]:
    disk = 64 if os.geteuid() == 0 else None
    with VaultServer("vault-h.example.com", driver=any_driver, network=toxiproxy, disk_mb=disk) as started:
        yield started


@pytest.fixture(scope="session")
def cluster(any_driver, toxiproxy: Toxiproxy) -> Iterator[VaultCluster]:
    with VaultCluster("vault-k.example.com", driver=any_driver, network=toxiproxy) as started:
        yield started
