"""What all forms have in common: their fields, where they lead, and that they say on themselves what is wrong."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import File, Form, Response, UploadFile
from fastapi.responses import RedirectResponse
from starlette.formparsers import MultiPartParser

from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.api.problems import MAX_BODY_BYTES
from pulumi_keystore.control_plane.console.access import HOME
from pulumi_keystore.control_plane.console.pages import frame
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.errors import KeystoreError

# An upload that is larger than this would be put into a temporary file, and may hold a private key.
MultiPartParser.spool_max_size = MAX_BODY_BYTES + 1

Text = Annotated[str, Form(max_length=20_000)]
Upload = Annotated[UploadFile | None, File()]
PREFIX: Final = f"{HOME}/organizations/{{organization}}"


def led_to(organization: str, keystore: str = "", saved: str = "") -> Response:
    """Lead to the page of an organization, or of one of its keystores, which says what was saved (`pages.SAVED`)."""
    path = f"{HOME}/organizations/{quote(organization)}" + (
        f"/keystores/{quote(keystore, safe='')}" if keystore else ""
    )
    return RedirectResponse(f"{path}?saved={saved}" if saved else path, 303)


def content_of(upload: UploadFile | None) -> str | None:
    """Return an uploaded file in base64; a form without one sends an empty one."""
    content = upload.file.read() if upload is not None else b""
    return b64encode(content).decode() if content else None


def shown_around(services: ServicesOfApp, organization: str) -> dict[str, Any]:
    """Return what every page of an organization shows."""
    with services.plane.transaction() as session:
        return frame(session, registry.find(session, organization))


def or_form(
    work: Callable[[], Any], done: Callable[[Any], Response], form: Callable[[KeystoreError], Response]
) -> Response:
    """Do something; where it is refused, show the form again with the reason."""
    try:
        result = work()
    except KeystoreError as error:
        return form(error)
    return done(result)
