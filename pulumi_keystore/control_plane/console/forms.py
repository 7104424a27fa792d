"""The forms of the console: each is judged as `pulumi up` judges the same, and says on itself what is wrong."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import RedirectResponse
from starlette.formparsers import MultiPartParser

from pulumi_keystore.answers import KeystoreAnswer
from pulumi_keystore.control_plane.api.access import Services, ServicesOfApp
from pulumi_keystore.control_plane.api.problems import MAX_BODY_BYTES
from pulumi_keystore.control_plane.console import drafts
from pulumi_keystore.control_plane.console.access import HOME, Page, Sent, Visit, Visitor
from pulumi_keystore.control_plane.console.pages import frame
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import registration, swapping
from pulumi_keystore.control_plane.migration import lifecycle
from pulumi_keystore.control_plane.monitoring import monitors
from pulumi_keystore.control_plane.monitoring.monitors import Alerting
from pulumi_keystore.control_plane.organizations import keystores, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.declarations.migration import Mode
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import Conflict, InvalidInput, KeystoreError

# An upload that is larger than this would be put into a temporary file, and may hold a private key.
MultiPartParser.spool_max_size = MAX_BODY_BYTES + 1

Text = Annotated[str, Form(max_length=20_000)]
Upload = Annotated[UploadFile | None, File()]
router = APIRouter(prefix=f"{HOME}/organizations/{{organization}}", route_class=Page, include_in_schema=False)


def _home(organization: str) -> Response:
    return RedirectResponse(f"{HOME}/organizations/{organization}", 303)


def _filled(upload: UploadFile | None) -> bytes | None:
    """Return the content of an uploaded file; a form without one sends an empty one."""
    content = upload.file.read() if upload is not None else b""
    return content or None


def _active(services: ServicesOfApp, organization: str) -> tuple[dict[str, Any], Organization, Keystore]:
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        row = keystores.active_keystore(session, owner)
        if row is None:
            raise Conflict(f"the organization {organization!r} has no active keystore", hint="declare a Keystore first")
        return frame(session, owner), owner, row


# Edit.


@router.get("/edit")
def edit_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Show the form for a new address, certificate, or both."""
    visitor.actor.require(Right.MANAGE, organization)
    shown, owner, row = _active(services, organization)
    values = {"address": row.address or "", "server_ca": row.server_ca or ""}
    return _form("edit.html", visitor, shown, keystores.describe(owner, row), values)


@router.post("/edit")
def edit(
    organization: str,
    visitor: Sent,
    services: Services,
    address: Text = "",
    certificate: Upload = None,
    certificate_password: Text = "",
    server_ca: Text = "",
) -> Response:
    """Prove the new pair and swap it in; on any failure the old one stays, and the form says why."""
    visitor.actor.require(Right.MANAGE, organization)
    shown, owner, row = _active(services, organization)
    described = keystores.describe(owner, row)
    if row.kind != Kind.SELF_ADMINISTERED:
        raise Conflict("only self-administered keystores are edited here", hint="the provider edits its own keystores")
    content = _filled(certificate)
    declared = Declaration(
        kind=row.kind,
        address=address.strip(),
        certificate=b64encode(content).decode() if content else None,
        certificate_password=certificate_password or None,
        server_ca=server_ca.strip() or None,
    )
    try:
        if certificate_password and not content:
            raise InvalidInput("certificate: a password was given and no file", hint="choose the PKCS#12 file, too")
        swapping.edit(
            services.plane, visitor.actor.name, organization, row.name, declared, keep_certificate=content is None
        )
    except KeystoreError as error:
        return _form("edit.html", visitor, shown, described, {"address": address, "server_ca": server_ca}, error)
    return _home(organization)


def _form(
    template: str,
    visitor: Visitor,
    shown: dict[str, Any],
    keystore: KeystoreAnswer,
    values: dict[str, str],
    error: KeystoreError | None = None,
) -> Response:
    """Return a form on the active keystore, with what was put into it and why that was refused."""
    status = error.status if error else 200
    return page(template, status, visitor=visitor, **shown, keystore=keystore, values=values, error=error)


