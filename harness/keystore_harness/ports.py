"""Ports nobody else takes, and waiting for a condition instead of for a time."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from keystore_harness.errors import HarnessError
from keystore_harness.workspace import root

T = TypeVar("T")

# Below the range from which Linux takes ports for outgoing connections (32768 and up): a port that is free now is not
# taken by a client's connection a moment later.
_FIRST, _LAST = 20_000, 32_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25
_taken: set[int] = set()
_lock_file: tuple[int, int] | None = None


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nothing listens on and that no other run of the harness gets.

    Raises:
        HarnessError: All are taken.

    """
    ports = list(range(_FIRST, _LAST))
    random.shuffle(ports)
    for port in ports:
        if port not in _taken and _reserve(port) and _is_free(port):
            _taken.add(port)
            return port
    raise HarnessError(f"no free port between {_FIRST} and {_LAST} on 127.0.0.1")


def _reserve(port: int) -> bool:
    # A record lock on one byte a port: it ends with the process, however that ends.
    global _lock_file  # noqa: PLW0603
    if _lock_file is None or _lock_file[0] != os.getpid():
        _lock_file = (os.getpid(), os.open(root() / "ports.lock", os.O_RDWR | os.O_CREAT, 0o600))
    try:
        fcntl.lockf(_lock_file[1], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], T | None], what: str, timeout_s: float = 120, interval_s: float = 0) -> T:
    """Return the first truthy value of `condition`.

    Args:
        condition: What is asked again and again.
        what: What is awaited, for the error.
        timeout_s: How long, in seconds.
        interval_s: Seconds between two questions; where none are given, first a few milliseconds, and then more and
            more, as what takes long costs much to be asked about.

    Raises:
        TimeoutError: It stayed falsy for `timeout_s` seconds; the message names `what` was awaited.

    """
    deadline, pause_s = time.monotonic() + timeout_s, interval_s or _FIRST_PAUSE_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(pause_s)
        pause_s = interval_s or min(pause_s * 1.5, _LONGEST_PAUSE_S)
