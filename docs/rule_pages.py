"""The pages of the rules and policies: why each is there, an example that is judged as the page is written, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pulumi_keystore import rules
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import check_server_ca, decode_file
from pulumi_keystore.declarations.monitor import check_recipients, check_timings, check_webhook
from pulumi_keystore.declarations.names import (
    check_email,
    check_kind,
    check_mode,
    check_name,
    check_organization,
    check_user_id,
    check_vault_name,
)
from pulumi_keystore.declarations.pkcs12_inspection import inspect
from pulumi_keystore.errors import RuleViolation
from pulumi_keystore.policy.policies import POLICIES, Policy


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
        "Archive keys and client certificates travel over TLS alone, to a server whose certificate is verified.",
        "Write the scheme in full. A Vault that listens without TLS has to be given a certificate first.",
        "http://vault.example.com:8200",
    ),
    "KS002": Note(
        "An address without a usable port",
        "Vault has no well-known port of its own behind load balancers and proxies: a guess could reach something else.",
        "Write the port, for example `:8200`, or `:443` where that is what the server listens on.",
        "https://vault.example.com",
    ),
    "KS003": Note(
        "Something after the port",
        "A path, query, fragment or user name would be ignored or sent along, and two spellings of one server could be "
        "taken for two.",
        "Leave out everything after the port. Mount and role are inputs of their own.",
        "https://vault.example.com:8200/v1/archive-keys",
    ),
    "KS004": Note(
        "An IP address instead of a name",
        "Certificates are issued for names, and an address cannot be moved to another server without an edit. In some "
        "spellings (decimal, hexadecimal, octal, IPv6) it also hides an internal target.",
        "Give the server a public DNS name and write that.",
        "https://2130706433:8200",
    ),
    "KS005": Note(
        "A name that is not public",
        "The service runs elsewhere and has to find the server by public DNS; names such as `localhost`, `.local`, "
        "`.internal` or a single label lead to whatever the service's own network calls so.",
        "Publish a name of at least two labels. It has to lead to public addresses only.",
        "https://vault.internal:8200",
    ),
    "KS006": Note(
        "A name that is no DNS name",
        "Empty or overlong labels, underscores, a final dot and names that IDNA does not allow resolve differently, or not "
        "at all, from place to place.",
        "Write the name as a browser shows it in a certificate, or in its `xn--` form.",
        "https://vault..example.com:8200",
    ),
    "KS007": Note(
        "A character that cannot be seen",
        "White space, control characters and zero-width ones make an address look like another one.",
        "Type the address anew instead of pasting it.",
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
        "Without exactly one private key and the certificate that belongs to it nobody could log in.",
        "Export the pair again, with `-inkey` naming the key that the certificate was requested with.",
    ),
    "KS013": Note(
        "Expired, or not valid yet",
        "The server would refuse the login.",
        "Issue a new certificate; where it is new, compare the clocks of the CA and the service.",
    ),
    "KS014": Note(
        "A weak or unknown algorithm",
        "RSA below 2048 bits, other curves, and signatures with MD5 or SHA-1 are within reach of an attacker, or not "
        "supported by the server.",
        "Issue one with RSA 2048, P-256 or Ed25519, signed with SHA-256.",
    ),
    "KS015": Note(
        "Not for TLS clients",
        "Vault checks the extended key usage of client certificates; one for servers alone is refused at login.",
        "Issue one with `extendedKeyUsage = clientAuth`.",
    ),
    "KS016": Note(
        "A file that is too large",
        "A PKCS#12 file with a chain has some kilobytes; a larger one is something else, and is not read.",
        "Export the one certificate, its key and its chain.",
    ),
    "KS017": Note(
        "A file that is too costly to open",
        "The file says itself how often its password is hashed. An absurd count would keep the service busy for hours.",
        "Export it again; `-iter 600000` is more than enough.",
    ),
    "KS018": Note(
        "No integrity code",
        "Without a MAC a changed file would go unnoticed.",
        "Export it without `-nomac`.",
    ),
    "KS019": Note(
        "A broken cipher",
        "RC4, DES, and MACs with MD5 protect the private key from nobody.",
        "Export it again with a current OpenSSL, which takes AES-256.",
    ),
    "KS020": Note(
        "Ends within 30 days",
        "When it ends the service cannot log in any more, and the keystore is offline.",
        "[Rotate it](../how-to.md#rotate-a-client-certificate).",
    ),
    "KS021": Note(
        "An old cipher",
        "3DES and RC2 come from old exports. They are opened, as the file is sealed anew anyway; the file on your disk is "
        "what is weak.",
        "Export it again with a current OpenSSL, which takes AES-256.",
    ),
    "KS025": Note(
        "Not CA certificates",
        "The server's certificate is verified with exactly these; a leaf certificate or a private key is not what is needed.",
        "Give the PEM file of the CA that issued the server's certificate, or nothing where it is a public CA.",
        "no certificate",
    ),
    "KS030": Note(
        "An unknown kind of keystore",
        "Who runs the server decides what is monitored, what the console shows, and where keys may move.",
        "Choose one of the three.",
        "cloud",
    ),
    "KS031": Note(
        "Not a name of an organization",
        "The name is part of paths and policies on the server, so it is held to what is safe everywhere.",
        "Use lower case letters, digits and hyphens.",
        "Acme Inc.",
    ),
    "KS032": Note(
        "A migration into the provider's database",
        "Legacy keystores are being given up: keys only leave them.",
        "Choose a provider or self-administered keystore as the destination.",
    ),
    "KS033": Note(
        "Not an e-mail address",
        "Nobody would be told. One plain address each, without a display name.",
        "Write it as in ops@example.com.",
        "Ops <ops@example.com>",
    ),
    "KS034": Note(
        "Not a mount or role",
        "Mount and role become part of request paths.",
        "Write the mount's path without slashes, as `vault secrets list` shows it before the final one.",
        "secret/archive-keys",
    ),
    "KS035": Note(
        "Not a user id",
        "It is stored, compared and shown; control characters and lone surrogates do not survive that.",
        "Use what the product calls the user, up to 512 bytes of UTF-8.",
        "user\n1",
    ),
    "KS036": Note(
        "Not an archive key",
        "An archive key has 256 bits; anything else is no key of the product's, and would not open a backup.",
        "Send the key itself in base64 (44 characters), not its hexadecimal form.",
    ),
    "KS037": Note(
        "Not a name of a keystore",
        "A name is a segment of the API's paths, and is read by people.",
        "Use up to 100 printable characters without `/`.",
        "a/b",
    ),
    "KS038": Note(
        "An unknown mode, or one that cannot be",
        "`online` enrols keys at both ends, which the provider's database cannot do.",
        "Leave `mode` out.",
        "fast",
    ),
    "KS039": Note(
        "A monitor that tells nobody",
        "An outage that nobody hears of is found by the first user who needs a key.",
        "Give 1 to 20 addresses, each once, or a webhook.",
        [],
    ),
    "KS040": Note(
        "Timings out of range",
        "Below a minute there is no test; over an hour, or a week between reminders, is too late.",
        "Leave them out: 5 minutes, 24 hours and 5 minutes.",
        0,
    ),
    "KS041": Note(
        "Not a webhook",
        "The service calls it, so it must lead to a public server over TLS; a user name or password in it would be sent in "
        "clear to whoever logs URLs.",
        "Give `https://HOST/PATH`; a secret belongs into the path, and the whole is kept secret.",
        "http://hooks.example.com/x",
    ),
}
POLICY_NOTES: Final = {
    "KS101": "What ends unnoticed takes the keystore offline at night.",
    "KS102": "Every self-administered keystore is tested each minute; without a monitor nobody is told what is found.",
    "KS103": "A webhook that broke tells nobody that it did.",
    "KS104": "Weaker timings than the usual ones are chosen by accident more often than not.",
    "KS105": "A migration that runs for an hour is best followed by somebody who knows that it does.",
    "KS106": "Legacy keystores are being given up: keys only leave them.",
    "KS107": "In the federal environment keystores are not managed here.",
    "KS108": "A line that is taken out of a program by mistake should not take a keystore with it, even one without keys.",
    "KS109": "What is written in clear is in the history of the repository for ever.",
    "KS110": "Which one came first would be chance. One at a time, or the second is refused.",
    "KS111": "Copying keys of a server onto themselves and emptying it afterwards would lose them: the service refuses it.",
}
NOT_JUDGED: Final = """\
# KS100: not judged

