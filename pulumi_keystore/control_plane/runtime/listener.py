"""The port on which the service answers, and the server behind it."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable
from typing import ClassVar, Final

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import KeystoreError

_KEEP_ALIVE_S: Final = 75
"""Longer than clients keep a connection that nobody uses (httpx 5 s, load balancers 60 s): who ends it last would end
it, now and then, while a request is on its way, and a request that writes cannot simply be sent again."""
_HEAD_S: Final = 20
"""How long a client may take for the head of a request; for its body see `api.problems`."""
_UNREAD_S: Final = 10
"""How long the rest of a request may come whose answer has gone. (Who is cut off at once may not see the answer.)"""
_UNREAD_BYTES_A_S: Final = 8 << 20
"""How fast such rests are read, those of all connections together: a refusal by the head alone has to be cheap."""
_MOST_FILES: Final = 65_536


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
    _allow_connections()
    config = uvicorn.Config(
        app,
        http=_Connection,
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


def _allow_connections() -> None:
    """Have as many open connections as the system lets us: many clients are no reason to accept no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Connection(H11Protocol):
    """Uvicorn's connection, given up where the head of a request does not come; what nobody reads comes slowly."""

    _deadline: asyncio.TimerHandle | None = None
    _cut_off: asyncio.TimerHandle | None = None
    _read_until: ClassVar[float] = 0.0
    """When, in the time of the loop, what came unread is paid for."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_HEAD_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget_deadline()
        elif self._deadline is None:
            # The beginning of a further head.
            self._deadline = self.loop.call_later(_HEAD_S, self._give_up)
        if self._is_unread:
            self._slow_down(len(data))
        elif self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_unread:
            self._cut_off = self.loop.call_later(_UNREAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        if self._cut_off is not None:
            self._cut_off.cancel()
        super().connection_lost(exc)

    @property
    def _is_unread(self) -> bool:
        """Whether what comes belongs to a request whose answer has gone."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self.conn.their_state is h11.SEND_BODY

    def _slow_down(self, size: int) -> None:
        now = self.loop.time()
        _Connection._read_until = max(_Connection._read_until, now) + size / _UNREAD_BYTES_A_S
        self.flow.pause_reading()
        self.loop.call_later(_Connection._read_until - now, self.flow.resume_reading)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


class _Server(uvicorn.Server):
    """Uvicorn that tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