# Migrate.


@router.get("/migrate")
def migrate_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Show where the keys may go."""
    visitor.actor.require(Right.MANAGE, organization)
    return _migrate_form(visitor, services, organization, {})


@router.post("/migrate")
def migrate(
    organization: str,
    visitor: Sent,
    services: Services,
    destination: Text = "",
    name: Text = "",
    kind: Text = Kind.SELF_ADMINISTERED,
    address: Text = "",
    certificate: Upload = None,
    certificate_password: Text = "",
    server_ca: Text = "",
    namespace: Text = "",
    mount: Text = "",
    role: Text = "",
    notify_email: Text = "",
    mode: Text = Mode.MAINTENANCE,
) -> Response:
    """Prove the destination where it is a new one, and show what the migration would do; nothing is registered."""
    visitor.actor.require(Right.MANAGE, organization)
    values = {
        "destination": destination, "name": name, "kind": kind, "address": address, "server_ca": server_ca,
        "namespace": namespace, "mount": mount, "role": role, "notify_email": notify_email, "mode": mode,
    }  # fmt: skip

    def prepare() -> dict[str, Any]:
        lifecycle.check_request(notify_email.strip() or None, mode)
        if not destination:
            content = _filled(certificate)
            declared = Declaration(
                kind=kind,
                address=address.strip(),
                certificate=b64encode(content).decode() if content else None,
                certificate_password=certificate_password or None,
                server_ca=server_ca.strip() or None,
                mount=mount.strip() or None,
                role=role.strip() or None,
                namespace=namespace.strip() or None,
            )
            goal = name.strip()
            binding, proof = registration.rehearse(services.plane, organization, goal, declared)
            inside = f", namespace {binding.namespace}" if binding.namespace else ""
            label = f"{goal} ({binding.address}{inside})"
            plan = lifecycle.plan_to_new(services.plane, organization, label, proof.cluster_id if proof else "")
            draft = drafts.seal(services.plane.master_key, organization, visitor.form_token, goal, declared)
            return {**plan, "name": "", "draft": draft}
        return {**lifecycle.plan(services.plane, organization, destination), "name": destination, "draft": ""}

    return _or_form(
        prepare,
        lambda plan: page(
            "confirm.html", visitor=visitor, **_frame(services, organization), plan=plan, values=values, error=None
        ),
        lambda error: _migrate_form(visitor, services, organization, values, error),
    )


@router.post("/migrate/start")
def start(
    organization: str,
    visitor: Sent,
    services: Services,
    destination: Text = "",
    draft: Annotated[str, Form(max_length=MAX_BODY_BYTES)] = "",
    notify_email: Text = "",
    mode: Text = Mode.MAINTENANCE,
) -> Response:
    """Register the destination where it is a new one, and begin; the progress is on the page of the keystore."""
    visitor.actor.require(Right.MANAGE, organization)
    plane, actor = services.plane, visitor.actor.name

    def begin() -> None:
        goal, email, made = destination, notify_email.strip() or None, False
        if draft:
            goal, declared = drafts.unseal(plane.master_key, organization, visitor.form_token, draft)
            with plane.transaction() as session:
                made = keystores.named(session, registry.find(session, organization), goal) is None
            registration.put(plane, actor, organization, goal, declared)
        try:
            migration_id, new = lifecycle.start(plane, actor, organization, goal, email, services.clean_ups, mode)
        except KeystoreError:
            if made:
                # For this migration alone; one that somebody else has registered meanwhile stays.
                with suppress(KeystoreError):
                    registration.remove(plane, actor, organization, goal)
            raise
        if migration_id is not None and new:
            services.begin(migration_id)

    values = {"destination": destination, "notify_email": notify_email, "mode": mode}
    return _or_form(
        begin,
        lambda _: _home(organization),
        lambda error: _migrate_form(visitor, services, organization, values, error),
    )


@router.post("/cancel")
def cancel(organization: str, visitor: Sent, services: Services, migration: Text = "") -> Response:
    """End a migration where it is."""
    visitor.actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        lifecycle.cancel(session, registry.find(session, organization), migration, visitor.actor.name)
    return _home(organization)


def _migrate_form(
    visitor: Visitor,
    services: ServicesOfApp,
    organization: str,
    values: dict[str, str],
    error: KeystoreError | None = None,
) -> Response:
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        rows = keystores.list_all(session, owner)
        shown = {
            **frame(session, owner),
            "goals": [row for row in rows if not row["active"] and row["kind"] != Kind.LEGACY],
            "source": next((row for row in rows if row["active"]), None),
        }
    texts = ("destination", "name", "address", "server_ca", "namespace", "mount", "role", "notify_email")
    empty = dict.fromkeys(texts, "")
    filled = {**empty, "kind": Kind.SELF_ADMINISTERED, "mode": Mode.MAINTENANCE, **values}
    return page("migrate.html", error.status if error else 200, visitor=visitor, **shown, values=filled, error=error)


# Alerts.


@router.get("/alerts")
def alerts_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Show who is told when the keystore is offline."""
    visitor.actor.require(Right.MANAGE, organization)
    shown, owner, row = _active(services, organization)
    with services.plane.transaction() as session:
        monitor = monitors.find(session, row)
    alerting = monitors.alerting(services.plane, monitor) if monitor else Alerting()
    values = {
        "recipients": "\n".join(alerting.recipients),
        "offline_minutes": str(alerting.offline_minutes),
        "repeat_hours": str(alerting.repeat_hours),
        "online_minutes": str(alerting.online_minutes),
    }
    return _form("alerts.html", visitor, shown, keystores.describe(owner, row), values)


