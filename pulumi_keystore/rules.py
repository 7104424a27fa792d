"""Every rule on inputs, with its id.

One rule stands in one place and is used by the Pulumi providers, the API and the CLI alike. A rule says what is
expected; the place that applies it says what was found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pulumi_keystore.errors import RuleViolation
from pulumi_keystore.health.alerts import Timings

if TYPE_CHECKING:
    from pulumi_keystore.address import KeystoreAddress

MAX_USER_ID_BYTES: Final = 512
_PAGES: Final = "https://github.com/pulumi-keystore/pulumi-keystore/blob/main/docs/rules"


class Severity(StrEnum):
    """What breaking a rule means."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its id, the property it judges, and what it expects."""

    id: str
    prop: str
    expects: str
    severity: Severity = Severity.ERROR

    def violation(self, found: str) -> RuleViolation:
        """Return the error for an input that breaks this rule; `found` must hold no secret."""
        return RuleViolation(f"{self.prop}: {found}", hint=f"expected {self.expects}", prop=self.prop, rule=self.id)


def _rule(number: int, prop: str, expects: str, severity: Severity = Severity.ERROR) -> Rule:
    rule = Rule(f"KS{number:03d}", prop, expects, severity)
    RULES[rule.id] = rule
    return rule


def page(rule_id: str) -> str:
    """Return where a rule or policy is explained."""
    return f"{_PAGES}/{rule_id}.md"


RULES: Final[dict[str, Rule]] = {}

ADDRESS_SCHEME = _rule(1, "address", "https://HOST:PORT")
ADDRESS_PORT = _rule(2, "address", "a port from 1 to 65535 in plain digits, as in https://vault.example.com:8200")
ADDRESS_EXTRA = _rule(3, "address", "https://HOST:PORT and nothing after it but one optional '/'")
ADDRESS_IP = _rule(4, "address", "a public DNS name instead of an IP address, as in https://vault.example.com:8200")
ADDRESS_PUBLIC = _rule(5, "address", "a public DNS name of at least two labels, as in https://vault.example.com:8200")
ADDRESS_NAME = _rule(6, "address", "a valid DNS name (RFC 1123, IDNA 2008) without a final dot")
ADDRESS_CHARACTERS = _rule(7, "address", "no white space, control or invisible characters")

CERTIFICATE_FORMAT = _rule(10, "certificate", "an undamaged PKCS#12 file (.p12 or .pfx)")
CERTIFICATE_PASSWORD = _rule(11, "certificate_password", "the password the PKCS#12 file was exported with")
CERTIFICATE_PAIR = _rule(12, "certificate", "exactly one private key and the certificate that belongs to it")
CERTIFICATE_VALIDITY = _rule(13, "certificate", "a certificate that is valid today")
CERTIFICATE_ALGORITHM = _rule(
    14, "certificate", "RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519, signed with SHA-2"
)
CERTIFICATE_USAGE = _rule(15, "certificate", "extended key usage that includes TLS client authentication")
CERTIFICATE_SIZE = _rule(16, "certificate", "a file of at most 1 MiB")
CERTIFICATE_COST = _rule(17, "certificate", "an iteration count of at most 2,000,000 and an answer within 2 seconds")
CERTIFICATE_INTEGRITY = _rule(18, "certificate", "a PKCS#12 file with an integrity code (MAC)")
CERTIFICATE_CIPHER = _rule(19, "certificate", "encryption with AES (or 3DES or RC2 from old exports) and a SHA MAC")
CERTIFICATE_EXPIRES_SOON = _rule(20, "certificate", "a certificate valid for 30 more days", Severity.WARNING)
CERTIFICATE_OLD_CIPHER = _rule(21, "certificate", "encryption with AES", Severity.WARNING)

SERVER_CA = _rule(25, "server_ca", "one or more CA certificates in PEM, or nothing for the public CAs")
KIND = _rule(30, "kind", "one of provider, self-administered, legacy")
ORGANIZATION = _rule(31, "organization", "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
MIGRATION_TO_LEGACY = _rule(32, "destination", "a provider or self-administered keystore; legacy is only a source")
NOTIFY_EMAIL = _rule(33, "notify_email", "one e-mail address, as in ops@example.com")
VAULT_NAME = _rule(34, "mount", "1 to 128 of a-z, A-Z, 0-9, '-' and '_'")
USER_ID = _rule(35, "user", f"1 to {MAX_USER_ID_BYTES} bytes of text without control characters")
ARCHIVE_KEY = _rule(36, "key", "base64 of exactly 32 bytes")
KEYSTORE_NAME = _rule(37, "name", "1 to 100 printable characters, none of them '/', and not '.' or '..'")
MIGRATION_MODE = _rule(38, "mode", "maintenance, or online for a Vault keystore as the source")
MONITOR_RECIPIENTS = _rule(39, "recipients", "1 to 20 e-mail addresses, each once; or none, where there is a webhook")
MONITOR_TIMINGS = _rule(40, "offline_minutes", "1 to 60 minutes until somebody is told, and 1 to 168 hours between")
WEBHOOK = _rule(41, "webhook", "https://HOST/PATH with a public DNS name, and no user, password or fragment")

MAX_RECIPIENTS: Final = 20
MAX_WEBHOOK_LENGTH: Final = 1000
KINDS: Final = ("provider", "self-administered", "legacy")
MODES: Final = ("maintenance", "online")
_ORGANIZATION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9](-*[A-Za-z0-9])*\.)+[A-Za-z]{2,63}")
_VAULT_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NAME_LIMIT: Final = 100


