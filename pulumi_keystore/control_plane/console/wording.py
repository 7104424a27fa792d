"""Errors as the console says them: fields by their labels, and what can be done here instead of commands."""

from __future__ import annotations

import re
from typing import Final

from pulumi_keystore.errors import KeystoreError

LABELS: Final = {
    "name": "Name",
    "kind": "Run by",
    "address": "URL",
    "certificate": "Client certificate",
    "certificate_password": "Password of the file",
    "server_ca": "Server CA",
    "namespace": "Namespace",
    "mount": "KV mount",
    "role": "Certificate role",
    "destination": "Destination",
    "environment": "Environment",
    "notify_email": "E-mail address",
    "recipients": "E-mail addresses",
    "webhook": "Webhook URL",
    "webhook_format": "Webhook format",
    "offline_minutes": "Minutes offline before the first alert",
    "repeat_hours": "Hours between reminders",
    "online_minutes": "Minutes online again before the all-clear",
}
"""What the fields of forms are called, by their property."""
_MIGRATE: Final = "Actions, Migrate Keystore"
HERE: Final = (
    (
        r"migrate, do not edit: .*?(; keys that are lost for good .*)?",
        rf"this server does not hold the keys: migrate to it instead ({_MIGRATE})\1",
    ),
    (
        r"migrate them to another keystore first \(KeystoreMigration\), then delete this one",
        f"migrate them to another keystore first ({_MIGRATE}), then delete this one",
    ),
    (
        r"watch it with `keystore migration watch .*` and try again when it has ended",
        "watch it on the page of the organization, and try again when it has ended",
    ),
    (r"list them with `keystore organization list`.*", "choose one on the first page"),
    (r"list them with `keystore list .*", "choose one on the page of the organization"),
    (r"declare a Keystore (for it )?first", "register a keystore first (Actions, Register Keystore)"),
    (r"declare it under another name", "give it another name"),
    (r"see why with `keystore clean-up list .*", "see why on the page of the organization, and try again there"),
    (r"list them with `keystore (migration|clean-up) list .*", "see the page of the organization"),
    (
        r"set adopt=True to take it over and change it to what is declared",
        "edit it on its page, or give this one another name",
    ),
    (
        r"declare the keystores that it had, or make their servers reachable",
        "register the keystores that it had (Actions, Register Keystore), or make their servers reachable",
    ),
    (r"declare a HealthMonitor, or run `keystore monitor set`", "set alerts on its page (Edit Alerts)"),
    (r"see `keystore clean-up list .* --all`", "see the page of the organization"),
    (r"compare with `keystore verify .*", "compare with Verify Keys in the menu Actions, then try again"),
    (r"abandon this clean-up with `keystore clean-up abandon`", "ask the administrator of the service"),
    (
        r"make its server reachable; if it is gone for good, leave it out: .*",
        "make its server reachable; if it is gone for good, tick that, and choose Look again",
    ),
    (r"ask the provider, who can raise KEYSTORE_KEYS_PER_ORGANIZATION", "ask the provider for more"),
    (
        r"ask for its connection now with `keystore status .*",
        "choose Prove now on its page to see whether it works",
    ),
)
"""What an error's hint says, and what the console says instead. Other hints name no command, or one that only the
command can do."""
IN_PLACE: Final = {
    r"`keystore verify [^`]*`": "Verify Keys in the menu Actions",
    r"`keystore recover [^`]*`": "Recover Organization in the menu Actions",
    r"`keystore accept-cluster[^`]*`": "Accept Cluster on the page of the keystore",
    r"`keystore migration start[^`]*`": "Migrate Keystore in the menu Actions",
    r"`keystore monitor set[^`]*`": "Edit Alerts on the page of the keystore",
    r"`keystore status [^`]*`": "Test now on the page of the keystore",
}
"""Commands within a text, and what does the same in the console."""
_IN_PLACE: Final = tuple((re.compile(pattern), here) for pattern, here in IN_PLACE.items())
_HERE: Final = tuple((re.compile(pattern), here) for pattern, here in HERE)


def capitalized(text: str) -> str:
    """Return a text with a capital letter at the beginning, unless it begins with an address."""
    return text if "://" in text.partition(" ")[0] else f"{text[:1].upper()}{text[1:]}"


def summary_of(error: KeystoreError) -> str:
    """Return what went wrong, beginning with a capital letter, or with the label of the field."""
    prop = error.prop or ""
    text = error.summary
    if prop in LABELS and text.startswith(f"{prop}: "):
        return LABELS[prop] + text.removeprefix(prop)
    return capitalized(text)


def here(text: str) -> str:
    """Return a text that names what the console has instead of the commands for it."""
    for pattern, instead in _IN_PLACE:
        text = pattern.sub(instead, text)
    return text


def hint_of(error: KeystoreError) -> str | None:
    """Return what to do next, as a sentence; None where there is nothing to say."""
    if not error.hint:
        return None
    found = ((pattern.fullmatch(error.hint), here) for pattern, here in _HERE)
    said = next((match.expand(here) for match, here in found if match), error.hint)
    return f"{capitalized(said)}."
