"""The client of the control plane's API, used by the CLI and the Pulumi providers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, urlsplit

import httpx

from pulumi_keystore.errors import KeystoreError, ServiceUnavailable, from_problem

if TYPE_CHECKING:
    from pulumi_keystore.answers import (
        CleanUpAnswer,
        HealthAnswer,
        HistoryAnswer,
        IncidentAnswer,
        KeystoreAnswer,
        ListedOrganizationAnswer,
        MigrationAnswer,
        MigrationPlanAnswer,
        MonitorAnswer,
        OrganizationAnswer,
        ReceiverAnswer,
        RecoveryAnswer,
        ReportAnswer,
        StatusAnswer,
        TokenAnswer,
        UnchangedAnswer,
    )

DEFAULT_URL: Final = "http://127.0.0.1:8700"
TIMEOUT_S: Final = 120.0
_PAGE: Final = 1000
"""How many rows of a list are asked for at a time."""
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class Client:
    """Speaks to one service with one token; the token is in no repr.

    Args:
        url: Where the service is, `DEFAULT_URL` if None. Plain HTTP is accepted for loopback only.
        token: An API token.
        ca_file: PEM file of the CA that the service's certificate is verified with; the public CAs if None.

    Raises:
        KeystoreError: The URL is unusable.

    """

    def __init__(self, url: str | None = None, token: str | None = None, ca_file: str | None = None) -> None:
        url = url or DEFAULT_URL
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise KeystoreError(f"invalid service URL {url[:100]!r}", hint="give for example https://HOST:8700")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise KeystoreError(
                f"the service URL {url[:100]!r} would send the token in clear", hint="use https:// for another machine"
            )
        self.url = url.rstrip("/")
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
        # Ambient proxies and .netrc must not see the token.
        self._http = httpx.Client(
            base_url=self.url,
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=verify,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, *path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """Make a request; `path` are segments after /v1, quoted here. Returns the JSON answer.

        Raises:
            KeystoreError: The error the service answered with.
            ServiceUnavailable: There was no answer.

        """
        answer = self._send(method, path, body, query)
        return answer.json() if answer.content else None

    def text(self, *path: str, **query: Any) -> str:
        """Make a GET request for something other than JSON; see `request`."""
        return self._send("GET", path, None, query).text

    def _send(
        self, method: str, path: tuple[str, ...], body: Mapping[str, Any] | None, query: dict[str, Any]
    ) -> httpx.Response:
        target = "/v1/" + "/".join(quote(segment, safe="") for segment in path)
        try:
            answer = self._http.request(method, target, json=body, params=query)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                f"the keystore service at {self.url} does not answer ({type(error).__name__})",
                hint="start it with `keystore serve`, or set KEYSTORE_URL",
            ) from None
        if answer.is_success:
            return answer
        try:
            document = answer.json()
        except ValueError:
            document = {}
        if not isinstance(document, dict) or not {"type", "title"} <= document.keys():
            raise ServiceUnavailable(
                f"{self.url} answers HTTP {answer.status_code}, and not as a keystore service does",
                hint="check KEYSTORE_URL",
            )
        raise from_problem(document)

    def _pages(self, *path: str, by: str = "id", next_page: str = "after", **query: Any) -> Iterator[Any]:
        """Yield the rows of a list that comes page by page; `by` is what the next page begins after, or before."""
        while page := self.request("GET", *path, limit=_PAGE, **query):
            yield from page
            if len(page) < _PAGE:
                return
            query[next_page] = page[-1][by]

    # Organizations.

    def put_organization(
        self, organization: str, environment: str = "cloud", *, mark: str | None = None
    ) -> OrganizationAnswer:
        """Create an organization, or return the one there is."""
        body = {"environment": environment}
        return cast(
            "OrganizationAnswer", self.request("PUT", "organizations", organization, body=body, **_marked(mark))
        )

    def organization(self, organization: str) -> OrganizationAnswer:
        """Return an organization."""
        return cast("OrganizationAnswer", self.request("GET", "organizations", organization))

    def status(self, organization: str) -> StatusAnswer:
        """Return an organization with its active keystore, tested now, and the running migration."""
        return cast("StatusAnswer", self.request("GET", "organizations", organization, "status"))

    def organizations(
        self, search: str = "", problem: str | None = None, sort: str = "name", after: str = ""
    ) -> Iterator[ListedOrganizationAnswer]:
        """Yield the organizations that the token may see.

        Args:
            search: Only those whose name holds this.
            problem: Only those with this `Problem`, or with "any".
            sort: An `Order`.
            after: Only those that come after this one.

        """
        wanted: dict[str, Any] = {"search": search, "sort": sort, "after": after} | (
            {"problem": problem} if problem else {}
        )
        return self._pages("organizations", by="name", **wanted)

    def problems(self) -> dict[str, int]:
        """Return how many organizations have each problem."""
        return cast("dict[str, int]", self.request("GET", "problems"))

    def delete_organization(self, organization: str, *, mark: str | None = None) -> None:
        """Delete an organization that has no keystores and no keys."""
        self.request("DELETE", "organizations", organization, **_marked(mark))

    # Keystores.

    def put_keystore(
        self,
        organization: str,
        name: str,
        declaration: Mapping[str, Any],
        *,
        adopt: bool = False,
        mark: str | None = None,
    ) -> KeystoreAnswer:
        """Prove and register a keystore."""
        path = ("organizations", organization, "keystores", name)
        return cast("KeystoreAnswer", self.request("PUT", *path, body=declaration, adopt=adopt, **_marked(mark)))

    def swap_keystore(
        self, organization: str, name: str, declaration: Mapping[str, Any], *, mark: str | None = None
    ) -> KeystoreAnswer:
        """Prove and swap in a new address, certificate or both."""
        path = ("organizations", organization, "keystores", name, "swap")
        return cast("KeystoreAnswer", self.request("POST", *path, body=declaration, **_marked(mark)))

    def edit_keystore(self, organization: str, name: str, changes: Mapping[str, Any]) -> KeystoreAnswer:
        """Prove and swap in what changes of a keystore; what is left out stays."""
        path = ("organizations", organization, "keystores", name)
        return cast("KeystoreAnswer", self.request("PATCH", *path, body=changes))

    def prove_keystore(self, organization: str, name: str) -> KeystoreAnswer:
        """Prove a keystore as it is registered."""
        return cast("KeystoreAnswer", self.request("POST", "organizations", organization, "keystores", name, "prove"))

    def keystores(self, organization: str) -> list[KeystoreAnswer]:
        """Return the keystores of an organization, by name."""
        return cast("list[KeystoreAnswer]", self.request("GET", "organizations", organization, "keystores"))

    def keystore(self, organization: str, name: str) -> KeystoreAnswer:
        """Return a keystore."""
        return cast("KeystoreAnswer", self.request("GET", "organizations", organization, "keystores", name))

    def delete_keystore(self, organization: str, name: str, *, mark: str | None = None) -> None:
        """Forget a keystore."""
        self.request("DELETE", "organizations", organization, "keystores", name, **_marked(mark))

    def accept_cluster(self, organization: str, name: str) -> KeystoreAnswer:
        """Use the cluster that answers under a keystore's name now."""
        path = ("organizations", organization, "keystores", name, "accept-cluster")
        return cast("KeystoreAnswer", self.request("POST", *path))

    # Archive keys, and what keeps them safe.

    def destroy_key(self, organization: str, user: str, reason: str) -> None:
        """Take a user's archive key out of escrow for good."""
        body = {"user": user, "reason": reason}
        self.request("POST", "organizations", organization, "archive-keys", "destroy", body=body)

    def give_up_keys(self, organization: str, users: Sequence[str], reason: str) -> int:
        """Note that users' keys may be missing; return how many."""
        body = {"users": list(users), "reason": reason}
        return int(
            self.request("POST", "organizations", organization, "archive-keys", "give-up", body=body)["given_up"]
        )

    def verify(self, organization: str) -> ReportAnswer:
        """Return what a look through every archive key has found."""
        return cast("ReportAnswer", self.request("POST", "organizations", organization, "verify"))

    def plan_recovery(self, organization: str, without: Sequence[str] = ()) -> RecoveryAnswer:
        """Return what a recovery would take over, without some keystores that are gone for good."""
        path = ("organizations", organization, "recovery")
        return cast("RecoveryAnswer", self.request("GET", *path, without=list(without)))

    def recover(self, organization: str, code: str, without: Sequence[str] = ()) -> RecoveryAnswer:
        """Recover an organization as the plan of that code says."""
        body = {"code": code, "without": list(without)}
        return cast("RecoveryAnswer", self.request("POST", "organizations", organization, "recovery", body=body))

    def clean_ups(self, organization: str, *, ended: bool = False) -> list[CleanUpAnswer]:
        """Return the clean-ups that are pending, or all."""
        return list(self._pages("organizations", organization, "clean-ups", ended=ended))

    def retry_clean_up(self, organization: str, number: int) -> CleanUpAnswer:
        """Try a clean-up now."""
        return cast(
            "CleanUpAnswer", self.request("POST", "organizations", organization, "clean-ups", str(number), "retry")
        )

    def abandon_clean_up(self, organization: str, number: int, reason: str) -> CleanUpAnswer:
        """Give a clean-up up."""
        path = ("organizations", organization, "clean-ups", str(number), "abandon")
        return cast("CleanUpAnswer", self.request("POST", *path, body={"reason": reason}))

    # Health.

    def health(self, organization: str, keystore: str, period: str = "hour") -> HealthAnswer:
        """Return status, reason, detail and the last hour, day or month of a self-administered keystore."""
        path = ("organizations", organization, "keystores", keystore, "health")
        return cast("HealthAnswer", self.request("GET", *path, period=period))

    def incidents(
        self, organization: str, keystore: str, limit: int = 100, before: int | None = None
    ) -> list[IncidentAnswer]:
        """List the times in which a self-administered keystore was offline, the latest first; those before one."""
        path = ("organizations", organization, "keystores", keystore, "incidents")
        return list(islice(self._pages(*path, next_page="before", **_begun("before", before)), limit))

    def monitor(self, organization: str, keystore: str) -> MonitorAnswer:
        """Return the alert recipients and timings of a keystore."""
        return cast(
            "MonitorAnswer", self.request("GET", "organizations", organization, "keystores", keystore, "monitor")
        )

    def put_monitor(
        self,
        organization: str,
        keystore: str,
        alerting: Mapping[str, Any],
        *,
        adopt: bool = True,
        mark: str | None = None,
    ) -> MonitorAnswer:
        """Set the alert recipients and timings of a keystore."""
        path = ("organizations", organization, "keystores", keystore, "monitor")
        return cast("MonitorAnswer", self.request("PUT", *path, body=alerting, adopt=adopt, **_marked(mark)))

    def test_monitor(self, organization: str, keystore: str) -> list[ReceiverAnswer]:
        """Send a test to everyone that a monitor names now; return what each receiver answered."""
        path = ("organizations", organization, "keystores", keystore, "monitor", "test")
        return cast("list[ReceiverAnswer]", self.request("POST", *path))

    def delete_monitor(self, organization: str, keystore: str, *, mark: str | None = None) -> None:
        """Remove the monitor; health checks continue."""
        self.request("DELETE", "organizations", organization, "keystores", keystore, "monitor", **_marked(mark))

    def history(self, organization: str | None, limit: int, before: int | None = None) -> list[HistoryAnswer]:
        """Return the latest entries of an organization's history, or of the service's own, before one; oldest first."""
        path = ("organizations", organization, "history") if organization else ("history",)
        rows: list[HistoryAnswer] = []
        while len(rows) < limit:
            wanted = min(limit - len(rows), _PAGE)
            page = self.request("GET", *path, limit=wanted, **_begun("before", before))
            rows = [*page, *rows]
            if len(page) < wanted:
                break
            before = rows[0]["id"]
        return rows

    def export_history(self, organization: str, form: str) -> str:
        """Return the whole history, as csv or json."""
        return self.text("organizations", organization, "history", "export", format=form)

    # Migrations.

    def plan_migration(self, organization: str, destination: str) -> MigrationPlanAnswer:
        """Return what a migration would do."""
        path = ("organizations", organization, "migrations", "plan")
        return cast("MigrationPlanAnswer", self.request("POST", *path, body={"destination": destination}))

    def start_migration(
        self, organization: str, destination: str, notify_email: str | None = None, mode: str = "maintenance"
    ) -> MigrationAnswer | None:
        """Start a migration or attach to it; return None if the destination is active already."""
        body = {"destination": destination, "notify_email": notify_email, "mode": mode}
        answer: MigrationAnswer | UnchangedAnswer = self.request(
            "POST", "organizations", organization, "migrations", body=body
        )
        return None if answer["id"] is None else answer

    def migration(self, organization: str, migration_id: str) -> MigrationAnswer:
        """Return a migration with its progress."""
        return cast("MigrationAnswer", self.request("GET", "organizations", organization, "migrations", migration_id))

    def migrations(
        self, organization: str, limit: int | None = None, before: str | None = None
    ) -> list[MigrationAnswer]:
        """Return the migrations of an organization, the latest first; all, or so many, or those before one."""
        # The list goes back in time: what comes after one in it was before it.
        return list(islice(self._pages("organizations", organization, "migrations", **_begun("after", before)), limit))

    def cancel_migration(self, organization: str, migration_id: str) -> MigrationAnswer:
        """End a migration where it is."""
        return cast(
            "MigrationAnswer", self.request("POST", "organizations", organization, "migrations", migration_id, "cancel")
        )

    def undo_migration(self, organization: str, migration_id: str) -> MigrationAnswer:
        """Make the source of a migration the active keystore again."""
        return cast(
            "MigrationAnswer", self.request("POST", "organizations", organization, "migrations", migration_id, "undo")
        )

    # Tokens.

    def tokens(self) -> list[TokenAnswer]:
        """Return all API tokens, without their secrets; the oldest first."""
        return list(self._pages("tokens"))


def _begun(where: str, row: int | str | None) -> dict[str, Any]:
    """Return the query of a list that begins at a row; None for the beginning."""
    return {} if row is None else {where: row}


def _marked(mark: str | None) -> dict[str, Any]:
    """Return the query that says which Pulumi resource asks; a person's has none."""
    return {} if mark is None else {"mark": mark}
