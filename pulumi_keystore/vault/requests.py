"""Requests to a server, its answers, and the flows that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.vault.parsing import parse
from pulumi_keystore.vault.resolver import Resolver

REQUEST_TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 1 << 16
"""Of an answer that is no list: none of those that are asked for is a tenth of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One server as one organization sees it: where it is, who we are, whom we trust."""

    address: KeystoreAddress
    certificate: ClientCertificate
    server_ca: bytes | None = None
    """CA certificates in PEM; None for the public CAs."""
    resolver: Resolver = field(default_factory=Resolver)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTPS request. `path` begins with /v1/ and is made of characters that need no quoting."""

    endpoint: Endpoint
    method: str
    path: str
    body: dict[str, Any] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    timeout_s: float = REQUEST_TIMEOUT_S
    index: str = ""
    """The state (`X-Vault-Index`) that the answering node must have; an older one passes the request on."""
    wants_index: bool = False
    """Whether the answer shall tell the state it belongs to. It costs a little."""
    sink: Callable[[bytes], None] | None = field(default=None, repr=False)
    """Takes the body of the answer, whatever its status, piece by piece; the response then has only its beginning."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A flow's wish to go on only after some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid."""

    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Response:
    """The status and the body of an answer."""

    status: int
    body: bytes = field(repr=False)
    index: str = ""
    """`X-Vault-Index` of the answer, where it was asked for and the server gives one."""
    connection: int = 0
    """The number of the connection it came on, which no other one of its transport has."""
    fresh: bool = False
    """Whether that was opened for it."""
    certificate: Validity | None = None
    """That of the certificate the server has shown, where the connection was opened for it."""

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty object where it is none."""
        try:
            parsed = parse(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def errors(self) -> str:
        """The server's own error texts. For decisions only: a lying server could say back what it was sent."""
        return str(self.json().get("errors", ""))


T = TypeVar("T")
Flow = Generator[Request | Pause, Response | None, T]
