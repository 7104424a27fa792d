"""Reading all keys of an organization, which somebody asks for: one at a time, and not without an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pulumi_keystore.errors import Conflict

LONGEST_S: Final = 3600.0
"""How long it may take: ten times as long as a million keys take, for those who ask rest meanwhile."""
_PATIENCE_S: Final = 30.0
"""For how long who comes second waits: the audit of some thousand keys is over by then."""
_reading: Final[set[int]] = set()
_ended: Final = threading.Condition()


@contextmanager
def alone(organization_id: int, name: str) -> Iterator[None]:
    """Read the keys of an organization.

    Raises:
        Conflict: Somebody else reads them, and goes on for longer than one waits here.

    """
    with _ended:
        if not _ended.wait_for(lambda: organization_id not in _reading, _PATIENCE_S):
            raise Conflict(
                f"all keys of the organization {name!r} are being read just now", hint="wait until that has ended"
            )
        _reading.add(organization_id)
    try:
        yield
    finally:
        with _ended:
            _reading.discard(organization_id)
            _ended.notify_all()
