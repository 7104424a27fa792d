"""How many archive keys an organization may have in escrow."""

from __future__ import annotations

import threading

from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.organizations import ledger
from pulumi_keystore.control_plane.organizations.tables import Organization
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
        self._lock = threading.Lock()

    def take(self, session: Session, owner: Organization, more: int) -> None:
        """Note that an organization is about to enrol so many new keys.

        Raises:
            TooManyRequests: It would have more than it may.

        """
        with self._lock:
            left = self._left.get(owner.id, 0)
        if left < more:
            left = self._most - ledger.count_keys(session, owner)
        if left < more:
            raise TooManyRequests(
                f"the organization {owner.name!r} may have {self._most:,} archive keys in escrow; "
                f"there is room for {max(left, 0):,}, and not for {more:,}",
                hint="ask the provider, who can raise KEYSTORE_KEYS_PER_ORGANIZATION",
            )
        with self._lock:
            self._left[owner.id] = left - more
