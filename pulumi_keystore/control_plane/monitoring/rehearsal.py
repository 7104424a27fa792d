"""Everyone that a monitor names is sent a test now: settings that are wrong are found before an outage."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from pulumi_keystore.answers import ReceiverAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import messages, monitors
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.notifications.webhook_bodies import TEST, TEST_ENDED
from pulumi_keystore.control_plane.notifications.webhooks import WebhookSender
from pulumi_keystore.control_plane.organizations import history, keystores, registry
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.monitor import MAX_RECIPIENTS, WebhookFormat
from pulumi_keystore.errors import KeystoreError, TooManyRequests

_APART: Final = timedelta(minutes=1)
_MOST_A_DAY: Final = 50
"""Recipients need not be people of the organization: no one gets more mails than that because of it, whatever monitors
it sets and removes."""
_TESTED: Final = "Health monitor tested"


def rehearse(
    plane: ControlPlane, mails: MailSender, hooks: WebhookSender, actor: str, organization: str, keystore: str
) -> list[ReceiverAnswer]:
    """Send a test to each recipient and the webhook of a keystore's monitor, and return what each answered.

    No transaction is open meanwhile, and each is given as long as for an alert. A monitor that has not been changed
    meanwhile remembers the answers.

    Raises:
        NotFound: The keystore has no monitor.
        TooManyRequests: It is less than a minute ago that the organization sent a test, or it has sent enough today.

    """
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        row = keystores.find(session, owner, keystore)
        monitor = monitors.require(session, row)
        now = now_utc()
        _require_seldom(history.moments(session, owner.id, _TESTED, now - timedelta(days=1)), now)
        alerting, host = monitors.alerting(plane, monitor), monitor.webhook_host
        facts = {"organization": owner.name, "keystore": row.name, "address": row.address}
        history.append(session, owner.id, actor, _TESTED, keystore)
    message = messages.test(owner.name, f"{row.name} ({row.address})", actor)
    facts = {"id": f"test-{secrets.token_hex(8)}", **facts, "summary": message.subject, "at": now.isoformat()}

    def call() -> None:
        url, form = alerting.webhook or "", WebhookFormat(alerting.webhook_format)
        hooks.test(url, form, {**facts, "event": TEST})
        if form is WebhookFormat.PAGERDUTY:
            # No incident stays open because of a test.
            hooks.test(url, form, {**facts, "event": TEST_ENDED})

    receivers: list[tuple[str, Callable[[], None]]] = [
        (address, partial(mails.test, address, message)) for address in alerting.recipients
    ]
    if alerting.webhook:
        receivers.append((f"webhook at {host}", call))
    with ThreadPoolExecutor(MAX_RECIPIENTS + 1, thread_name_prefix="rehearsal") as several:
        answers = list(several.map(_answer, *zip(*receivers, strict=True)))
    with plane.transaction() as session:
        tested = session.get(HealthMonitor, row.id, with_for_update=True)
        if tested is not None and monitors.alerting(plane, tested) == alerting:
            tested.rehearsal = {"at": now.isoformat(), "answers": answers}
    return answers


def _require_seldom(tests: Sequence[datetime], now: datetime) -> None:
    if tests and timedelta(0) <= now - tests[0] < _APART:
        raise TooManyRequests("a test was sent less than a minute ago", hint="wait a minute")
    if len(tests) >= _MOST_A_DAY:
        raise TooManyRequests(f"{count(len(tests), 'test')} were sent in the last 24 hours", hint="send more tomorrow")


def _answer(receiver: str, send: Callable[[], Any]) -> ReceiverAnswer:
    try:
        send()
    except KeystoreError as refused:
        return {"receiver": receiver, "accepted": False, "detail": refused.summary}
    return {"receiver": receiver, "accepted": True, "detail": None}
