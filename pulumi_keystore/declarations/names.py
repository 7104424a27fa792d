"""Names, addresses of people, and words of which one is chosen, in any declaration (rules KS030 to KS044)."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from typing import Final

from pulumi_keystore import rules

NO_ONE: Final = "none"
"""What is given in place of an address where no one shall be notified."""


class Kind(StrEnum):
    """Who runs a keystore."""

    PROVIDER = "provider"
    SELF_ADMINISTERED = "self-administered"
    LEGACY = "legacy"
    """The provider's database, for old customers."""


_ORGANIZATION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(\.{_ATOM})*@([A-Za-z0-9](-*[A-Za-z0-9])*\.)+[A-Za-z]{{2,63}}")
_ROLE = re.compile(r"[A-Za-z0-9_-]{1,128}")
# None begins with a dot: "." and ".." would lead elsewhere in a URL.
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_PATH_LIMIT: Final = 128
_RESERVED: Final = frozenset({"root", "sys", "audit", "auth", "cubbyhole", "identity"})
"""What no namespace is called (Vault's and OpenBao's page "Namespaces"), and what no mount's path begins with."""
_NAME_LIMIT: Final = 100


def check_organization(name: str) -> str:
    """Return an organization's name, or raise `RuleViolation` (KS031)."""
    if not _ORGANIZATION.fullmatch(name):
        raise rules.ORGANIZATION.violation(f"{name!r} is not an organization name")
    return name


def check_kind(kind: str) -> Kind:
    """Return a keystore kind, or raise `RuleViolation` (KS030)."""
    try:
        return Kind(kind)
    except ValueError:
        raise rules.KIND.violation(f"unknown kind {kind!r}") from None


def check_email(address: str, prop: str = "notify_email", expects: str = "") -> str:
    """Return an e-mail address, or raise `RuleViolation` (KS033) for the property. Line breaks never pass.

    Nor does the beginning of an encoded word (RFC 2047): what reads it would see another address.
    """
    if len(address) > 254 or "=?" in address or not _EMAIL.fullmatch(address):  # noqa: PLR2004 - RFC 5321 limit
        raise rules.NOTIFY_EMAIL.of(prop, expects).violation(f"{address!r} is not an e-mail address")
    return address


def notified(address: str) -> str:
    """Return the address to notify, or `NO_ONE`, which is said and not left out by accident.

    Raises:
        RuleViolation: KS033, for an empty one, too.

    """
    if address.strip().lower() == NO_ONE:
        return NO_ONE
    return check_email(address.strip(), expects=f"{rules.NOTIFY_EMAIL.expects}, or {NO_ONE} for no one")


def check_mount(text: str) -> str:
    """Return the path of a KV mount in its namespace, or raise `RuleViolation` (KS034).

    It may begin with the names of namespaces, as Vault takes them for a part of the path.
    """
    if not _PATH.fullmatch(text) or len(text) > _PATH_LIMIT:
        raise rules.MOUNT.violation(f"{text!r} is not a usable path")
    first = text.partition("/")[0]
    if first in _RESERVED:
        raise rules.MOUNT.violation(f"{text!r} begins with {first!r}, which Vault reserves")
    return text


def check_namespace(text: str) -> str:
    """Return the path of a namespace, empty for the root namespace, or raise `RuleViolation` (KS044)."""
    if not text:
        return text
    if not _PATH.fullmatch(text) or len(text) > _PATH_LIMIT:
        raise rules.NAMESPACE.violation(f"{text!r} is not a usable path")
    if reserved := _RESERVED.intersection(text.split("/")):
        raise rules.NAMESPACE.violation(f"{text!r} holds {min(reserved)!r}, which Vault reserves")
    return text


def check_role(text: str) -> str:
    """Return the name of a certificate role, or raise `RuleViolation` (KS034)."""
    if not _ROLE.fullmatch(text):
        raise rules.ROLE.violation(f"{text!r} is not a usable name")
    return text


def check_user_id(user: str) -> str:
    """Return a user id, or raise `RuleViolation` (KS035). It may hold any text: paths use an encoded form."""
    size = len(user.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= rules.MAX_USER_ID_BYTES:
        raise rules.USER_ID.violation(f"the user id has {size} bytes")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in user):
        raise rules.USER_ID.violation("the user id holds a control character")
    return user


def check_name(name: str, prop: str = "name") -> str:
    """Return a keystore's display name, or raise `RuleViolation` (KS037) for the property."""
    # A name is a segment of the API's paths.
    if not 1 <= len(name) <= _NAME_LIMIT or not name.isprintable() or "/" in name or name in (".", ".."):
        raise rules.KEYSTORE_NAME.of(prop).violation(f"{name!r} is not a usable name")
    return name