def check_organization(name: str) -> str:
    """Return an organization's name, or raise `RuleViolation` (KS031)."""
    if not _ORGANIZATION.fullmatch(name):
        raise ORGANIZATION.violation(f"{name!r} is not an organization name")
    return name


def check_kind(kind: str) -> str:
    """Return a keystore kind, or raise `RuleViolation` (KS030)."""
    if kind not in KINDS:
        raise KIND.violation(f"{kind!r} is no kind of keystore")
    return kind


def check_mode(mode: str) -> str:
    """Return how a migration treats enrolments, or raise `RuleViolation` (KS038)."""
    if mode not in MODES:
        raise MIGRATION_MODE.violation(f"{mode!r} is no mode of a migration")
    return mode


def check_email(address: str) -> str:
    """Return an e-mail address, or raise `RuleViolation` (KS033). Line breaks never pass."""
    if len(address) > 254 or not _EMAIL.fullmatch(address):  # noqa: PLR2004 - RFC 5321 limit
        raise NOTIFY_EMAIL.violation(f"{address!r} is not an e-mail address")
    return address


def check_recipients(addresses: Sequence[str], *, others: bool) -> list[str]:
    """Return whom a monitor tells, or raise `RuleViolation` (KS033, KS039); none will do where there are `others`."""
    if not addresses and not others:
        raise MONITOR_RECIPIENTS.violation("the monitor would tell nobody")
    if len(addresses) > MAX_RECIPIENTS:
        raise MONITOR_RECIPIENTS.violation(f"there are {len(addresses)} of them")
    for address in addresses:
        try:
            check_email(address)
        except RuleViolation as violation:
            violation.prop = "recipients"
            raise
    if len({address.lower() for address in addresses}) < len(addresses):
        raise MONITOR_RECIPIENTS.violation("one address is there twice")
    return list(addresses)


def check_timings(offline_minutes: float, repeat_hours: float, online_minutes: float) -> None:
    """Raise `RuleViolation` (KS040) where a monitor's timings are out of range or no whole numbers."""
    for name, value, most in (
        ("offline_minutes", offline_minutes, 60),
        ("repeat_hours", repeat_hours, 168),
        ("online_minutes", online_minutes, 60),
    ):
        if not (1 <= value <= most and float(value).is_integer()):
            raise Rule(MONITOR_TIMINGS.id, name, f"a whole number from 1 to {most}").violation(
                f"{value:g} is too little, too much or no whole number"
            )


def check_declared_timings(given: Mapping[str, Any]) -> None:
    """Raise `RuleViolation` (KS040) where timings of a declaration are wrong; those left out are the usual ones."""
    usual = Timings()
    known = {"offline_minutes": usual.offline, "repeat_hours": usual.repeat // 60, "online_minutes": usual.online}
    try:
        timings = {name: float(default if given.get(name) is None else given[name]) for name, default in known.items()}
    except (TypeError, ValueError):
        raise MONITOR_TIMINGS.violation("a timing is no number") from None
    check_timings(**timings)


def check_webhook(url: str) -> KeystoreAddress:
    """Return where a webhook is, or raise `RuleViolation` (KS041). The URL may hold a secret: it is not repeated."""
    from pulumi_keystore.address import KeystoreAddress  # noqa: PLC0415 - addresses have rules, too

    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise WEBHOOK.violation("the URL cannot be read") from None
    plain = len(url) <= MAX_WEBHOOK_LENGTH and url.isascii() and url.isprintable() and " " not in url
    if not plain or parts.scheme != "https" or "@" in parts.netloc or parts.fragment or not parts.hostname:
        raise WEBHOOK.violation("the URL is not of that form")
    try:
        return KeystoreAddress.parse(f"https://{parts.hostname}:{port}")
    except RuleViolation as violation:
        raise WEBHOOK.violation(violation.summary.removeprefix("address: ")) from None


def check_vault_name(text: str, prop: str) -> str:
    """Return the name of a mount or role, or raise `RuleViolation` (KS034) for the property `prop`."""
    if not _VAULT_NAME.fullmatch(text):
        raise Rule(VAULT_NAME.id, prop, VAULT_NAME.expects).violation(f"{text!r} is not a usable name")
    return text


def check_user_id(user: str) -> str:
    """Return a user id, or raise `RuleViolation` (KS035). It may hold any text: paths use an encoded form."""
    size = len(user.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_USER_ID_BYTES:
        raise USER_ID.violation(f"the user id has {size} bytes")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in user):
        raise USER_ID.violation("the user id holds a control character")
    return user


def check_name(name: str) -> str:
    """Return a keystore's display name, or raise `RuleViolation` (KS037)."""
    # A name is a segment of the API's paths.
    if not 1 <= len(name) <= _NAME_LIMIT or not name.isprintable() or "/" in name or name in (".", ".."):
        raise KEYSTORE_NAME.violation(f"{name!r} is not a usable name")
    return name
