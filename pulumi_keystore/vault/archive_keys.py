"""Create-only archive keys, and checkpoints, on a mount of KV version 1 or 2.

Methods are flows for `Transport` (see there). Sources: the Vault and OpenBao HTTP API pages "KV secrets engine version
1" and "version 2".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from pulumi_keystore.vault.exchange import OK, as_object
from pulumi_keystore.vault.listing import MOST_NAMES, Listing, is_empty
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.session import VaultSession
from pulumi_keystore.vault.transport import Transport

PAGE: Final = 1000
"""How many names a list asks for at a time."""
_MOST_NAMES: Final = 50_000
"""How many are kept, some MiB, where a server gives all that it has: a million are looked through 20 times then."""
_MOST_CHECKPOINTS: Final = 20_000
"""Where older ones may not be removed they pile up; the latest is the last of the list."""
_SOME_MORE: Final = 10_000
"""How many more entries than expected are counted."""
_OURS: Final = re.compile(r"[a-z0-9.-]{1,250}")
"""What names of ours look like; another one was not written by us, and may need quoting."""
_NOT_KEYS: Final = (CANARY_PREFIX, checkpoint.FOLDER)
"""What names of ours begin with that are no archive keys."""
_Stored = tuple[dict[str, Any], bool]
"""What lies under a name, and whether the mount will delete it by itself."""


class ArchiveKeys(VaultSession):
    """One organization's archive keys on one Vault server; what it is made of, `VaultSession` says."""

    def _path(self, part: str, name: str = "") -> str:
        section = f"{part}/" if self._kv_version == 2 else ""  # noqa: PLR2004
        return f"/v1/{self.path}/{section}{self.tenancy.organization}/{name}"

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
        if response.status in OK:
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
            hint=f'give its policy "create" below {self.path}/{self.tenancy.organization}/',
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
                    f"{self}: the mount {self.path!r} does not exist",
                    hint="enable it again, or restore the server from a snapshot that has it",
                )
            return None
        data = response.json().get("data")
        if self._kv_version == 2 and isinstance(data, dict):  # noqa: PLR2004
            metadata = as_object(data.get("metadata"))
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
        if response.status not in (*OK, 404):
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
        first = lambda: Listing(first_is_enough=True)  # noqa: E731
        yield from self._list("?limit=1" if self._kv_version == 2 else "", first)  # noqa: PLR2004

    def count(self, transport: Transport) -> int:
        """Return how many names there are in the organization's path, canaries and checkpoints not counted.

        Raises:
            KeystoreFault: The keystore cannot be reached or does not allow it.

        """
        return transport.run_one(self.entries())

    def entries(self, expected: int = MOST_NAMES) -> Flow[int]:
        """Return the same, as a flow.

        Args:
            expected: About how many there should be; of a list that is far longer it is said that it cannot be right.

        """
        most = min(expected + _SOME_MORE, MOST_NAMES)
        if self._kv_version == 1:
            return (yield from self._list("", lambda: Listing(without=_NOT_KEYS, at_most=most))).count
        total, page = 0, (yield from self.names())
        while page and total <= most:
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
        names, seen = transport.run_one(self.names()), 0
        while names:
            yield names
            seen += len(names)
            if seen > MOST_NAMES:
                raise HostUnavailable(f"{self}: lists more than {MOST_NAMES:,} entries, and no end of them")
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
        name = checkpoint.latest((yield from self._checkpoints()))
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
        for name in filter(checkpoint.is_ours, (yield from self._checkpoints())):
            if name < made.name.removeprefix(checkpoint.FOLDER):
                yield from self.erase(f"{checkpoint.FOLDER}{name}")
        return True

    def _checkpoints(self) -> Flow[list[str]]:
        """Return the names in the folder of checkpoints: one, and a few where some could not be removed."""
        make = lambda: Listing(most=_MOST_CHECKPOINTS, at_most=_MOST_CHECKPOINTS)  # noqa: E731
        return (yield from self._list("", make, checkpoint.FOLDER)).names


def _as_key(stored: _Stored | None) -> ArchiveKey | None:
    return None if stored is None else replace(ArchiveKey.from_body(stored[0]), expires=stored[1])
