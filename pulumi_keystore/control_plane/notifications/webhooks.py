"""Webhooks: what mails tell, for machines. A call is a message of the outbox, and keeps its id through every attempt.

What is told is a JSON object with `id`, `event` (`keystore.offline`, `keystore.online`, …), `organization`, `keystore`,
`address`, `summary`, `reason`, `detail`, `minutes` and `at`; the header `X-Keystore-Event` repeats the id. Receivers
that take another body get that instead (`webhook_bodies`).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications.outbox import AT_A_TIME, NotAccepted, send_due
from pulumi_keystore.control_plane.notifications.tables import Hook
from pulumi_keystore.control_plane.notifications.webhook_bodies import shaped
from pulumi_keystore.control_plane.runtime.background import Turns
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.declarations.monitor import WebhookFormat, check_webhook
from pulumi_keystore.errors import Conflict, KeystoreError
from pulumi_keystore.vault.resolver import Resolver

PURPOSE: Final = "webhook"
_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Call:
    """Who is called: the URL, the row that it was sealed for, and what the receiver takes."""

    url_sealed: bytes = field(repr=False)
    sealed_for: str
    format: WebhookFormat = WebhookFormat.JSON


def put(session: Session, event_id: str, call: Call, body: dict[str, Any]) -> None:
    """Leave a call; the same event is left only once."""
    now = now_utc()
    row = {
        "event_id": event_id,
        "url_sealed": call.url_sealed,
        "sealed_for": call.sealed_for,
        "format": call.format,
        "body": {"id": event_id, **body},
        "created_at": now,
        "next_at": now,
    }
    session.execute(insert(Hook).values(row).on_conflict_do_nothing())


@dataclass(frozen=True)
class WebhookSender:
    """Calls webhooks that lie in the outbox, at public addresses only, and follows no redirect.

    Args:
        sessions: Where the outbox is.
        master_key: What URLs are sealed with.
        resolver: Looks their hosts up and vets them; what it returns is dialled.
        ca_file: CA in PEM that their servers are verified with, the public ones if None.

    """

    sessions: sessionmaker[Session]
    master_key: MasterKey
    resolver: Resolver
    ca_file: Path | None = None

    def send_due(self) -> int:
        """Try each call that is due once, in order; return how many were answered with 2xx within a turn."""
        return send_due(self.sessions, Hook, self._deliver, self._turns)

    @cached_property
    def _turns(self) -> Turns:
        return Turns("webhooks", AT_A_TIME)

    def test(self, url: str, form: WebhookFormat, facts: dict[str, Any]) -> None:
        """Call a webhook now, past the outbox.

        Raises:
            Conflict: It does not take the call; with its answer.

        """
        try:
            self._call(url, form, str(facts["id"]), facts)
        except NotAccepted as refused:
            raise Conflict(f"the webhook did not accept it: {refused}", hint="check its URL and format") from None

    def _deliver(self, hook: Hook) -> None:
        try:
            url = self.master_key.open(PURPOSE, hook.sealed_for, hook.url_sealed).decode()
        except KeystoreError as error:
            raise NotAccepted(type(error).__name__) from None
        self._call(url, hook.format, hook.event_id, hook.body)

    def _call(self, url: str, form: WebhookFormat, event_id: str, facts: dict[str, Any]) -> None:
        try:
            target = self.resolver.resolve(check_webhook(url))
        except KeystoreError as error:
            raise NotAccepted(type(error).__name__) from None
        url, body = shaped(form, url, facts)
        parts = urlsplit(url)
        ip = f"[{target.ips[0]}]" if ":" in target.ips[0] else target.ips[0]
        request = httpx.Request(
            "POST",
            parts._replace(netloc=f"{ip}:{target.port}").geturl(),
            json=body,
            headers={"Host": parts.netloc, "X-Keystore-Event": event_id},
            extensions={"sni_hostname": parts.hostname},
        )
        try:
            status = asyncio.run(self._status(request))
        except (httpx.HTTPError, TimeoutError) as error:
            raise NotAccepted(type(error).__name__) from None
        if not httpx.codes.is_success(status):
            raise NotAccepted(f"HTTP {status}")

    async def _status(self, request: httpx.Request) -> int:
        """Send a request and return the status; what follows is not read, and the whole has one deadline."""
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        async with (
            asyncio.timeout(_TIMEOUT_S),
            httpx.AsyncClient(verify=context, trust_env=False, timeout=None) as client,  # noqa: S113 - see above
        ):
            answer = await client.send(request, stream=True)
            await answer.aclose()
            return answer.status_code
