"""The service itself: whether it lives, whether it can work, and who asks. Health of keystores: see `api.health`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from pulumi_keystore.control_plane.api.access import Actor, Body, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.notifications.message import Message

probes = APIRouter(route_class=Metered, tags=["service"])
router = APIRouter(route_class=Metered, tags=["service"])


class Liveness(BaseModel):
    """The process answers."""

    model_config = ConfigDict(frozen=True)
    status: Literal["ok"] = "ok"
    version: str


class Whoami(BaseModel):
    """Who the token stands for; an organization only where it is bound to one."""

    model_config = ConfigDict(frozen=True)
    name: str
    role: str
    organization: str | None


@probes.get("/healthz")
async def alive() -> Liveness:
    """Return 200 as long as the process answers; asks nothing else, and needs no token."""
    return Liveness(version=version("pulumi-keystore"))


@probes.get("/readyz")
def ready(services: Services) -> Liveness:
    """Return 200 if the database also answers, and 503 otherwise; needs no token."""
    with services.plane.transaction() as session:
        session.execute(select(1))
    return Liveness(version=version("pulumi-keystore"))


class TestMail(Body):
    """Who gets a mail."""

    recipient: str = Field(description="e-mail address")


@router.post("/test-mail", status_code=204)
def send_test_mail(body: TestMail, actor: Actor, services: Services) -> None:
    """Send a mail now to test the settings; an error holds the mail server's answer."""
    actor.require(Right.ADMINISTER)
    services.mail_sender.test(body.recipient, Message("test", "Test", f"{actor.name} has asked for this mail.\n"))


@router.get("/whoami")
def whoami(actor: Actor) -> Whoami:
    """Return who the token stands for."""
    return Whoami(name=actor.name, role=actor.role, organization=actor.organization)
