"""What the dynamic providers share: configuration, and the border where errors become one line."""

from __future__ import annotations

import functools
import os
import secrets
import sys
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pulumi import ResourceOptions, RunError
from pulumi.dynamic import CheckFailure, ConfigureRequest, ResourceProvider
from pulumi.runtime.config import get_config
from pulumi.runtime.rpc import UNKNOWN

from pulumi_keystore.errors import InvalidInput, KeystoreError

if TYPE_CHECKING:
    from pulumi_keystore.client import Client

R = TypeVar("R")


class PulumiKeystoreError(Exception):
    """What the engine shows: one line, without a traceback and without a secret."""


# The engine prints the qualified name of an exception's class before its text.
PulumiKeystoreError.__module__ = "builtins"
PulumiKeystoreError.__qualname__ = "keystore"


def one_line(method: Callable[..., R]) -> Callable[..., R]:
    """Turn every exception of a provider method into one line of text."""

    @functools.wraps(method)
    def guarded(*arguments: Any, **options: Any) -> R:
        try:
            return method(*arguments, **options)
        except KeystoreError as error:
            raise PulumiKeystoreError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold inputs
            raise PulumiKeystoreError(
                f"internal error ({type(error).__name__}); please report it with the resource's type"
            ) from None

    return guarded


class KeystoreProvider(ResourceProvider):
    """Base of the providers; instances have no state of their own before `configure`."""

    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:
        """Remember where the service is; nothing is sent yet."""
        # The SDK shows the whole traceback of whatever is raised.
        sys.tracebacklimit = 0
        environment = os.environ.get
        self._url = req.config.get("keystore:serviceUrl") or environment("KEYSTORE_URL")
        self._token = req.config.get("keystore:token") or environment("KEYSTORE_TOKEN")
        self._ca_file = req.config.get("keystore:caFile") or environment("KEYSTORE_CA_FILE")

    def client(self) -> Client:
        """Return a client of the configured service; close it after use."""
        return _client(self._url, self._token, self._ca_file)


def with_ours(opts: ResourceOptions | None, secret_outputs: Collection[str] = ()) -> ResourceOptions:
    """Return a resource's options with ours.

    Raises:
        pulumi.RunError: It shall be imported: the SDK reads a dynamic resource by what is in its state, and there is
            none yet (`dynamic.__main__`, `get_provider`).

    """
    if opts is not None and opts.import_:
        raise RunError(
            f"import_={opts.import_!r}: what exists already is not imported, but declared; "
            "next: leave import_ away, and set adopt=True on a Keystore or HealthMonitor to take it over"
        )
    return ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=list(secret_outputs)))


def program_client() -> Client:
    """Return a client for use in a program, configured like the providers."""
    # Not by way of pulumi.Config, which warns of each secret that is read as it is.
    config, environment = get_config, os.environ.get
    return _client(
        config("keystore:serviceUrl") or environment("KEYSTORE_URL"),
        config("keystore:token") or environment("KEYSTORE_TOKEN"),
        config("keystore:caFile") or environment("KEYSTORE_CA_FILE"),
    )


def _client(url: str | None, token: str | None, ca_file: str | None) -> Client:
    # A preview in which nothing changes asks the service nothing: it does not pay for the HTTP library.
    from pulumi_keystore.client import Client  # noqa: PLC0415

    return Client(url, token, ca_file)


def unknown_properties(props: dict[str, Any]) -> set[str]:
    """Return the properties whose value preview does not know yet."""
    return {name for name, value in props.items() if is_unknown(value)}


def is_unknown(value: Any) -> bool:
    """Tell whether a value is only known during the update."""
    return value == UNKNOWN if isinstance(value, str) else type(value).__name__ == "Unknown"


def changed(olds: dict[str, Any], news: dict[str, Any], names: Collection[str]) -> list[str]:
    """Return which of some properties are known to change."""
    return [name for name in names if not is_unknown(news.get(name)) and olds.get(name) != news.get(name)]


def failure(violation: InvalidInput, secrets: Collection[str] = ()) -> CheckFailure:
    """Return a violation as the engine wants it: one line that names property, rule and fix.

    The engine quotes the value of the property it is given, even of a secret one: those are named in the text
    alone.
    """
    prop = violation.prop or ""
    return CheckFailure("" if prop in secrets else prop, str(violation))


def new_mark() -> str:
    """Return the mark of a new resource: what it manages at the service bears it."""
    return secrets.token_hex(8)


def mark_of(props: Mapping[str, Any]) -> str:
    """Return the mark of a resource; empty for one whose state is of a version without marks."""
    return str(props.get("mark") or "")


def tell(text: str) -> None:
    """Show a line while a resource is worked on: the engine passes standard error on."""
    print(f"keystore: {text}", file=sys.stderr, flush=True)  # noqa: T201
