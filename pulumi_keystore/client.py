"""The client of the control plane's API, used by the CLI and the Pulumi providers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from pulumi_keystore.errors import KeystoreError, ServiceUnavailable, from_problem

DEFAULT_URL: Final = "http://127.0.0.1:8700"
TIMEOUT_S: Final = 120.0
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
            raise KeystoreError(f"the service URL {url[:100]!r} is not one", hint="give for example https://HOST:8700")
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
        """Make a GET request for something that is no JSON; see `request`."""
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

    # Organizations.

    def put_organization(
        self, organization: str, environment: str = "cloud", *, mark: str | None = None
    ) -> dict[str, Any]:
        """Create an organization, or return the one there is."""
        body = {"environment": environment}
        return dict(self.request("PUT", "organizations", organization, body=body, **_marked(mark)))

    def organization(self, organization: str) -> dict[str, Any]:
        """Return an organization."""
        return dict(self.request("GET", "organizations", organization))

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
    ) -> dict[str, Any]:
        """Prove and register a keystore."""
        path = ("organizations", organization, "keystores", name)
        return dict(self.request("PUT", *path, body=declaration, adopt=adopt, **_marked(mark)))

    def swap_keystore(
        self, organization: str, name: str, declaration: Mapping[str, Any], *, mark: str | None = None
    ) -> dict[str, Any]:
        """Prove and swap in a new address, certificate or both."""
        path = ("organizations", organization, "keystores", name, "swap")
        return dict(self.request("POST", *path, body=declaration, **_marked(mark)))

    def keystore(self, organization: str, name: str) -> dict[str, Any]:
        """Return a keystore."""
        return dict(self.request("GET", "organizations", organization, "keystores", name))

    def delete_keystore(self, organization: str, name: str, *, mark: str | None = None) -> None:
        """Forget a keystore."""
        self.request("DELETE", "organizations", organization, "keystores", name, **_marked(mark))

    def accept_cluster(self, organization: str, name: str) -> dict[str, Any]:
        """Use the cluster that answers under a keystore's name now."""
        path = ("organizations", organization, "keystores", name, "accept-cluster")
        return dict(self.request("POST", *path))

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

    def verify(self, organization: str) -> dict[str, Any]:
        """Return what a look through every archive key has found."""
        return dict(self.request("POST", "organizations", organization, "verify"))

    def plan_recovery(self, organization: str) -> dict[str, Any]:
        """Return what a recovery would take over."""
        return dict(self.request("GET", "organizations", organization, "recovery"))

    def recover(self, organization: str, code: str) -> dict[str, Any]:
        """Recover an organization as the plan of that code says."""
        return dict(self.request("POST", "organizations", organization, "recovery", body={"code": code}))

    def clean_ups(self, organization: str, *, ended: bool = False) -> list[dict[str, Any]]:
        """Return the clean-ups that are pending, or all."""
        return list(self.request("GET", "organizations", organization, "clean-ups", ended=ended))

    def retry_clean_up(self, organization: str, number: int) -> dict[str, Any]:
        """Try a clean-up now."""
        return dict(self.request("POST", "organizations", organization, "clean-ups", str(number), "retry"))

    def abandon_clean_up(self, organization: str, number: int, reason: str) -> dict[str, Any]:
        """Give a clean-up up."""
        path = ("organizations", organization, "clean-ups", str(number), "abandon")
        return dict(self.request("POST", *path, body={"reason": reason}))

    # Health.

    def health(self, organization: str, keystore: str) -> dict[str, Any]:
        """Return status, reason, detail and the last hour of a self-administered keystore."""
        return dict(self.request("GET", "organizations", organization, "keystores", keystore, "health"))

    def monitor(self, organization: str, keystore: str) -> dict[str, Any]:
        """Return who is told when a keystore is offline."""
        return dict(self.request("GET", "organizations", organization, "keystores", keystore, "monitor"))

    def put_monitor(
        self,
        organization: str,
        keystore: str,
        alerting: Mapping[str, Any],
        *,
        adopt: bool = True,
        mark: str | None = None,
    ) -> dict[str, Any]:
        """Have a keystore monitored, or change who is told."""
        path = ("organizations", organization, "keystores", keystore, "monitor")
        return dict(self.request("PUT", *path, body=alerting, adopt=adopt, **_marked(mark)))

    def delete_monitor(self, organization: str, keystore: str, *, mark: str | None = None) -> None:
        """Remove the monitor; health checks continue."""
        self.request("DELETE", "organizations", organization, "keystores", keystore, "monitor", **_marked(mark))

    def export_history(self, organization: str, form: str) -> str:
        """Return the whole history, as csv or json."""
        return self.text("organizations", organization, "history", "export", format=form)

    # Migrations.

    def plan_migration(self, organization: str, destination: str) -> dict[str, Any]:
        """Return what a migration would do."""
        path = ("organizations", organization, "migrations", "plan")
        return dict(self.request("POST", *path, body={"destination": destination}))

    def start_migration(
        self, organization: str, destination: str, notify_email: str | None = None, mode: str = "maintenance"
    ) -> dict[str, Any]:
        """Begin a migration or attach to it."""
        body = {"destination": destination, "notify_email": notify_email, "mode": mode}
        return dict(self.request("POST", "organizations", organization, "migrations", body=body))

    def migration(self, organization: str, migration_id: str) -> dict[str, Any]:
        """Return a migration with its progress."""
        return dict(self.request("GET", "organizations", organization, "migrations", migration_id))

    def migrations(self, organization: str) -> list[dict[str, Any]]:
        """Return the migrations of an organization, the latest first."""
        return list(self.request("GET", "organizations", organization, "migrations"))

    def cancel_migration(self, organization: str, migration_id: str) -> dict[str, Any]:
        """End a migration where it is."""
        return dict(self.request("POST", "organizations", organization, "migrations", migration_id, "cancel"))

    def undo_migration(self, organization: str, migration_id: str) -> dict[str, Any]:
        """Make the source of a migration the active keystore again."""
        return dict(self.request("POST", "organizations", organization, "migrations", migration_id, "undo"))


def _marked(mark: str | None) -> dict[str, Any]:
    """Return the query that says which Pulumi resource asks; a person's has none."""
    return {} if mark is None else {"mark": mark}
