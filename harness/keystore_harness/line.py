"""The line between clients and a server: where a public name leads, and packets that come late.

A small TCP forwarder on 127.0.0.1. What a client has sent reaches the server even where the client is gone by then, as
with packets that the network has held up.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

from keystore_harness.ports import free_port, wait_until
from keystore_harness.timeline import Timeline

_PIECE: Final = 1 << 16
_LOOK_S: Final = 0.01
_CONNECT_S: Final = 5


class Line:
    """Forwards connections on a port of its own to a port on 127.0.0.1.

    Args:
        name: What the timeline calls it.
        target: The port it leads to.
        timeline: Where its faults are recorded, one of its own by default.

    """

    def __init__(self, name: str, target: int, timeline: Timeline | None = None) -> None:
        self.name = name
        self.port = free_port()
        self._target = target
        self._timeline = timeline or Timeline()
        self._out = threading.Event()
        self._ended = 0.0
        self._late_s = 0.0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._held = 0
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        threading.Thread(target=self._accept, name=f"line to {name}", daemon=True).start()

    def close(self) -> None:
        """Cut every connection, and take no more."""
        with contextlib.suppress(OSError):
            # Closing alone would not wake the thread that waits for the next connection.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()

    # Verbs.

    def lead_to(self, port: int) -> None:
        """Lead to another port from now on; every connection there is is cut. As when a DNS name is changed."""
        self._timeline.note(self.name, f"leads to port {port}")
        self._target = port
        self._cut()

    @contextlib.contextmanager
    def leading_to(self, port: int) -> Iterator[None]:
        """Lead to another port, and back at the end."""
        before = self._target
        with self._timeline.fault(self.name, f"leads to port {port}"):
            self.lead_to(port)
            try:
                yield
            finally:
                self.lead_to(before)

    @contextlib.contextmanager
    def outage(self, late_s: float = 0.0) -> Iterator[None]:
        """Let nothing through; what was sent meanwhile comes `late_s` after its end; new connections pass."""
        with self._timeline.fault(self.name, "outage"):
            self._late_s = late_s
            self._out.set()
            try:
                yield
            finally:
                self._ended = time.monotonic()
                self._out.clear()

    @property
    def held(self) -> int:
        """On how many connections something is held up now."""
        return self._held

    def await_quiet(self, timeout_s: float = 60) -> None:
        """Wait until everything that was held up has been delivered.

        Raises:
            TimeoutError: It has not been in that time.

        """
        wait_until(lambda: self._held == 0, f"what was held up on the way to {self.name}", timeout_s)

    # Forwarding.

    def _cut(self) -> None:
        with self._lock:
            open_now, self._open = self._open, set()
        for one in open_now:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=_CONNECT_S)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        back = threading.Thread(target=self._answers, args=(server, client), daemon=True)
        back.start()
        self._requests(client, server)
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client sends; what comes in an outage, and all after it on this connection, late."""
        struck = False
        with contextlib.suppress(OSError):
            while piece := client.recv(_PIECE):
                struck = struck or self._out.is_set()
                if struck:
                    with self._holding():
                        server.sendall(piece)
                else:
                    server.sendall(piece)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        """Count something as held up until it may pass and has been passed on."""
        with self._lock:
            self._held += 1
        try:
            while self._out.is_set() or time.monotonic() < self._ended + self._late_s:
                time.sleep(_LOOK_S)
            yield
        finally:
            with self._lock:
                self._held -= 1

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(_PIECE):
                while self._out.is_set():
                    time.sleep(_LOOK_S)
                client.sendall(piece)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
