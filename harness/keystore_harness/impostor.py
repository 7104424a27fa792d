"""Something that answers in a server's place, under a certificate clients trust, with whatever status it is told."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from keystore_harness.ca import Issued
from keystore_harness.ports import free_port


class Impostor:
    """An HTTPS server that gives every request the same answer. Use it as a context manager.

    Args:
        certificate: What it shows.
        status: The HTTP status of every answer.
        body: The body of every answer; a JSON object with `errors`, as Vault has it, by default.

    """

    def __init__(self, certificate: Issued, status: int, body: str = "") -> None:
        self.port = free_port()
        self.requests = 0
        """How many requests it has answered."""
        content = (body or json.dumps({"errors": [f"the harness answers {status}"]})).encode()
        impostor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                impostor.requests += 1
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_LIST = answer  # noqa: N815 - names of http.server

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = SecureServer(("127.0.0.1", self.port), Handler, certificate)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class SecureServer(ThreadingHTTPServer):
    """An HTTPS server with a thread for each connection."""

    daemon_threads = True
    # Connections that are idle at the end are not waited for.
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: Any, certificate: Issued) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.load_into(self._context)
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection, in its own thread: a client that does not finish its handshake holds nobody up."""
        with self._context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that break off."""


def client_context(issued: Issued, trusted_pem: str) -> ssl.SSLContext:
    """Return a context that trusts one CA and shows a client certificate."""
    context = ssl.create_default_context(cadata=trusted_pem)
    issued.load_into(context)
    return context
