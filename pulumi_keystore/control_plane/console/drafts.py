"""What was filled into a form and is still to be confirmed: a new keystore of a migration, or an edit.

It travels with the page, encrypted, and opens in the session that it was made in alone. So what is not confirmed
leaves nothing anywhere.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import asdict
from datetime import timedelta
from typing import Final, TypeVar

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores.swapping import Edit
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.errors import Conflict, KeystoreError

_LIFE: Final = timedelta(minutes=30)


T = TypeVar("T", Declaration, Edit)


def seal(key: MasterKey, organization: str, form_token: str, name: str, filled: Declaration | Edit) -> str:
    """Return a draft as text for a hidden field."""
    ends = (now_utc() + _LIFE).timestamp()
    document = json.dumps({"name": name, "ends": ends, "filled": asdict(filled)})
    return urlsafe_b64encode(
        key.seal(_purpose(type(filled)), f"{organization}/{form_token}", document.encode())
    ).decode()


def unseal(key: MasterKey, organization: str, form_token: str, text: str, kind: type[T]) -> tuple[str, T]:
    """Return the name of a draft, and what was filled in.

    Raises:
        Conflict: It is of another session, organization or form, was changed, or is too old.

    """
    try:
        sealed = urlsafe_b64decode(text)
        document = json.loads(key.open(_purpose(kind), f"{organization}/{form_token}", sealed))
    except (KeystoreError, Base64Error, ValueError):
        document = {"ends": 0}
    if document["ends"] < now_utc().timestamp():
        raise Conflict("what was filled in has expired", hint="fill the form in again")
    return document["name"], kind(**document["filled"])


def _purpose(kind: type[Declaration | Edit]) -> str:
    return f"draft of {kind.__name__}"
