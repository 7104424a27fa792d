"""The forms for migrations: each is judged as `pulumi up` judges the same, and says on itself what is wrong."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore.control_plane.api.access import Services, ServicesOfApp
from pulumi_keystore.control_plane.console import drafts
from pulumi_keystore.control_plane.console.access import Page, Sent, Visit, Visitor
from pulumi_keystore.control_plane.console.form import PREFIX, Draft, Filled, Text, led_to, or_form, shown_around
from pulumi_keystore.control_plane.console.pages import CLEAN_UPS, frame
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import clean_ups, registration
from pulumi_keystore.control_plane.keystores.binding import require_changeable
from pulumi_keystore.control_plane.migration import lifecycle, planning, undo
from pulumi_keystore.control_plane.organizations import keystores, registry
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.declarations.migration import Mode
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import KeystoreError

router = APIRouter(prefix=PREFIX, route_class=Page, include_in_schema=False)


@router.get("/migrate")
def migrate_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Show where the keys may go."""
    visitor.actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        require_changeable(registry.find(session, organization))
    return _migrate_form(visitor, services, organization, {})


@router.post("/migrate")
def migrate(
    organization: str,
    visitor: Sent,
    services: Services,
    filled: Filled,
    destination: Text = "",
    notify_email: Text = "",
    mode: Text = Mode.MAINTENANCE,
) -> Response:
    """Prove the destination where it is a new one, and show what the migration would do; nothing is registered."""
    visitor.actor.require(Right.MANAGE, organization)
    values = {**filled.values, "destination": destination, "notify_email": notify_email, "mode": mode}

    def prepare() -> dict[str, Any]:
        lifecycle.check_request(notify_email, mode)
        if not destination:
            goal, declared = filled.name, filled.declared
            binding, proof = registration.rehearse(services.plane, organization, goal, declared)
            inside = f", namespace {binding.namespace}" if binding.namespace else ""
            label = f"{goal} ({binding.address}{inside})"
            plan = planning.plan_to_new(
                services.plane, organization, label, binding.kind, proof.cluster_id if proof else ""
            )
            draft = drafts.seal(services.plane.master_key, organization, visitor.form_token, goal, declared)
            return {**plan, "name": "", "draft": draft}
        return {**planning.plan(services.plane, organization, destination), "name": destination, "draft": ""}

    return or_form(
        lambda: page(
            "confirm.html",
            visitor=visitor,
            plan=prepare(),
            values=values,
            error=None,
            **shown_around(services, organization),
        ),
        lambda confirmation: confirmation,
        lambda error: _migrate_form(visitor, services, organization, values, error),
    )


@router.post("/migrate/start")
def start(
    organization: str,
    visitor: Sent,
    services: Services,
    destination: Text = "",
    draft: Draft = "",
    notify_email: Text = "",
    mode: Text = Mode.MAINTENANCE,
) -> Response:
    """Register the destination where it is a new one, and begin; the progress is on the page of the keystore."""
    visitor.actor.require(Right.MANAGE, organization)
    plane, actor = services.plane, visitor.actor.name

    def begin() -> None:
        lifecycle.check_request(notify_email, mode)
        goal, made = destination, False
        if draft:
            goal, declared = drafts.unseal(plane.master_key, organization, visitor.form_token, draft, Declaration)
            with plane.transaction() as session:
                made = keystores.named(session, registry.find(session, organization), goal) is None
            registration.put(plane, actor, organization, goal, declared)
        try:
            migration_id, new = lifecycle.start(
                plane, visitor.actor, organization, goal, notify_email, services.clean_ups, mode
            )
        except BaseException:
            if made:
                # For this migration alone; one that somebody else has registered meanwhile stays.
                with suppress(KeystoreError, SQLAlchemyError):
                    registration.remove(plane, actor, organization, goal)
            raise
        if migration_id is not None and new:
            services.begin(migration_id)

    values = {"destination": destination, "notify_email": notify_email, "mode": mode}
    return or_form(
        begin,
        lambda _: led_to(organization),
        lambda error: _migrate_form(visitor, services, organization, values, error),
    )


@router.post("/cancel")
def cancel(organization: str, visitor: Sent, services: Services, migration: Text = "") -> Response:
    """End a migration where it is."""
    visitor.actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        lifecycle.cancel(session, registry.find(session, organization), migration, visitor.actor.name)
    return led_to(organization, saved="canceled")


@router.post("/undo")
def undo_migration(organization: str, visitor: Sent, services: Services, migration: Text = "") -> Response:
    """Make the source of the latest migration the keystore in use again."""
    visitor.actor.require(Right.MANAGE, organization)
    undo.undo(services.plane, visitor.actor.name, organization, migration)
    return led_to(organization, saved="undone")


@router.post("/clean-up")
def clean_up(organization: str, visitor: Sent, services: Services) -> Response:
    """Try now what still has to be removed."""
    visitor.actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        pending = clean_ups.list_page(session, registry.find(session, organization), CLEAN_UPS)
    for row in pending:
        services.clean_ups.retry(row["id"])
    return led_to(organization, saved="retried")


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
