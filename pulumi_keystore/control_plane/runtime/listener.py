"""The port on which the service answers, and the server behind it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from fastapi import FastAPI

from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import KeystoreError

_KEEP_ALIVE_S: Final = 75
"""Longer than clients keep a connection that nobody uses (httpx 5 s, load balancers 60 s): who ends it last would end
it, now and then, while a request is on its way, and a request that writes cannot simply be sent again."""


def listen(host: str, port: int) -> socket.socket:
    """Take the port, before anything is begun that would have to be dropped.

    Raises:
        KeystoreError: It is taken, or there is no such host.

    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # The protocol has to be named: asyncio sets TCP_NODELAY only then, and each answer is 40 ms late without.
        listener = socket.socket(*found[:3])
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
        listener.listen(128)
    except OSError as error:
        raise KeystoreError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="is a service running there? choose --port",
        ) from None
    return listener


def answer(settings: Settings, app: FastAPI, listener: socket.socket, say: Callable[[str], None]) -> None:
    """Answer requests until the process is told to stop; `say` is told once when it does."""
    config = uvicorn.Config(
        app,
        ssl_certfile=str(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    # Uvicorn raises the signal that stopped it once more when it has stopped: what comes after shall still happen.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    host, port = listener.getsockname()[:2]
    scheme, shown = "https" if config.is_ssl else "http", f"[{host}]" if ":" in host else host
    server = _Server(config, lambda: say(f"keystore control plane is ready on {scheme}://{shown}:{port}"))
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn that tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
