"""Packages of Debian that tests need: installed where that can be done, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def can_install() -> bool:
    """Tell whether this is a Debian machine, and we are root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def require(command: str, package: str) -> None:
    """Install a package unless a command of its is there; without it a test is skipped, and fails in CI."""
    if shutil.which(command) is None and can_install():
        install(command, package)
    if shutil.which(command) is None:
        # CI is a Debian machine as root: there, this is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {command}; install Debian's package `{package}`")


def install(command: str, *packages: str) -> None:
    """Install packages unless a command of theirs is there."""
    # apt has locks of its own, and fails where another process holds them.
    with (Path(tempfile.gettempdir()) / "pulumi-keystore-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which(command) is not None:
            return
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "--quiet", "--quiet", *words], check=True, env=environment, timeout=600)
