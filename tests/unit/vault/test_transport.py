"""The transport against a small TLS server of this file's own that is no Vault: redirects, garbage, silence, drips."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import certifi
import pytest
from keystore_harness import CertificateAuthority, free_port

from pulumi_keystore.causes import Cause
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import HostUnavailable, KeystoreFault, Overloaded
from pulumi_keystore.vault import faults, session
from pulumi_keystore.vault import transport as transport_module
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Endpoint, Flow, Pause, Request, Response
from pulumi_keystore.vault.resolver import HostMap, Resolver, Target, Vetted
from pulumi_keystore.vault.transport import Transport, validity_of

CA = CertificateAuthority()
NAME = "impostor.example.com"


@contextmanager
def impostor(behave) -> Iterator[tuple[Endpoint, list[str]]]:
    """Serve HTTPS under a public name; `behave` answers each request. Yields the endpoint and what was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self):
            asked.append(f"{self.command} {self.path} {self.headers.get('X-Vault-Token')}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            behave(self)

        do_GET = do_POST = do_LIST = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    issued, port = CA.issue_server(NAME), free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as pem:
        pem.write(issued.certificate_pem + issued.key_pem)
        pem.flush()
        context.load_cert_chain(pem.name)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    client = CA.issue("acme")
    endpoint = Endpoint(
        KeystoreAddress(NAME, port),
        ClientCertificate.from_pem(client.certificate_pem.encode(), client.key_pem.encode()),
        CA.pem.encode(),
        Resolver(HostMap({f"{NAME}:{port}": f"127.0.0.1:{port}"})),
    )
    try:
        yield endpoint, asked
    finally:
        server.shutdown()
        server.server_close()


def answer(status: int, body: bytes = b"{}", **headers: str):
    def behave(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def ask(endpoint: Endpoint, timeout_s: float = 2) -> Flow[Response]:
    response = yield Request(endpoint, "GET", "/v1/x", token="CANARY-token", timeout_s=timeout_s)
    return response


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_the_token_goes_nowhere_else(status):
    with (
        impostor(answer(200)) as (elsewhere, asked_elsewhere),
        impostor(answer(status, Location=f"https://{NAME}:{elsewhere.address.port}/v1/x")) as (endpoint, asked),
    ):
        with Transport() as transport, pytest.raises(HostUnavailable, match="redirects are never followed"):
            transport.run_one(VaultKeystore(endpoint, Tenancy("acme")).prove())
        assert len(asked) == 1
        assert asked_elsewhere == []


@pytest.mark.parametrize(
    ("behave", "fault", "message"),
    [
        (answer(500), HostUnavailable, "HTTP 500"),
        (answer(502), HostUnavailable, "HTTP 502"),
        (answer(429), Overloaded, "HTTP 429"),
        (answer(503), Overloaded, "HTTP 503"),
        (answer(503, b'{"errors":["Vault is sealed"]}'), HostUnavailable, "sealed"),
        (answer(473), HostUnavailable, "HTTP 473"),
        (answer(200, b"<html>welcome</html>"), HostUnavailable, "not a Vault server's"),
        (answer(200, b'{"hello": "world"}'), HostUnavailable, "not a Vault server's"),
        (answer(200, b""), HostUnavailable, "not a Vault server's"),
    ],
)
def test_what_no_healthy_vault_answers_is_host_unavailable(behave, fault, message):
    with impostor(behave) as (endpoint, _), Transport() as transport, pytest.raises(fault, match=message) as caught:
        transport.run_one(VaultKeystore(endpoint, Tenancy("acme")).prove())
    assert "\n" not in str(caught.value)


RESET = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)


def hang_up(handler):
    handler.close_connection = True


def reset(handler):
    handler.connection.setsockopt(*RESET)
    os.close(handler.connection.detach())


def half(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


@pytest.mark.parametrize("behave", [hang_up, reset, half])
def test_a_connection_that_breaks_is_a_cause_of_its_own(behave):
    with impostor(behave) as (endpoint, _), Transport() as transport, pytest.raises(HostUnavailable) as caught:
        transport.run_one(ask(endpoint))
    assert caught.value.cause is Cause.BROKEN_CONNECTION


@pytest.mark.parametrize("rudely", [True, False])
@pytest.mark.parametrize("reads", [0, 1, 10_000])
def test_so_is_one_that_breaks_before_anything_is_asked(reads, rudely):
    """While it is being opened, or in the middle of the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    if rudely:
                        connection.setsockopt(*RESET)
                    if reads:
                        connection.recv(reads)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        with impostor(answer(200)) as (endpoint, _), Transport() as transport:
            target = Vetted(target=Target(("127.0.0.1",), listener.getsockname()[1]))
            with pytest.raises(HostUnavailable) as caught:
                transport.run_one(ask(replace(endpoint, resolver=target)))
    assert caught.value.cause is Cause.BROKEN_CONNECTION


def test_a_lying_server_cannot_make_us_repeat_what_it_was_sent(monkeypatch):
    # It is asked again each time, without the waiting between.
    monkeypatch.setattr(session, "_REFUSED_WAITS_S", (0.0, 0.0, 0.0))
    canary = "CANARY-token"

    def lie(handler):
        if handler.path.endswith("/login"):
            body = json.dumps({"auth": {"client_token": canary, "lease_duration": 3600}}).encode()
            return answer(200, body)(handler)
        data = {"type": canary, "options": {"version": canary}, "keys": canary, "delete_version_after": canary}
        echo = {"errors": [canary], "data": shapes[0] or data, "cluster_id": [canary], "auth": canary}
        return answer(lies.pop(0) if lies else 200, json.dumps(echo).encode())(handler)

    lies: list[int] = []
    shapes: list[object] = [None]
    with impostor(lie) as (endpoint, _), Transport() as transport:
        for status, shape in itertools.product(
            (200, 400, 403, 404, 405, 412, 418, 500),
            (None, canary, [canary], {"type": "kv", "options": canary}, {"data": canary}),
        ):
            shapes[0], lies[:] = shape, [status] * 9
            keystore = VaultKeystore(endpoint, Tenancy("acme"), kv_version=1)
            for flow in (keystore.prove(), keystore.create(ArchiveKey("acme", "u", 1, bytes(32))), keystore.names()):
                with contextlib.suppress(KeystoreFault, DamagedRecordError):
                    try:
                        transport.run_one(flow)
                    except (KeystoreFault, DamagedRecordError) as fault:
                        assert canary not in f"{fault!r} {fault}"
                        raise


def silence(handler):
    time.sleep(3)


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.2)


def hang_up(handler):
    handler.connection.close()


@pytest.mark.timeout(120)
def test_a_request_for_which_hardly_any_time_is_left_has_a_deadline():
    """A part of a millisecond is no time, and to libcurl none at all: it would wait for ever."""
    released = threading.Event()
    try:
        with (
            impostor(lambda _: released.wait(300)) as (endpoint, _),
            Transport() as transport,
            pytest.raises(HostUnavailable),
        ):
            transport.run_one(ask(endpoint, timeout_s=0.0004))
    finally:
        released.set()


@pytest.mark.parametrize("behave", [silence, drip, hang_up])
def test_a_request_ends_at_its_deadline_whatever_the_server_does(behave):
    with impostor(behave) as (endpoint, _), Transport() as transport:
        started = time.monotonic()
        with pytest.raises(HostUnavailable):
            transport.run_one(ask(endpoint, timeout_s=1))
        assert time.monotonic() - started < 15  # dripping takes 20


def test_an_endless_answer_is_cut_off():
    """At the limit that there is, not at one of the test's own: what is kept of it is memory."""
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while len(sent) < 1000:
                handler.wfile.write(bytes(1 << 20))
                sent.append(1 << 20)

    with (
        impostor(endless) as (endpoint, _),
        Transport() as transport,
        pytest.raises(HostUnavailable, match="too large"),
    ):
        transport.run_one(ask(endpoint))
    # What waits in the buffers of both ends is sent, and not kept.
    assert sum(sent) < transport_module.MAX_ANSWER_BYTES + (32 << 20)


@pytest.mark.parametrize(("pieces", "read"), [(500, True), (20_000, False)])
def test_an_answer_in_crumbs_is_cut_off(pieces, read):
    """Each piece costs the time of everybody whose keystores are tested in the same moment."""

    def crumbs(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(b"1\r\n7\r\n" * pieces + b"0\r\n\r\n")

    with impostor(crumbs) as (endpoint, _), Transport() as transport:
        if read:
            assert len(transport.run_one(ask(endpoint, timeout_s=60)).body) == pieces
        else:
            with pytest.raises(HostUnavailable, match="too small pieces"):
                transport.run_one(ask(endpoint, timeout_s=60))


@pytest.mark.parametrize(
    ("verified", "says"),
    [(9, "not valid yet"), (10, "has expired"), (62, "for another name"), (20, "of an unknown CA")],
)
def test_what_openssl_finds_wrong_with_a_certificate_is_told_apart(verified, says):
    """The numbers are those of X509_V_ERR_… in openssl/x509_vfy.h."""
    assert says in faults._untrusted(verified)[0]


def test_a_server_that_nobody_vouches_for_is_not_spoken_to():
    with impostor(answer(200)) as (endpoint, asked), Transport() as transport:
        stranger = Endpoint(
            endpoint.address, endpoint.certificate, CertificateAuthority().pem.encode(), endpoint.resolver
        )
        with pytest.raises(HostUnavailable, match="of an unknown CA"):
            transport.run_one(ask(stranger))
        other_name = KeystoreAddress("other.example.com", endpoint.address.port)
        mapped = Resolver(HostMap({f"other.example.com:{other_name.port}": f"127.0.0.1:{other_name.port}"}))
        with pytest.raises(HostUnavailable, match="for another name"):
            transport.run_one(ask(Endpoint(other_name, endpoint.certificate, endpoint.server_ca, mapped)))
        assert asked == []


def test_without_a_server_ca_the_public_ones_count_and_no_other(monkeypatch, tmp_path):
    public = tmp_path / "public.pem"
    public.write_bytes(CA.pem.encode())
    with impostor(answer(200)) as (endpoint, _), Transport() as transport:
        without = replace(endpoint, server_ca=None)
        transport.run_one(ask(endpoint))
        with pytest.raises(HostUnavailable, match="of an unknown CA"):
            transport.run_one(ask(without))
        monkeypatch.setattr(certifi, "where", lambda: str(public))
        assert transport.run_one(ask(without)).status == 200
        with pytest.raises(HostUnavailable, match="of an unknown CA"):
            transport.run_one(ask(replace(endpoint, server_ca=CertificateAuthority().pem.encode())))


def test_flows_run_within_their_bound_and_in_any_order():
    under_way = most = 0
    with impostor(answer(200)) as (endpoint, _), Transport() as transport:

        def flow(number: int) -> Flow[int]:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            yield Pause(0.01 * (number % 3))
            response = yield from ask(endpoint)
            assert response.status == 200
            under_way -= 1
            return number

        assert sorted(transport.run(map(flow, range(50)), in_flight=7)) == list(range(50))
    assert most == 7


def test_the_first_exception_ends_a_run_and_closes_the_other_flows():
    closed = []
    with impostor(answer(200)) as (endpoint, _), Transport() as transport:

        def flow(number: int) -> Flow[int]:
            try:
                yield from ask(endpoint)
                if number == 3:
                    raise ValueError("three")
                yield Pause(60)
            finally:
                closed.append(number)
            return number

        with pytest.raises(ValueError, match="three"):
            list(transport.run(map(flow, range(8)), in_flight=8))
        assert sorted(closed) == list(range(8))
        assert transport.run_one(ask(endpoint)).status == 200


def test_a_watch_can_end_a_run():
    def give_up():
        raise TimeoutError

    with impostor(silence) as (endpoint, _), Transport() as transport, pytest.raises(TimeoutError):
        list(transport.run([ask(endpoint)], 1, give_up))


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ([(b"Subject", b"CN=\xff"), (b"Start date", b"Nov  9 10:00:00 2026 GMT"), (b"Expire date", b"Dec 19 09:59:59 2026 GMT")], True),
        ([(b"Start date", b"Nov  9 10:00:00 2026 GMT")], False),
        ([(b"Start date", b"\xff"), (b"Expire date", b"Bad time value")], False),
        ([b"a line without a colon"], False),
        ([], False),
    ],
)  # fmt: skip
def test_the_validity_of_what_a_server_shows_is_read_or_left_alone(said, known):
    """Whatever stands in a server's certificate, it is no fault of the connection, which libcurl has judged."""
    found = validity_of([said])
    assert (found is not None) == known
    if found is not None:
        assert (found.not_before, found.not_after) == (
            datetime(2026, 11, 9, 10, tzinfo=UTC),
            datetime(2026, 12, 19, 9, 59, 59, tzinfo=UTC),
        )
    assert validity_of([]) is None
