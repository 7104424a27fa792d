"""What every route needs: who asks, and what it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, model_validator

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.api.admission import Doorkeeper
from pulumi_keystore.control_plane.escrow.quota import Quota
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.control_plane.keystores.checkpoints import Checkpoints
from pulumi_keystore.control_plane.keystores.clean_ups import CleanUps
from pulumi_keystore.control_plane.keystores.connections import Connections
from pulumi_keystore.control_plane.monitoring.runner import HealthChecks
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.notifications.webhooks import WebhookSender
from pulumi_keystore.control_plane.runtime.plane import ControlPlane

MAX_BATCH: Final = 2000
"""How many entries one field of a request may have."""
_MOST_FIELDS: Final = 50


class Body(BaseModel):
    """A request body: nothing unknown is accepted, and nothing of it is repeated in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _holds_little(cls, sent: object) -> object:
        """Refuse what holds too much before each part of it is looked at: each that is wrong makes an error of its own.

        (A list of a hundred thousand numbers, where names belong, would take half a second and 100 MB.)
        """
        if isinstance(sent, dict):
            if len(sent) > _MOST_FIELDS:
                raise ValueError(f"more than {_MOST_FIELDS} fields")
            for part in sent.values():
                if isinstance(part, dict | list) and len(part) > MAX_BATCH:
                    raise ValueError(f"more than {MAX_BATCH:,} entries in one field")
        return sent


@dataclass(frozen=True, slots=True)
class ServicesOfApp:
    """What the routes work with.

    Attributes:
        plane: Settings, database, master key and resolver.
        clean_ups: The clean-ups that migrations leave.
        connections: Logged-in connections for escrow and release of keys.
        checkpoints: What leaves checkpoints of enrolments.
        quota: How many keys an organization may enrol.
        begin: Starts the workflow of a migration by its id.
        mail_sender: Sends mails.
        webhook_sender: Calls webhooks.
        health_checks: Tests keystores.

    """

    plane: ControlPlane
    clean_ups: CleanUps
    connections: Connections
    checkpoints: Checkpoints
    quota: Quota
    begin: Callable[[str], None]
    mail_sender: MailSender
    webhook_sender: WebhookSender
    health_checks: HealthChecks


async def _services(request: Request) -> ServicesOfApp:
    # Not in a thread, for which it might have to wait.
    services: ServicesOfApp = request.app.state.services
    return services


Services = Annotated[ServicesOfApp, Depends(_services)]
_bearer = HTTPBearer(auto_error=False, description="an API token of `keystore token create`")


def doorkeeper(services: ServicesOfApp) -> Doorkeeper:
    """Return what recognises those who ask by the token that they send."""

    def credential(request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else None

    def recognise(request: Request) -> Principal:
        with services.plane.transaction() as session:
            return tokens.authenticate(session, credential(request), now_utc())

    return Doorkeeper(credential, recognise)


async def _principal(request: Request, _: Annotated[Any, Depends(_bearer)]) -> Principal:
    # Whoever was admitted is known (`api.admission`).
    actor: Principal = request.state.actor
    return actor


Actor = Annotated[Principal, Depends(_principal)]
Mark = Annotated[
    str | None, Query(pattern=r"^[!-~]{0,32}$", description="mark of the Pulumi resource that asks; none for a person")
]
