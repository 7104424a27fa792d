"""Whether an installation is in order: settings, database, master key, clock, mail server, DNS, keystores."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from sqlalchemy import select, text

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import proving
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.organizations import keystores, registry
from pulumi_keystore.control_plane.organizations.tables import HistoryEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import expiry_warnings
from pulumi_keystore.errors import KeystoreError

MOST: Final = 20
"""How many organizations are looked at where none is named."""
_MOST_APART: Final = timedelta(seconds=5)


class Verdict(StrEnum):
    """How something was found."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is, such as "database" or "keystore acme/first".
        verdict: How it was found.
        detail: What was found, in one line.
        hint: What to do about it, None where there is nothing.

    """

    subject: str
    verdict: Verdict
    detail: str
    hint: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return it for programs."""
        return asdict(self)


def wrong(subject: str, error: KeystoreError) -> Finding:
    """Return an error as a finding."""
    return Finding(subject, Verdict.WRONG, error.summary, error.hint)


def examine(settings: Settings, organization: str | None = None) -> Iterator[Finding]:
    """Look at an installation from the machine of its service, one thing after the other; nothing is changed.

    Args:
        settings: Those of the service.
        organization: The one whose keystores are tested; the first `MOST` ones by default.

    """
    yield Finding("settings", Verdict.OK, f"the data folder is {settings.data}")
    yield from _folder(settings.data)
    try:
        with opened(settings) as database:
            plane = database.plane
            yield from _database(plane)
            yield from _clock(plane)
            yield _mail(plane)
            yield from _keystores(plane, organization)
    except KeystoreError as error:
        yield wrong("database and master key", error)


def _folder(folder: Path) -> Iterator[Finding]:
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & stat.S_IWOTH:
        hint = f"run `chmod o-w {folder}`"
        yield Finding("data folder", Verdict.WRONG, f"every user of this machine can write to {folder}", hint)


def _database(plane: ControlPlane) -> Iterator[Finding]:
    with plane.engine.connect() as connection:
        version = connection.scalar(text("show server_version"))
    url = plane.engine.url
    # Not what each connection is opened with: how patient it is, which certificates it trusts.
    place = url.set(query={name: value for name, value in url.query.items() if name == "host"})
    where = place.render_as_string(hide_password=True)
    yield Finding("database", Verdict.OK, f"PostgreSQL {version} with this version's schema at {where}")
    yield Finding("master key", Verdict.OK, "it belongs to this database")
    if leadership.is_held(plane.engine):
        yield Finding("service", Verdict.OK, "one is running on this database")
    else:
        yield Finding("service", Verdict.WARNING, "none is running on this database", "start one: `keystore serve`")


def _clock(plane: ControlPlane) -> Iterator[Finding]:
    with plane.transaction() as session:
        theirs: datetime = session.scalar(text("select now()"))
        apart = abs(theirs - now_utc())
        latest = session.scalar(select(HistoryEntry.at).order_by(HistoryEntry.id.desc()).limit(1))
    hint = "set this machine's clock right, and keep it so (NTP)"
    if apart > _MOST_APART:
        yield Finding("clock", Verdict.WRONG, f"{apart.total_seconds():,.0f} s apart from the database's", hint)
    elif latest is not None and latest > now_utc() + _MOST_APART:
        yield Finding(
            "clock", Verdict.WRONG, f"the latest entry of the history is of {latest:%Y-%m-%d %H:%M} UTC", hint
        )
    else:
        yield Finding("clock", Verdict.OK, f"{now_utc():%Y-%m-%d %H:%M:%S} UTC, as the database's")


def _mail(plane: ControlPlane) -> Finding:
    if not plane.settings.smtp_url:
        return Finding("mail", Verdict.WARNING, "no mail is sent: there is no mail server", "set KEYSTORE_SMTP_URL")
    try:
        MailSender.of(plane).greet()
    except KeystoreError as error:
        return wrong("mail", error)
    return Finding(
        "mail",
        Verdict.OK,
        "the mail server answers",
        "see whether a mail arrives: `keystore test-mail YOU@EXAMPLE.COM`",
    )


def _keystores(plane: ControlPlane, organization: str | None) -> Iterator[Finding]:
    with plane.transaction() as session:
        found = (
            [registry.find(session, organization)]
            if organization
            else session.scalars(registry.listed(session).limit(MOST + 1)).all()
        )
        registered = [(owner, keystores.rows(session, owner)) for owner in found[:MOST]]
    yield from _names(plane, [row for _, rows in registered for row in rows])
    for owner, rows in registered:
        if not rows:
            yield Finding(
                f"organization {owner.name}", Verdict.WARNING, "it has no keystore", "declare a Keystore for it"
            )
        for row in rows:
            yield _keystore(plane, owner, row)
    if len(found) > MOST:
        detail = f"the keystores of the first {MOST} were tested"
        yield Finding("organizations", Verdict.OK, detail, "name another one with --organization")


def _names(plane: ControlPlane, rows: Sequence[Keystore]) -> Iterator[Finding]:
    """Look up where the names of keystores lead, each once."""
    addresses = {row.address: KeystoreAddress.parse(row.address) for row in rows if row.address}
    wrong = 0
    for address in addresses.values():
        try:
            plane.resolver.resolve(address)
        except KeystoreError as error:
            wrong += 1
            yield Finding("DNS", Verdict.WRONG, error.summary, "correct the record, or the resolver of this machine")
    if addresses and not wrong:
        yield Finding("DNS", Verdict.OK, f"names of keystores looked up: {len(addresses)}; all lead to where they may")


def _keystore(plane: ControlPlane, owner: Organization, row: Keystore) -> Finding:
    """Test one keystore; one that is not in use can be away, and nothing depends on it."""
    used = row.id == owner.active_keystore_id
    subject = f"keystore {owner.name}/{row.name}"
    tested = proving.test_connection(plane, owner, row)
    if tested["status"] != "Online":
        hint = f"run `keystore status {owner.name}`, which lists the next steps" if used else "it is not in use"
        detail = f"{tested['reason']}: {tested['detail']}"
        return Finding(subject, Verdict.WRONG if used else Verdict.WARNING, detail, hint)
    if row.certificate_not_after and (ends := expiry_warnings(row.certificate_not_after, now_utc())):
        return Finding(subject, Verdict.WARNING, ends[0], "replace the client certificate")
    return Finding(subject, Verdict.OK, "Online" if used else "Online, and not in use")