@router.post("/alerts")
def alerts(
    organization: str,
    visitor: Sent,
    services: Services,
    recipients: Text = "",
    offline_minutes: Text = "",
    repeat_hours: Text = "",
    online_minutes: Text = "",
) -> Response:
    """Change who is told; an empty list ends the alerts. A webhook that was declared elsewhere stays."""
    visitor.actor.require(Right.MANAGE, organization)
    shown, owner, row = _active(services, organization)
    values = {
        "recipients": recipients,
        "offline_minutes": offline_minutes,
        "repeat_hours": repeat_hours,
        "online_minutes": online_minutes,
    }

    def save() -> None:
        with services.plane.transaction() as session:
            monitor = monitors.find(session, row)
        kept = monitors.alerting(services.plane, monitor).webhook if monitor else None
        addresses = tuple(recipients.replace(",", " ").split())
        if not addresses and not kept and monitor:
            monitors.remove(services.plane, visitor.actor.name, organization, row.name)
            return
        alerting = Alerting(
            addresses,
            kept,
            _whole(offline_minutes, "offline_minutes"),
            _whole(repeat_hours, "repeat_hours"),
            _whole(online_minutes, "online_minutes"),
        )
        monitors.put(services.plane, visitor.actor.name, organization, row.name, alerting)

    described = keystores.describe(owner, row)
    return _or_form(
        save,
        lambda _: _home(organization),
        lambda error: _form("alerts.html", visitor, shown, described, values, error),
    )


def _whole(text: str, prop: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):  # noqa: PLR2004 - far more than any limit
        raise InvalidInput(f"{prop}: not a whole number", hint="give digits only", prop=prop)
    return int(text)


def _frame(services: ServicesOfApp, organization: str) -> dict[str, Any]:
    with services.plane.transaction() as session:
        return frame(session, registry.find(session, organization))


def _or_form(
    work: Callable[[], Any], done: Callable[[Any], Response], form: Callable[[KeystoreError], Response]
) -> Response:
    """Do something; where it is refused, show the form again with the reason."""
    try:
        result = work()
    except KeystoreError as error:
        return form(error)
    return done(result)
