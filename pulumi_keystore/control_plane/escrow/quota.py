"""How many archive keys an organization may have in escrow."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.organizations import ledger
from pulumi_keystore.control_plane.organizations.tables import Organization
from pulumi_keystore.counting import count
from pulumi_keystore.errors import TooManyRequests


class Quota:
    """Refuses enrolments beyond so many keys an organization.

    To count hundreds of thousands of keys for each enrolment would take longer than the rest of it. So it is
    remembered how many were left, and counted again where these may be used up.

    Args:
        most: Keys that one organization may have.

    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left: dict[int, int] = {}
        self._under_way: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._counting: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def room(self, session: Session, owner: Organization, more: int) -> Iterator[None]:
        """Keep room for so many new keys of an organization while they are written and entered in the ledger.

        Raises:
            TooManyRequests: It would have more than it may.

        """
        if not more:
            yield
            return
        with self._counting[owner.id]:
            left = self._left.get(owner.id, 0)
            if left < more:
                # Those under way may be in the ledger already or not: room is kept for them in any case. Who ends while
                # the keys are counted would be seen nowhere if they were asked for afterwards.
                under_way = self._under_way[owner.id]
                left = self._most - under_way - ledger.count_keys(session, owner)
            if left < more:
                raise TooManyRequests(
                    f"the organization {owner.name!r} may have {count(self._most, 'archive key')} in escrow: "
                    f"{max(left, 0):,} left, {more:,} requested",
                    hint="ask the provider, who can raise KEYSTORE_KEYS_PER_ORGANIZATION",
                )
            self._left[owner.id] = left - more
            with self._lock:
                self._under_way[owner.id] += more
        try:
            yield
        finally:
            with self._lock:
                self._under_way[owner.id] -= more
