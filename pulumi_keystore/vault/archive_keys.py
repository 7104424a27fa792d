"""A Vault keystore: certificate login, proof, and create-only archive keys on KV version 1 or 2.

Methods are flows for `Transport` (see there). Sources: the Vault and OpenBao HTTP API pages "TLS certificates auth
method", "KV secrets engine version 1" and "version 2", `/sys/health`, `/sys/internal/ui/mounts`.
"""

from __future__ import annotations

import itertools
import random
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from pulumi_keystore.declarations.tenancy import CANARY_PREFIX, Tenancy
from pulumi_keystore.errors import (
    AccessDenied,
    AnotherCluster,
    HostUnavailable,
    KeystoreFault,
    Overloaded,
    UnableToAuthenticate,
    Unsuitable,
)
from pulumi_keystore.vault import checkpoint
from pulumi_keystore.vault.checkpoint import Checkpoint
from pulumi_keystore.vault.listing import Listing, is_empty
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import REQUEST_TIMEOUT_S, Endpoint, Flow, Pause, Request, Response
from pulumi_keystore.vault.transport import LATE, SEE_LOAD, Transport

PAGE: Final = 1000
"""How many names a list asks for at a time."""
_MOST_NAMES: Final = 50_000
"""How many are kept, some MiB, where a server gives all that it has: a million are looked through 20 times then."""
_OLD_CANARY_S: Final = 600
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_RENEW_AFTER: Final = 2 / 3
REVOKE_TIMEOUT_S: Final = 3.0
_OK: Final = (200, 204)
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
"""What can be sent back in a header."""
_PROOF: Final = "proof "
_HEALTH: Final = "/v1/sys/health?standbyok=true&perfstandbyok=true&sealedcode=200"
_OURS: Final = re.compile(r"[a-z0-9.-]{1,250}")
"""What names of ours look like; another one was not written by us, and may need quoting."""
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}")
_NOT_KEYS: Final = (CANARY_PREFIX, checkpoint.FOLDER)
"""What names of ours begin with that are no archive keys."""
_SHORTEST_LIFE_S: Final = 60
"""A token that lives less long would have to be renewed all the time."""

Step = Generator[Request | Pause, Response | None, Response]
Announce = Callable[[str, str], None]
"""Is told each token, and the cluster that gave it, before it is used for anything; what it raises ends the request."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found while proving a keystore."""

    kv_version: int
    cluster_id: str
    server_version: str


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


