"""Free ports, and waiting for a condition instead of for a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 30, interval_s: float = 0.05) -> T:
    """Return the first truthy value of `condition`.

    Raises:
        TimeoutError: It stayed falsy for `timeout_s` seconds; the message names `what` was awaited.

    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(interval_s)
