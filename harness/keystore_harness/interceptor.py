"""A man in the middle whom clients trust: it passes requests on to a server, counts them, and lets one fail on purpose.

It shows a certificate of the server's name and speaks to the server with the organization's own client certificate, so
that certificate login works through it. With it the very N-th request of something can be made to fail.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from contextlib import suppress
from enum import StrEnum
from http.server import BaseHTTPRequestHandler
from typing import Any

from keystore_harness.ca import Issued
from keystore_harness.impostor import SecureServer, client_context
from keystore_harness.ports import free_port
from keystore_harness.vault import Vault

REFUSED_FOR_S = 0.15


class Failure(StrEnum):
    """How a call fails."""

    REFUSED = "connection refused"
    RESET = "reset after it was applied"
    TIMEOUT = "time-out"
    TOO_MANY = "429"
    INTERNAL = "500"
    UNAVAILABLE = "503"
    SEALED = "sealed"
    DENIED = "permission denied"
    WRONG = "wrong answer"


class Plan:
    """Which call fails and how; shared by all interceptors of a run, which count their calls together.

    Args:
        hang_s: How long a call that times out is left without an answer.

    """

    def __init__(self, hang_s: float) -> None:
        self.hang_s = hang_s
        self._lock = threading.Lock()
        self.calls = 0
        self.struck: str | None = None
        """What the failure struck, as "method path"; None as long as it has not come to that."""
        self._at, self._failure, self._for_good, self._where = 0, Failure.REFUSED, False, ""

    def set(self, at: int, failure: Failure, *, for_good: bool = False) -> None:
        """Count from the beginning; let call `at` fail, and with `for_good` every later one at the same server."""
        with self._lock:
            self.calls, self.struck, self._where = 0, None, ""
            self._at, self._failure, self._for_good = at, failure, for_good

    def clear(self) -> None:
        """Let nothing fail; go on counting."""
        with self._lock:
            self._at = 0

    def judge(self, where: str, what: str) -> Failure | None:
        """Count a call at a server; return how it fails, None if it does not."""
        with self._lock:
            self.calls += 1
            if self._at and self.struck is None and self.calls >= self._at:
                self.struck, self._where = what, where
                return self._failure
            if self._at and self._for_good and self._where == where:
                return self._failure
        return None

    @property
    def refuses(self) -> bool:
        """Whether a server that was struck refuses connections for good."""
        return self._for_good and self._at > 0 and self._failure is Failure.REFUSED


_ANSWERS = {
    Failure.TOO_MANY: (429, {"errors": ["request path quota exceeded"]}),
    Failure.INTERNAL: (500, {"errors": ["internal error"]}),
    Failure.UNAVAILABLE: (503, {"errors": ["service unavailable"]}),
    Failure.SEALED: (503, {"errors": ["Vault is sealed"]}),
    Failure.DENIED: (403, {"errors": ["permission denied"]}),
    Failure.WRONG: (200, {"data": {}}),
}


class Interceptor:
    """Stands before one Vault for one organization. Use it as a context manager.

    Args:
        vault: The Vault it passes requests on to.
        client: The organization's client certificate there.
        plan: What fails.

    """

    def __init__(self, vault: Vault, client: Issued, plan: Plan) -> None:
        self.port = free_port()
        self._vault = vault
        self._plan = plan
        self._upstream = client_context(client, vault.trusted_pem)
        self._certificate = vault.ca.issue_server(vault.name, vault.alias, "127.0.0.1")
        self._server: SecureServer | None = None
        self._gate = threading.Lock()

    def __enter__(self) -> Interceptor:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        with self._gate:
            self._close()

    def _listen(self) -> None:
        self._server = SecureServer(("127.0.0.1", self.port), self._handler(), self._certificate)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def refuse(self) -> None:
        """Refuse connections for a moment: nothing listens."""
        with self._gate:
            self._close()
            time.sleep(REFUSED_FOR_S)
            self._listen()

    def _handler(self) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class in a function: it sees the interceptor
        interceptor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60
            disable_nagle_algorithm = True
            wbufsize = 1 << 16
            upstream: http.client.HTTPSConnection | None = None

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                plan = interceptor._plan
                failure = plan.judge(interceptor._vault.name, f"{self.command} {self.path}")
                if failure is Failure.REFUSED:
                    self.cut()
                    threading.Thread(target=interceptor.refuse, daemon=True).start()
                elif failure is Failure.RESET:
                    self.ask(body)
                    self.cut()
                elif failure is Failure.TIMEOUT:
                    time.sleep(plan.hang_s)
                    self.cut()
                elif failure is not None:
                    status, answer = _ANSWERS[failure]
                    self.say(status, json.dumps(answer).encode())
                else:
                    self.say(*self.ask(body))

            def ask(self, body: bytes) -> tuple[int, bytes]:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                if self.upstream is None:
                    self.upstream = http.client.HTTPSConnection(
                        "127.0.0.1", interceptor._vault.port, context=interceptor._upstream, timeout=30
                    )
                try:
                    self.upstream.request(self.command, self.path, body or None, headers)
                    response = self.upstream.getresponse()
                    return response.status, response.read()
                except (OSError, http.client.HTTPException):
                    self.upstream.close()
                    self.upstream = None
                    return 502, b'{"errors":["the server behind is gone"]}'

            def say(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status != 204:  # noqa: PLR2004 - No Content has none, not even its length
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def cut(self) -> None:
                # Reset, not an orderly end.
                self.close_connection = True
                with suppress(OSError):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()

            def finish(self) -> None:
                if self.upstream is not None:
                    self.upstream.close()
                with suppress(OSError, ValueError):
                    super().finish()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_LIST = pass_on  # noqa: N815 - names of http.server

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler
