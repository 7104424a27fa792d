"""A Vault keystore: certificate login, proof, and create-only archive keys on KV version 1 or 2.

Methods are flows for `Transport` (see there). Sources: the Vault and OpenBao HTTP API pages "TLS certificates auth
method", "KV secrets engine version 1" and "version 2", `/sys/health`, `/sys/internal/ui/mounts`.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from pulumi_keystore.declarations.tenancy import CANARY_PREFIX
from pulumi_keystore.errors import (
    AccessDenied,
    HostUnavailable,
    Unsuitable,
)
from pulumi_keystore.vault import checkpoint
from pulumi_keystore.vault.checkpoint import Checkpoint
from pulumi_keystore.vault.listing import Listing, is_empty
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.session import _OK, VaultSession, _object, _plain
from pulumi_keystore.vault.transport import Transport

PAGE: Final = 1000
"""How many names a list asks for at a time."""
_MOST_NAMES: Final = 50_000
"""How many are kept, some MiB, where a server gives all that it has: a million are looked through 20 times then."""
_OLD_CANARY_S: Final = 600
_PROOF: Final = "proof "
_OURS: Final = re.compile(r"[a-z0-9.-]{1,250}")
"""What names of ours look like; another one was not written by us, and may need quoting."""
_NOT_KEYS: Final = (CANARY_PREFIX, checkpoint.FOLDER)
"""What names of ours begin with that are no archive keys."""
_SHORTEST_LIFE_S: Final = 60
"""A token that lives less long would have to be renewed all the time."""
_Stored = tuple[dict[str, Any], bool]
"""What lies under a name, and whether the mount will delete it by itself."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found while proving a keystore."""

    kv_version: int
    cluster_id: str
    server_version: str


class VaultKeystore(VaultSession):
    """One organization's archive keys on one Vault server; what it is made of, `VaultSession` says."""

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
            # Where it is gone at once, a standby lags behind, or somebody deletes.
            found = yield from self._after_a_new_login(lambda: self.read(record.name))
        if found is None:
            raise DamagedRecordError("a key that was just written is missing")
        return found

    def put(self, record: ArchiveKey) -> Flow[ArchiveKey | None]:
        """Write a record where nothing is; return what lies there already, or None where it was written.

        Raises:
            AccessDenied: The role may not create.
            DamagedRecordError: What lies there is no archive key.

        """
        return _as_key((yield from self._put(record.name, record.to_body())))

    def _put(self, name: str, body: dict[str, Any]) -> Flow[_Stored | None]:
        """Write a body where nothing is; return what lies there already, or None where it was written."""

        def write() -> Flow[tuple[_Stored | None] | None]:
            if (yield from self._create(name, body)):
                return (None,)
            found = yield from self._stored(name)
            # Refused where nothing is: perhaps the token has ended, or a standby does not know yet what is there.
            return None if found is None else (found,)

        written = yield from self._after_a_new_login(write)
        if written is None:
            raise self._may_not_create()
        return written[0]

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
        return _as_key((yield from self._stored(name)))

    def _body(self, name: str) -> Flow[dict[str, Any] | None]:
        found = yield from self._stored(name)
        return None if found is None else found[0]

    def _stored(self, name: str) -> Flow[_Stored | None]:
        """Return what lies under a name."""
        expires = False
        response = yield from self._allowed("GET", self._path("data", name), "read archive keys")
        if response.status == 404:  # noqa: PLR2004
            if "no handler" in response.errors:
                raise Unsuitable(
                    f"{self}: the mount {self.tenancy.mount!r} does not exist",
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
        found = yield from self._put(made.name, made.to_body())
        if found is not None:
            return Checkpoint.from_body(found[0]).nonce == made.nonce
        for name in (yield from self._list("", lambda: Listing(most=_MOST_NAMES), checkpoint.FOLDER)).names:
            if name < made.name.removeprefix(checkpoint.FOLDER):
                yield from self.erase(f"{checkpoint.FOLDER}{name}")
        return True

    # Proof.

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
                f"{self}: the mount {mount!r} does not exist, or the role {self.tenancy.role_name!r} cannot use it",
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
            found = yield from self._after_a_new_login(lambda: self._read_same(name, canary))
            if found is None:
                raise Unsuitable(
                    f"{self}: what was written is not what is read back", hint="check the server's storage"
                )
            if found.expires:
                raise Unsuitable(f"{self}: the mount deletes what is written by itself", hint=self.keep_hint())
            if not (yield from self._after_a_new_login(lambda: self._lists(name))):
                raise Unsuitable(f"{self}: what was written is not listed", hint="check the server's storage")
        finally:
            yield from self.erase(name)
        if not (yield from self._after_a_new_login(lambda: self._lacks(name))):
            yield from self.erase(name)
            raise Unsuitable(f"{self}: what was deleted is still there", hint="check the role's policy")
        yield from self._require_tokens_end(name)
        yield from self.remove_canaries(origin)
        self._cluster_id = cluster_id
        return Proof(version, cluster_id, server_version)

    def _read_same(self, name: str, record: ArchiveKey) -> Flow[ArchiveKey | None]:
        found = yield from self.read(name)
        return found if found is not None and found.same_key(record) else None

    def _lists(self, name: str) -> Flow[bool | None]:
        return name in (yield from self.names(name[:-1])) or None

    def _lacks(self, name: str) -> Flow[bool | None]:
        return (yield from self.read(name)) is None or None

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

        def refused() -> Flow[bool | None]:
            response = yield from self._send("GET", self._path("data", name), None, spare)
            return True if response.status == 403 else None  # noqa: PLR2004

        if not (yield from self._in_a_while(refused)):
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


def _as_key(stored: _Stored | None) -> ArchiveKey | None:
    return None if stored is None else replace(ArchiveKey.from_body(stored[0]), expires=stored[1])
