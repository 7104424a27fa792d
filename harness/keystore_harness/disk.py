"""A small file system of a server's own, which can be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from keystore_harness import workspace
from keystore_harness.errors import Unsupported


class Disk:
    """A file system in memory, on a folder; `workspace.unmount_below` removes it.

    Args:
        path: The folder, which is there.
        size_mb: Its size.

    """

    def __init__(self, path: Path, size_mb: int) -> None:
        self._path = path
        self._size_mb = size_mb
        self._filler = path / "filler"

    def mount(self) -> None:
        """Mount it, if it is not.

        Raises:
            Unsupported: We are not root.

        """
        if workspace.mounts_below(self._path.parent):
            return
        options = f"size={self._size_mb}m,mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "keystore-harness", str(self._path)]
        if subprocess.run(command, check=False, capture_output=True).returncode:  # noqa: S603
            raise Unsupported("a disk of its own (disk_mb) needs root, to mount a small file system")

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        if os.write(filler.fileno(), bytes(size)) < size:
                            break

    def make_room(self) -> None:
        """Undo `fill`."""
        self._filler.unlink(missing_ok=True)
