"""Every rule, with its id: those on one input, and those on declarations as a whole, which are called policies.

One rule stands in one place and is used by the Pulumi providers, the API, the CLI and the policy pack alike. A rule
says what is expected; the place that applies it says what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pulumi_keystore.errors import RuleViolation

MAX_USER_ID_BYTES: Final = 512
_FIRST_POLICY: Final = "KS100"
PAGES: Final = "https://github.com/pulumi-keystore/pulumi-keystore/blob/main/docs/rules"


class Severity(StrEnum):
    """What breaking a rule means."""

    ERROR = "error"
    """It is refused, or has to be."""
    WARNING = "warning"
    """It works, and should be otherwise."""
    NOTE = "note"
    """It could not be judged."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        id: `KS` and three digits; from KS100 on it is a policy.
        name: What a policy pack calls it.
        prop: The input that it judges; empty for a policy, except where an input is refused for the same reason.
        expects: What is expected.
        remedy: What to do where it is broken.
        severity: What breaking it means.

    """

    id: str
    name: str
    prop: str
    expects: str
    remedy: str
    severity: Severity

    @property
    def is_policy(self) -> bool:
        """Whether it judges declarations as a whole, not one input."""
        return self.id >= _FIRST_POLICY

    def of(self, prop: str, expects: str = "") -> Rule:
        """Return the rule as it is for another input."""
        return replace(self, prop=prop, expects=expects or self.expects)

    def violation(self, found: str) -> RuleViolation:
        """Return the error for an input that breaks this rule; `found` must hold no secret."""
        return RuleViolation(f"{self.prop}: {found}", hint=f"expected {self.expects}", prop=self.prop, rule=self.id)


RULES: Final[dict[str, Rule]] = {}


def _add(rule: Rule) -> Rule:
    RULES[rule.id] = rule
    return rule


def _rule(number: int, prop: str, expects: str, severity: Severity = Severity.ERROR) -> Rule:
    """Return a rule on one input."""
    name = f"ks{number:03d}-{prop.replace('_', '-')}"
    return _add(Rule(f"KS{number:03d}", name, prop, expects, f"give {expects}", severity))


def _policy(number: int, name: str, expects: str, remedy: str, severity: Severity, prop: str = "") -> Rule:
    """Return a rule on declarations as a whole."""
    return _add(Rule(f"KS{number}", name, prop, expects, remedy, severity))


def page(rule_id: str) -> str:
    """Return where a rule or policy is explained."""
    return f"{PAGES}/{rule_id}.md"


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
CERTIFICATE_COST = _rule(17, "certificate", "an iteration count of at most 2,000,000, and no more work than it states")
CERTIFICATE_INTEGRITY = _rule(18, "certificate", "a PKCS#12 file with an integrity code (MAC)")
CERTIFICATE_CIPHER = _rule(19, "certificate", "encryption with AES (or 3DES or RC2 from old exports) and a SHA MAC")
CERTIFICATE_OLD_CIPHER = _rule(21, "certificate", "encryption with AES", Severity.WARNING)

SERVER_CA = _rule(25, "server_ca", "1 to 100 CA certificates in PEM, or nothing for the public CAs")
KIND = _rule(30, "kind", "one of provider, self-administered, legacy")
ORGANIZATION = _rule(31, "organization", "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
NOTIFY_EMAIL = _rule(33, "notify_email", "one e-mail address, as in ops@example.com")
_NAMES: Final = "names of a-z, A-Z, 0-9, '-', '_' and '.' with one '/' between them, 128 characters at most"
MOUNT = _rule(34, "mount", _NAMES)
ROLE = MOUNT.of("role", "1 to 128 of a-z, A-Z, 0-9, '-' and '_'")
USER_ID = _rule(35, "user", f"1 to {MAX_USER_ID_BYTES} bytes of text without control characters")
ARCHIVE_KEY = _rule(36, "key", "base64 of exactly 32 bytes")
KEYSTORE_NAME = _rule(37, "name", "1 to 100 printable characters, none of them '/', and not '.' or '..'")
MIGRATION_MODE = _rule(38, "mode", "maintenance, or online for a Vault keystore as the source")
MONITOR_RECIPIENTS = _rule(39, "recipients", "1 to 20 e-mail addresses, each once; or none, where there is a webhook")
MONITOR_TIMINGS = _rule(40, "offline_minutes", "1 to 60 minutes before the first alert, and 1 to 168 hours between")
WEBHOOK = _rule(41, "webhook", "https://HOST/PATH with a public DNS name, and no user, password or fragment")
LEGACY_ALONE = _rule(42, "kind", "no address and no certificate where the kind is legacy, or another kind")
INPUT = _rule(43, "input", "only inputs that the resource has")
NAMESPACE = _rule(44, "namespace", f"nothing for the root namespace, or {_NAMES}")
READABLE = _rule(45, "declared", "files and variables of the environment that can be read")
WEBHOOK_FORMAT = _rule(46, "webhook_format", "json, slack or pagerduty; the last with ?routing_key=KEY in the URL")

# Policies.

# fmt: off
NOT_CHECKED = _policy(
    100, "ks100-not-checked", "inputs that are known in preview",
    "nothing: the provider checks it in preview, and the service before anything changes", Severity.NOTE,
)
CERTIFICATE_EXPIRES_SOON = _policy(
    101, "keystore-certificate-expires-soon", "client certificates that do not expire soon",
    "issue a new certificate, replace the file, and run `pulumi up`", Severity.WARNING, "certificate",
)
KEYSTORE_MONITORED = _policy(
    102, "keystore-is-monitored", "a HealthMonitor for each self-administered keystore",
    "declare HealthMonitor(name, keystore, recipients)", Severity.WARNING,
)
MONITOR_HAS_RECIPIENTS = _policy(
    103, "monitor-has-recipients", "at least one mail recipient",
    "add recipients: nothing else reports a broken webhook", Severity.WARNING,
)
MONITOR_IN_TIME = _policy(
    104, "monitor-alerts-in-time", "timings at least as strict as the defaults",
    "omit offline_minutes and repeat_hours", Severity.WARNING,
)
MIGRATION_NOTIFIES = _policy(
    105, "migration-has-notify-email", "a mail address for migration notices", "set notify_email", Severity.WARNING
)
MIGRATION_TO_LEGACY = _policy(
    106, "migration-not-to-legacy", "a provider or self-administered keystore as the destination",
    "choose another destination; legacy is only a source", Severity.ERROR, "destination",
)
FEDERAL = _policy(
    107, "no-keystores-in-federal", "no keystore of its own in the federal environment",
    "remove it: only cloud organizations have keystores of their own", Severity.ERROR,
)
KEYSTORE_PROTECTED = _policy(
    108, "keystore-is-protected", "keystores that are protected against deletion",
    "set opts=pulumi.ResourceOptions(protect=True)", Severity.WARNING,
)
NO_SECRETS_IN_CLEAR = _policy(
    109, "no-secrets-in-clear", "no secrets in plain text",
    "use `pulumi config set --secret`, or certificate_password_env in a file", Severity.ERROR,
)
ONE_MIGRATION = _policy(
    110, "one-migration-per-organization", "one migration for each organization",
    "keep one KeystoreMigration and change its destination", Severity.ERROR,
)
OTHER_SERVER = _policy(
    111, "destination-is-another-server", "keystores of one organization on different servers",
    "set the address of the other server", Severity.ERROR,
)
KEYSTORE_DECLARED = _policy(
    112, "keystore-is-declared", "monitors and migrations of keystores that are declared",
    "correct the name, or declare the keystore", Severity.WARNING,
)
# fmt: on
