"""The gate of each organization: many may write its keys at a time, or one decides alone (contract: Maintenance).

It is in the memory of the process, as enrolments and decisions are both the leading service's, and no transaction and
no connection is held while a keystore is waited for. A service that was replaced passes a gate of its own: what it
writes at a keystore is refused, as its tokens have been ended, and what it would write down is, too (`require_lead`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pulumi_keystore.errors import TooManyRequests
from pulumi_keystore.vault.transport import without_rest

_PATIENCE_S: Final = 60.0


class Gate:
    """A gate for each organization, by its number; who decides comes before those who would still pass."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passing: Counter[int] = Counter()
        self._waiting: Counter[int] = Counter()
        self._closed: set[int] = set()

    @contextmanager
    def passing(self, organization_id: int) -> Iterator[None]:
        """Write keys; whoever decides waits meanwhile.

        Raises:
            TooManyRequests: It stays closed.

        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_open(organization_id), _PATIENCE_S):
                raise TooManyRequests("keys cannot be written just now", hint="try again in a minute")
            self._passing[organization_id] += 1
        try:
            with without_rest():
                yield
        finally:
            with self._changed:
                self._leave(self._passing, organization_id)

    @contextmanager
    def closed(self, organization_id: int) -> Iterator[None]:
        """Decide: no key is being written from here to the end. It does not nest."""
        with self._changed:
            self._waiting[organization_id] += 1
            try:
                self._changed.wait_for(lambda: self._is_empty(organization_id))
                self._closed.add(organization_id)
            finally:
                self._leave(self._waiting, organization_id)
        try:
            with without_rest():
                yield
        finally:
            with self._changed:
                self._closed.discard(organization_id)
                self._changed.notify_all()

    def _is_open(self, organization_id: int) -> bool:
        return organization_id not in self._closed and not self._waiting[organization_id]

    def _is_empty(self, organization_id: int) -> bool:
        return organization_id not in self._closed and not self._passing[organization_id]

    def _leave(self, those: Counter[int], organization_id: int) -> None:
        those[organization_id] -= 1
        if not those[organization_id]:
            del those[organization_id]
        self._changed.notify_all()