class VaultKeystore:
    """One organization's archive keys on one Vault server.

    Args:
        endpoint: Where the server is and who we are.
        tenancy: The organization's mount and role there.
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
        return Place(self.cluster_id, self.tenancy.mount, self.tenancy.organization)

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
                self._token = yield from self._login()
            finally:
                self._logging_in = False

    def require_cluster(self, timeout_s: float = 0) -> Flow[None]:
        """Make sure that the cluster that answers is the one that was proved; fine where none was yet.

        Args:
            timeout_s: Another deadline than that of every request.

        Raises:
            AnotherCluster: It is another one, or states no cluster id.
            HostUnavailable: It does not answer.

        """
        if self._cluster_id is None:
            return
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

    def _login(self) -> Generator[Request | Pause, Response | None, _Token]:
        # Before anything is sent that could be used there. Later requests carry a token of this cluster.
        yield from self.require_cluster()
        body = {"name": self.tenancy.role_name}
        response = yield from self._send("POST", "/v1/auth/cert/login", body, None, wants_index=True)
        auth = response.json().get("auth")
        if response.status in _OK and isinstance(auth, dict) and _TOKEN.fullmatch(str(auth.get("client_token"))):
            token = _Token(
                str(auth["client_token"]),
                self._clock(),
                _seconds(auth.get("lease_duration")) or float("inf"),
                bool(auth.get("renewable")),
                response.index,
            )
            self._kind_of_token = _plain(auth.get("token_type")), _seconds(auth.get("num_uses"))
            if self._announce:
                try:
                    self._announce(token.text, self.cluster_id)
                except BaseException:
                    yield from self.surrender(token.text)
                    raise
            return token
        if response.status in (400, 403):
            raise UnableToAuthenticate(
                f"{self}: refuses this client certificate for the role {self.tenancy.role_name!r}",
                hint="check on the server that auth/cert/certs has this role, and that it allows the certificate's "
                "CA and common name",
            )
        if response.status in (404, 405):
            raise Unsuitable(
                f"{self}: certificate login is not enabled", hint="run `bao auth enable cert` on the server"
            )
        raise HostUnavailable(f"{self}: the answer to the login is not a Vault server's (HTTP {response.status})")

    def _renew(self, token: _Token) -> Generator[Request | Pause, Response | None, bool]:
        response = yield from self._send("POST", "/v1/auth/token/renew-self", {}, token)
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
            try:
                yield from self.surrender(token.text)
            except KeystoreFault:
                return

    def surrender(self, text: str) -> Flow[None]:
        """End a token, ours or one that somebody else got with our certificate; fine if it has ended already.

        Raises:
            HostUnavailable: The server does not answer: the token may still be good.

        """
        token = _Token(text, self._clock(), float("inf"), renewable=False)
        timeout_s = min(self._timeout_s, REVOKE_TIMEOUT_S)
        yield from self._send("POST", "/v1/auth/token/revoke-self", {}, token, timeout_s)

    def login_anew(self) -> None:
        """Let the next request log in again: what is read from then on is not older than that moment."""
        self._token = None

    # Requests.

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
            raise HostUnavailable(f"{self}: {LATE}", hint=SEE_LOAD)
        response = yield Request(self.endpoint, method, path, body, text, timeout_s, index, wants_index, sink)
        assert response is not None  # noqa: S101 - the transport answers every Request
        status = response.status
        if 300 <= status < 400:  # noqa: PLR2004
            raise HostUnavailable(f"{self}: answers with a redirect, and redirects are never followed")
        if status == 429:  # noqa: PLR2004
            raise Overloaded(f"{self}: asks for fewer requests (HTTP 429)")
        if status == 503 and "sealed" in response.errors.lower():  # noqa: PLR2004
            raise self._sealed()
        if status == 503:  # noqa: PLR2004
            raise Overloaded(f"{self}: overloaded or starting (HTTP 503)")
        if status >= 460:  # noqa: PLR2004 - 472 and 473 are Vault's standbys, 5xx are faults
            raise HostUnavailable(f"{self}: fails with HTTP {status}")
        if status == 200 and "json" not in _shape(response):  # noqa: PLR2004
            raise HostUnavailable(f"{self}: the answer is not a Vault server's")
        return response

    def _sealed(self) -> HostUnavailable:
        return HostUnavailable(f"{self}: sealed", hint="unseal the server")

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
        for attempt in (1, 2):
            token = self._token
            response = yield from self._call(method, path, sink=sink)
            if response.status != 403:  # noqa: PLR2004
                return response
            if attempt == 1 and self._token is token:
                self._token = None
        raise AccessDenied(
            f"{self}: the role {self.tenancy.role_name!r} may not {what}",
            hint=f"give its policy what the documentation lists for {self.tenancy.mount}/{self.tenancy.organization}/",
        )

    # Archive keys.

    def _path(self, part: str, name: str = "") -> str:
        tenancy = self.tenancy
        section = f"{part}/" if self._kv_version == 2 else ""  # noqa: PLR2004
        return f"/v1/{tenancy.mount}/{section}{tenancy.organization}/{name}"

    def create(self, record: ArchiveKey, name: str | None = None) -> Flow[bool]:
        """Write a record where nothing is; return False where the server refuses, which `read` explains.

        The refusal means that something is there already, or that the role may not create.
        """
        return (yield from self._create(name or record.name, record.to_body()))

    def _create(self, name: str, body: dict[str, Any]) -> Flow[bool]:
        path = self._path("data", name)
        if self._kv_version == 2:  # noqa: PLR2004
            body = {"options": {"cas": 0}, "data": body}
        response = yield from self._call("POST", path, body)
        if response.status in _OK:
            return True
        if response.status in (400, 403):
            return False
        raise HostUnavailable(f"{self}: answers a write with HTTP {response.status}")

    def ensure(self, record: ArchiveKey) -> Flow[ArchiveKey]:
        """Write a record and read it back; safe to repeat. Returns what lies there, for the caller to compare.

        Raises:
            AccessDenied: The role may not create or read.
            DamagedRecordError: What lies there is no archive key.

        """
        found = yield from self.put(record)
        if found is None:
            found = yield from self.read(record.name)
        if found is None:
            # Written, and gone at once: a standby that lags behind, or somebody deletes. Ask for the latest state.
            self._token = None
            found = yield from self.read(record.name)
        if found is None:
            raise DamagedRecordError("a key that was just written is missing")
        return found

    def put(self, record: ArchiveKey) -> Flow[ArchiveKey | None]:
        """Write a record where nothing is; return what lies there already, or None where it was written.

        Raises:
            AccessDenied: The role may not create.
            DamagedRecordError: What lies there is no archive key.

        """
        for attempt in (1, 2):
            token = self._token
            if (yield from self.create(record)):
                return None
            found = yield from self.read(record.name)
            if found is not None:
                return found
            if attempt == 1 and self._token is token:
                # Nothing there, so the write was refused for another reason: perhaps the token has ended, or a
                # standby that lags behind says so. After a new login neither is possible.
                self._token = None
        raise self._may_not_create()

    def _may_not_create(self) -> AccessDenied:
        return AccessDenied(
            f"{self}: the role {self.tenancy.role_name!r} may not create archive keys",
            hint=f'give its policy "create" below {self.tenancy.mount}/{self.tenancy.organization}/',
        )

    def read(self, name: str) -> Flow[ArchiveKey | None]:
        """Return the record under a name, or None where there is none.

        Raises:
            DamagedRecordError: There is something else under that name.

        """
        found = yield from self._stored(name)
        return None if found is None else replace(ArchiveKey.from_body(found[0]), expires=found[1])

    def _body(self, name: str) -> Flow[dict[str, Any] | None]:
        found = yield from self._stored(name)
        return None if found is None else found[0]

    def _stored(self, name: str) -> Flow[tuple[dict[str, Any], bool] | None]:
        """Return what lies under a name, and whether the mount will delete it by itself."""
        expires = False
        response = yield from self._allowed("GET", self._path("data", name), "read archive keys")
        if response.status == 404:  # noqa: PLR2004
            if "no handler" in response.errors:
                raise Unsuitable(
                    f"{self}: there is no mount {self.tenancy.mount!r}",
                    hint="enable it again, or restore the server from a snapshot that has it",
                )
            return None
        data = response.json().get("data")
        if self._kv_version == 2 and isinstance(data, dict):  # noqa: PLR2004
            metadata = _object(data.get("metadata"))
            if metadata.get("custom_metadata"):
                self.annotated += 1
            expires, data = bool(metadata.get("deletion_time")), data.get("data")
        if response.status != 200 or not isinstance(data, dict):  # noqa: PLR2004
            raise HostUnavailable(f"{self}: answers a read with HTTP {response.status}, which no Vault server does")
        return data, expires

    def origin(self, name: str) -> Flow[str | None]:
        """Return who says to have written what lies under a name, whatever it is; None where there is nothing."""
        body = (yield from self._body(name)) if _OURS.fullmatch(name) else None
        return None if body is None else str(body.get("origin", ""))

    def erase(self, name: str) -> Flow[None]:
        """Remove what lies under a name for good: on version 2 all versions and metadata. Missing is fine.

        It asks nothing: archive keys are removed by `keystores.removal`, which alone may call this for them.
        """
        response = yield from self._allowed("DELETE", self._path("metadata", name), "delete archive keys")
        if response.status not in (*_OK, 404):
            raise HostUnavailable(f"{self}: answers a delete with HTTP {response.status}")

    def names(self, after: str = "") -> Flow[list[str]]:
        """Return the next names in the organization's path, in order (on version 2 deleted ones too); none is the end.

        OpenBao lists a mount of version 2 in pages: the next one comes `after` the last name of this one. Other
        servers and version 1 give everything at once, of which no more is kept than what many pages hold.
        """
        page = f"?after={quote(after, safe='')}&limit={PAGE}" if self._kv_version == 2 else ""  # noqa: PLR2004
        return (yield from self._list(page, lambda: Listing(after, _MOST_NAMES))).names

    def check_list(self) -> Flow[None]:
        """Make sure that the organization's path may be listed.

        Raises:
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        yield from self._list("?limit=1" if self._kv_version == 2 else "", Listing)  # noqa: PLR2004

    def count(self, transport: Transport) -> int:
        """Return how many names there are in the organization's path, canaries and checkpoints not counted.

        Raises:
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        return transport.run_one(self.entries())

    def entries(self) -> Flow[int]:
        """Return the same, as a flow."""
        if self._kv_version == 1:
            return (yield from self._list("", lambda: Listing(without=_NOT_KEYS))).count
        total, page = 0, (yield from self.names())
        while page:
            total += sum(not name.startswith(_NOT_KEYS) for name in page)
            page = yield from self.names(page[-1])
        return total

    def _list(self, query: str, make: Callable[[], Listing], folder: str = "") -> Flow[Listing]:
        listings: list[Listing] = []

        def sink() -> Listing:
            listings.append(make())
            return listings[-1]

        path = self._path("metadata", folder)
        response = yield from self._allowed("LIST", path + query, "list archive keys", sink)
        if response.status == 200 and listings[-1].complete:  # noqa: PLR2004
            return listings[-1]
        if response.status == 404 or (response.status == 200 and is_empty(response.body)):  # noqa: PLR2004
            return make()
        raise HostUnavailable(f"{self}: answers a list with HTTP {response.status}, which no Vault server does")

    def pages(self, transport: Transport) -> Iterator[list[str]]:
        """Yield the names of everything in the organization's path, canaries too, some at a time.

        Raises:
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        names = transport.run_one(self.names())
        while names:
            yield names
            names = transport.run_one(self.names(names[-1]))

    def key_pages(self, transport: Transport) -> Iterator[list[str]]:
        """Yield the same without canaries and checkpoints: archive keys, and what others have put there.

        Raises:
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        for page in self.pages(transport):
            yield [name for name in page if not name.startswith(_NOT_KEYS)]

    # Checkpoints.

    def remembered(self) -> Flow[Checkpoint | None]:
        """Return the latest checkpoint in the organization's path, None where there is none.

        Raises:
            DamagedRecordError: What lies under its name is none.
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        names = (yield from self._list("", lambda: Listing(most=_MOST_NAMES), checkpoint.FOLDER)).names
        name = checkpoint.latest(names)
        body = (yield from self._body(f"{checkpoint.FOLDER}{name}")) if name else None
        return None if body is None else Checkpoint.from_body(body)

    def remember(self, made: Checkpoint) -> Flow[bool]:
        """Write a checkpoint, and remove older ones; return False where another one has its number.

        Raises:
            DamagedRecordError: What lies under its name is none.
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        for attempt in (1, 2):
            token = self._token
            if (yield from self._create(made.name, made.to_body())):
                break
            body = yield from self._body(made.name)
            if body is not None:
                return Checkpoint.from_body(body).nonce == made.nonce
            if attempt == 1 and self._token is token:
                self._token = None
        else:
            raise self._may_not_create()
        for name in (yield from self._list("", lambda: Listing(most=_MOST_NAMES), checkpoint.FOLDER)).names:
            if name < made.name.removeprefix(checkpoint.FOLDER):
                yield from self.erase(f"{checkpoint.FOLDER}{name}")
        return True

    # Proof.

    def identify(self) -> Flow[tuple[str, str]]:
        """Return the cluster id and the version that the server states (`/sys/health`)."""
        health = yield from self._call("GET", _HEALTH)
        stated = health.json()
        return _plain(stated.get("cluster_id")), _plain(stated.get("version"))

    def detect(self) -> Flow[int]:
        """Find out which KV version the mount is, and that it keeps what is written to it.

        Raises:
            Unsuitable: The mount is missing, of another type, or deletes versions by itself.

        """
        mount = self.tenancy.mount
        response = yield from self._call("GET", f"/v1/sys/internal/ui/mounts/{mount}")
        data = _object(response.json().get("data"))
        if response.status in (403, 404):
            raise Unsuitable(
                f"{self}: there is no mount {mount!r} that the role {self.tenancy.role_name!r} may use",
                hint=f"run `bao secrets enable -path={mount} -version=1 kv` and give the role its policy",
            )
        if data.get("type") != "kv":
            raise Unsuitable(
                f"{self}: the mount {mount!r} is of type {_plain(data.get('type'))!r}", hint="name a KV mount"
            )
        version = str(_object(data.get("options")).get("version", "1"))
        self._kv_version = 2 if version == "2" else 1
        if self._kv_version == 2:  # noqa: PLR2004
            config = yield from self._allowed("GET", f"/v1/{mount}/config", f"read {mount}/config")
            after = _plain(_object(config.json().get("data")).get("delete_version_after", "0s"))
            if after not in ("0s", "0", ""):
                raise Unsuitable(
                    f"{self}: the mount {mount!r} deletes what is written after {after}", hint=self.keep_hint()
                )
        return self._kv_version

    def keep_hint(self) -> str:
        """Say what to do where the mount deletes what is written to it."""
        return f"run `bao write {self.tenancy.mount}/config delete_version_after=0s`"

    def prove(self, origin: str = "") -> Flow[Proof]:
        """Prove that the organization can keep archive keys here: write, read, list, delete a canary, in its own path.

        Also that a second write is refused, so that a key can never be overwritten.

        Args:
            origin: What the canary says of who wrote it; a proof and its time by default, for a later one to remove
                what a killed one left.

        Raises:
            KeystoreFault: With the reason and the fix.

        """
        version = yield from self.detect()
        cluster_id, server_version = yield from self.identify()
        self._require_usable_tokens()
        # Of two proofs in one second each removes its own canary.
        origin = origin or f"{_PROOF}{time.time():.0f} {secrets.token_hex(4)}"
        canary = ArchiveKey(self.tenancy.organization, "canary", 1, secrets.token_bytes(32), origin)
        other = ArchiveKey(self.tenancy.organization, "canary", 1, secrets.token_bytes(32), origin)
        name = f"{CANARY_PREFIX}{secrets.token_hex(8)}"
        if not (yield from self.create(canary, name)):
            raise self._may_not_create()
        try:
            overwritten = yield from self.create(other, name)
            if overwritten:
                raise Unsuitable(
                    f"{self}: the role {self.tenancy.role_name!r} may overwrite archive keys",
                    hint='take "update" out of its policy: keys are written once',
                )
            found = yield from self.read(name)
            if found is not None and found.expires:
                raise Unsuitable(f"{self}: the mount deletes what is written by itself", hint=self.keep_hint())
            if found is None or not found.same_key(canary):
                raise Unsuitable(
                    f"{self}: what was written is not what is read back", hint="check the server's storage"
                )
            listed = yield from self.names(name[:-1])
            if name not in listed:
                raise Unsuitable(f"{self}: what was written is not listed", hint="check the server's storage")
        finally:
            yield from self.erase(name)
        if (yield from self.read(name)) is not None:
            yield from self.erase(name)
            raise Unsuitable(f"{self}: what was deleted is still there", hint="check the role's policy")
        yield from self._require_tokens_end(name)
        yield from self.remove_canaries(origin)
        self._cluster_id = cluster_id
        return Proof(version, cluster_id, server_version)

    def _require_usable_tokens(self) -> None:
        """Raise `Unsuitable` unless tokens can be ended and renewed, serve any number of requests, and live a while."""
        kind, uses = self._kind_of_token
        life_s = self._token.ttl_s if self._token else 0.0
        role = self.tenancy.role_name
        if kind != "service":
            raise Unsuitable(
                f"{self}: the role {role!r} gives tokens of type {kind!r}, which cannot be ended",
                hint=f"run `bao write auth/cert/certs/{role} token_type=service`",
            )
        if uses:
            raise Unsuitable(
                f"{self}: the role {role!r} gives tokens for {uses:g} requests",
                hint=f"run `bao write auth/cert/certs/{role} token_num_uses=0`",
            )
        if life_s < _SHORTEST_LIFE_S:
            raise Unsuitable(
                f"{self}: the role {role!r} gives tokens that live {life_s:g} s",
                hint=f"run `bao write auth/cert/certs/{role} token_ttl=3600`",
            )

    def _require_tokens_end(self, name: str) -> Flow[None]:
        """Raise `Unsuitable` unless a token that was ended is refused: whoever is replaced must not go on writing."""
        spare = yield from self._login()
        yield from self.surrender(spare.text)
        response = yield from self._send("GET", self._path("data", name), None, spare)
        if response.status != 403:  # noqa: PLR2004
            raise Unsuitable(
                f"{self}: a token that was ended is still good",
                hint=f'give the policy of the role {self.tenancy.role_name!r} "update" on auth/token/revoke-self',
            )

    def remove_canaries(self, origin: str) -> Flow[None]:
        """Remove the canaries that an origin has left, and those of proofs that were killed long ago."""
        names = yield from self.names(CANARY_PREFIX)
        for name in itertools.takewhile(lambda name: name.startswith(CANARY_PREFIX), names):
            found = (yield from self.origin(name)) or ""
            begun = found.removeprefix(_PROOF).partition(" ")[0]
            old = begun.isdigit() and time.time() - int(begun) > _OLD_CANARY_S
            if old or found == origin:
                yield from self.erase(name)


def _object(stated: object) -> dict[str, Any]:
    return stated if isinstance(stated, dict) else {}


def _seconds(stated: object) -> float:
    return float(stated) if isinstance(stated, int | float) else 0.0


def _plain(stated: object) -> str:
    """Return a short plain word that a server states, or nothing.

    What else a server says is never repeated: a lying one could say back what it was sent.
    """
    text = str(stated)
    return text if _PLAIN.fullmatch(text) else ""


def _shape(response: Response) -> str:
    return "json" if response.body.lstrip()[:1] == b"{" else "other"
