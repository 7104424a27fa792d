"""How declarations are judged: each input by its rule, and all of them together by the policies.

A policy is a pure function of everything that is declared. What it cannot judge, because a value is secret or not known
before the update, it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pulumi_keystore import rules
from pulumi_keystore.clock import now_utc
from pulumi_keystore.counting import count
from pulumi_keystore.declarations import migration, monitor
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate, decode_file
from pulumi_keystore.declarations.expiry import WARN_BEFORE_EXPIRY
from pulumi_keystore.declarations.judging import Judgement, as_text
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.declarations.monitor import OFFLINE_MINUTES, REPEAT_HOURS
from pulumi_keystore.declarations.names import NO_ONE, Kind, check_organization
from pulumi_keystore.errors import InvalidInput, RuleViolation
from pulumi_keystore.policy.declared import Declared, Position
from pulumi_keystore.rules import Rule, Severity


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be chosen.

    Attributes:
        certificate_days: Warn of client certificates that end within so many days.
        offline_minutes: The most minutes offline after which administrators have to be told.
        repeat_hours: The most hours after which they have to be told again.

    """

    certificate_days: int = WARN_BEFORE_EXPIRY.days
    offline_minutes: int = OFFLINE_MINUTES
    repeat_hours: int = REPEAT_HOURS


@dataclass(frozen=True, slots=True)
class Finding:
    """That a declaration is not as a rule expects it."""

    rule: Rule
    resource: str
    message: str
    remedy: str
    at: Position | None = None
    """Where it is written."""


def check(declared: Sequence[Declared], settings: Settings | None = None) -> list[Finding]:
    """Judge everything that is declared; return what is found, the gravest first."""
    settings = settings or Settings()
    found = [finding for one in declared for finding in _of_inputs(one)]
    for policy, judge in POLICIES.items():
        for one, message in judge(declared, settings):
            found.append(Finding(policy, f"{one.kind} {one.name}", message, policy.remedy, one.position()))
    order = list(Severity)
    return sorted(found, key=lambda finding: (order.index(finding.rule.severity), finding.resource, finding.rule.id))


# The rules on single inputs: those of the providers.


def _of_inputs(one: Declared) -> Iterator[Finding]:
    where = f"{one.kind} {one.name}"
    violations, warnings = _JUDGES[one.kind](one)
    for violation in violations:
        rule, at = rules.RULES[str(violation.rule)], one.position(violation.prop)
        yield Finding(rule, where, violation.summary, violation.hint or "change it", at)
    for rule, text in warnings:
        yield Finding(rule, where, text, rule.expects, one.position("certificate"))
    for prop, text in one.missing.items():
        remedy = f"expected {rules.READABLE.expects}"
        yield Finding(rules.READABLE, where, f"{prop}: {text}", remedy, one.position(prop))
    for name in sorted(one.unknown):
        text = f"{name[:50]!r} is not an input of a {one.kind}"
        yield Finding(rules.INPUT, where, text, rules.INPUT.remedy, one.position(name))
    for prop in sorted(one.hidden & set(_JUDGED[one.kind]) if not one.missing else ()):
        text = f"{prop} cannot be checked here: it is secret, or known only during the update"
        yield Finding(rules.NOT_CHECKED, where, text, rules.NOT_CHECKED.remedy, one.position(prop))


Judged = tuple[list[RuleViolation], list[tuple[Rule, str]]]


def _organization(one: Declared) -> Judged:
    found = Judgement(one.hidden)
    found.attempt(lambda: check_organization(str(one.props.get("name", one.name))), "name")
    return found.violations, []


def _keystore(one: Declared) -> Judged:
    names = ("kind", "address", "certificate", "certificate_password", "server_ca", "namespace", "mount", "role")
    texts = {name: str(one.props[name]) for name in names if one.props.get(name) is not None}
    violations, warnings = Declaration(**{"kind": "", **texts}).problems(one.hidden)
    found = Judgement(one.hidden)
    found.attempt(lambda: check_organization(str(one.props.get("organization"))), "organization")
    old = [(rules.CERTIFICATE_OLD_CIPHER, text) for text in warnings if rules.CERTIFICATE_OLD_CIPHER.id in text]
    return violations + found.violations, old


def _migration(one: Declared) -> Judged:
    return migration.problems(one.props, one.hidden), []


def _monitor(one: Declared) -> Judged:
    return monitor.problems(one.props, one.hidden), []


_JUDGES: Final = {"organization": _organization, "keystore": _keystore, "migration": _migration, "monitor": _monitor}
_JUDGED: Final = {
    "organization": ("name",),
    "keystore": ("organization", "kind", "address", "certificate", "certificate_password"),
    "migration": ("organization", "destination", "notify_email"),
    "monitor": ("organization", "keystore", "recipients", "webhook", "webhook_format"),
}


# The policies on declarations as a whole.

Found = Iterator[tuple[Declared, str]]


def _all(declared: Sequence[Declared], kind: str) -> list[Declared]:
    return [one for one in declared if one.kind == kind]


def _name_of(keystore: Declared) -> str:
    return str(keystore.props.get("name", keystore.name))


