"""Logged-in connections to keystores, kept for a while: a restore of a thousand users is not a thousand logins.

Keys are written through them, so their tokens are written down, and whoever takes a keystore over ends them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore.control_plane.keystores import checkpoints, fencing, opening
from pulumi_keystore.control_plane.keystores.breaker import Binding, Breaker
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.background import Turns, isolated
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.transport import Transport

_KEEP_S: Final = 30.0
_MOST_IDLE: Final = 40
"""As many as requests are answered at a time: one that is closed after each use costs two handshakes and a login."""
_AT_A_TIME: Final = 8
"""How many organizations' connections are ended side by side: a keystore that does not answer holds up its own."""
_ENDING_S: Final = 5.0
"""How long the end of the process waits for them."""
_LOOK_S: Final = 0.05


@dataclass(slots=True, eq=False)
class Connection:
    """A transport and a keystore that is logged in through it; one thread uses it at a time."""

    transport: Transport
    vault: VaultKeystore
    organization_id: int
    holder: str
    idle_since: float = 0.0


class Connections:
    """A pool of connections; idle ones end after half a minute."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._idle: dict[Binding, list[Connection]] = {}
        self._retired: list[Connection] = []
        self._turns = Turns("connections", _AT_A_TIME)
        self._known: set[Binding] = set()
        self._breaker = Breaker()

    @contextmanager
    def borrow(self, organization: Organization, keystore: Keystore) -> Iterator[Connection]:
        """Lend a connection; one that met an error is not lent again.

        Raises:
            KeystoreFault: The keystore does not work, as others have found just now.

        """
        binding = (keystore.id, keystore.revision)
        self._breaker.admit(binding)
        with self._lock:
            idle = self._idle.get(binding)
            connection = idle.pop() if idle else None
        if connection is None:
            holder = leadership.new_name(self._plane.instance)
            announce = fencing.for_leader(self._plane, keystore, holder)
            vault = opening.vault_of(self._plane, organization, keystore, announce=announce)
            connection = Connection(Transport(), vault, organization.id, holder)
        try:
            yield connection
        except BaseException as error:
            self._breaker.note(binding, error)
            self._close(connection)
            raise
        self._breaker.note(binding, None)
        connection.idle_since = time.monotonic()
        with self._lock:
            kept = self._idle.setdefault(binding, [])
            if len(kept) < _MOST_IDLE:
                kept.append(connection)
                return
        self._close(connection)

    def knows(self, keystore: Keystore) -> bool:
        """Tell whether `require_known` has been content with a keystore."""
        return (keystore.id, keystore.revision) in self._known

    def require_known(self, organization: Organization, keystore: Keystore) -> None:
        """Make sure, once in this process's life, that a keystore does not know more than this database.

        A database that was restored has a service that was started since.

        Raises:
            RecoveryNeeded: It does.
            KeystoreFault: It cannot be asked.

        """
        if self.knows(keystore):
            return
        with self.borrow(organization, keystore) as connection:
            checkpoints.look(self._plane, connection.transport, connection.vault, organization.id)
        self._known.add((keystore.id, keystore.revision))

    def _close(self, connection: Connection) -> None:
        """Give the token back and close; a token that cannot be given back stays written down."""
        try:
            with suppress(KeystoreError, SQLAlchemyError):
                transport, vault = connection.transport, connection.vault
                fencing.fence(self._plane, transport, vault, connection.organization_id, holder=connection.holder)
        finally:
            connection.transport.close()

    def close_idle(self) -> None:
        """End the connections that nobody has used for half a minute."""
        self._breaker.forget_old()
        self._retire(time.monotonic() - _KEEP_S)

    def close_all(self) -> None:
        """End all that nobody uses, as far as keystores answer in a few seconds."""
        until = time.monotonic() + _ENDING_S
        self._retire(float("inf"))
        while self._retired and time.monotonic() < until:
            time.sleep(_LOOK_S)
            self._retire(float("inf"))

    def _retire(self, latest: float) -> None:
        """Begin to end the connections that were used at some time (`time.monotonic`) at the latest."""
        with self._lock:
            for binding, idle in list(self._idle.items()):
                self._retired += [connection for connection in idle if connection.idle_since <= latest]
                self._idle[binding] = [connection for connection in idle if connection.idle_since > latest]
                if not self._idle[binding]:
                    del self._idle[binding]
            retired = [(connection.organization_id, connection) for connection in self._retired]
        self._turns.take(retired, self._end)

    def _end(self, connection: Connection) -> None:
        with self._lock:
            if connection not in self._retired:
                return  # it ended while this round began
        with isolated("ending a connection", organization_id=connection.organization_id):
            self._close(connection)
        with self._lock:
            self._retired.remove(connection)
