"""The page of errors: each kind, from the code, with what usually causes it and what to do."""

from __future__ import annotations

from typing import Final

from pulumi_keystore.control_plane.migration.endings import Ending
from pulumi_keystore.errors import KeystoreError

HEAD: Final = """\
# Errors

Every error is one line: what was found, what is expected, and what to do next. The command exits with status 1, `pulumi up` fails
with that line, and the API answers with a problem document (RFC 9457) whose `type` is `urn:pulumi-keystore:error:` followed by the name
below. Nothing has been changed unless the line says so. Errors never contain secrets.
"""
NOTES: Final = {
    "error": (
        "`internal error`, or a setting of the service or the command that cannot be used.",
        "Read the line. For an internal error, check the service's log and report it.",
    ),
    "invalid-input": (
        "`expected 1 to 3650`, `cannot be read (…)`: a value, file or option.",
        "Correct what the line names.",
    ),
    "rule-violation": (
        "`… [KS004]; expected …`: an input breaks a rule.",
        "Look the rule up by its id: [rules](rules.md).",
    ),
    "not-authenticated": (
        "`the API token is missing or not valid`: the token is missing, mistyped, revoked or expired.",
        "Set `KEYSTORE_TOKEN`, or `pulumi config set --secret keystore:token`; `keystore token list` lists the existing ones.",
    ),
    "not-allowed": (
        "`the role … may not …`: the token is valid, but its role does not allow this.",
        "Use a token with the role that the line names.",
    ),
    "not-found": (
        "The organization, keystore, migration or token does not exist, or the token may not see it.",
        "List the existing ones, as the line says, or declare it.",
    ),
    "conflict": (
        "The request is valid but not possible in the current state: `is active and holds 4 archive keys`, `is registered with another …`, "
        "`lacks 20 of the 20 archive keys`, or a migration that failed.",
        "Do what the line says first: migrate the keys, set `adopt=True`, or fix the cause and run `pulumi up` again.",
    ),
    "managed-elsewhere": (
        "`is managed by another Pulumi resource now, and stays`: a resource was renamed or replaced, or two stacks declare one "
        "object. In an update it is a warning.",
        "Nothing, if this is intended. Otherwise also remove it from the other program.",
    ),
    "recovery-needed": (
        "`the organization … is suspended: … remembers decision 12`: the database is an older copy, or another "
        "service works with the same keystores. Nothing is deleted or changed.",
        "`keystore recover ORGANIZATION` shows what each keystore holds and adds it to the ledger: [when something is lost](recovery.md).",
    ),
    "in-maintenance": (
        "A migration of the organization is in progress: keys can be read, but not enrolled, and nothing can be edited.",
        "Wait with `keystore migration watch ORGANIZATION`, then try again.",
    ),
    "keystore-fault": (
        "The server accepted a request but did something else: a key read back differs, or a deleted key is still there.",
        "Check the server's storage and its audit log before anything else.",
    ),
    "host-unavailable": (
        "`the name does not resolve`, `the connection is refused`, `the server's TLS certificate has expired`, `sealed`, "
        "`which is not a public address`, `answers a read with HTTP 500`.",
        "[Recover from an outage](how-to.md#recover-from-an-outage): name, firewall, TLS certificate, unseal.",
    ),
    "another-cluster": (
        "`another Vault cluster answers under this name`: the server was rebuilt, or the name leads to another server. Nothing is "
        "written there.",
        "Correct the DNS name, or, if the change is intended, run `keystore accept-cluster`: [when something is lost](recovery.md).",
    ),
    "overloaded": (
        "The server answers 503 without being sealed. Migrations slow down by themselves.",
        "If it persists, check the server's load.",
    ),
    "rate-limited": (
        "`asks for fewer requests`: the server answers 429. Migrations slow down by themselves.",
        "If it persists, check the server's quotas (`sys/quotas/rate-limit`).",
    ),
    "unable-to-authenticate": (
        "`refuses this client certificate for the role`, `certificate login is not enabled`.",
        "Check on the server that `auth/cert/certs` has the role, and that it allows the certificate's CA and common name: "
        "[preparing a Vault server](vault-setup.md).",
    ),
    "access-denied": (
        "`may not create archive keys` (or read, list, delete): the login works, but the policy is incomplete.",
        "Give the role the policy of [preparing a Vault server](vault-setup.md).",
    ),
    "unsuitable": (
        "`the mount … does not exist`, `may overwrite archive keys`, `holds … that are not keys of the active keystore`, one cluster at both ends.",
        "Set up the mount and policy as in [preparing a Vault server](vault-setup.md), or choose another server as the destination.",
    ),
    "too-large": (
        "The request is larger than 4 MiB.",
        "Send fewer keys at a time.",
    ),
    "too-many-requests": (
        "`other certificates are being opened`: the service has as much of this to do as it takes on at a time.",
        "Try again in a minute. If it persists, see which organization asks for so much.",
    ),
    "service-unavailable": (
        "`does not answer`: the control plane is down, restarting, or at another URL, or its database is unavailable.",
        "Check `KEYSTORE_URL`, and start the service with `keystore serve`. A migration resumes where it was.",
    ),
}


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for kind in _kinds(KeystoreError):
        looks, do = NOTES[kind.code]
        meaning = (kind.__doc__ or "").strip().splitlines()[0] if kind is not KeystoreError else "None of the others."
        lines += [f"## {kind.code}", "", f"{meaning} HTTP {kind.status}.", "", looks, "", f"**Do this:** {do}", ""]
    lines += ["## How a migration fails", "", "`pulumi up` and the history show one of", ""]
    lines += [f"- `{ending}`" for ending in Ending if ending is not Ending.SUCCEEDED]
    lines += ["", "and a detail. All keys are then where they were: [migration](migration.md#how-it-ends).", ""]
    return "\n".join(lines)


def _kinds(base: type[KeystoreError]) -> list[type[KeystoreError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _kinds(child))]
