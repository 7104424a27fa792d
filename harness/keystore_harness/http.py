"""Clients of servers: they trust one CA, and nothing in the environment moves them."""

from __future__ import annotations

import ssl
from typing import Any

import hvac
import requests


def client(url: str, ca_pem: str, token: str, timeout_s: float = 30, namespace: str = "") -> hvac.Client:
    """Return an hvac client that trusts one CA and is moved by nothing in the environment."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", TrustingAdapter(ssl.create_default_context(cadata=ca_pem)))
    return hvac.Client(
        url=url, token=token, session=session, timeout=timeout_s, allow_redirects=False, namespace=namespace or None
    )


class TrustingAdapter(requests.adapters.HTTPAdapter):
    """Speaks TLS with a context of ours: with one CA, and no file that a private key would have to lie in."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Use the context (called by requests)."""
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def cert_verify(self, *_: Any) -> None:
        """Leave what the context trusts as it is (called by requests, which would add the public CAs)."""
