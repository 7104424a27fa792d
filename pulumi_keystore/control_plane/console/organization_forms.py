"""The forms for an organization as a whole: it is created, its keys are verified, and it is recovered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Response

from pulumi_keystore.control_plane.api.access import Services, ServicesOfApp
from pulumi_keystore.control_plane.console.access import HOME, Page, Sent, Visit, Visitor
from pulumi_keystore.control_plane.console.form import PREFIX, Text, led_to, or_form
from pulumi_keystore.control_plane.console.pages import frame
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import recovery, verification
from pulumi_keystore.control_plane.keystores.recovery import Plan
from pulumi_keystore.control_plane.keystores.verification import Report
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.errors import InvalidInput, KeystoreError

router = APIRouter(route_class=Page, include_in_schema=False)
_CREATE: Final = f"{HOME}/create"
_LEFT_OUT: Final = 100


# Create.


@router.get(_CREATE)
def create_page(visitor: Visit) -> Response:
    """Show the form for a further organization."""
    visitor.actor.require(Right.ADMINISTER)
    return page("create.html", visitor=visitor, values={"name": "", "environment": "cloud"}, error=None)


@router.post(_CREATE)
def create(visitor: Sent, services: Services, name: Text = "", environment: Text = "cloud") -> Response:
    """Create an organization; one that exists is opened."""
    visitor.actor.require(Right.ADMINISTER)
    name = name.strip()

    def put() -> None:
        with services.plane.transaction() as session:
            registry.put(session, visitor.actor.name, name, environment)

    values = {"name": name, "environment": environment}
    return or_form(
        put,
        lambda _: led_to(name, saved="created"),
        lambda error: page("create.html", error.status, visitor=visitor, values=values, error=_of_name(error)),
    )


def _of_name(error: KeystoreError) -> KeystoreError:
    """Return an error whose property is called as the field of the form is."""
    if error.prop != "organization":
        return error
    said = error.summary.removeprefix("organization: ")
    return InvalidInput(f"name: {said}", hint=error.hint, prop="name", rule=error.rule)


# Verify.


@router.get(f"{PREFIX}/verify")
def verify_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Say what the latest verification found, and offer another one."""
    visitor.actor.require(Right.MANAGE, organization)
    return _verification(services, visitor, organization)


@router.post(f"{PREFIX}/verify")
def verify(organization: str, visitor: Sent, services: Services) -> Response:
    """Read every archive key at the keystore in use, and name those that are missing, damaged or surplus."""
    visitor.actor.require(Right.MANAGE, organization)
    return or_form(
        lambda: verification.verify(services.plane, organization),
        lambda report: _verification(services, visitor, organization, report),
        lambda error: _verification(services, visitor, organization, error=error),
    )


def _verification(
    services: ServicesOfApp,
    visitor: Visitor,
    organization: str,
    report: Report | None = None,
    error: KeystoreError | None = None,
) -> Response:
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        shown = {**frame(session, owner), "latest": verification.describe(session, owner)}
    found = report.to_document() if report else None
    return page("verify.html", error.status if error else 200, visitor=visitor, **shown, report=found, error=error)


# Recover.


LeftOut = Annotated[list[str], Form(max_length=_LEFT_OUT)]


@router.get(f"{PREFIX}/recover")
def recover_page(organization: str, visitor: Visit, services: Services) -> Response:
    """Say what a recovery is; every key is read only when that is asked for."""
    visitor.actor.require(Right.MANAGE, organization)
    return _recovery(services, visitor, organization)


@router.post(f"{PREFIX}/recover/plan")
def plan_recovery(organization: str, visitor: Sent, services: Services, without: LeftOut = []) -> Response:  # noqa: B006 - FastAPI copies it
    """Read every keystore, and show what a recovery would do."""
    visitor.actor.require(Right.MANAGE, organization)
    return or_form(
        lambda: recovery.plan(services.plane, organization, without),
        lambda plan: _recovery(services, visitor, organization, plan, without),
        lambda error: _recovery(services, visitor, organization, error=error),
    )


@router.post(f"{PREFIX}/recover")
def recover(
    organization: str,
    visitor: Sent,
    services: Services,
    code: Text = "",
    without: LeftOut = [],  # noqa: B006
) -> Response:
    """Recover an organization as was confirmed; where it is not so any more, the page says so."""
    visitor.actor.require(Right.MANAGE, organization)
    return or_form(
        lambda: recovery.apply(services.plane, visitor.actor.name, organization, code, without),
        lambda _: led_to(organization, saved="recovered"),
        lambda error: _recovery(services, visitor, organization, error=error),
    )


def _recovery(
    services: ServicesOfApp,
    visitor: Visitor,
    organization: str,
    plan: Plan | None = None,
    without: Sequence[str] = (),
    error: KeystoreError | None = None,
) -> Response:
    with services.plane.transaction() as session:
        shown = frame(session, registry.find(session, organization))
    values: dict[str, Any] = {"plan": plan.to_document() if plan else None, "without": without, "error": error}
    return page("recover.html", error.status if error else 200, visitor=visitor, **shown, **values)
