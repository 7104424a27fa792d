"""Looking through every archive key of an organization: what is missing, damaged, or not in the ledger."""

from __future__ import annotations

import threading
import time
from base64 import b32decode
from binascii import Error as Base32Error
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

import structlog
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import NamesAnswer, ReportAnswer, VerificationAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import opening
from pulumi_keystore.control_plane.keystores.alone import LONGEST_S, alone
from pulumi_keystore.control_plane.keystores.tables import Verification
from pulumi_keystore.control_plane.organizations import keystores, ledger, legacy, registry
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime.background import Turns, isolated
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind, check_user_id
from pulumi_keystore.declarations.tenancy import KEY_NAME
from pulumi_keystore.errors import KeystoreError, RuleViolation
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError, Entry
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport

NAMED: Final = 1000
"""How many of each kind are named."""
_KEPT_NAMES: Final = 100
_AFTER_FAILURE_S: Final = 900.0
_LEAST_S: Final = 60.0
_SLOWEST_KEY_S: Final = 0.005
"""How long an audit may take, and for each key."""
_AT_A_TIME: Final = 4
"""Audits side by side: one of a million keys at a slow server takes an hour."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Count:
    """How many there are of a kind, and the names of the first: users, or for surplus ones what they are called."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one in."""
        self.count += 1
        if len(self.names) < NAMED:
            self.names.append(name)

    def to_document(self) -> NamesAnswer:
        """Return it as JSON-ready values."""
        return {"count": self.count, "names": self.names}


@dataclass(slots=True)
class Report:
    """What a look through all keys has found.

    Attributes:
        keystore: The active keystore that was looked through.
        at: When that ended, in UTC.
        keys: How many keys are in the ledger.
        missing: Users whose key is not there.
        damaged: Users under whose name something else lies.
        surplus: Archive keys that lie there and are not in the ledger.
        given_up: How many of the missing ones were given up.

    """

    keystore: str
    at: datetime
    keys: int = 0
    missing: Count = field(default_factory=Count)
    damaged: Count = field(default_factory=Count)
    surplus: Count = field(default_factory=Count)
    given_up: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing.count - self.given_up or self.damaged.count or self.surplus.count)

    def to_document(self) -> ReportAnswer:
        """Return the report as JSON-ready values."""
        return {
            "keystore": self.keystore,
            "at": self.at.isoformat(),
            "keys": self.keys,
            "missing": self.missing.to_document(),
            "damaged": self.damaged.to_document(),
            "surplus": self.surplus.to_document(),
            "given_up": self.given_up,
            "sound": self.sound,
        }


def verify(plane: ControlPlane, organization: str, *, until: float = inf) -> Report:
    """Read every key of the active keystore, compare it with the ledger, and write down what was found.

    Args:
        plane: The control plane.
        organization: Its name.
        until: The monotonic second at which it ends, however far it has come.

    Raises:
        Conflict: There is no active keystore, or somebody reads the keys just now.
        KeystoreFault: It cannot be read.

    """
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        active = keystores.require_active(session, owner)
    report = Report(active.name, now_utc())
    with alone(owner.id, owner.name):
        _fill_in(plane, owner, active, report, min(until, time.monotonic() + LONGEST_S))
    report.at = now_utc()
    _record(plane, owner, report)
    _log.info("verified", organization=owner.name, keys=report.keys, sound=report.sound)
    return report


def _fill_in(plane: ControlPlane, owner: Organization, active: Keystore, report: Report, until: float) -> None:
    if active.kind == Kind.LEGACY:
        _look_through_rows(plane, owner, report)
        return
    patience_s = min(plane.settings.retry_s, opening.PATIENCE_S)
    vault = opening.vault_of(plane, owner, active, retry_for_s=patience_s, until=until)
    with Transport() as transport:
        try:
            _look_through(plane, transport, vault, owner, report)
            _find_surplus(plane, transport, vault, owner, report)
        finally:
            transport.run_one(vault.revoke())


def _look_through(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, owner: Organization, report: Report
) -> None:
    def look(entry: Entry) -> Flow[tuple[Entry, str]]:
        try:
            record = yield from vault.read(entry.name)
        except DamagedRecordError:
            return entry, "damaged"
        if record is None:
            return entry, "missing"
        return entry, "" if ledger.is_enrolled(plane, owner, entry, record) else "damaged"

    for entry, wrong in transport.run(map(look, ledger.entries(plane, owner.id)), plane.settings.in_flight):
        _count(report, entry, wrong)


def _look_through_rows(plane: ControlPlane, owner: Organization, report: Report) -> None:
    for entry in ledger.entries(plane, owner.id):
        try:
            with plane.transaction() as session:
                record = legacy.of_user(plane, session, owner, entry.user, entry.generation)
        except DamagedRecordError:
            _count(report, entry, "damaged")
            continue
        wrong = "missing" if record is None else "damaged"
        _count(report, entry, "" if ledger.is_enrolled(plane, owner, entry, record) else wrong)


