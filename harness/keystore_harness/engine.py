"""A Pulumi stack with a backend of its own in a folder, run by the real engine."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What engines say beside the error that ended a program; versions differ in it.
_ENDED = re.compile(
    r"update failed|preview failed|Resource monitor has terminated|program exited with non-zero exit code"
)


def errors(output: str) -> list[str]:
    """Return the errors in the output of a `pulumi` command, once each, but those that only say that it ended."""
    lines = dict.fromkeys(line[line.index("error:") :].strip() for line in output.splitlines() if "error:" in line)
    return [line for line in lines if not _ENDED.search(line)]


class PulumiStack:
    """One stack of a Pulumi project.

    Args:
        engine: Folder with the `pulumi` binary.
        project: Folder with the project's Pulumi.yaml.
        folder: Where the backend goes.
        environment: Further environment variables, such as the service's URL and token.
        name: Name of the stack.

    """

    def __init__(
        self, engine: Path, project: Path, folder: Path, environment: Mapping[str, str], name: str = ""
    ) -> None:
        self.project = project
        self.folder = folder
        self.name = name or f"test-{secrets.token_hex(4)}"
        folder.mkdir(parents=True, exist_ok=True)
        passphrase = folder / "passphrase"
        if not passphrase.exists():
            passphrase.touch(mode=0o600)
            passphrase.write_text(secrets.token_urlsafe(24))
        self.environment = {
            "PATH": f"{engine}{os.pathsep}{os.environ.get('PATH', '')}",
            "HOME": os.environ.get("HOME", str(folder)),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            **environment,
        }

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a `pulumi` command on the stack; standard error is put after standard output.

        Raises:
            AssertionError: `check` is set and the exit status is not 0; the message holds the output.

        """
        done = subprocess.run(  # noqa: S603 - the engine
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],  # noqa: S607 - found on the PATH given
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"pulumi {' '.join(arguments)} ended with status {done.returncode}:\n{done.stdout}")
        return done

    @property
    def settings(self) -> Path:
        """The file with the stack's configuration, where the engine puts it."""
        return self.project / f"Pulumi.{self.name}.yaml"

    def __enter__(self) -> PulumiStack:
        self.settings.unlink(missing_ok=True)
        self.run("stack", "init", self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self.settings.unlink(missing_ok=True)

    def configure(self, values: Mapping[str, str], secret: Mapping[str, str] | None = None) -> None:
        """Set configuration; names may be paths such as `keystores.first.address`."""
        arguments = [part for name, value in values.items() for part in ("--plaintext", f"{name}={value}")]
        arguments += [part for name, value in (secret or {}).items() for part in ("--secret", f"{name}={value}")]
        self.run("config", "set-all", "--path", *arguments)

    def up(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`pulumi up`, without a preview: that is a verb of its own."""
        return self.run("up", "--yes", "--skip-preview", check=check)

    def preview(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`pulumi preview` with details."""
        return self.run("preview", "--diff", check=check)

    def refresh(self) -> subprocess.CompletedProcess[str]:
        """`pulumi refresh`."""
        return self.run("refresh", "--yes", "--skip-preview", "--diff")

    def destroy(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`pulumi destroy`."""
        return self.run("destroy", "--yes", "--skip-preview", check=check)

    def export(self) -> dict[str, Any]:
        """`pulumi stack export`."""
        exported: dict[str, Any] = json.loads(self.run("stack", "export").stdout)
        return exported
