"""What one organization needs on a Vault server: names, policy and certificate role, defined once.

The Vault-side set-up (harness, documentation) and the service's own expectations come from here. The policy gives
`create` but not `update`: on a KV version 1 mount the server itself then makes every archive key write-once.
"""

from __future__ import annotations

import re
from base64 import b32encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

DEFAULT_MOUNT: Final = "archive-keys"
CANARY_PREFIX: Final = "canary-"
"""No archive key's name begins so: base32 has no hyphen."""
KEY_NAME: Final = re.compile(r"[a-z0-9-]{1,250}\.[0-9]{1,9}")
"""What names of archive keys look like; another one was not written by us, and may need quoting in a path."""
_LONGEST_ENCODED: Final = 200


def within(namespace: str, path: str) -> str:
    """Return a path below a namespace as the root namespace spells it: the one spelling that a path has everywhere.

    Vault takes a namespace in a header, in the path, or one part of it here and the other there. Requests are sent and
    places are compared by this spelling alone, so what is one place is one text. The header would be less: servers
    without namespaces (Vault's Community Edition, OpenBao before 2.3) and proxies drop it and answer from the root
    namespace, where somebody else's mount of that name may be; a path that leads nowhere is refused.
    """
    return f"{namespace}/{path}" if namespace else path


def default_role(organization: str) -> str:
    """Return the certificate role an organization logs in with unless told otherwise."""
    return f"keystore-{organization}"


@lru_cache(maxsize=1024)
def key_name(user: str, generation: int) -> str:
    """Return the last path segment of a user's archive key: base32 of the user id, a dot, the generation.

    The name holds only a-z, 0-9, '-' and '.', so that no user id can leave its organization's path, and two ids
    never meet: short ids are encoded one to one, long ones (some storage backends allow 255 bytes a segment) by
    their SHA-256 under a prefix that no short one has. Remembered for a while: a migration asks several times.
    """
    encoded = _base32(user.encode())
    if len(encoded) > _LONGEST_ENCODED:
        encoded = f"h-{_base32(sha256(user.encode()).digest())}"
    return f"{encoded}.{generation}"


def _base32(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Tenancy:
    """One organization's place on a Vault server; `namespace` is empty for the root namespace."""

    organization: str
    mount: str = DEFAULT_MOUNT
    role: str = ""
    namespace: str = ""

    @property
    def path(self) -> str:
        """The mount as the root namespace spells it."""
        return within(self.namespace, self.mount)

    @property
    def option(self) -> str:
        """What commands of `bao` or `vault` need to work in the namespace, and a space; nothing in the root one."""
        return f"-namespace={self.namespace} " if self.namespace else ""

    @property
    def role_name(self) -> str:
        """Name of the certificate role and of its policy."""
        return self.role or default_role(self.organization)

    def policy(self, version: int) -> str:
        """Return the policy text for a KV mount of version 1 or 2.

        It belongs in the tenancy's namespace, and names paths from there: none of them begins with it.
        """
        m, o = self.mount, self.organization
        paths: dict[str, tuple[str, ...]]
        if version == 1:
            paths = {f"{m}/{o}/*": ("create", "read", "delete", "list"), f"{m}/{o}/": ("list",)}
        else:
            paths = {
                f"{m}/data/{o}/*": ("create", "read"),
                f"{m}/metadata/{o}/*": ("read", "list", "delete"),
                f"{m}/metadata/{o}/": ("list",),
                f"{m}/config": ("read",),
            }
        paths |= {"auth/token/renew-self": ("update",), "auth/token/revoke-self": ("update",)}
        rules = (
            f'path "{path}" {{\n  capabilities = [{", ".join(f"{c!r}" for c in can)}]\n}}\n'
            for path, can in paths.items()
        )
        return "".join(rules).replace("'", '"')

    def role_parameters(self, ca_pem: str, common_name: str) -> dict[str, Any]:
        """Return the body for `auth/cert/certs/ROLE`: who may log in, and with what token.

        Without the built-in `default` policy: each request of a token that has it is slower, and it grants
        more than this needs.
        """
        return {
            "certificate": ca_pem,
            "allowed_common_names": common_name,
            "token_policies": self.role_name,
            "token_no_default_policy": True,
            "token_ttl": 3600,
            "token_max_ttl": 86_400,
            "token_type": "service",
        }
