"""The forms for keystores: each is judged as `pulumi up` judges the same."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response

from pulumi_keystore.control_plane.api.access import Services, ServicesOfApp
from pulumi_keystore.control_plane.console import drafts
from pulumi_keystore.control_plane.console.access import Page, Sent, Visit, Visitor
from pulumi_keystore.control_plane.console.form import (
    PREFIX,
    Draft,
    Filled,
    Text,
    Upload,
    content_of,
    led_to,
    or_form,
    shown_around,
)
from pulumi_keystore.control_plane.console.pages import SAVED, frame, one_keystore
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import registration, swapping
from pulumi_keystore.control_plane.keystores.binding import require_changeable
from pulumi_keystore.control_plane.monitoring import monitors, rehearsal
from pulumi_keystore.control_plane.monitoring.monitors import Alerting
from pulumi_keystore.control_plane.monitoring.views import require_tested
from pulumi_keystore.control_plane.organizations import keystores, maintenance, registry
from pulumi_keystore.declarations.monitor import WebhookFormat
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import Conflict, InvalidInput, KeystoreError

router = APIRouter(prefix=PREFIX, route_class=Page, include_in_schema=False)
_ONE: Final = "/keystores/{name}"


def _form(
    template: str,
    visitor: Visitor,
    shown: dict[str, Any],
    values: dict[str, str],
    error: KeystoreError | None = None,
) -> Response:
    """Return a form, with what was put into it and why that was refused."""
    return page(template, error.status if error else 200, visitor=visitor, **shown, values=values, error=error)


def _one(services: ServicesOfApp, organization: str, name: str, *, changes: bool = False) -> dict[str, Any]:
    """Return what the forms of one keystore show; with `changes` refuse where nothing may change."""
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        if changes:
            require_changeable(owner)
        row = keystores.find(session, owner, name)
        return {**frame(session, owner), "keystore": keystores.describe(owner, row)}


# Register.


@router.get("/register")
def register_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Show the form for a further keystore."""
    visitor.actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        maintenance.require_cloud(owner)
        shown = frame(session, owner)
    empty = dict.fromkeys(("name", "address", "server_ca", "namespace", "mount", "role"), "")
    return _form("register.html", visitor, shown, {**empty, "kind": Kind.SELF_ADMINISTERED})


@router.post("/register")
def register(organization: str, visitor: Sent, services: Services, filled: Filled) -> Response:
    """Prove a keystore and register it; the first one becomes the active one."""
    visitor.actor.require(Right.MANAGE, organization)
    values = {**filled.values, "name": filled.name}
    return or_form(
        lambda: registration.put(services.plane, visitor.actor.name, organization, filled.name, filled.declared),
        lambda _: led_to(organization, filled.name, "registered"),
        lambda error: _form("register.html", visitor, shown_around(services, organization), values, error),
    )


# Edit, prove, delete.


@router.get(f"{_ONE}/edit")
def edit_page(organization: str, name: str, visitor: Visit, services: Services) -> Response:
    """Show the form for a new address, certificate, or both."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _one(services, organization, name, changes=True)
    _require_edited_here(visitor, shown["keystore"]["kind"])
    values = {"address": shown["keystore"]["address"] or "", "server_ca": shown["keystore"]["server_ca"] or ""}
    return _form("edit.html", visitor, shown, values)


@router.post(f"{_ONE}/edit")
def edit(
    organization: str,
    name: str,
    visitor: Sent,
    services: Services,
    address: Text = "",
    certificate: Upload = None,
    certificate_password: Text = "",
    server_ca: Text = "",
) -> Response:
    """Prove the new pair and ask whether it shall be used; nothing is changed yet."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _one(services, organization, name)
    _require_edited_here(visitor, shown["keystore"]["kind"])
    wanted = swapping.Edit(address.strip(), content_of(certificate), certificate_password or None, server_ca.strip())

    def confirm(verified: swapping.Verified) -> Response:
        draft = drafts.seal(services.plane.master_key, organization, visitor.form_token, name, wanted)
        return page("edit_confirm.html", visitor=visitor, **shown, verified=verified, draft=draft)

    return or_form(
        lambda: swapping.verify_edit(services.plane, organization, name, wanted),
        confirm,
        lambda error: _form("edit.html", visitor, shown, {"address": address, "server_ca": server_ca}, error),
    )