Said of an input that is secret or only known during the update, where whoever judges cannot see it. It is no mistake, and
nothing slips through: the provider judges it in preview as soon as it is known, and the service before anything is changed.

**Do this:** nothing; or give the value in a form that is known in preview, to hear of a mistake earlier.

[All policies](../policies.md)
"""
_JUDGES: Final[dict[str, Callable[[Any], object]]] = {
    "address": KeystoreAddress.parse,
    "certificate": inspect,
    "server_ca": check_server_ca,
    "kind": check_kind,
    "organization": check_organization,
    "notify_email": check_email,
    "mount": lambda name: check_vault_name(name, "mount"),
    "user": check_user_id,
    "key": decode_file,
    "name": check_name,
    "mode": check_mode,
    "recipients": lambda addresses: check_recipients(addresses, others=False),
    "offline_minutes": lambda minutes: check_timings(minutes, 24, 5),
    "webhook": check_webhook,
}


def pages() -> dict[str, Callable[[], str]]:
    """Return each page by its path below docs/."""
    found: dict[str, Callable[[], str]] = {}
    for rule in rules.RULES.values():
        found[f"rules/{rule.id}.md"] = lambda rule=rule: rule_page(rule)  # type: ignore[misc]
    for policy in POLICIES:
        found[f"rules/{policy.id}.md"] = lambda policy=policy: policy_page(policy)  # type: ignore[misc]
    found["rules/KS100.md"] = lambda: NOT_JUDGED
    return found


def rule_page(rule: rules.Rule) -> str:
    """Return the page of a rule on an input."""
    note = RULE_NOTES[rule.id]
    outcome = "refused" if rule.severity is rules.Severity.ERROR else "warned of, and accepted"
    lines = [f"# {rule.id}: {note.title}", ""]
    lines += [f"Expected of `{rule.prop}`: {rule.expects}. Anything else is {outcome}.", "", note.why, ""]
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


def policy_page(policy: Policy) -> str:
    """Return the page of a policy on declarations."""
    level = {"error": "mandatory", "warning": "advisory"}[policy.level]
    return "\n".join(
        [
            f"# {policy.id}: {policy.name}",
            "",
            f"Expected: {policy.expects}. In the pack it is {level} unless it is configured otherwise.",
            "",
            POLICY_NOTES[policy.id],
            "",
            f"**Do this:** {policy.remedy[0].upper()}{policy.remedy[1:]}.",
            "",
            "[All policies](../policies.md)",
            "",
        ]
    )
