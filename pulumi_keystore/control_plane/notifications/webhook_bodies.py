"""What webhooks are called with: our own JSON, or what the receiver takes.

Sources: Slack, "Sending messages using incoming webhooks" and "Formatting text for app surfaces"; PagerDuty,
"Events API v2: Send an alert event".
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from pulumi_keystore.declarations.monitor import WebhookFormat, routing_key_of

TEST: Final = "keystore.test"
TEST_ENDED: Final = "keystore.test-ended"
_RESOLVES: Final = ("keystore.online", TEST_ENDED)
_SEVERITIES: Final = {"keystore.certificate": "warning", TEST: "info"}
_ABOUT: Final = {TEST: "test", TEST_ENDED: "test", "keystore.missing": "keys", "keystore.suspended": "suspension"}
"""What an event is about where that is no outage: the end of one ends nothing else."""
_LONGEST_SUMMARY: Final = 1024
_LONGEST_KEY: Final = 255


def shaped(form: WebhookFormat, url: str, facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the URL to call and the body to send.

    Args:
        form: What the receiver takes.
        url: The webhook's URL; with PagerDuty it holds the routing key, which goes into the body.
        facts: What is told (see `webhooks`).

    """
    if form is WebhookFormat.SLACK:
        return url, {"text": _text(facts)}
    if form is WebhookFormat.PAGERDUTY:
        return urlsplit(url)._replace(query="").geturl(), _event(routing_key_of(url) or "", facts)
    return url, facts


def _text(facts: dict[str, Any]) -> str:
    lines = [f"*{_escaped(_summary(facts))}*", _escaped(f"{facts.get('organization')}: {_keystore(facts)}")]
    if facts.get("detail"):
        lines.append(_escaped(str(facts["detail"])))
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Return text in which Slack finds no link, mention or channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _event(routing_key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return an event; those about one outage, or one certificate, have one key."""
    event, certificate = str(facts.get("event")), facts.get("certificate")
    about = f"certificate-{certificate}" if certificate else _ABOUT.get(event, "outage")
    key = f"{about}/{facts.get('organization')}/{facts.get('keystore')}"[:_LONGEST_KEY]
    if event in _RESOLVES:
        return {"routing_key": routing_key, "event_action": "resolve", "dedup_key": key}
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": key,
        "client": "pulumi-keystore",
        "payload": {
            "summary": f"{_summary(facts)}: {facts.get('organization')}, {_keystore(facts)}"[:_LONGEST_SUMMARY],
            "source": facts.get("address") or facts.get("keystore"),
            "severity": _SEVERITIES.get(event, "critical"),
            "timestamp": facts.get("at"),
            "component": facts.get("keystore"),
            "group": facts.get("organization"),
            "class": event,
            "custom_details": facts,
        },
    }


def _summary(facts: dict[str, Any]) -> str:
    return str(facts.get("summary") or facts.get("event"))


def _keystore(facts: dict[str, Any]) -> str:
    return f"{facts.get('keystore')} ({facts.get('address')})"
