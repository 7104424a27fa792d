"""What one run makes lies in one folder, under one lock, so that the next run can remove what a killed one left.

Every process carries the folder's path in its environment and every container in a label, from the moment it exists:
there is no moment at which a kill -9 of the run leaves something behind that cannot be found. A run holds a lock on its
folder as long as it lives; a folder whose lock is free belongs to a dead run.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from keystore_harness.errors import HarnessError

MARK = "KEYSTORE_HARNESS_RUN"
"""Environment variable of every process a run starts: the path of the run's folder."""
LABEL = "keystore-harness.run"
"""Label of every container a run starts: the path of the run's folder."""
_KEPT = "kept"
_CONTAINERS = "containers"


def root() -> Path:
    """Return the folder of all runs of this user, made with mode 0700 if it is not there.

    An embedded PostgreSQL that root starts, and which runs as another user, lets others look into the folders above its
    own; what is secret lies in folders of mode 0700 further in.

    Raises:
        HarnessError: There is something else in its place.

    """
    path = Path(tempfile.gettempdir()) / f"keystore-harness-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise HarnessError(f"{path} is not a folder that only this user can write to; remove it, or set TMPDIR")
    return path


class Workspace:
    """The folder of one run. `current()` gives the one of this process."""

    def __init__(self) -> None:
        with _exclusive():
            self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=root()))
            self._lock = _open_lock(self.folder)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._pid = os.getpid()
        atexit.register(self.end)

    @property
    def environment(self) -> dict[str, str]:
        """What every process of this run must have in its environment."""
        return {MARK: str(self.folder)}

    @property
    def labels(self) -> dict[str, str]:
        """What every container of this run must have as a label; ask before you start one."""
        (self.folder / _CONTAINERS).touch()
        return {LABEL: str(self.folder)}

    def subfolder(self, name: str) -> Path:
        """Make a new folder in this one, of mode 0700."""
        path = self.folder / f"{name}-{secrets.token_hex(3)}"
        path.mkdir(mode=0o700)
        return path

    def keep(self) -> None:
        """Let everything run and lie when this process ends, for a person to look at; `clean` removes it."""
        (self.folder / _KEPT).touch()

    @property
    def kept(self) -> bool:
        """Whether it is kept."""
        return (self.folder / _KEPT).exists()

    def end(self) -> None:
        """Remove what is still there (called when the process ends)."""
        if os.getpid() != self._pid or not self.folder.exists() or self.kept:
            return
        _remove(self.folder)


_current: Workspace | None = None


def current() -> Workspace:
    """Return this process's workspace; the first call removes what killed runs left behind."""
    global _current  # noqa: PLW0603 - one a process, like the process itself
    if _current is None or _current._pid != os.getpid() or not _current.folder.exists():  # noqa: SLF001
        reap()
        _current = Workspace()
    return _current


def reap(*, kept: bool = False) -> list[Path]:
    """Remove what dead runs left behind, with `kept` also what was kept; return their folders.

    Runs that live, of this or another process, are not touched.
    """
    removed: list[Path] = []
    with _exclusive():
        for folder in sorted(root().glob("run-*")):
            if not kept and (folder / _KEPT).exists():
                continue
            try:
                lock = _open_lock(folder)
            except FileNotFoundError:
                continue  # its run has ended meanwhile
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                _remove(folder)
                removed.append(folder)
            finally:
                os.close(lock)
        _kill_processes(lambda run: run.parent == root() and not run.exists())
    return removed


def _open_lock(folder: Path) -> int:
    return os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)


@contextlib.contextmanager
def _exclusive() -> Iterator[None]:
    """Nobody makes or removes runs meanwhile."""
    lock = os.open(root() / "reap.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    _kill_processes(lambda run: run == folder)
    if (folder / _CONTAINERS).exists():
        # Imported here: most runs have nothing to do with Docker.
        from keystore_harness.drivers.daemon import remove_containers  # noqa: PLC0415

        remove_containers(f"{LABEL}={folder}")
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


def mounts_below(folder: Path) -> list[str]:
    """Return the mount points in a folder, innermost first."""
    if not sys.platform.startswith("linux"):
        return []
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything in a folder, whatever still uses it."""
    for mount in mounts_below(folder):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)  # noqa: S603, S607


def _kill_processes(of_run: Callable[[Path], bool]) -> None:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK)
            if mark and of_run(Path(mark)):
                found.append(process)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(found, timeout=10)
    if alive:
        names = ", ".join(f"{process.pid}" for process in alive)
        raise HarnessError(f"processes {names} of an earlier run do not end; see what they wait for")