def _certificate_ends(declared: Sequence[Declared], settings: Settings) -> Found:
    for one in _all(declared, "keystore"):
        content = one.props.get("certificate")
        if not content or "certificate_password" in one.hidden:
            continue
        try:
            password = one.props.get("certificate_password")
            certificate = ClientCertificate.load(decode_file(str(content)), password, now_utc())
        except InvalidInput:
            continue  # told by its rule
        left = certificate.not_after - now_utc()
        if left < timedelta(days=settings.certificate_days):
            yield one, f"the client certificate expires in {count(left.days, 'day')}"


def _unmonitored(declared: Sequence[Declared], _: Settings) -> Found:
    monitors = _all(declared, "monitor")
    if any({"keystore", "organization"} & one.hidden for one in monitors):
        return  # one of them may be for it
    watched = {(one.organization, str(one.props.get("keystore"))) for one in monitors}
    for one in _all(declared, "keystore"):
        if one.props.get("kind") == Kind.SELF_ADMINISTERED and (one.organization, _name_of(one)) not in watched:
            yield one, "no one is alerted when this keystore is offline"


def _no_recipients(declared: Sequence[Declared], _: Settings) -> Found:
    for one in _all(declared, "monitor"):
        if not one.props.get("recipients") and "recipients" not in one.hidden:
            yield one, "no administrator gets a mail"


def _weak_timings(declared: Sequence[Declared], settings: Settings) -> Found:
    for one in _all(declared, "monitor"):
        for prop, most in (("offline_minutes", settings.offline_minutes), ("repeat_hours", settings.repeat_hours)):
            value = one.props.get(prop)
            if isinstance(value, int | float) and value > most:
                yield one, f"{prop} is {monitor.shown(value)}, and at most {most} is expected"


def _silent_migration(declared: Sequence[Declared], _: Settings) -> Found:
    for one in _all(declared, "migration"):
        given = as_text(one.props.get("notify_email")).strip().lower()
        if given in ("", NO_ONE) and "notify_email" not in one.hidden:
            yield one, "no one is notified about this migration"


def _to_legacy(declared: Sequence[Declared], _: Settings) -> Found:
    legacy = {
        (one.organization, _name_of(one)) for one in _all(declared, "keystore") if one.props.get("kind") == Kind.LEGACY
    }
    for one in _all(declared, "migration"):
        if (one.organization, str(one.props.get("destination"))) in legacy:
            yield one, f"{one.props['destination']!r} is a legacy keystore"


def _federal(declared: Sequence[Declared], _: Settings) -> Found:
    federal = {one.organization for one in _all(declared, "organization") if one.props.get("environment") == "federal"}
    for one in declared:
        if one.kind != "organization" and one.organization in federal:
            yield one, f"the organization {one.organization!r} is in the federal environment"


def _unprotected(declared: Sequence[Declared], _: Settings) -> Found:
    for one in _all(declared, "keystore"):
        if one.protected is False:
            yield one, "the keystore may be deleted by an update that leaves it out"


def _plain_secrets(declared: Sequence[Declared], _: Settings) -> Found:
    for one in declared:
        for prop in sorted(one.plain):
            yield one, f"{prop} is written in clear"


def _two_migrations(declared: Sequence[Declared], _: Settings) -> Found:
    rows = _all(declared, "migration")
    count = Counter(one.organization for one in rows)
    for one in rows:
        if one.organization is not None and count[one.organization] > 1:
            yield one, f"the organization {one.organization!r} has {count[one.organization]} migrations in one update"


def _undeclared(declared: Sequence[Declared], _: Settings) -> Found:
    keystores = _all(declared, "keystore")
    if any({"organization", "name"} & one.hidden for one in keystores):
        return  # one of them may be meant
    names = {(one.organization, _name_of(one)) for one in keystores}
    organizations = {organization for organization, _ in names}
    for kind, prop in (("monitor", "keystore"), ("migration", "destination")):
        for one in _all(declared, kind):
            named = one.props.get(prop)
            # A program that declares no keystore of an organization leaves that to another one.
            if named is not None and one.organization in organizations and (one.organization, str(named)) not in names:
                yield one, f"the keystore {str(named)[:100]!r} is not declared"


def _same_server(declared: Sequence[Declared], _: Settings) -> Found:
    known: dict[tuple[str | None, str], Declared] = {}
    # The engine hands resources over in another order each time.
    for one in sorted(_all(declared, "keystore"), key=_name_of):
        try:
            address = str(KeystoreAddress.parse(str(one.props.get("address") or "")))
        except RuleViolation:
            continue  # told by its rule
        other = known.setdefault((one.organization, address), one)
        if other is not one:
            yield one, f"it is the same server as {_name_of(other)!r}, so no key could move between them"


POLICIES: Final[dict[Rule, Callable[[Sequence[Declared], Settings], Found]]] = {
    rules.CERTIFICATE_EXPIRES_SOON: _certificate_ends,
    rules.KEYSTORE_MONITORED: _unmonitored,
    rules.MONITOR_HAS_RECIPIENTS: _no_recipients,
    rules.MONITOR_IN_TIME: _weak_timings,
    rules.MIGRATION_NOTIFIES: _silent_migration,
    rules.MIGRATION_TO_LEGACY: _to_legacy,
    rules.FEDERAL: _federal,
    rules.KEYSTORE_PROTECTED: _unprotected,
    rules.NO_SECRETS_IN_CLEAR: _plain_secrets,
    rules.ONE_MIGRATION: _two_migrations,
    rules.OTHER_SERVER: _same_server,
    rules.KEYSTORE_DECLARED: _undeclared,
}
"""How each policy judges."""