@router.post(f"{_ONE}/edit/save")
def save_edit(organization: str, name: str, visitor: Sent, services: Services, draft: Draft = "") -> Response:
    """Prove the pair that was confirmed and swap it in; on any failure the old one stays, and the form says why."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _one(services, organization, name)
    values = {"address": shown["keystore"]["address"] or "", "server_ca": shown["keystore"]["server_ca"] or ""}

    def save() -> None:
        key = services.plane.master_key
        for_name, wanted = drafts.unseal(key, organization, visitor.form_token, draft, swapping.Edit)
        if for_name != name:
            raise Conflict("what was filled in is for another keystore", hint="fill the form in again")
        values.update(address=wanted.address or "", server_ca=wanted.server_ca or "")
        swapping.edit(services.plane, visitor.actor.name, organization, name, wanted)

    return or_form(
        save,
        lambda _: led_to(organization, name, "edited"),
        lambda error: _form("edit.html", visitor, shown, values, error),
    )


def _require_edited_here(visitor: Visitor, kind: str) -> None:
    if not visitor.may_edit(kind):
        raise Conflict("only self-administered keystores are edited here", hint="the provider edits its own keystores")


@router.post(f"{_ONE}/prove")
def prove(organization: str, name: str, visitor: Sent, services: Services) -> Response:
    """Prove a keystore as it is registered; where that fails, the page says why."""
    visitor.actor.require(Right.MANAGE, organization)
    return or_form(
        lambda: swapping.prove_again(services.plane, visitor.actor.name, organization, name),
        lambda _: led_to(organization, name, "proved"),
        lambda error: one_keystore(services, visitor, organization, name, error=error),
    )


@router.post(f"{_ONE}/test")
def test(organization: str, name: str, visitor: Sent, services: Services) -> Response:
    """Make a health check now; the page shows what it has found, as of those of each minute."""
    visitor.actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        row = require_tested(session, registry.find(session, organization), name)
    made = services.health_checks.test_now(row)
    return led_to(organization, name, "tested" if made else "not-tested")


@router.get(f"{_ONE}/accept-cluster")
def accept_page(organization: str, name: str, visitor: Visit, services: Services) -> Response:
    """Ask whether the cluster that answers now is the right one."""
    visitor.actor.require(Right.MANAGE, organization)
    return _form("accept.html", visitor, _one(services, organization, name, changes=True), {})


@router.post(f"{_ONE}/accept-cluster")
def accept(organization: str, name: str, visitor: Sent, services: Services) -> Response:
    """Prove the cluster that answers now, and use it from then on."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _one(services, organization, name)
    return or_form(
        lambda: swapping.accept_cluster(services.plane, visitor.actor.name, organization, name),
        lambda _: led_to(organization, name, "accepted"),
        lambda error: _form("accept.html", visitor, shown, {}, error),
    )


@router.get(f"{_ONE}/delete")
def delete_page(organization: str, name: str, visitor: Visit, services: Services) -> Response:
    """Ask whether a keystore shall be forgotten."""
    visitor.actor.require(Right.MANAGE, organization)
    return _form("delete.html", visitor, _one(services, organization, name, changes=True), {})


