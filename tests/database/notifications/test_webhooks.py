"""What a webhook's server does: it is given a moment, and nothing of what it says is read."""

import contextlib
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest
from keystore_harness import CertificateAuthority, free_port
from keystore_harness.impostor import SecureServer

from pulumi_keystore.control_plane.notifications import webhooks
from pulumi_keystore.control_plane.notifications.tables import Hook
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.declarations.monitor import WebhookFormat
from pulumi_keystore.vault.resolver import HostMap, Resolver

NAME = "hooks.example.com"


class Hostile(BaseHTTPRequestHandler):
    """Answers as its path says."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append((self.path, body))
        getattr(self, self.path.strip("/"))()

    def fine(self):
        self.send_response(204)
        self.end_headers()

    def bomb(self):
        body = gzip.compress(bytes(50 << 20))
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def endless(self):
        """A body without an end, as fast as it is taken."""
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                self.wfile.write(bytes(1 << 20))
                self.server.sent += 1 << 20

    def drip(self):
        """A byte of the header now and then, for ever."""
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.2)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def authority():
    return CertificateAuthority()


@pytest.fixture(scope="module")
def server(authority):
    server = SecureServer(("127.0.0.1", free_port()), Hostile, authority.issue_server(NAME))
    server.calls = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def call(factory, authority, server, tmp_path):
    """Leave a call of a path and send it; return its row."""
    key = MasterKey.load_or_create(tmp_path / "master.key")
    (tmp_path / "ca.pem").write_text(authority.pem)
    port = server.server_address[1]
    resolver = Resolver(HostMap.parse(json.dumps({f"{NAME}:443": f"127.0.0.1:{port}"})))

    def call(path, sealed_for="7", form=WebhookFormat.JSON, resolver=resolver):
        with factory.begin() as session:
            sealed = key.seal(webhooks.PURPOSE, "7", f"https://{NAME}/{path}".encode())
            webhooks.put(session, path, webhooks.Call(sealed, sealed_for, form), {"event": "x"})
        webhooks.WebhookSender(factory, key, resolver, tmp_path / "ca.pem").send_due()
        with factory() as session:
            return session.query(Hook).one()

    return call


def test_a_call_that_is_answered_has_been_made(call):
    assert call("fine").sent_at is not None


def test_a_url_that_was_sealed_for_another_keystore_is_not_called(call):
    row = call("fine", sealed_for="8")
    assert (row.sent_at, row.last_error) == (None, "KeystoreError")


@pytest.mark.parametrize("inside", ["127.0.0.1", "192.0.0.192", "169.254.169.254", "10.1.2.3", "::1", "fd00::1"])
def test_a_webhook_whose_name_leads_inside_is_not_called(call, server, inside):
    calls = len(server.calls)
    row = call("fine", resolver=Resolver(HostMap(), lambda _host, _port: [inside]))
    assert (row.sent_at, row.last_error, len(server.calls)) == (None, "HostUnavailable", calls)


def test_a_routing_key_is_in_the_body_alone(call, server):
    assert call("fine?routing_key=R012", form=WebhookFormat.PAGERDUTY).sent_at is not None
    path, body = server.calls[-1]
    assert (path, body["routing_key"], body["event_action"]) == ("/fine", "R012", "trigger")


def test_slack_is_sent_a_text(call, server):
    assert call("fine", form=WebhookFormat.SLACK).sent_at is not None
    assert set(server.calls[-1][1]) == {"text"}


@pytest.mark.parametrize("answer", ["bomb", "endless"])
def test_what_it_answers_is_not_read(call, server, answer):
    server.sent = 0
    assert call(answer).sent_at is not None
    # What waits in the buffers of both ends is sent, and not read.
    assert server.sent < 32 << 20


def test_a_server_that_drips_is_left_alone_at_the_deadline(call, monkeypatch):
    monkeypatch.setattr(webhooks, "_TIMEOUT_S", 1)
    row = call("drip")
    assert (row.sent_at, row.last_error) == (None, "TimeoutError")
