"""The client of the control plane's API, used by the CLI and the Pulumi providers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
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
        if not isinstance(document, dict) or "title" not in document:
            raise ServiceUnavailable(
                f"{self.url} answers HTTP {answer.status_code}, and not as a keystore service does",
                hint="check KEYSTORE_URL",
            )
        raise from_problem(document)

    # Organizations.

    def put_organization(self, organization: str, environment: str = "cloud") -> dict[str, Any]:
        """Create an organization, or return the one there is."""
        return dict(self.request("PUT", "organizations", organization, body={"environment": environment}))

    def organization(self, organization: str) -> dict[str, Any]:
        """Return an organization."""
        return dict(self.request("GET", "organizations", organization))

    def delete_organization(self, organization: str) -> None:
        """Delete an organization that has no keystores and no keys."""
        self.request("DELETE", "organizations", organization)

    # Keystores.

    def put_keystore(
        self, organization: str, name: str, declaration: Mapping[str, Any], *, adopt: bool = False
    ) -> dict[str, Any]:
        """Prove and register a keystore."""
        path = ("organizations", organization, "keystores", name)
        return dict(self.request("PUT", *path, body=declaration, adopt=adopt))

    def swap_keystore(self, organization: str, name: str, declaration: Mapping[str, Any]) -> dict[str, Any]:
        """Prove and swap in a new address, certificate or both."""
        path = ("organizations", organization, "keystores", name, "swap")
        return dict(self.request("POST", *path, body=declaration))

    def keystore(self, organization: str, name: str) -> dict[str, Any]:
        """Return a keystore."""
        return dict(self.request("GET", "organizations", organization, "keystores", name))

    def delete_keystore(self, organization: str, name: str) -> None:
        """Forget a keystore."""
        self.request("DELETE", "organizations", organization, "keystores", name)

    # Health.

    def health(self, organization: str, keystore: str) -> dict[str, Any]:
        """Return status, reason, detail and the last hour of a self-administered keystore."""
        return dict(self.request("GET", "organizations", organization, "keystores", keystore, "health"))

    def monitor(self, organization: str, keystore: str) -> dict[str, Any]:
        """Return who is told when a keystore is offline."""
        return dict(self.request("GET", "organizations", organization, "keystores", keystore, "monitor"))

    def put_monitor(self, organization: str, keystore: str, alerting: Mapping[str, Any]) -> dict[str, Any]:
        """Have a keystore monitored, or change who is told."""
        path = ("organizations", organization, "keystores", keystore, "monitor")
        return dict(self.request("PUT", *path, body=alerting))

    def delete_monitor(self, organization: str, keystore: str) -> None:
        """Tell nobody any more."""
        self.request("DELETE", "organizations", organization, "keystores", keystore, "monitor")

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
