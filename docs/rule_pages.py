"""The pages of the rules and policies: why each is there, an example that is judged as the page is written, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pulumi_keystore import rules
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import check_server_ca, decode_file
from pulumi_keystore.declarations.migration import check_mode
from pulumi_keystore.declarations.monitor import check_recipients, check_timings, check_webhook, check_webhook_format
from pulumi_keystore.declarations.names import (
    check_email,
    check_kind,
    check_mount,
    check_name,
    check_namespace,
    check_organization,
    check_user_id,
)
from pulumi_keystore.declarations.pkcs12_inspection import inspect
from pulumi_keystore.errors import RuleViolation


@dataclass(frozen=True, slots=True)
class Note:
    """What a rule's own text does not say.

    Attributes:
        title: The mistake, in a few words.
        why: Why it is refused or warned of.
        do: What to do about it.
        example: An input that breaks the rule, where one line can show it.

    """

    title: str
    why: str
    do: str
    example: Any = None


RULE_NOTES: Final = {
    "KS001": Note(
        "An address without https://",
        "Archive keys and client certificates are sent only over TLS, to a server whose certificate is verified.",
        "Write the full scheme. A Vault that listens without TLS needs a certificate first.",
        "http://vault.example.com:8200",
    ),
    "KS002": Note(
        "An address without a usable port",
        "Behind load balancers and proxies Vault has no fixed port, and a guess could reach another service.",
        "Add the port, for example `:8200`, or `:443` if the server listens there.",
        "https://vault.example.com",
    ),
    "KS003": Note(
        "Something after the port",
        "A path, query, fragment or user name would be ignored or sent along, and two spellings of one server could be "
        "mistaken for two servers.",
        "Remove everything after the port. Mount and role are separate inputs.",
        "https://vault.example.com:8200/v1/archive-keys",
    ),
    "KS004": Note(
        "An IP address instead of a name",
        "Certificates are issued for names, and an address cannot be moved to another server without an edit. In some "
        "spellings (decimal, hexadecimal, octal, IPv6) it also hides an internal target.",
        "Give the server a public DNS name and use that.",
        "https://2130706433:8200",
    ),
    "KS005": Note(
        "A name that is not public",
        "The service runs elsewhere and finds the server by public DNS. Names such as `localhost`, `.local`, `.internal` or a "
        "single label resolve to something in the service's own network.",
        "Publish a name of at least two labels that resolves only to public addresses.",
        "https://vault.internal:8200",
    ),
    "KS006": Note(
        "An invalid DNS name",
        "Empty or overlong labels, underscores, a final dot and names that IDNA does not allow resolve differently, or not "
        "at all, from place to place.",
        "Use the name as the certificate has it, or its `xn--` form.",
        "https://vault..example.com:8200",
    ),
    "KS007": Note(
        "An invisible character",
        "White space, control characters and zero-width characters make one address look like another.",
        "Type the address again instead of pasting it.",
        "https://va\u200bult.example.com:8200",
    ),
    "KS010": Note(
        "Not a PKCS#12 file",
        "Certificate and private key come together in one file, recognised by its content alone.",
        "Export it: `openssl pkcs12 -export -in acme.pem -inkey acme.key -out acme.p12`.",
        b"-----BEGIN CERTIFICATE-----\n",
    ),
    "KS011": Note(
        "The wrong password",
        "The file does not open with the password given; or a password was given and the file has none.",
        "Check it with `openssl pkcs12 -info -noout -in acme.p12`, which asks for the password.",
    ),
    "KS012": Note(
        "No key, or not its certificate",
        "Logging in takes exactly one private key and the certificate that belongs to it.",
        "Export the pair again, with `-inkey` naming the key that the certificate was requested with.",
    ),
    "KS013": Note(
        "Expired, or not valid yet",
        "The server would reject the login.",
        "Issue a new certificate. If it is new, compare the clocks of the CA and the service.",
    ),
    "KS014": Note(
        "A weak or unknown algorithm",
        "RSA below 2048 bits, other curves, and signatures with MD5 or SHA-1 are within reach of an attacker, or not "
        "supported by the server.",
        "Issue one with RSA 2048, P-256 or Ed25519, signed with SHA-256.",
    ),
    "KS015": Note(
        "Not for TLS clients",
        "Vault checks the extended key usage of client certificates, and rejects one that is only for servers.",
        "Issue one with `extendedKeyUsage = clientAuth`.",
    ),
    "KS016": Note(
        "A file that is too large",
        "A PKCS#12 file with a chain takes a few kilobytes. A much larger file is something else and is not read.",
        "Export the one certificate, its key and its chain.",
    ),
    "KS017": Note(
        "A file that is too costly to open",
        "The file itself says how often its password is hashed. A very high count would keep the service busy for hours.",
        "Export it again; `-iter 600000` is more than enough.",
    ),
    "KS018": Note(
        "No integrity code",
        "Without a MAC a modified file would go unnoticed.",
        "Export it without `-nomac`.",
    ),
    "KS019": Note(
        "A broken cipher",
        "RC4, DES, and MACs with MD5 do not protect the private key.",
        "Export it again with a current OpenSSL, which takes AES-256.",
    ),
    "KS021": Note(
        "An old cipher",
        "3DES and RC2 come from old exports. The service accepts them, since it encrypts the file again; the file on your disk "
        "remains weak.",
        "Export it again with a current OpenSSL, which takes AES-256.",
    ),
    "KS025": Note(
        "Not CA certificates",
        "The server's certificate is verified with exactly these CAs; a leaf certificate or a private key cannot be used.",
        "Use the PEM file of the CA that issued the server's certificate, or nothing if it is a public CA.",
        "no certificate",
    ),
    "KS030": Note(
        "An unknown kind of keystore",
        "Who runs the server decides what is monitored, what the console shows, and where keys may move.",
        "Choose one of the three.",
        "cloud",
    ),
    "KS031": Note(
        "Not an organization name",
        "The name is part of paths and policies on the server, so only characters that are safe everywhere are allowed.",
        "Use lower case letters, digits and hyphens.",
        "Acme Inc.",
    ),
    "KS033": Note(
        "Not an e-mail address",
        "Mail could not be delivered. Use one plain address without a display name.",
        "Write it as in ops@example.com.",
        "Ops <ops@example.com>",
    ),
    "KS034": Note(
        "Not a mount or role",
        "Mount and role become part of request paths: what begins or ends with a slash, or holds two in a row, would be "
        "another spelling of the same mount, and dots would lead out of it. A role holds no slash.",
        "Write the mount as `bao secrets list` shows it, without the final slash. Its first name is none of `root`, `sys`, "
        "`audit`, `auth`, `cubbyhole` and `identity`.",
        "team/archive-keys/",
    ),
    "KS035": Note(
        "Not a user id",
        "The id is stored, compared and displayed, which control characters and lone surrogates do not survive.",
        "Use the product's id of the user, up to 512 bytes of UTF-8.",
        "user\n1",
    ),
    "KS036": Note(
        "Not an archive key",
        "An archive key has 256 bits. Anything else is not a key of the product and would not decrypt a backup.",
        "Send the key itself in base64 (44 characters), not its hexadecimal form.",
    ),
    "KS037": Note(
        "Not a keystore name",
        "The name is part of the API's paths and is shown to people.",
        "Use up to 100 printable characters without `/`.",
        "a/b",
    ),
    "KS038": Note(
        "An unknown or impossible mode",
        "`online` writes new keys to both ends, which the provider's database cannot do.",
        "Omit `mode`.",
        "fast",
    ),
    "KS039": Note(
        "A monitor without recipients",
        "Without alerts, an outage is discovered by the first user who needs a key.",
        "Set 1 to 20 addresses, each once, or a webhook.",
        [],
    ),
    "KS040": Note(
        "Timings out of range",
        "Health checks run once a minute; alerts after more than an hour, or reminders more than a week apart, are too late.",
        "Omit them to use the defaults: 5 minutes, 24 hours and 5 minutes.",
        0,
    ),
    "KS041": Note(
        "Not a webhook",
        "The service calls it, so it must be a public server over TLS. A user name or password in the URL would appear in every "
        "log of URLs.",
        "Use `https://HOST/PATH`. A secret belongs in the path; the whole URL is stored encrypted.",
        "http://hooks.example.com/x",
    ),
    "KS046": Note(
        "Not a format of webhooks",
        "Slack and PagerDuty take no other JSON than their own. PagerDuty wants its routing key in the body; it is kept in the URL, "
        "which is stored encrypted.",
        "Choose `json`, `slack` or `pagerduty`. For PagerDuty the URL is "
        "`https://events.pagerduty.com/v2/enqueue?routing_key=KEY` (in Europe `events.eu.pagerduty.com`).",
        "teams",
    ),
    "KS042": Note(
        "A legacy keystore with an address",
        "A legacy keystore is the provider's own database, which has neither an address nor a client certificate.",
        "Leave both out, or choose provider or self-administered.",
    ),
    "KS043": Note(
        "A misspelled input",
        "In a file of declarations an input that does not exist would be ignored without a word. (In a program Python says so.)",
        "Correct its name: [resources](../resources.md) lists them.",
    ),
    "KS044": Note(
        "Not a namespace",
        "The namespace becomes part of request paths, and of what tells one place from another. Vault and OpenBao call none "
        "`root`, `sys`, `audit`, `auth`, `cubbyhole` or `identity`.",
        "Write the full path of the namespace, as in `team/child`, or leave it out for the root namespace.",
        "root",
    ),
    "KS045": Note(
        "A missing file or variable",
        "A file of declarations names the file of each client certificate, seen from its own folder, and the variable that holds the "
        "password. The certificate cannot be checked without both.",
        "Correct the path, or set the variable where `keystore check` runs; for example from the secrets of your CI server.",
    ),
}
POLICY_NOTES: Final = {
    "KS101": "Once it has expired the service can no longer log in, and the keystore is offline.",
    "KS102": "Every self-administered keystore gets a health check each minute; without a monitor its failures alert no one.",
    "KS103": "A broken webhook cannot report that it is broken.",
    "KS104": "Timings that are weaker than the defaults are usually a mistake.",
    "KS105": "With a mail address, an administrator learns when a migration starts and how it ends.",
    "KS106": "Legacy keystores are being phased out: keys can only leave them.",
    "KS107": "Keystores of the federal environment are not managed here.",
    "KS108": "Deleting a line from a program by mistake should not delete a keystore, even one without keys.",
    "KS109": "A secret in plain text stays in the history of the repository forever.",
    "KS110": "Their order would be random. The service runs one at a time and rejects the second.",
    "KS112": "A monitor of a keystore that does not exist watches nothing, and a migration to it fails. A program that declares no "
    "keystores of the organization at all is not checked.",
    "KS111": "Copying keys onto the same server and then emptying it would lose them, so the service rejects it.",
}
NOT_JUDGED: Final = """\
# KS100: not checked

