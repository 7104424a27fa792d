"""The Docker daemon, and what of ours it runs."""

from __future__ import annotations

import contextlib

import docker
import docker.errors

from keystore_harness.errors import HarnessError


def client() -> docker.DockerClient:
    """Return a client of the Docker daemon.

    Raises:
        HarnessError: None answers.

    """
    try:
        return docker.from_env(timeout=60)
    except docker.errors.DockerException:
        raise HarnessError(
            "no Docker daemon answers; start it (`systemctl start docker`), or use the process driver"
        ) from None


def remove_containers(label: str) -> None:
    """Remove every container with a label, given as NAME=VALUE; nothing where Docker does not answer."""
    try:
        daemon = client()
    except HarnessError:
        return
    with contextlib.closing(daemon):
        for container in daemon.containers.list(all=True, filters={"label": label}):
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
