"""Logged-in connections to keystores, kept for a while: a restore of a thousand users is not a thousand logins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pulumi_keystore.control_plane.models import Keystore, Organization
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.keystores.transport import Transport
from pulumi_keystore.keystores.vault import VaultKeystore

_KEEP_S: Final = 30.0
_MOST_IDLE: Final = 16

Binding = tuple[int, int]
"""A keystore's id and the revision of its binding: another certificate is another login."""


@dataclass(slots=True)
class Connection:
    """A transport and a keystore that is logged in through it; one thread uses it at a time."""

    transport: Transport
    vault: VaultKeystore
    idle_since: float = 0.0

    def close(self) -> None:
        """Give the token back and close."""
        self.transport.run_one(self.vault.revoke())
        self.transport.close()


class Connections:
    """A pool of connections; idle ones end after half a minute."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._idle: dict[Binding, list[Connection]] = {}

    @contextmanager
    def borrow(self, organization: Organization, keystore: Keystore) -> Iterator[Connection]:
        """Lend a connection; one that met an error is not lent again."""
        binding = (keystore.id, keystore.revision)
        with self._lock:
            idle = self._idle.get(binding)
            connection = idle.pop() if idle else None
        if connection is None:
            connection = Connection(Transport(), self._plane.vault(organization, keystore))
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        connection.idle_since = time.monotonic()
        with self._lock:
            kept = self._idle.setdefault(binding, [])
            if len(kept) < _MOST_IDLE:
                kept.append(connection)
                return
        connection.close()

    def close_idle(self, *, everything: bool = False) -> None:
        """End the connections that nobody has used for half a minute, or all."""
        limit = float("inf") if everything else time.monotonic() - _KEEP_S
        ended: list[Connection] = []
        with self._lock:
            for binding, idle in list(self._idle.items()):
                ended += [connection for connection in idle if connection.idle_since <= limit]
                self._idle[binding] = [connection for connection in idle if connection.idle_since > limit]
                if not self._idle[binding]:
                    del self._idle[binding]
        for connection in ended:
            connection.close()