def _count(report: Report, entry: Entry, wrong: str) -> None:
    report.keys += 1
    if wrong == "missing":
        report.missing.add(entry.user)
        report.given_up += entry.given_up
    elif wrong:
        report.damaged.add(entry.user)


def _find_surplus(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, owner: Organization, report: Report
) -> None:
    for page in vault.key_pages(transport):
        ours = [name for name in page if KEY_NAME.fullmatch(name)]
        for users in _in_pages(transport, vault, ours, plane.settings.in_flight):
            # Whoever writes a key holds the gate until it is in the ledger: wait for those under way.
            with plane.gate.closed(owner.id), plane.transaction() as session:
                known = ledger.of_users(session, owner.id, [user for user in users.values() if user])
            for name, user in users.items():
                entry = known.get(user or "")
                if entry is None or entry.name != name:
                    report.surplus.add(user or name)


def _in_pages(
    transport: Transport, vault: VaultKeystore, names: list[str], in_flight: int
) -> Iterator[dict[str, str | None]]:
    """Yield whose keys some names are, a page at a time; None where that cannot be told."""
    for start in range(0, len(names), ledger.PAGE):
        page = names[start : start + ledger.PAGE]
        users = {name: _user_of(name) for name in page}
        unclear = [name for name, user in users.items() if user is None]
        for name, record in transport.run((_read(vault, name) for name in unclear), in_flight):
            users[name] = record.user if record else None
        yield users


def _read(vault: VaultKeystore, name: str) -> Flow[tuple[str, ArchiveKey | None]]:
    try:
        return name, (yield from vault.read(name))
    except DamagedRecordError:
        return name, None


def _user_of(name: str) -> str | None:
    """Return the user id that a name encodes (`tenancy.key_name`); None where it encodes none, as of long ones."""
    encoded = name.rpartition(".")[0].upper()
    with suppress(Base32Error, ValueError, UnicodeDecodeError, RuleViolation):
        return check_user_id(b32decode(encoded + "=" * (-len(encoded) % 8)).decode())
    return None


def _record(plane: ControlPlane, owner: Organization, report: Report) -> None:
    kinds = {"missing": report.missing, "damaged": report.damaged, "surplus": report.surplus}
    with plane.transaction() as session:
        session.merge(
            Verification(
                organization_id=owner.id,
                at=report.at,
                keystore=report.keystore,
                keys=report.keys,
                missing=report.missing.count - report.given_up,
                damaged=report.damaged.count,
                surplus=report.surplus.count,
                named={name: kind.names[:_KEPT_NAMES] for name, kind in kinds.items()},
            )
        )


def latest(session: Session, owner: Organization) -> Verification | None:
    """Return what the latest look has found, if there was one."""
    return session.get(Verification, owner.id)


def describe(session: Session, owner: Organization) -> VerificationAnswer | None:
    """Return what may be shown of the latest look, None where there was none."""
    row = latest(session, owner)
    if row is None:
        return None
    return {
        "at": row.at.isoformat(),
        "keystore": row.keystore,
        "keys": row.keys,
        "missing": row.missing,
        "damaged": row.damaged,
        "surplus": row.surplus,
    }


class Audits:
    """Looks through every organization's keys now and then, those first that had to wait longest."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._failed: dict[int, float] = {}
        self._lock = threading.Lock()
        self._turns = Turns("audits", _AT_A_TIME)

    def work(self) -> None:
        """Begin to verify one organization, if one is due: one whose Vault is slow holds up no other."""
        every_s = self._plane.settings.audit_s
        now = time.monotonic()
        with self._lock:
            self._failed = {number: at for number, at in self._failed.items() if now - at < _AFTER_FAILURE_S}
        with self._plane.transaction() as session:
            due = session.scalar(self._due(every_s)) if every_s else None
            keys = ledger.count_keys(session, due) if due else 0
        if due is None:
            return
        # Whatever becomes of it, the others are next.
        with self._lock:
            self._failed[due.id] = now
        self._turns.take([(due.id, due)], lambda owner: self._verify(owner, now + _LEAST_S + keys * _SLOWEST_KEY_S))

    def _verify(self, due: Organization, until: float) -> None:
        with isolated("verification", organization=due.name):
            try:
                verify(self._plane, due.name, until=until)
            except KeystoreError as error:
                # Its keystore is away, which others tell about.
                _log.info("not verified", organization=due.name, reason=error.code)
            else:
                with self._lock:
                    self._failed.pop(due.id, None)

    def _due(self, every_s: float) -> Any:
        has_keys = select(1).where(ArchiveKeyEntry.organization_id == Organization.id).exists()
        return (
            select(Organization)
            .outerjoin(Verification, Verification.organization_id == Organization.id)
            .join(Keystore, Keystore.id == Organization.active_keystore_id)
            .where(Organization.maintenance_by.is_(None), has_keys, Organization.id.not_in(list(self._failed)))
            .where(or_(Verification.at.is_(None), Verification.at < now_utc() - timedelta(seconds=every_s)))
            .order_by(Verification.at.nulls_first())
            .limit(1)
        )