Reported for an input that is secret or known only during the update, so that the policy pack cannot see it. It is not a mistake, and
nothing is missed: the provider checks the input in preview as soon as it is known, and the service before anything changes.

**Do this:** nothing, or set the value in a form that is known in preview, to learn of mistakes earlier.

[All policies](../policies.md)
"""
_JUDGES: Final[dict[str, Callable[[Any], object]]] = {
    "address": KeystoreAddress.parse,
    "certificate": inspect,
    "server_ca": check_server_ca,
    "kind": check_kind,
    "organization": check_organization,
    "notify_email": check_email,
    "mount": check_mount,
    "namespace": check_namespace,
    "user": check_user_id,
    "key": decode_file,
    "name": check_name,
    "mode": check_mode,
    "recipients": lambda addresses: check_recipients(addresses, others=False),
    "offline_minutes": lambda minutes: check_timings(minutes, 24, 5),
    "webhook": check_webhook,
    "webhook_format": lambda given: check_webhook_format(given, None),
}


def pages() -> dict[str, Callable[[], str]]:
    """Return each page by its path below docs/."""
    found: dict[str, Callable[[], str]] = {}
    for rule in rules.RULES.values():
        page = policy_page if rule.is_policy else rule_page
        found[f"rules/{rule.id}.md"] = lambda page=page, rule=rule: page(rule)  # type: ignore[misc]
    return found


def rule_page(rule: rules.Rule) -> str:
    """Return the page of a rule on an input."""
    note = RULE_NOTES[rule.id]
    outcome = "an error" if rule.severity is rules.Severity.ERROR else "accepted with a warning"
    lines = [f"# {rule.id}: {note.title}", ""]
    lines += [f"Expected for `{rule.prop}`: {rule.expects}. Anything else is {outcome}.", "", note.why, ""]
    if note.example is not None:
        lines += ["For example", "", "```text", *_judged(rule, note.example), "```", ""]
    return "\n".join([*lines, f"**Do this:** {note.do}", "", "[All rules](../rules.md)", ""])


def _judged(rule: rules.Rule, example: Any) -> Iterator[str]:
    shown = example.decode() if isinstance(example, bytes) else example
    yield f"{rule.prop} = {shown!r}"
    try:
        _JUDGES[rule.prop](example)
    except RuleViolation as violation:
        if violation.rule != rule.id:
            raise
        yield str(violation)
    else:
        raise AssertionError(f"the example of {rule.id} breaks no rule")


def policy_page(policy: rules.Rule) -> str:
    """Return the page of a policy on declarations."""
    if policy is rules.NOT_CHECKED:
        return NOT_JUDGED
    level = "mandatory" if policy.severity is rules.Severity.ERROR else "advisory"
    return "\n".join(
        [
            f"# {policy.id}: {policy.name}",
            "",
            f"Expected: {policy.expects}. In the pack it is {level} unless configured otherwise.",
            "",
            POLICY_NOTES[policy.id],
            "",
            f"**Do this:** {policy.remedy[0].upper()}{policy.remedy[1:]}.",
            "",
            "[All policies](../policies.md)",
            "",
        ]
    )
