"""The policy pack and `keystore check` find the same in a program, word for word; what differs on purpose is here."""

from __future__ import annotations

import json
import re
from collections import Counter

from typer.testing import CliRunner

from pulumi_keystore import cli, rules
from pulumi_keystore.policy.declared import SECRETS

Found = Counter[tuple[str, str, str]]
"""How often something is found: rule, resource, message."""

_SECRET = {prop for props in SECRETS.values() for prop in props}
_CERTIFICATE = {rule.id for rule in rules.RULES.values() if "KS010" <= rule.id <= "KS029"}

# What differs on purpose:
# - Of a secret the command says that it cannot look at it (KS100): previews and exported stacks hide it. The pack is
#   given it, and so finds what is wrong with certificates and webhooks.
_SEEN_IN_SECRETS = _CERTIFICATE | {"KS041", "KS046", "KS101"}
# - A secret in clear (KS109) is repaired by the pack, which makes a secret of it: the engine counts them and names none.
_REPAIRED = "KS109"


def _by_pack(printed: str) -> Found:
    """Return what the pack finds, of what `pulumi preview` or `pulumi up` has printed."""
    found: Found = Counter()
    resource = ""
    for line in printed.splitlines():
        if header := re.match(r"\s+- \[\w+\] .*: ([^)]+)\)$", line):
            resource = header[1]
        elif message := re.match(r"\s+(.*) \[(KS\d+)\]; ", line):
            found[message[2], resource, message[1]] += 1
    return found


def _by_check(document: str) -> Found:
    """Return what the command finds in a preview or an exported stack."""
    told = CliRunner().invoke(cli.app, ["check", "-", "--format", "json"], input=document)
    return Counter((row["id"], row["resource"].split(" ", 1)[1], row["message"]) for row in json.loads(told.stdout))


def assert_agree(printed: str, document: str) -> None:
    """Check that both find the same, but for the differences above.

    Args:
        printed: What the engine has printed of a program, with the pack.
        document: Its preview, or its exported stack, as JSON.

    """
    by_pack, by_check = _by_pack(printed), _by_check(document)
    hidden = {resource for rule, resource, message in by_check if _is_of_secret(rule, message)}
    more = {one for one in by_check - by_pack if one[0] != _REPAIRED and not _is_of_secret(one[0], one[2])}
    less = {one for one in by_pack - by_check if one[0] not in _SEEN_IN_SECRETS or one[1] not in hidden}
    assert (more, less) == (set(), set()), printed
    repaired = re.search(r"no-secrets-in-clear\s+\((\d+) resources?\)", printed)
    assert int(repaired[1] if repaired else 0) == len({name for rule, name, _ in by_check if rule == _REPAIRED})


def _is_of_secret(rule: str, message: str) -> bool:
    return rule == "KS100" and message.split(" ", 1)[0] in _SECRET
