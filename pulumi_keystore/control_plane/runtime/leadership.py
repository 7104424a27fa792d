"""One process leads: it alone decides, and who was replaced finds out before it changes anything."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.runtime.database import url_of
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import Fact
from pulumi_keystore.errors import Conflict

SUPERSEDED_STATUS: Final = 75
"""Exit status of a service that lost its lead: a supervisor starts it again, and it waits for its turn."""

_LEADER: Final = "leader"

_LEADER_LOCK: Final = int.from_bytes(hashlib.sha256(b"pulumi-keystore control plane").digest()[:8], "big", signed=True)
_SILENCE_S: Final = 30


class Leadership:
    """A session-level advisory lock: of services started on one database by mistake, one does the work."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None
        self._silent_s = 0

    def acquire(self, engine: Engine, timeout_s: float, say: Callable[[str], None]) -> None:
        """Take the lock of a database; a service that was just killed may hold it for a moment.

        Raises:
            Conflict: Another service holds it.

        """
        self._connection = psycopg.connect(url_of(engine), autocommit=True)
        deadline, told = time.monotonic() + timeout_s, False
        while True:
            row = self._connection.execute("select pg_try_advisory_lock(%s)", (_LEADER_LOCK,)).fetchone()
            if row and row[0]:
                return
            if time.monotonic() > deadline:
                self.release()
                raise Conflict(
                    "another control plane is running on this database", hint="stop it first, or give another database"
                )
            if not told:
                say("another control plane is running on this database; waiting for it to exit")
                told = True
            time.sleep(0.2)

    def held(self) -> bool:
        """Tell whether the lock is still ours; this waits for the database."""
        if self._connection is None:
            return False
        try:
            self._connection.execute("select 1")
        except psycopg.Error:
            return False
        self._silent_s = 0
        return True

    def answered(self) -> bool:
        """Tell whether `held` has had an answer lately; to be asked once a second.

        The seconds counted are those in which it was asked: a process that was paused did not wait meanwhile.
        """
        self._silent_s += 1
        return self._silent_s <= _SILENCE_S

    def release(self) -> None:
        """Give the lock up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_held(engine: Engine) -> bool:
    """Tell whether a service leads on a database."""
    with engine.connect() as connection:
        free = connection.scalar(select(func.pg_try_advisory_xact_lock(_LEADER_LOCK)))
    return not free


class Superseded(Exception):  # noqa: N818 - it says what has happened to us
    """The work is somebody else's now: stop, and change nothing more."""


def lead(plane: ControlPlane) -> str | None:
    """Write down that this process is the service that leads; return which one did before.

    The earlier one can get no more tokens.
    """
    with plane.transaction() as session:
        before = session.get(Fact, _LEADER, with_for_update=True)
        previous = before.value.decode() if before else None
        session.merge(Fact(name=_LEADER, value=plane.instance.encode()))
    return previous


def require_lead(session: Session, plane: ControlPlane) -> None:
    """Make sure that this process leads, and goes on to do so until the transaction ends.

    Raises:
        Superseded: Another service does.

    """
    leader = session.scalar(select(Fact.value).where(Fact.name == _LEADER).with_for_update(read=True))
    if leader != plane.instance.encode():
        raise Superseded("another service leads")


def new_name(what: str) -> str:
    """Return a name that no other process or session has or had."""
    return f"{what}-{secrets.token_hex(8)}"
