"""Whether an installation is in order: settings, database, schema, master key, clock, mail server, DNS, keystores."""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.monitoring.runner import HealthChecks
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.organizations import keystores, registry
from pulumi_keystore.control_plane.organizations.tables import HistoryEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.database import check_master_key, check_schema, hosts_of, sessions
from pulumi_keystore.control_plane.runtime.opening import key_file_of, plane_of, reached
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import expiry_warnings
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.resolver import HostMap, Resolver

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

    What is wrong hides nothing but what depends on it.

    Args:
        settings: Those of the service.
        organization: The one whose keystores are tested; the first `MOST` ones by default.

    """
    try:
        resolver = Resolver(HostMap.parse(settings.host_map))
    except KeystoreError as error:
        yield wrong("settings", error)
        return
    yield Finding("settings", Verdict.OK, f"the data folder is {settings.data}")
    yield from _folder(settings.data)
    with ExitStack() as stack:
        engine = yield from _tried("database", lambda: stack.enter_context(reached(settings))[0], _place)
        fits = engine and (
            yield from _tried(
                "schema", lambda: check_schema(engine), lambda version: f"{version}, which this program uses"
            )
        )
        file = key_file_of(settings)
        key = yield from _tried("key file", lambda: MasterKey.load(file), lambda _: f"{file} holds a master key")
        plane = engine and fits and key and (yield from _master_key(settings, engine, key))
        if engine:
            yield _service(engine)
        yield _clock(engine, has_history=bool(fits))
        yield _mail(settings)
        registered = (yield from _registered(sessions(engine), organization)) if engine and fits else []
        yield from _names(settings, resolver, [row for _, rows in registered for row in rows])
        if plane:
            yield from _keystores(plane, registered)


_T = TypeVar("_T")


def _tried(subject: str, do: Callable[[], _T], detail: Callable[[_T], str]) -> Generator[Finding, None, _T | None]:
    """Report whether something works; return what it gives, None where it fails."""
    try:
        made = do()
    except KeystoreError as error:
        yield wrong(subject, error)
        return None
    yield Finding(subject, Verdict.OK, detail(made))
    return made


def _folder(folder: Path) -> Iterator[Finding]:
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & stat.S_IWOTH:
        hint = f"run `chmod o-w {folder}`"
        yield Finding("data folder", Verdict.WRONG, f"every user of this machine can write to {folder}", hint)


def _place(engine: Engine) -> str:
    with engine.connect() as connection:
        version = connection.scalar(text("show server_version"))
    # Not what each connection is opened with: how patient it is, which certificates it trusts.
    query = {name: value for name, value in engine.url.query.items() if name == "host"}
    place = engine.url.set(drivername="postgresql", query=query)
    return f"PostgreSQL {version} at {place.render_as_string(hide_password=True)}"


def _master_key(settings: Settings, engine: Engine, key: MasterKey) -> Generator[Finding, None, ControlPlane | None]:
    def opened() -> ControlPlane:
        check_master_key(sessions(engine), key)
        return plane_of(settings, engine, key)

    return (yield from _tried("master key", opened, lambda _: "it belongs to this database"))


def _service(engine: Engine) -> Finding:
    if leadership.is_held(engine):
        return Finding("service", Verdict.OK, "one is running on this database")
    return Finding("service", Verdict.WARNING, "none is running on this database", "start one: `keystore serve`")


def _clock(engine: Engine | None, *, has_history: bool) -> Finding:
    shown = f"{now_utc():%Y-%m-%d %H:%M:%S} UTC"
    if engine is None:
        return Finding("clock", Verdict.WARNING, f"{shown}; there is no database to compare it with")
    with Session(engine) as session:
        theirs = session.scalars(select(func.now())).one()
        apart = abs(theirs - now_utc())
        latest = (
            session.scalar(select(HistoryEntry.at).order_by(HistoryEntry.id.desc()).limit(1)) if has_history else None
        )
    hint = "set this machine's clock right, and keep it so (NTP)"
    if apart > _MOST_APART:
        return Finding("clock", Verdict.WRONG, f"{apart.total_seconds():,.0f} s apart from the database's", hint)
    if latest is not None and latest > now_utc() + _MOST_APART:
        detail = f"the latest entry of the history is of {latest:%Y-%m-%d %H:%M} UTC"
        return Finding("clock", Verdict.WRONG, detail, hint)
    return Finding("clock", Verdict.OK, f"{shown}, which the database agrees with")


def _mail(settings: Settings) -> Finding:
    if not settings.smtp_url:
        return Finding("mail", Verdict.WARNING, "no mail is sent: there is no mail server", "set KEYSTORE_SMTP_URL")
    try:
        MailSender.of(settings, sessionmaker()).greet()
    except KeystoreError as error:
        return wrong("mail", error)
    return Finding(
        "mail",
        Verdict.OK,
        "the mail server answers",
        "see whether a mail arrives: `keystore test-mail YOU@EXAMPLE.COM`",
    )


def _registered(
    factory: sessionmaker[Session], organization: str | None
) -> Generator[Finding, None, list[tuple[Organization, list[Keystore]]]]:
    """Return the organizations that are looked at, with their keystores."""
    with factory() as session:
        try:
            found = (
                [registry.find(session, organization)]
                if organization
                else session.scalars(registry.listed(session).limit(MOST + 1)).all()
            )
        except KeystoreError as error:
            yield wrong("organization", error)
            return []
        registered = [(owner, keystores.rows(session, owner)) for owner in found[:MOST]]
    if len(found) > MOST:
        detail = f"the first {MOST} are looked at"
        yield Finding("organizations", Verdict.OK, detail, "name another one with --organization")
    return registered


def _names(settings: Settings, resolver: Resolver, rows: Sequence[Keystore]) -> Iterator[Finding]:
    """Look up where names lead, each once: those of the settings, and those of keystores, which lead to public ones."""
    looked_up = [*hosts_of(settings.database_url or ""), urlsplit(settings.smtp_url).hostname]
    checks: dict[str, Callable[[], object]] = {name: partial(_look_up, resolver, name) for name in looked_up if name}
    checks |= {
        row.address: partial(resolver.resolve, KeystoreAddress.parse(row.address)) for row in rows if row.address
    }
    failed = False
    for check in checks.values():
        try:
            check()
        except KeystoreError as error:
            failed = True
            yield Finding("DNS", Verdict.WRONG, error.summary, "correct the record, or the resolver of this machine")
    if checks and not failed:
        resolve = "resolves" if len(checks) == 1 else "resolve"
        yield Finding("DNS", Verdict.OK, f"{count(len(checks), 'name')} {resolve} to permitted addresses")


def _look_up(resolver: Resolver, name: str) -> None:
    try:
        resolver.lookup(name, 0)
    except (OSError, UnicodeError):
        raise KeystoreError(f"{name}: the name does not resolve") from None


def _keystores(plane: ControlPlane, registered: Sequence[tuple[Organization, list[Keystore]]]) -> Iterator[Finding]:
    checks = HealthChecks(plane)
    for owner, rows in registered:
        if not rows:
            yield Finding(
                f"organization {owner.name}", Verdict.WARNING, "it has no keystore", "declare a Keystore for it"
            )
        for row in rows:
            yield _keystore(checks, owner, row)


def _keystore(checks: HealthChecks, owner: Organization, row: Keystore) -> Finding:
    """Test one keystore; one that is not in use can be away, and nothing depends on it."""
    used = row.id == owner.active_keystore_id
    subject = f"keystore {owner.name}/{row.name}"
    tested = checks.look(owner, row)
    if tested["status"] != "Online":
        hint = f"run `keystore status {owner.name}`, which lists the next steps" if used else "it is not active"
        detail = f"{tested['reason']}: {tested['detail']}"
        return Finding(subject, Verdict.WRONG if used else Verdict.WARNING, detail, hint)
    if row.certificate_not_after and (ends := expiry_warnings(row.certificate_not_after, now_utc())):
        return Finding(subject, Verdict.WARNING, ends[0], "replace the client certificate")
    return Finding(subject, Verdict.OK, "Online" if used else "Online, not active")
