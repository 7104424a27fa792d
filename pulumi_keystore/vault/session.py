"""Requests of one organization to one Vault server: certificate login, renewal, and repeats.

Sources: the Vault and OpenBao HTTP API pages "TLS certificates auth method" and `/auth/token`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from pulumi_keystore.causes import Cause
from pulumi_keystore.clock import now_utc
from pulumi_keystore.declarations.tenancy import Tenancy, within
from pulumi_keystore.errors import (
    AccessDenied,
    HostUnavailable,
    KeystoreFault,
    UnableToAuthenticate,
    Unsuitable,
)
from pulumi_keystore.vault.exchange import HEALTH, OK, Exchange, Step, Token, plain, seconds
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.requests import REQUEST_TIMEOUT_S, Endpoint, Flow, Pause, Request, Response, T

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_RENEW_AFTER: Final = 2 / 3
_REFUSED_WAITS_S: Final = (0.05, 0.2, 1.0)
_LOGINS_OF_OTHERS: Final = 5
"""Between an answer that may be too old and the last one that is not believed. A standby is given more time."""
_TRIES: Final = 10
"""Until two requests in a row are sent on one connection: others of ours are in use beside."""
REVOKE_TIMEOUT_S: Final = 3.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
"""What can be sent back in a header."""
Announce = Callable[[str, str, str], Callable[[], None]]
"""Is told each token, and the cluster and the namespace that gave it, before it is used for anything; what it raises
ends the request. It returns what is called when the token was ended."""


class VaultSession(Exchange):
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
        super().__init__(endpoint, tenancy, timeout_s=timeout_s, cluster_id=cluster_id, until=until, clock=clock)
        self.path = path or tenancy.path
        self._retry_for_s = retry_for_s
        self._kv_version = kv_version
        self._announce = announce
        self._last_success = clock()
        self._token: Token | None = None
        self._logging_in = False
        self._kind_of_token = ("", 0.0)
        self.annotated = 0
        """How many of the keys read carried custom metadata (KV version 2), which no archive key needs."""

    @property
    def place(self) -> Place:
        """Where the organization's keys lie, as far as it is known."""
        return Place(self.cluster_id, self.path, self.tenancy.organization)

    # Logging in.

    def _ensure_token(self) -> Generator[Request | Pause, Response | None, Token]:
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

    def _login(self) -> Generator[Request | Pause, Response | None, Token]:
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
                    token.ended = self._announce(token.text, self.cluster_id, self.tenancy.namespace)
                except BaseException:
                    yield from self.surrender(token.text)
                    raise
            return token
        raise self._unsteady()

    def _give_back(self, token: Token) -> Flow[None]:
        """End a token, if that can be done."""
        try:
            response = yield from self.surrender(token.text)
        except KeystoreFault:
            return
        if response.status in OK and token.ended:
            token.ended()

    def _log_in(self) -> Generator[Request | Pause, Response | None, tuple[Token, Response]]:
        body = {"name": self.tenancy.role_name}
        try:
            response = yield from self._send("POST", self._here("auth/cert/login"), body, None, wants_index=True)
        except HostUnavailable as fault:
            if (
                fault.cause in (Cause.FAILING, Cause.BROKEN_CONNECTION)
                and self.endpoint.certificate.not_after <= now_utc()
            ):
                raise self._expired() from None  # that is what a server fails of then
            raise
        auth = response.json().get("auth")
        if response.status in OK and isinstance(auth, dict) and _TOKEN.fullmatch(str(auth.get("client_token"))):
            token = Token(
                str(auth["client_token"]),
                self._clock(),
                # 0 is a token without an end.
                seconds(auth.get("lease_duration")) or float("inf"),
                bool(auth.get("renewable")),
                response.index,
            )
            self._kind_of_token = plain(auth.get("token_type")), seconds(auth.get("num_uses"))
            return token, response
        if response.status in (400, 403) and self.endpoint.certificate.not_after <= now_utc():
            raise self._expired()
        if response.status in (400, 403) and "matching all constraints" in response.errors:
            raise UnableToAuthenticate(
                f"{self}: refuses this client certificate for the role {self.tenancy.role_name!r}, which allows "
                "other names",
                hint="compare the names that the role allows with the certificate's; it may also be revoked",
                cause=Cause.NAME_REFUSED,
            )
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

    def _expired(self) -> UnableToAuthenticate:
        ended = self.endpoint.certificate.not_after
        return UnableToAuthenticate(
            f"{self}: the client certificate has expired, on {ended:%Y-%m-%d}",
            hint="issue a new one, edit the keystore and give it",
            cause=Cause.CLIENT_EXPIRED,
        )

    def _certs(self) -> str:
        """Say where the role is: a server does not tell a missing namespace from a missing role."""
        namespace = self.tenancy.namespace
        return f"the namespace {namespace!r} exists and its auth/cert/certs" if namespace else "auth/cert/certs"

    def _renew(self, token: Token) -> Generator[Request | Pause, Response | None, bool]:
        response = yield from self._send("POST", self._here("auth/token/renew-self"), {}, token)
        auth = response.json().get("auth")
        if response.status != 200 or not isinstance(auth, dict):  # noqa: PLR2004
            return False
        token.issued, token.ttl_s = self._clock(), seconds(auth.get("lease_duration"))
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
        token = Token(text, self._clock(), float("inf"), renewable=False)
        timeout_s = min(self._timeout_s, REVOKE_TIMEOUT_S)
        given_in = self.tenancy.namespace if namespace is None else namespace
        path = f"/v1/{within(given_in, 'auth/token/revoke-self')}"
        return (yield from self._send("POST", path, {}, token, timeout_s))

    def login_anew(self) -> None:
        """Let the next request log in again: what is read from then on is not older than that moment."""
        self._token = None

    # Requests.

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
        stated = (yield from self._call("GET", HEALTH)).json()
        return stated.get("standby") is True or stated.get("performance_standby") is True

    def identify(self) -> Flow[tuple[str, str]]:
        """Return the cluster id and the version that the server states (`/sys/health`)."""
        health = yield from self._call("GET", HEALTH)
        stated = health.json()
        return plain(stated.get("cluster_id")), plain(stated.get("version"))
