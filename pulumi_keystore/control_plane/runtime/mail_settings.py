"""What the settings of mails have to look like; `notifications.mail` uses them."""

from __future__ import annotations

from email.errors import MessageError
from email.headerregistry import Address
from urllib.parse import urlsplit


def check_url(url: str) -> str:
    """Return the URL of a mail server, or raise `ValueError`, which does not repeat it."""
    parts = urlsplit(url)
    try:
        right = parts.scheme in {"smtp", "smtps"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if url and not (right and parts.path in {"", "/"} and not parts.query and not parts.fragment):
        raise ValueError("expected smtp://[USER:PASSWORD@]HOST:PORT or smtps://…")
    return url


def check_sender(address: str) -> str:
    """Return the address that mails come from, or raise `ValueError`."""
    try:
        found = Address(addr_spec=address)
    except (ValueError, IndexError, MessageError):  # which of them depends on the Python
        found = None
    if found is None or not found.domain or not address.isprintable():
        raise ValueError("expected an address alone, as in keystore@example.com; its name is a setting of its own")
    return address
