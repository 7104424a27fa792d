"""Processes that are stopped in their tracks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from keystore_harness.ports import wait_until


def stop_in_its_tracks(pid: int) -> None:
    """Stop a process (SIGSTOP); return when none of its threads runs any more, which may be a moment later."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(
        lambda: all(map(_is_stopped, Path(f"/proc/{pid}/task").iterdir())), "its threads to stop", interval_s=0.002
    )


def go_on(pid: int) -> None:
    """Let a stopped process go on (SIGCONT)."""
    os.kill(pid, signal.SIGCONT)


def _is_stopped(task: Path) -> bool:
    try:
        # The name of the program, in parentheses, may hold anything (proc(5)).
        state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "TtZX"
