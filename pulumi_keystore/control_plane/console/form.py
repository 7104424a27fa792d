"""What all forms have in common: their fields, where they lead, and that they say on themselves what is wrong."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Depends, File, Form, Response, UploadFile
from fastapi.responses import RedirectResponse
from starlette.formparsers import MultiPartParser

from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.api.problems import MAX_BODY_BYTES
from pulumi_keystore.control_plane.console.access import HOME
from pulumi_keystore.control_plane.console.pages import frame
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import KeystoreError

# An upload that is larger than this would be put into a temporary file, and may hold a private key.
MultiPartParser.spool_max_size = MAX_BODY_BYTES + 1

Text = Annotated[str, Form(max_length=20_000)]
Upload = Annotated[UploadFile | None, File()]
Draft = Annotated[str, Form(max_length=MAX_BODY_BYTES)]
"""What `drafts` has sealed."""
PREFIX: Final = f"{HOME}/organizations/{{organization}}"


@dataclass(frozen=True, slots=True)
class NewKeystore:
    """What was filled in for a keystore that is not registered; `values` are for the form, if it has to come again."""

    name: str
    declared: Declaration
    values: dict[str, str]


def _new_keystore(
    name: Text = "",
    kind: Text = Kind.SELF_ADMINISTERED,
    address: Text = "",
    certificate: Upload = None,
    certificate_password: Text = "",
    server_ca: Text = "",
    namespace: Text = "",
    mount: Text = "",
    role: Text = "",
) -> NewKeystore:
    declared = Declaration(
        kind=kind,
        address=address.strip(),
        certificate=content_of(certificate),
        certificate_password=certificate_password or None,
        server_ca=server_ca.strip() or None,
        mount=mount.strip() or None,
        role=role.strip() or None,
        namespace=namespace.strip() or None,
    )
    values = {
        "name": name, "kind": kind, "address": address, "server_ca": server_ca,
        "namespace": namespace, "mount": mount, "role": role,
    }  # fmt: skip
    return NewKeystore(name.strip(), declared, values)


Filled = Annotated[NewKeystore, Depends(_new_keystore)]
"""The fields of `_form.html`'s `new_keystore`."""


def led_to(organization: str, keystore: str = "", saved: str = "", further: str = "") -> Response:
    """Lead to the page of an organization, of one of its keystores, or to a further one of it.

    That says what was saved (`pages.SAVED`).
    """
    path = f"{HOME}/organizations/{quote(organization)}" + (
        f"/keystores/{quote(keystore, safe='')}{further}" if keystore else ""
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
