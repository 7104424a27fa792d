"""A Vault keystore: archive keys, and the proof that they can be kept there.

Methods are flows for `Transport` (see there). Sources: the Vault and OpenBao HTTP API pages "TLS certificates auth
method", `/sys/health`, `/sys/internal/ui/mounts`, "KV secrets engine version 2" (configuration of a mount).
"""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass
from typing import Final

from pulumi_keystore.declarations.tenancy import CANARY_PREFIX
from pulumi_keystore.errors import Unsuitable
from pulumi_keystore.vault.archive_keys import ArchiveKeys
from pulumi_keystore.vault.exchange import as_object, plain
from pulumi_keystore.vault.record import ArchiveKey
from pulumi_keystore.vault.requests import Flow, Response

_PROOF: Final = "proof "
_under_way: Final[set[str]] = set()
"""Origins of the proofs that this process makes now; the leading service alone makes any."""
_SHORTEST_LIFE_S: Final = 60
"""A token that lives less long would have to be renewed all the time."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found while proving a keystore."""

    kv_version: int
    cluster_id: str
    server_version: str


class VaultKeystore(ArchiveKeys):
    """One organization's keystore on one Vault server; what it is made of, `VaultSession` says."""

    def detect(self) -> Flow[int]:
        """Find out which KV version the mount is, and that it keeps what is written to it.

        Raises:
            Unsuitable: The mount is missing, of another type, or deletes versions by itself.

        """
        mount, path, option = self.tenancy.mount, self.tenancy.path, self.tenancy.option

        def ask() -> Flow[Response | None]:
            response = yield from self._call("GET", self._here(f"sys/internal/ui/mounts/{mount}"))
            return None if response.status in (403, 404) else response

        # A standby may not know the token yet, nor the mount.
        response = yield from self._after_a_new_login(ask)
        data = as_object(response.json().get("data")) if response is not None else {}
        if response is None:
            raise Unsuitable(
                f"{self}: the mount {path!r} does not exist, or the role {self.tenancy.role_name!r} cannot use it",
                hint=f"run `bao secrets enable {option}-path={mount} -version=1 kv` and give the role its policy",
            )
        # A server names it from the namespace that was asked, or from the root one where it is in another.
        if data.get("path") not in (f"{mount}/", f"{path}/"):
            # It answers for the mount that a path leads into; its keys would lie where others have theirs.
            raise Unsuitable(f"{self}: {path!r} is a path in another mount", hint="name the mount itself")
        if data.get("type") != "kv":
            raise Unsuitable(
                f"{self}: the mount {path!r} is of type {plain(data.get('type'))!r}", hint="name a KV mount"
            )
        version = str(as_object(data.get("options")).get("version", "1"))
        self._kv_version = 2 if version == "2" else 1
        if self._kv_version == 2:  # noqa: PLR2004
            config = yield from self._allowed("GET", self._here(f"{mount}/config"), f"read {path}/config")
            after = plain(as_object(config.json().get("data")).get("delete_version_after", "0s"))
            if after not in ("0s", "0", ""):
                raise Unsuitable(
                    f"{self}: the mount {path!r} deletes what is written after {after}", hint=self.keep_hint()
                )
        return self._kv_version

    def keep_hint(self) -> str:
        """Say what to do where the mount deletes what is written to it."""
        return f"run `bao write {self.tenancy.option}{self.tenancy.mount}/config delete_version_after=0s`"

    def prove(self, origin: str = "") -> Flow[Proof]:
        """Prove that the organization can keep archive keys here: write, read, list, delete a canary, in its own path.

        Also that a second write is refused, so that a key can never be overwritten.

        Args:
            origin: What the canary says of who wrote it; this proof by default.

        Raises:
            KeystoreFault: With the reason and the fix.

        """
        version = yield from self.detect()
        cluster_id, server_version = yield from self.identify()
        self._require_usable_tokens()
        proof = f"{_PROOF}{secrets.token_hex(8)}"
        _under_way.add(proof)
        try:
            yield from self._try_a_key(origin or proof)
        finally:
            _under_way.discard(proof)
        yield from self.remove_canaries(origin)
        self._cluster_id = cluster_id
        return Proof(version, cluster_id, server_version)

    def _try_a_key(self, origin: str) -> Flow[None]:
        """Write, read, list and delete a canary."""
        canary = ArchiveKey(self.tenancy.organization, "canary", 1, secrets.token_bytes(32), origin)
        other = ArchiveKey(self.tenancy.organization, "canary", 1, secrets.token_bytes(32), origin)
        name = f"{CANARY_PREFIX}{secrets.token_hex(8)}"
        # A standby may not know the token yet; a write whose answer was lost is written again: what lies there is read.
        yield from self._put(name, canary.to_body())
        try:
            overwritten = yield from self.create(other, name)
            if overwritten:
                raise Unsuitable(
                    f"{self}: the role {self.tenancy.role_name!r} may overwrite archive keys",
                    hint='remove "update" from its policy: keys must not be overwritten',
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
        role, option = self.tenancy.role_name, self.tenancy.option
        if kind != "service":
            raise Unsuitable(
                f"{self}: the role {role!r} gives tokens of type {kind!r}, which cannot be ended",
                hint=f"run `bao write {option}auth/cert/certs/{role} token_type=service`",
            )
        if uses:
            raise Unsuitable(
                f"{self}: the role {role!r} gives tokens for {uses:g} requests",
                hint=f"run `bao write {option}auth/cert/certs/{role} token_num_uses=0`",
            )
        if life_s < _SHORTEST_LIFE_S:
            raise Unsuitable(
                f"{self}: the role {role!r} gives tokens that live {life_s:g} s",
                hint=f"run `bao write {option}auth/cert/certs/{role} token_ttl=3600`",
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

    def remove_canaries(self, origin: str = "") -> Flow[None]:
        """Remove the canaries that an origin has left, and those of proofs that were killed or might not delete."""
        names = yield from self.names(CANARY_PREFIX)
        for name in itertools.takewhile(lambda name: name.startswith(CANARY_PREFIX), names):
            found = (yield from self.origin(name)) or ""
            left = found.startswith(_PROOF) and found not in _under_way
            if left or (origin and found == origin):
                yield from self.erase(name)
