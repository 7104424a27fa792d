"""A keystore that was filled into the form of a migration, and is not registered before the migration starts.

It travels with the page, encrypted, and opens in the session that it was made in alone. So what is not started leaves
nothing anywhere.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import asdict
from datetime import timedelta
from typing import Final

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.errors import Conflict, KeystoreError

_PURPOSE: Final = "keystore draft"
_LIFE: Final = timedelta(minutes=30)


def seal(key: MasterKey, organization: str, form_token: str, name: str, declared: Declaration) -> str:
    """Return a draft as text for a hidden field."""
    ends = (now_utc() + _LIFE).timestamp()
    document = json.dumps({"name": name, "ends": ends, "declared": asdict(declared)})
    return urlsafe_b64encode(key.seal(_PURPOSE, f"{organization}/{form_token}", document.encode())).decode()


def unseal(key: MasterKey, organization: str, form_token: str, text: str) -> tuple[str, Declaration]:
    """Return the name and the declaration of a draft.

    Raises:
        Conflict: It is of another session or organization, was changed, or is too old.

    """
    try:
        sealed = urlsafe_b64decode(text)
        document = json.loads(key.open(_PURPOSE, f"{organization}/{form_token}", sealed))
    except (KeystoreError, Base64Error, ValueError):
        document = {"ends": 0}
    if document["ends"] < now_utc().timestamp():
        raise Conflict("what was entered for the new keystore has expired", hint="fill the form in again")
    return document["name"], Declaration(**document["declared"])
