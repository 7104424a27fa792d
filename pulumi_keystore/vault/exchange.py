"""One request to one Vault server, and what its answer means.

Source: the Vault and OpenBao HTTP API pages `/sys/health` and `/sys/seal-status`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pulumi_keystore.causes import Cause
from pulumi_keystore.declarations.tenancy import Tenancy, within
from pulumi_keystore.errors import AnotherCluster, HostUnavailable, Overloaded, RateLimited
from pulumi_keystore.vault.faults import LATE, SEE_LOAD
from pulumi_keystore.vault.requests import Endpoint, Flow, Pause, Request, Response, Validity

OK: Final = (200, 204)
_MOST_SHARES: Final = 255
"""Of an unseal key (Shamir's scheme over bytes)."""
HEALTH: Final = "/v1/sys/health?standbyok=true&perfstandbyok=true&sealedcode=200"
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")
Step = Generator[Request | Pause, Response | None, Response]


@dataclass(slots=True)
class Token:
    """A client token; its text is in no repr."""

    text: str
    issued: float
    ttl_s: float
    renewable: bool
    index: str = ""
    """The server's state after the login, which is a write: what is read with this token is not older."""
    ended: Callable[[], None] | None = None
    """Is called when the server has ended it."""

    def __repr__(self) -> str:
        return f"Token(ttl_s={self.ttl_s:g})"


class Exchange:
    """What is asked of a server, each request once.

    Args:
        endpoint: Where the server is and who we are.
        tenancy: The organization's namespace, mount and role there.
        timeout_s: Deadline of each request.
        cluster_id: The cluster it has to be, where that is known already.
        until: The moment (of `clock`) at which every request has to have ended.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        endpoint: Endpoint,
        tenancy: Tenancy,
        *,
        timeout_s: float,
        cluster_id: str | None,
        until: float,
        clock: Callable[[], float],
    ) -> None:
        self.endpoint = endpoint
        self.tenancy = tenancy
        self._timeout_s = timeout_s
        self._cluster_id = cluster_id
        self._until = until
        self._clock = clock
        self.certificate: Validity | None = None
        """That of the certificate which the server has shown last."""

    def __str__(self) -> str:
        return str(self.endpoint.address)

    @property
    def cluster_id(self) -> str:
        """The cluster it has to be, or was found to be; empty as long as that is not known."""
        return self._cluster_id or ""

    def _here(self, path: str) -> str:
        """Return the URL of a path in the tenancy's namespace."""
        return f"/v1/{within(self.tenancy.namespace, path)}"

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        token: Token | None,
        timeout_s: float = 0,
        *,
        wants_index: bool = False,
        sink: Callable[[bytes], None] | None = None,
    ) -> Step:
        """Send one request once; answers that mean "host unavailable" are raised."""
        text, index = (token.text, token.index) if token else (None, "")
        index = index if method in ("GET", "LIST") else ""
        timeout_s = min(timeout_s or self._timeout_s, self._until - self._clock())
        if timeout_s <= 0:
            raise HostUnavailable(f"{self}: {LATE}", hint=SEE_LOAD, cause=Cause.TIMED_OUT)
        response = yield Request(self.endpoint, method, path, body, text, timeout_s, index, wants_index, sink)
        assert response is not None  # noqa: S101 - the transport answers every Request
        self.certificate = response.certificate or self.certificate
        status = response.status
        if 300 <= status < 400:  # noqa: PLR2004
            raise HostUnavailable(
                f"{self}: answers with a redirect, and redirects are never followed", cause=Cause.NOT_VAULT
            )
        if status == 429:  # noqa: PLR2004
            raise RateLimited(f"{self}: asks for fewer requests (HTTP 429)")
        if status == 503 and "sealed" in response.errors.lower():  # noqa: PLR2004
            raise self._sealed()
        if status == 503:  # noqa: PLR2004
            raise Overloaded(f"{self}: overloaded or starting (HTTP 503)")
        if status >= 460:  # noqa: PLR2004 - 472 and 473 are Vault's standbys, 5xx are faults
            raise self._failing(response)
        if status == 200 and "json" not in _shape(response):  # noqa: PLR2004
            raise HostUnavailable(f"{self}: the answer is not a Vault server's", cause=Cause.NOT_VAULT)
        return response

    def _failing(self, response: Response) -> HostUnavailable:
        """Return the fault of a server that fails; an empty one says so, and a standby that has nobody to ask."""
        if response.status == 501:  # noqa: PLR2004 - /sys/health
            return self._uninitialized()
        if "active cluster node not found" in response.errors.lower():
            return HostUnavailable(
                f"{self}: a standby without an active node",
                hint="start and unseal further nodes of the cluster",
                cause=Cause.NO_ACTIVE_NODE,
            )
        return HostUnavailable(f"{self}: fails with HTTP {response.status}")

    def _sealed(self) -> HostUnavailable:
        return HostUnavailable(f"{self}: sealed", hint="unseal the server", cause=Cause.SEALED)

    def _uninitialized(self) -> HostUnavailable:
        return HostUnavailable(
            f"{self}: not initialized", hint="the server is empty: restore its storage", cause=Cause.UNINITIALIZED
        )

    def why_sealed(self) -> Flow[HostUnavailable]:
        """Return the fault of a server that is sealed, with how many unseal shares it lacks (`/sys/seal-status`).

        Raises:
            HostUnavailable: It does not answer.

        """
        stated = (yield from self._send("GET", "/v1/sys/seal-status", None, None)).json()
        if stated.get("initialized") is False:
            return self._uninitialized()
        needed, shares, given = (round(seconds(stated.get(name))) for name in ("t", "n", "progress"))
        if not 0 <= given < needed <= shares <= _MOST_SHARES:
            return self._sealed()
        return HostUnavailable(
            f"{self}: sealed",
            hint=f"unseal the server: it needs {needed} of {shares} unseal shares"
            + (f", and was given {given}" if given else ""),
            cause=Cause.SEALED,
        )

    def require_cluster(self, timeout_s: float = 0) -> Flow[Response | None]:
        """Make sure that the cluster that answers is the one that was proved; fine where none was yet.

        It is one server that has answered, on one connection: where the name leads may change before the next request
        (`_of_the_cluster`).

        Args:
            timeout_s: Another deadline than that of every request.

        Returns:
            The answer, or None where nothing was asked.

        Raises:
            AnotherCluster: It is another one, or states no cluster id.
            HostUnavailable: It does not answer.

        """
        if self._cluster_id is None:
            return None
        response = yield from self._send("GET", HEALTH, None, None, timeout_s)
        stated = response.json()
        if stated.get("sealed") is True:
            raise self._sealed()
        found = plain(stated.get("cluster_id"))
        if found != self._cluster_id:
            raise AnotherCluster(
                f"{self}: another Vault cluster answers under this name ({found or 'it states no id'}, expected "
                f"{self._cluster_id})",
                hint="point the DNS name back to the original cluster; or, if the server was rebuilt or replaced on "
                f"purpose, run `keystore accept-cluster {self.tenancy.organization} KEYSTORE`",
            )
        return response

    def _of_the_cluster(self, answers: Sequence[Response], timeout_s: float = 0) -> Flow[bool]:
        """Tell whether answers came from the cluster that was proved, by asking once more on their connection.

        What was asked before they were says nothing of them: between two requests a name may lead elsewhere.

        Raises:
            AnotherCluster, HostUnavailable: As `require_cluster`.

        """
        stated = yield from self.require_cluster(timeout_s)
        # A server that keeps no connection was asked before and after; nothing more can be known of it.
        return stated is None or stated.fresh or all(one.connection == stated.connection for one in answers)

    def _unsteady(self) -> HostUnavailable:
        return HostUnavailable(
            f"{self}: which server answers changes from request to request",
            hint="see whether its name leads to one cluster alone",
        )


def as_object(stated: object) -> dict[str, Any]:
    """Return a JSON object that a server states; an empty one where it is none."""
    return stated if isinstance(stated, dict) else {}


def seconds(stated: object) -> float:
    """Return a duration that a server states, which is not negative; 0 where it is none."""
    return max(float(stated), 0.0) if isinstance(stated, int | float) else 0.0


def plain(stated: object) -> str:
    """Return a short plain word that a server states, or nothing.

    What else a server says is never repeated: a lying one could say back what it was sent.
    """
    text = str(stated)
    return text if _PLAIN.fullmatch(text) else ""


def _shape(response: Response) -> str:
    return "json" if response.body.lstrip()[:1] == b"{" else "other"