@router.post(f"{_ONE}/delete")
def delete(organization: str, name: str, visitor: Sent, services: Services) -> Response:
    """Forget a keystore; refused while it is active and holds keys."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _one(services, organization, name)
    return or_form(
        lambda: registration.remove(services.plane, visitor.actor.name, organization, name),
        lambda _: led_to(organization, saved="deleted"),
        lambda error: _form("delete.html", visitor, shown, {}, error),
    )


# Alerts.


@router.get(f"{_ONE}/alerts")
def alerts_page(organization: str, name: str, visitor: Visit, services: Services, saved: str = "") -> Response:
    """Show who is told when a keystore is offline, and what they answered to the latest test."""
    visitor.actor.require(Right.MANAGE, organization)
    alerting = _alerting(services, organization, name) or Alerting()
    shown = {**_with_monitor(services, organization, name), "saved": SAVED.get(saved)}
    return _form("alerts.html", visitor, shown, _values(alerting))


@router.post(f"{_ONE}/alerts")
def alerts(
    organization: str,
    name: str,
    visitor: Sent,
    services: Services,
    recipients: Text = "",
    offline_minutes: Text = "",
    repeat_hours: Text = "",
    online_minutes: Text = "",
    webhook: Text = "",
    webhook_format: Text = "",
    remove_webhook: Text = "",
) -> Response:
    """Change who is told; without anybody the alerts end. A webhook stays unless another is given, or it is removed."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _with_monitor(services, organization, name)
    values = {
        "recipients": recipients,
        "webhook_format": webhook_format,
        "offline_minutes": offline_minutes,
        "repeat_hours": repeat_hours,
        "online_minutes": online_minutes,
    }

    def save() -> str:
        before = _alerting(services, organization, name)
        kept = webhook.strip() or (before.webhook if before and not remove_webhook else None)
        addresses = tuple(recipients.replace(",", " ").split())
        if not addresses and not kept and before:
            monitors.remove(services.plane, visitor.actor.name, organization, name)
            return "alerts-removed"
        # Without a webhook it has no format, whatever the form says.
        form = (webhook_format or (before.webhook_format if before else "")) if kept else ""
        alerting = Alerting(
            addresses,
            kept,
            form or WebhookFormat.JSON,
            _whole(offline_minutes, "offline_minutes"),
            _whole(repeat_hours, "repeat_hours"),
            _whole(online_minutes, "online_minutes"),
        )
        monitors.put(services.plane, visitor.actor.name, organization, name, alerting)
        return "alerts"

    return or_form(
        save,
        lambda saved: led_to(organization, name, saved),
        lambda error: _form("alerts.html", visitor, shown, values, error),
    )


@router.post(f"{_ONE}/alerts/test")
def test_alerts(organization: str, name: str, visitor: Sent, services: Services) -> Response:
    """Send a test to everyone who would be alerted; the page shows what each has answered."""
    visitor.actor.require(Right.MANAGE, organization)
    shown = _with_monitor(services, organization, name)
    values = _values(_alerting(services, organization, name) or Alerting())
    mails, hooks, actor = services.mail_sender, services.webhook_sender, visitor.actor.name
    return or_form(
        lambda: rehearsal.rehearse(services.plane, mails, hooks, actor, organization, name),
        lambda _: led_to(organization, name, "alerts-tested", "/alerts"),
        lambda error: _form("alerts.html", visitor, shown, values, error),
    )


def _values(alerting: Alerting) -> dict[str, str]:
    """Return what the form shows; of the webhook, whose URL may hold a secret, the format alone."""
    return {
        "recipients": "\n".join(alerting.recipients),
        "webhook_format": alerting.webhook_format,
        "offline_minutes": str(alerting.offline_minutes),
        "repeat_hours": str(alerting.repeat_hours),
        "online_minutes": str(alerting.online_minutes),
    }


def _with_monitor(services: ServicesOfApp, organization: str, name: str) -> dict[str, Any]:
    """Return what the form of alerts shows: whether there are any, where the webhook is, and the latest test."""
    shown = _one(services, organization, name)
    with services.plane.transaction() as session:
        monitor = monitors.find(session, keystores.find(session, registry.find(session, organization), name))
        host, rehearsed = (monitor.webhook_host, monitor.rehearsal) if monitor else (None, None)
        return {**shown, "monitored": monitor is not None, "webhook_host": host, "rehearsal": rehearsed}


def _alerting(services: ServicesOfApp, organization: str, name: str) -> Alerting | None:
    """Return who is told of a keystore now."""
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        monitor = monitors.find(session, keystores.find(session, owner, name))
    return monitors.alerting(services.plane, monitor) if monitor else None


def _whole(text: str, prop: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):  # noqa: PLR2004 - far more than any limit
        raise InvalidInput(f"{prop}: not a whole number", hint="give digits only", prop=prop)
    return int(text)
