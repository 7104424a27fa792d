"""How many archive keys a keystore should hold, beside how many entries a test has counted there.

A number says less than `verification`, and costs one request: keys that are missing are noticed within two minutes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.keystores import checkpoints, telling
from pulumi_keystore.control_plane.monitoring import messages
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.vault.checkpoint import Stamp

MOST: Final = 100_000
"""A list of more names is not asked for each minute."""


def in_ledger(session: Session, keystores: Collection[int]) -> dict[int, int]:
    """Return how many keys should be at those keystores that are active, and so at rest that they can be counted.

    Keys that were given up do not count.
    """
    keys = func.count(ArchiveKeyEntry.user).filter(ArchiveKeyEntry.given_up_at.is_(None))
    rows = session.execute(
        select(Organization.active_keystore_id, keys, func.count(ArchiveKeyEntry.user))
        .outerjoin(ArchiveKeyEntry, ArchiveKeyEntry.organization_id == Organization.id)
        .where(Organization.active_keystore_id.in_(keystores), Organization.maintenance_by.is_(None))
        .group_by(Organization.id)
    )
    return {keystore: wanted for keystore, wanted, total in rows if keystore is not None and total <= MOST}


def compare(session: Session, row: KeystoreHealth, result: Result, before: Mapping[int, int]) -> str | None:
    """Compare what a test has seen with the database; return what is wrong, None where nothing is.

    Args:
        session: A transaction.
        row: Where the latest numbers are written down.
        result: What the test has seen.
        before: What should have been there before it began, by keystore.

    """
    if not result.online:
        return None
    keystore = session.get_one(Keystore, row.keystore_id)
    owner = session.get_one(Organization, keystore.organization_id)
    found = result.checkpoint
    if found is not None and Stamp(owner.epoch, owner.epoch_nonce).is_behind(found):
        # The numbers were read before the test: what has been decided since is looked up.
        session.refresh(owner, with_for_update=True)
        checkpoints.compare(session, owner, keystore.name, found)
    wrong = [f"suspended: {owner.suspended}"] if owner.suspended else []
    if result.entries is not None and keystore.id in before:
        wrong += _count(session, row, keystore, owner, result.entries, before[keystore.id])
    return "; ".join(wrong) or None


def _count(
    session: Session, row: KeystoreHealth, keystore: Keystore, owner: Organization, entries: int, before: int
) -> list[str]:
    """Note how many keys are lacking or surplus; only what two tests have found says anything.

    Keys that are enrolled while they are counted are written before they are in the ledger.
    """
    after = in_ledger(session, [keystore.id]).get(keystore.id, before)
    lacking, surplus = max(min(before, after) - entries, 0), max(entries - max(before, after), 0)
    lasting, left = min(lacking, row.lacking), min(surplus, row.surplus)
    if lasting and not row.alerted:
        message = messages.keys_missing(owner.name, f"{keystore.name} ({keystore.address})", lasting, before)
        event = f"missing-{keystore.id}-{row.minute}"
        telling.tell_all(session, owner, event, message)
    row.alerted = bool(lasting)
    row.lacking, row.surplus = lacking, surplus
    command = f"`keystore verify {owner.name}` names them"
    wrong = [f"{lasting:,} of {before:,} archive keys are missing; {command}"] if lasting else []
    known = f"{command}, and `keystore recover {owner.name}` takes them in"
    return wrong + ([f"{left:,} entries are not in the ledger; {known}"] if left else [])
