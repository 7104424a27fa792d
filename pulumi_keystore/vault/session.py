"""Requests of one organization to one Vault server: certificate login, renewal, repeats, and what answers mean.

Sources: the Vault and OpenBao HTTP API pages "TLS certificates auth method", `/auth/token`, `/sys/health`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pulumi_keystore.causes import Cause
from pulumi_keystore.declarations.tenancy import Tenancy, within
from pulumi_keystore.errors import (
    AccessDenied,
    AnotherCluster,
    HostUnavailable,
    KeystoreFault,
    Overloaded,
    RateLimited,
    UnableToAuthenticate,
    Unsuitable,
)
from pulumi_keystore.vault.faults import LATE, SEE_LOAD
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.requests import REQUEST_TIMEOUT_S, Endpoint, Flow, Pause, Request, Response, T, Validity

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_RENEW_AFTER: Final = 2 / 3
_REFUSED_WAITS_S: Final = (0.05, 0.2, 1.0)
_LOGINS_OF_OTHERS: Final = 5
"""Between an answer that may be too old and the last one that is not believed. A standby is given more time."""
_TRIES: Final = 10
"""Until two requests in a row are sent on one connection: others of ours are in use beside."""
REVOKE_TIMEOUT_S: Final = 3.0
_OK: Final = (200, 204)
_MOST_SHARES: Final = 255
"""Of an unseal key (Shamir's scheme over bytes)."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
"""What can be sent back in a header."""
_HEALTH: Final = "/v1/sys/health?standbyok=true&perfstandbyok=true&sealedcode=200"
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")
Step = Generator[Request | Pause, Response | None, Response]
Announce = Callable[[str, str, str], None]
"""Is told each token, and the cluster and the namespace that gave it, before it is used for anything; what it raises
ends the request."""


@dataclass(slots=True)
class _Token:
    """A client token; its text is in no repr."""

    text: str
    issued: float
    ttl_s: float
    renewable: bool
    index: str = ""
    """The server's state after the login, which is a write: what is read with this token is not older."""

    def __repr__(self) -> str:
        return f"_Token(ttl_s={self.ttl_s:g})"


class VaultSession:
    """What one organization sends to one Vault server, and the token it is sent with.

    Args:
        endpoint: Where the server is and who we are.
        tenancy: The organization's namespace, mount and role there.
        path: The mount, as the root namespace spells it, where it is not the tenancy's: only that is touched then.
        retry_for_s: For how long after the last success faults of the host are retried; 0 for never.
        timeout_s: Deadline of each request.
        kv_version: Version of the mount where it is known already.
        cluster_id: The cluster it has to be, where that is known already: another one is not logged in to.
        until: The moment (of `clock`) at which every request has to have ended.
        announce: Is told each token before it is used for anything.
        clock: Monotonic seconds.

    """

    def __init__(
        self,
        endpoint: Endpoint,
        tenancy: Tenancy,
        *,
        path: str | None = None,
        retry_for_s: float = 0,
        timeout_s: float = REQUEST_TIMEOUT_S,
        kv_version: int | None = None,
        cluster_id: str | None = None,
        until: float = float("inf"),
        announce: Announce | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.tenancy = tenancy
        self.path = path or tenancy.path
        self._retry_for_s = retry_for_s
        self._timeout_s = timeout_s
        self._kv_version = kv_version
        self._cluster_id = cluster_id
        self._until = until
        self._announce = announce
        self._clock = clock
        self._last_success = clock()
        self._token: _Token | None = None
        self._logging_in = False
        self._kind_of_token = ("", 0.0)
        self.certificate: Validity | None = None
        """That of the certificate which the server has shown last."""
        self.annotated = 0
        """How many of the keys read carried custom metadata (KV version 2), which no archive key needs."""

    def __str__(self) -> str:
        return str(self.endpoint.address)

    @property
    def cluster_id(self) -> str:
        """The cluster it has to be, or was found to be; empty as long as that is not known."""
        return self._cluster_id or ""

    @property
    def place(self) -> Place:
        """Where the organization's keys lie, as far as it is known."""
        return Place(self.cluster_id, self.path, self.tenancy.organization)

    # Logging in.

    def _ensure_token(self) -> Generator[Request | Pause, Response | None, _Token]:
        """Return a valid token: the one there is, renewed at two thirds of its life, or a new one."""
        while True:
            token = self._token
            age = self._clock() - token.issued if token else 0.0
            if token and (self._logging_in or age < token.ttl_s * _RENEW_AFTER):
                return token
            if self._logging_in:
                yield Pause(0.01)
                continue
            self._logging_in = True
            try:
                if token and token.renewable and age < token.ttl_s and (yield from self._renew(token)):
                    return token
                # Used once, however short the life that the server gives it: this must come to an end.
                self._token = token = yield from self._login()
                return token
            finally:
                self._logging_in = False

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
        response = yield from self._send("GET", _HEALTH, None, None, timeout_s)
        stated = response.json()
        if stated.get("sealed") is True:
            raise self._sealed()
        found = _plain(stated.get("cluster_id"))
        if found != self._cluster_id:
            raise AnotherCluster(
                f"{self}: another Vault cluster answers under this name ({found or 'it states no id'}, expected "
                f"{self._cluster_id})",
                hint="lead the name back to the right one; or, if the server was rebuilt or replaced on purpose, run "
                f"`keystore accept-cluster {self.tenancy.organization} KEYSTORE`",
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

    def _login(self) -> Generator[Request | Pause, Response | None, _Token]:
        """Return a new token, surely of the cluster that was proved: whatever it is used for happens there or nowhere.

        Raises:
            KeystoreFault: There is none to be had; AnotherCluster where another one answers.

        """
        for _ in range(_TRIES):
            # Before anything is sent that could be used there.
            yield from self.require_cluster()
            token, response = yield from self._log_in()
            try:
                right = yield from self._of_the_cluster([response])
            except KeystoreFault:
                yield from self._give_back(token)
                raise
            if not right:
                yield from self._give_back(token)
                continue
            if self._announce:
                try:
                    self._announce(token.text, self.cluster_id, self.tenancy.namespace)
                except BaseException:
                    yield from self.surrender(token.text)
                    raise
            return token
        raise self._unsteady()

    def _give_back(self, token: _Token) -> Flow[None]:
        """End a token that was used for nothing, if that can be done."""
        try:
            yield from self.surrender(token.text)
        except KeystoreFault:
            return

    def _unsteady(self) -> HostUnavailable:
        return HostUnavailable(
            f"{self}: which server answers changes from request to request",
            hint="see whether its name leads to one cluster alone",
        )

    def _log_in(self) -> Generator[Request | Pause, Response | None, tuple[_Token, Response]]:
        body = {"name": self.tenancy.role_name}
        response = yield from self._send("POST", self._here("auth/cert/login"), body, None, wants_index=True)
        auth = response.json().get("auth")
        if response.status in _OK and isinstance(auth, dict) and _TOKEN.fullmatch(str(auth.get("client_token"))):
            token = _Token(
                str(auth["client_token"]),
                self._clock(),
                # 0 is a token without an end.
                _seconds(auth.get("lease_duration")) or float("inf"),
                bool(auth.get("renewable")),
                response.index,
            )
            self._kind_of_token = _plain(auth.get("token_type")), _seconds(auth.get("num_uses"))
            return token, response
        if response.status in (400, 403):
            raise UnableToAuthenticate(
                f"{self}: refuses this client certificate for the role {self.tenancy.role_name!r}",
                hint=f"check on the server that {self._certs()} has this role, and that it allows the certificate's "
                "CA and common name",
            )
        if response.status in (404, 405):
            raise Unsuitable(
                f"{self}: certificate login is not enabled",
                hint=f"run `bao auth enable {self.tenancy.option}cert` on the server",
                cause=Cause.LOGIN_DISABLED,
            )
        raise HostUnavailable(
            f"{self}: the answer to the login is not a Vault server's (HTTP {response.status})", cause=Cause.NOT_VAULT
        )

    def _certs(self) -> str:
        """Say where the role is: a server does not tell a missing namespace from a missing role."""
        namespace = self.tenancy.namespace
        return f"the namespace {namespace!r} exists and its auth/cert/certs" if namespace else "auth/cert/certs"

    def _renew(self, token: _Token) -> Generator[Request | Pause, Response | None, bool]:
        response = yield from self._send("POST", self._here("auth/token/renew-self"), {}, token)
        auth = response.json().get("auth")
        if response.status != 200 or not isinstance(auth, dict):  # noqa: PLR2004
            return False
        token.issued, token.ttl_s = self._clock(), _seconds(auth.get("lease_duration"))
        # Near its maximum age a token is renewed for less and less: then a new login serves better.
        return token.ttl_s > 60  # noqa: PLR2004

    def revoke(self) -> Flow[None]:
        """Give the token back: nothing that was sent with it can take effect any more. Failure is harmless."""
        token, self._token = self._token, None
        if token:
            yield from self._give_back(token)

    def end_tokens(self, tokens: Sequence[tuple[str, str]]) -> Flow[None]:
        """End tokens that others got with our certificate, each in the namespace that gave it, at their very cluster.

        Another one would refuse them as it refuses those that have ended.

        Raises:
            HostUnavailable: The server does not answer, or is another cluster: they may still be good.

        """
        for _ in range(_TRIES):
            yield from self.require_cluster(REVOKE_TIMEOUT_S)
            answers = []
            for text, namespace in tokens:
                answers.append((yield from self.surrender(text, namespace)))
            if not answers or (yield from self._of_the_cluster(answers, REVOKE_TIMEOUT_S)):
                return
        raise self._unsteady()

    def surrender(self, text: str, namespace: str | None = None) -> Flow[Response]:
        """End a token, ours or one that somebody else got with our certificate; fine if it has ended already.

        Args:
            text: The token.
            namespace: Where it was given, our own by default: Vault ends it nowhere else, and does not say so.

        Raises:
            HostUnavailable: The server does not answer: the token may still be good.

        """
        token = _Token(text, self._clock(), float("inf"), renewable=False)
        timeout_s = min(self._timeout_s, REVOKE_TIMEOUT_S)
        given_in = self.tenancy.namespace if namespace is None else namespace
        path = f"/v1/{within(given_in, 'auth/token/revoke-self')}"
        return (yield from self._send("POST", path, {}, token, timeout_s))

    def login_anew(self) -> None:
        """Let the next request log in again: what is read from then on is not older than that moment."""
        self._token = None

    # Requests.

    def _here(self, path: str) -> str:
        """Return the URL of a path in the tenancy's namespace."""
        return f"/v1/{within(self.tenancy.namespace, path)}"

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        token: _Token | None,
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
            f"{self}: not initialized", hint="it is empty: bring its storage back", cause=Cause.UNINITIALIZED
        )

    def why_sealed(self) -> Flow[HostUnavailable]:
        """Return the fault of a server that is sealed, with how many unseal shares it lacks (`/sys/seal-status`).

        Raises:
            HostUnavailable: It does not answer.

        """
        stated = (yield from self._send("GET", "/v1/sys/seal-status", None, None)).json()
        if stated.get("initialized") is False:
            return self._uninitialized()
        needed, shares, given = (round(_seconds(stated.get(name))) for name in ("t", "n", "progress"))
        if not 0 <= given < needed <= shares <= _MOST_SHARES:
            return self._sealed()
        return HostUnavailable(
            f"{self}: sealed",
            hint=f"unseal the server: it needs {needed} of {shares} unseal shares"
            + (f", and was given {given}" if given else ""),
            cause=Cause.SEALED,
        )

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        sink: Callable[[], Callable[[bytes], None]] | None = None,
    ) -> Step:
        """Send an authenticated request, retrying faults of the host for as long as patience lasts.

        With a `sink` the body of the answer goes to what it returns, which is made anew for each attempt.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                token = yield from self._ensure_token()
                response = yield from self._send(method, path, body, token, sink=sink() if sink else None)
            except HostUnavailable:
                if self._clock() - self._last_success >= self._retry_for_s:
                    raise
                yield Pause(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            else:
                self._last_success = self._clock()
                return response

    def _allowed(
        self, method: str, path: str, what: str, sink: Callable[[], Callable[[bytes], None]] | None = None
    ) -> Step:
        """Send a request that the role must be allowed to make; log in once more before giving up."""

        def ask() -> Flow[Response | None]:
            response = yield from self._call(method, path, sink=sink)
            return None if response.status == 403 else response  # noqa: PLR2004

        response = yield from self._after_a_new_login(ask)
        if response is not None:
            return response
        raise AccessDenied(
            f"{self}: the role {self.tenancy.role_name!r} may not {what}",
            hint=f"give its policy what the documentation lists for {self.path}/{self.tenancy.organization}/",
        )

    def _after_a_new_login(self, ask: Callable[[], Flow[T | None]]) -> Flow[T | None]:
        """Ask until there is an answer; None counts only after a login that began after another None.

        A token may have ended, and a standby that lags behind may not know what was written: it answers from a state
        that is at least as new as the token it is shown. Tokens are shared, and others may have logged in meanwhile,
        but nobody knows whether late enough. A server that lets no token live is asked no more often for it.
        """
        for _ in range(_LOGINS_OF_OTHERS):
            token = self._token
            found = yield from ask()
            if found is not None:
                return found
            if self._token is token and not self._logging_in:
                break
        self._token = None
        return (yield from self._in_a_while(ask))

    def _in_a_while(self, ask: Callable[[], Flow[T | None]]) -> Flow[T | None]:
        """Ask until there is an answer; None counts only after some moments, and from a node that was active before.

        For a moment a standby knows less than the state that it has already (OpenBao 2.7: what it keeps in memory
        follows its storage a little later). How long that is depends on its load and its network, so that a standby is
        asked for as long as it would be if it were away. It may become the active node between two requests.
        """
        until, waits, last = self._clock() + self._retry_for_s, iter(_REFUSED_WAITS_S), False
        while (found := (yield from ask())) is None and not last:
            wait = next(waits, None)
            if wait is None:
                last = self._clock() >= until or not (yield from self._meets_a_standby())
                wait = _LONGEST_PAUSE_S
            if not last:
                yield Pause(wait)
        return found

    def _meets_a_standby(self) -> Flow[bool]:
        """Tell whether what answers is a standby, which may not know yet what the active node knows."""
        stated = (yield from self._call("GET", _HEALTH)).json()
        return stated.get("standby") is True or stated.get("performance_standby") is True

    def identify(self) -> Flow[tuple[str, str]]:
        """Return the cluster id and the version that the server states (`/sys/health`)."""
        health = yield from self._call("GET", _HEALTH)
        stated = health.json()
        return _plain(stated.get("cluster_id")), _plain(stated.get("version"))


def _object(stated: object) -> dict[str, Any]:
    return stated if isinstance(stated, dict) else {}


def _seconds(stated: object) -> float:
    """Return a duration that a server states, which is not negative; 0 where it is none."""
    return max(float(stated), 0.0) if isinstance(stated, int | float) else 0.0


def _plain(stated: object) -> str:
    """Return a short plain word that a server states, or nothing.

    What else a server says is never repeated: a lying one could say back what it was sent.
    """
    text = str(stated)
    return text if _PLAIN.fullmatch(text) else ""


def _shape(response: Response) -> str:
    return "json" if response.body.lstrip()[:1] == b"{" else "other"
