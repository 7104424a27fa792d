"""Health of keystores, their monitors, and the metrics of the service."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, SecretStr

from pulumi_keystore.answers import HealthAnswer, IncidentAnswer, MonitorAnswer, ReceiverAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import metrics
from pulumi_keystore.control_plane.api.access import Actor, Body, Mark, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.api.paging import Before, Limit
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.monitoring import incidents, monitors, rehearsal, views
from pulumi_keystore.control_plane.monitoring.monitors import Alerting
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.declarations.monitor import Period

router = APIRouter(route_class=Metered, tags=["health"])
metrics_router = APIRouter(route_class=Metered, tags=["service"])


class MonitorBody(Body):
    """Who is alerted when a keystore is offline, and when."""

    recipients: list[str] = Field(default=[], description="e-mail addresses of the administrators")
    webhook: SecretStr | None = Field(default=None, description="https://HOST/PATH that is called, too")
    webhook_format: str = Field(
        default=Alerting().webhook_format, description="what it is called with: json, slack or pagerduty"
    )
    offline_minutes: int = Field(
        default=Alerting().offline_minutes, description="minutes offline before the first alert"
    )
    repeat_hours: int = Field(default=Alerting().repeat_hours, description="hours between reminders")
    online_minutes: int = Field(default=Alerting().online_minutes, description="minutes online before the all-clear")

    def declared(self) -> Alerting:
        """Return what was declared."""
        return Alerting(
            tuple(self.recipients),
            self.webhook.get_secret_value() if self.webhook else None,
            self.webhook_format,
            self.offline_minutes,
            self.repeat_hours,
            self.online_minutes,
        )


@router.get("/organizations/{organization}/keystores/{name}/health")
def get_health(
    organization: str,
    name: str,
    actor: Actor,
    services: Services,
    period: Annotated[Period, Query(description="how far back the timeline goes")] = Period.HOUR,
) -> HealthAnswer:
    """Return what the tests of every minute say: status, reason, detail, since when, and the last hour or longer."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        row = views.require_tested(session, owner, name)
        return {"organization": owner.name, **views.describe(session, services.plane, row, now_utc(), period)}


@router.get("/organizations/{organization}/keystores/{name}/incidents")
def list_incidents(
    organization: str,
    name: str,
    actor: Actor,
    services: Services,
    limit: Limit = 100,
    before: Before = None,
) -> list[IncidentAnswer]:
    """List the times in which a keystore was offline, the latest first, a page at a time; kept for 90 days."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        row = views.require_tested(session, registry.find(session, organization), name)
        return incidents.of_keystore(session, row, now_utc(), limit, before)


@router.get("/organizations/{organization}/keystores/{name}/monitor")
def get_monitor(organization: str, name: str, actor: Actor, services: Services) -> MonitorAnswer:
    """Return the alert recipients and timings of a keystore."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        return monitors.get(services.plane, session, registry.find(session, organization), name)


@router.put("/organizations/{organization}/keystores/{name}/monitor")
def put_monitor(
    organization: str,
    name: str,
    body: MonitorBody,
    actor: Actor,
    services: Services,
    *,
    adopt: bool = True,
    mark: Mark = None,
) -> MonitorAnswer:
    """Set the alert recipients and timings of a keystore."""
    actor.require(Right.MANAGE, organization)
    return monitors.put(services.plane, actor.name, organization, name, body.declared(), adopt=adopt, mark=mark)


@router.post("/organizations/{organization}/keystores/{name}/monitor/test")
def test_monitor(organization: str, name: str, actor: Actor, services: Services) -> list[ReceiverAnswer]:
    """Send a test to each recipient and the webhook now; the answer says who has accepted it. Once a minute at most."""
    actor.require(Right.MANAGE, organization)
    mails, hooks = services.mail_sender, services.webhook_sender
    return rehearsal.rehearse(services.plane, mails, hooks, actor.name, organization, name)


@router.delete("/organizations/{organization}/keystores/{name}/monitor", status_code=204)
def delete_monitor(organization: str, name: str, actor: Actor, services: Services, mark: Mark = None) -> None:
    """Remove the monitor; health checks continue."""
    actor.require(Right.MANAGE, organization)
    monitors.remove(services.plane, actor.name, organization, name, mark)


@metrics_router.get("/metrics")
def get_metrics(
    actor: Actor,
    services: Services,
    organization: Annotated[str | None, Query(max_length=63, description="those of one organization")] = None,
    per: Annotated[Literal["organization"] | None, Query(description="those of each organization, too")] = None,
) -> Response:
    """Return the metrics of the service, or of the organization that the token may see, for Prometheus."""
    wanted = actor.organization or organization
    actor.require(Right.VIEW, wanted)
    with services.plane.transaction() as session:
        text = metrics.exposition(session, services.plane, wanted, now_utc(), each=per is not None)
    return Response(text, media_type=metrics.CONTENT_TYPE)
