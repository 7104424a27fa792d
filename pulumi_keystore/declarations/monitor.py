"""What a health monitor is declared with: whom it tells, and when (rules KS039 to KS041, KS046)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pulumi_keystore import rules
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.judging import Judgement, as_text
from pulumi_keystore.declarations.names import check_email
from pulumi_keystore.errors import RuleViolation

OFFLINE_MINUTES: Final = 5
REPEAT_HOURS: Final = 24
ONLINE_MINUTES: Final = 5
MAX_RECIPIENTS: Final = 20
TIMINGS: Final = ("offline_minutes", "repeat_hours", "online_minutes")
INPUTS: Final = ("recipients", "webhook", "webhook_format", *TIMINGS)
_LONGEST_SHOWN: Final = 10**15
MAX_WEBHOOK_LENGTH: Final = 1000
_ROUTING_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


class WebhookFormat(StrEnum):
    """What a webhook is called with."""

    JSON = "json"
    """Every fact, for programs of one's own."""
    SLACK = "slack"
    """A text, as the incoming webhooks of Slack, Mattermost and others take it."""
    PAGERDUTY = "pagerduty"
    """An event that opens, and resolves, an incident (PagerDuty Events API v2)."""


class Period(StrEnum):
    """How far back the timeline of a keystore goes.

    60 minutes one by one, 24 hours by quarters of an hour, 30 days by quarters of a day.
    """

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Timings:
    """Minutes before an alert: of being offline, again while it lasts, of being online again."""

    offline: int = OFFLINE_MINUTES
    repeat: int = REPEAT_HOURS * 60
    online: int = ONLINE_MINUTES


def problems(given: Mapping[str, Any], unknown: Collection[str] = ()) -> list[RuleViolation]:
    """Apply every rule that can be applied to the inputs of a monitor; return all violations.

    Args:
        given: The inputs by name, of whatever type they came; None is as if left out.
        unknown: Those whose value is not known yet, or not seen here, which are not judged.

    """
    found = Judgement(unknown)
    found.attempt_names(given, "keystore")
    return found.violations + alerting_problems(given, unknown)


def alerting_problems(given: Mapping[str, Any], unknown: Collection[str] = ()) -> list[RuleViolation]:
    """Do the same for who is told, and when, whatever keystore it is about."""
    found = Judgement(unknown)
    webhook, form = given.get("webhook"), given.get("webhook_format")
    others = bool(webhook) or "webhook" in unknown
    found.attempt(lambda: check_recipients(given.get("recipients") or (), others=others), "recipients")
    found.attempt(lambda: check_declared_timings({name: given.get(name) for name in set(TIMINGS).difference(unknown)}))
    if webhook:
        found.attempt(lambda: check_webhook(str(webhook)), "webhook")
    if form is not None:
        url = None if "webhook" in unknown else as_text(webhook)
        found.attempt(lambda: check_webhook_format(str(form), url), "webhook_format")
    return found.violations


def check_recipients(addresses: Sequence[str], *, others: bool) -> list[str]:
    """Return a monitor's recipients, or raise `RuleViolation` (KS033, KS039); with `others` there may be none."""
    if not isinstance(addresses, list | tuple):
        raise rules.MONITOR_RECIPIENTS.violation("it is not a list of addresses")
    if not addresses and not others:
        raise rules.MONITOR_RECIPIENTS.violation("the monitor has no recipients")
    if len(addresses) > MAX_RECIPIENTS:
        raise rules.MONITOR_RECIPIENTS.violation(f"there are {len(addresses)} of them")
    for address in addresses:
        check_email(str(address), "recipients")
    if len({str(address).lower() for address in addresses}) < len(addresses):
        raise rules.MONITOR_RECIPIENTS.violation("one address is there twice")
    return list(addresses)


def check_timings(offline_minutes: float, repeat_hours: float, online_minutes: float) -> None:
    """Raise `RuleViolation` (KS040) where a monitor's timings are out of range or no whole numbers."""
    for name, value, most in (
        ("offline_minutes", offline_minutes, 60),
        ("repeat_hours", repeat_hours, 168),
        ("online_minutes", online_minutes, 60),
    ):
        if not (1 <= value <= most and float(value).is_integer()):
            rule = rules.MONITOR_TIMINGS.of(name, f"a whole number from 1 to {most}")
            raise rule.violation(f"{shown(value)} is out of range or not a whole number")


def shown(value: float) -> str:
    """Return a number as people write it; of a whole one that is as long as one likes no float can be made."""
    return f"{value:g}" if abs(value) < _LONGEST_SHOWN else "a number that long"


def check_declared_timings(given: Mapping[str, Any]) -> None:
    """Raise `RuleViolation` (KS040) where timings of a declaration are wrong; those left out are the usual ones."""
    known = {"offline_minutes": OFFLINE_MINUTES, "repeat_hours": REPEAT_HOURS, "online_minutes": ONLINE_MINUTES}
    try:
        timings = {name: float(default if given.get(name) is None else given[name]) for name, default in known.items()}
    except (TypeError, ValueError, OverflowError):
        raise rules.MONITOR_TIMINGS.violation("a timing is not a number") from None
    check_timings(**timings)


def check_webhook(url: str) -> KeystoreAddress:
    """Return where a webhook is, or raise `RuleViolation` (KS041). The URL may hold a secret: it is not repeated."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise rules.WEBHOOK.violation("the URL cannot be read") from None
    plain = len(url) <= MAX_WEBHOOK_LENGTH and url.isascii() and url.isprintable() and " " not in url
    if not plain or parts.scheme != "https" or "@" in parts.netloc or parts.fragment or not parts.hostname:
        raise rules.WEBHOOK.violation("the URL is not of that form")
    try:
        return KeystoreAddress.parse(f"https://{parts.hostname}:{port}")
    except RuleViolation as violation:
        raise rules.WEBHOOK.violation(violation.summary.removeprefix("address: ")) from None


def check_webhook_format(given: str, url: str | None) -> WebhookFormat:
    """Return what a webhook is called with, or raise `RuleViolation` (KS046); a URL that is not known yet is None."""
    try:
        wanted = WebhookFormat(given)
    except ValueError:
        raise rules.WEBHOOK_FORMAT.violation("it is none of them") from None
    if wanted is WebhookFormat.PAGERDUTY and url is not None and routing_key_of(url) is None:
        raise rules.WEBHOOK_FORMAT.violation("the URL has no routing_key")
    return wanted


def routing_key_of(url: str) -> str | None:
    """Return the routing key that a webhook URL names, which PagerDuty wants in the body instead."""
    keys = parse_qs(urlsplit(url).query).get("routing_key", [])
    return keys[0] if len(keys) == 1 and _ROUTING_KEY.fullmatch(keys[0]) else None
