"""Servers in containers, on this machine's own network and with the server's folder mounted where it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from keystore_harness import workspace
from keystore_harness.binary import find_vault, version_of
from keystore_harness.drivers.daemon import client
from keystore_harness.errors import HarnessError

_REPOSITORY = "keystore-harness/server"
_DOCKERFILE = """\
FROM scratch
COPY server /bin/server
ENTRYPOINT ["/bin/server"]
"""


class ContainerDriver:
    """Runs an image: the one given, or one made of the same binary that the process driver runs.

    Args:
        image: Name of an image whose entry point is `bao` or `vault`, such as `openbao/openbao:2.7.2`.
        binary: The binary to make an image of where no image is given.

    Raises:
        HarnessError: There is no Docker daemon, no image or no binary.

    """

    name = "container"

    def __init__(self, image: str | None = None, binary: str | None = None) -> None:
        # Our own labels do what Ryuk does, and Ryuk is an image that may be out of reach.
        testcontainers_config.ryuk_disabled = True
        with contextlib.closing(client()) as daemon:
            self.image = _local_image(daemon, find_vault(binary)) if image is None else _find_image(daemon, image)
            self.version = _version(daemon, self.image)

    def machine(self, folder: Path) -> ContainerMachine:
        """Return a machine for the server whose configuration is `server.json` in a folder."""
        return ContainerMachine(self.image, folder)


class ContainerMachine:
    """One container; it is removed and made anew whenever the server starts."""

    def __init__(self, image: str, folder: Path) -> None:
        self._image = image
        self._folder = folder
        self._earlier_log = ""
        self._container: DockerContainer | None = None

    def start(self, hosts: Mapping[str, str]) -> None:
        """Start a container."""
        self._remove()
        container = (
            DockerContainer(self._image)
            .with_command(["server", f"-config={self._folder / 'server.json'}"])
            .with_env("HOME", str(self._folder))
            # The official images otherwise change owners and capabilities as root before they start.
            .with_env("SKIP_CHOWN", "true")
            .with_env("SKIP_SETCAP", "true")
            .with_volume_mapping(str(self._folder), str(self._folder), "rw")
            .with_kwargs(
                network_mode="host",
                user=f"{os.getuid()}:{os.getgid()}",
                labels=workspace.current().labels,
                extra_hosts=dict(hosts),
                security_opt=["no-new-privileges"],
            )
        )
        try:
            self._container = container.start()
        except docker.errors.APIError as error:
            raise HarnessError(f"Docker cannot start {self._image}: {error.explanation}") from None

    @property
    def _raw(self) -> Any:
        assert self._container is not None  # noqa: S101
        return self._container.get_wrapped_container()

    @property
    def ended(self) -> str | None:
        """How the container ended; None while it runs."""
        if self._container is None:
            return "not started"
        self._raw.reload()
        state = self._raw.attrs["State"]
        return None if state["Running"] else f"exit status {state['ExitCode']}"

    @property
    def pid(self) -> int:
        """Process id of the running server, outside of its container."""
        self._raw.reload()
        return int(self._raw.attrs["State"]["Pid"])

    def kill(self) -> None:
        """Kill -9 what runs in the container; return when it is gone."""
        if self._container is not None:
            with contextlib.suppress(docker.errors.APIError):
                self._raw.kill()
            self._raw.wait()

    def pause(self) -> None:
        """Freeze the container."""
        self._raw.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._raw.unpause()

    def reload(self) -> None:
        """Make the server read its certificate files again (SIGHUP)."""
        self._raw.kill(signal="SIGHUP")

    def log(self) -> str:
        """Return what has been logged since the first start."""
        return self._earlier_log + ("" if self._container is None else self._raw.logs().decode(errors="replace"))

    def close(self) -> None:
        """Kill and remove the container."""
        self._remove()

    def _remove(self) -> None:
        if self._container is not None:
            with contextlib.suppress(docker.errors.NotFound):
                self._earlier_log = self.log()
                self._container.stop(force=True)
            self._container = None


def _find_image(daemon: docker.DockerClient, name: str) -> str:
    try:
        daemon.images.get(name)
    except docker.errors.ImageNotFound:
        try:
            daemon.images.pull(name)
        except docker.errors.APIError:
            raise HarnessError(
                f"image {name!r} is not here and cannot be pulled; leave the image out to have one made of the binary"
            ) from None
    return name


def _local_image(daemon: docker.DockerClient, binary: Path) -> str:
    """Make an image of nothing but a (static) binary, unless there is one."""
    product, version = version_of(binary)
    found = binary.stat()
    sign = hashlib.sha256(f"{product} {version} {found.st_size}".encode()).hexdigest()[:8]
    name = f"{_REPOSITORY}:{product.lower()}-{version}-{sign}"
    with contextlib.suppress(docker.errors.ImageNotFound):
        daemon.images.get(name)
        return name
    with tempfile.TemporaryDirectory(dir=workspace.current().folder) as context:
        (Path(context) / "Dockerfile").write_text(_DOCKERFILE)
        shutil.copy(binary, Path(context) / "server")
        try:
            daemon.images.build(path=context, tag=name, rm=True)
        except (docker.errors.BuildError, docker.errors.APIError) as error:
            raise HarnessError(f"Docker cannot make an image of {binary}: {error}") from None
    return name


def _version(daemon: docker.DockerClient, image: str) -> tuple[str, str]:
    try:
        output = daemon.containers.run(image, ["version"], remove=True, network_mode="none").decode()
        product, version = output.split()[:2]
    except (docker.errors.DockerException, ValueError):
        raise HarnessError(f"image {image!r} does not tell a version; expected one of `bao` or `vault`") from None
    return product, version.removeprefix("v")
