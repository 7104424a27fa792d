"""What Slack and PagerDuty are sent of an event."""

import pytest

from pulumi_keystore.control_plane.notifications.webhook_bodies import shaped
from pulumi_keystore.declarations.monitor import WebhookFormat

HOOK, URL = "https://hooks.example.com/x", "https://events.pagerduty.com/v2/enqueue?routing_key=R012"
OFFLINE = {
    "id": "health-7-1.1.offline",
    "event": "keystore.offline",
    "organization": "acme",
    "keystore": "ours",
    "address": "https://vault.example.com:8200",
    "summary": "Error: Keystore connection failure",
    "reason": "Host unavailable",
    "detail": "sealed: unseal the server",
    "minutes": 5,
    "at": "2026-05-01T12:05:00+00:00",
}
EXPIRES = {**OFFLINE, "event": "keystore.certificate", "certificate": "client"}
TEST = {**OFFLINE, "event": "keystore.test"}


def test_programs_get_every_fact():
    assert shaped(WebhookFormat.JSON, HOOK, OFFLINE) == (HOOK, OFFLINE)


def test_slack_gets_a_text_of_three_lines():
    url, body = shaped(WebhookFormat.SLACK, HOOK, OFFLINE)
    assert url == HOOK
    assert body["text"].splitlines() == [
        "*Error: Keystore connection failure*",
        "acme: ours (https://vault.example.com:8200)",
        "sealed: unseal the server",
    ]


def test_a_keystore_whose_name_is_a_mention_calls_nobody():
    _, body = shaped(WebhookFormat.SLACK, HOOK, {**OFFLINE, "keystore": "<!channel> & co"})
    assert "&lt;!channel&gt; &amp; co" in body["text"]


def test_an_outage_opens_one_incident_and_resolves_it():
    url, opened = shaped(WebhookFormat.PAGERDUTY, URL, OFFLINE)
    assert url == "https://events.pagerduty.com/v2/enqueue"
    assert (opened["routing_key"], opened["event_action"]) == ("R012", "trigger")
    assert opened["payload"]["severity"] == "critical"
    assert opened["payload"]["custom_details"] == OFFLINE
    _, reminded = shaped(WebhookFormat.PAGERDUTY, URL, {**OFFLINE, "minutes": 1445})
    _, ended = shaped(WebhookFormat.PAGERDUTY, URL, {**OFFLINE, "event": "keystore.online"})
    assert opened["dedup_key"] == reminded["dedup_key"] == ended["dedup_key"]
    assert ended["event_action"] == "resolve"


@pytest.mark.parametrize(("facts", "severity"), [(EXPIRES, "warning"), (TEST, "info")])
def test_what_is_no_outage_is_an_incident_of_its_own(facts, severity):
    _, outage = shaped(WebhookFormat.PAGERDUTY, URL, OFFLINE)
    _, other = shaped(WebhookFormat.PAGERDUTY, URL, facts)
    assert other["dedup_key"] != outage["dedup_key"]
    assert other["payload"]["severity"] == severity


def test_a_test_is_resolved():
    _, begun = shaped(WebhookFormat.PAGERDUTY, URL, TEST)
    _, ended = shaped(WebhookFormat.PAGERDUTY, URL, {**TEST, "event": "keystore.test-ended"})
    assert (ended["event_action"], ended["dedup_key"]) == ("resolve", begun["dedup_key"])


def test_limits_of_the_events_api_are_kept():
    _, body = shaped(WebhookFormat.PAGERDUTY, URL, {**OFFLINE, "keystore": "x" * 2000})
    assert len(body["dedup_key"]) <= 255
    assert len(body["payload"]["summary"]) <= 1024
