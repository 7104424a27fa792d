"""Tokens that end, and standbys that lag behind: what a refusal means, and when."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from keystore_harness.ca import CertificateAuthority

from pulumi_keystore.causes import Cause
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import AccessDenied, HostUnavailable, UnableToAuthenticate, Unsuitable
from pulumi_keystore.vault.checkpoint import Checkpoint
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import ArchiveKey
from pulumi_keystore.vault.requests import Endpoint, Response
from tests.flows import drive

RECORD = ArchiveKey("acme", "me", 1, bytes(32), "test")
CHECKPOINT = Checkpoint(3, "abc", "acme", active=True, keys=1, at="2026-01-01T00:00:00+00:00")


class LaggingStandby:
    """A mock of a standby: it passes writes on, and reads its own old state unless a token asks for a newer one.

    The first answer to each write is lost, so that the client writes again. Its clock goes on when somebody waits.
    """

    def __init__(self, *, may_create=True, logged_in_meanwhile=0, refuses=0, standby=True, knows_ended=0, lasts="3600"):
        self.stored, self.states, self.logins, self.writes, self.now, self.standby = {}, {}, 0, 0, 0.0, standby
        self.knows_ended, self.ended, self.lasts = knows_ended, set(), lasts
        self.may_create, self.logged_in_meanwhile, self.refuses = may_create, logged_in_meanwhile, refuses
        self.refuses_writes = 0

    def answer(self, keystore, request):
        if request.path.startswith("/v1/sys/health"):
            return Response(200, json.dumps({"standby": self.standby}).encode())
        if request.path.endswith("/cert/login"):
            self.logins += 1
            self.states[f"hvs.{self.logins}"] = set(self.stored)
            auth = f'{{"client_token": "hvs.{self.logins}", "lease_duration": {self.lasts}}}'
            return Response(200, f'{{"auth": {auth}}}'.encode(), str(self.logins))
        if request.path.endswith("/revoke-self"):
            self.ended.add(request.token)
            return Response(204, b"")
        if self.denies(request):
            return Response(403, b'{"errors": ["permission denied"]}')
        return self.answer_of_keys(keystore, request)

    def denies(self, request):
        if request.token in self.ended:
            self.knows_ended -= 1
            if self.knows_ended < 0:
                return True
        left = "refuses_writes" if request.method == "POST" else "refuses"
        setattr(self, left, getattr(self, left) - 1)
        return getattr(self, left) >= 0

    def answer_of_keys(self, keystore, request):
        if request.method == "POST":
            self.writes += 1
            if self.logged_in_meanwhile:
                # Another flow of the same session does so just before this write comes to the server.
                self.logged_in_meanwhile -= 1
                keystore.login_anew()
                run(keystore, self, keystore._ensure_token())
            if not self.may_create or request.path in self.stored:
                return Response(400, b'{"errors": ["check-and-set parameter did not match the current version"]}')
            self.stored[request.path] = request.body["data"]
            return Response(400, b"{}") if self.writes == 1 else Response(200, b"{}")
        if request.method == "DELETE":
            self.stored.clear()
            return Response(204, b"")
        known = self.states[request.token] & self.stored.keys()
        if request.method == "LIST":
            names = [path.rpartition("/")[2] for path in known]
            request.sink(json.dumps({"data": {"keys": names}}).encode())
            return Response(200 if names else 404, b"{")
        if request.method != "GET" or request.path not in known:
            return Response(404, b'{"errors": []}')
        return Response(200, json.dumps({"data": {"data": self.stored[request.path], "metadata": {}}}).encode())


def run(keystore, server, flow):
    def paused(seconds):
        server.now += seconds

    return drive(flow, lambda request: server.answer(keystore, request), paused)


@pytest.fixture(scope="module")
def endpoint():
    issued = CertificateAuthority().issue("acme")
    issued = CertificateAuthority().issue("acme")
    certificate = ClientCertificate.from_pem(issued.certificate_pem.encode(), issued.key_pem.encode())
    return Endpoint(KeystoreAddress("standby.example.com", 8200), certificate)


def keystore(endpoint, server, retry_for_s=30):
    tenancy = Tenancy("acme")
    return VaultKeystore(endpoint, tenancy, kv_version=2, retry_for_s=retry_for_s, clock=lambda: server.now)


@pytest.mark.parametrize("logged_in_meanwhile", [0, 1, 2])
@pytest.mark.parametrize("logged_in_before", [False, True])
def test_what_a_standby_does_not_know_yet_is_found(endpoint, logged_in_before, logged_in_meanwhile):
    server = LaggingStandby(logged_in_meanwhile=logged_in_meanwhile)
    client = keystore(endpoint, server)
    if logged_in_before:
        run(client, server, client._ensure_token())
    found = run(client, server, client.put(RECORD))
    assert found is not None
    assert found.same_key(RECORD)


@pytest.mark.parametrize("logged_in_meanwhile", [0, 1, 2])
def test_a_checkpoint_that_a_standby_does_not_know_yet_is_found(endpoint, logged_in_meanwhile):
    server = LaggingStandby(logged_in_meanwhile=logged_in_meanwhile)
    client = keystore(endpoint, server)
    assert run(client, server, client.remember(CHECKPOINT))


def test_the_latest_checkpoint_is_found_where_older_ones_could_not_be_removed(endpoint):
    server = LaggingStandby()
    client = keystore(endpoint, server)
    made = [replace(CHECKPOINT, epoch=epoch) for epoch in range(1, 1001)]
    server.stored = {client._path("data", each.name): each.to_body() for each in made}
    assert run(client, server, client.remembered()) == made[-1]


def test_a_role_that_may_not_create_is_told_so_after_one_more_login(endpoint):
    server = LaggingStandby(may_create=False)
    client = keystore(endpoint, server)
    with pytest.raises(AccessDenied, match="may not create archive keys"):
        run(client, server, client.put(RECORD))
    assert server.logins == 2


def test_a_token_that_a_standby_refuses_for_a_moment_is_tried_again(endpoint):
    server = LaggingStandby(refuses=4)
    client = keystore(endpoint, server)
    assert run(client, server, client.read(RECORD.name)) is None
    assert server.logins == 2


def test_a_keystore_is_proved_although_a_standby_does_not_know_the_token_yet(endpoint):
    server = LaggingStandby()
    server.refuses_writes, server.writes = 2, 1
    client = keystore(endpoint, server)
    assert run(client, server, client._try_a_key("a proof")) is None
    assert server.stored == {}


def test_a_role_that_may_not_create_proves_nothing(endpoint):
    server = LaggingStandby()
    server.refuses_writes = 1000
    client = keystore(endpoint, server)
    with pytest.raises(AccessDenied, match="may not create archive keys"):
        run(client, server, client._try_a_key("a proof"))


def test_a_role_that_may_not_read_is_told_so(endpoint):
    server = LaggingStandby(refuses=1000)
    client = keystore(endpoint, server)
    with pytest.raises(AccessDenied, match="may not read archive keys"):
        run(client, server, client.read(RECORD.name))


def test_a_standby_that_lags_far_behind_is_waited_for(endpoint):
    server = LaggingStandby(refuses=12)
    client = keystore(endpoint, server)
    assert run(client, server, client.read(RECORD.name)) is None
    assert (server.logins, server.now > 10) == (2, True)


def test_an_active_node_is_believed_soon(endpoint):
    server = LaggingStandby(refuses=1000, standby=False)
    client = keystore(endpoint, server)
    with pytest.raises(AccessDenied):
        run(client, server, client.read(RECORD.name))
    assert server.now < 2


def test_what_a_standby_said_before_it_became_the_active_node_is_not_believed(endpoint):
    # The sixth refusal is the last one that an active node is asked after; this one has become it since.
    server = LaggingStandby(refuses=6, standby=False)
    client = keystore(endpoint, server)
    assert run(client, server, client.read(RECORD.name)) is None


def test_a_standby_is_believed_in_the_end(endpoint):
    server = LaggingStandby(refuses=1000)
    client = keystore(endpoint, server)
    with pytest.raises(AccessDenied):
        run(client, server, client.read(RECORD.name))
    assert 30 <= server.now < 40


def test_a_server_without_certificate_login_is_told_apart(endpoint):
    client = keystore(endpoint, LaggingStandby())
    refused = Response(404, b'{"errors": ["no handler for route"]}')
    with pytest.raises(Unsuitable, match="certificate login is not enabled") as raised:
        drive(client.read(RECORD.name), lambda _: refused, lambda _: None)
    assert raised.value.cause is Cause.LOGIN_DISABLED


def test_a_token_that_was_ended_is_known_to_a_standby_in_a_while(endpoint):
    server = LaggingStandby(knows_ended=8)
    client = keystore(endpoint, server)
    run(client, server, client._require_tokens_end(RECORD.name))


def test_a_token_that_cannot_be_ended_is_told(endpoint):
    server = LaggingStandby(knows_ended=1000)
    client = keystore(endpoint, server)
    with pytest.raises(Unsuitable, match="a token that was ended is still good"):
        run(client, server, client._require_tokens_end(RECORD.name))


@pytest.mark.parametrize("lasts", ["-1", "NaN", "1e-9", "9" * 400, '"long"', "[]", "0"])
def test_however_long_a_token_is_said_to_last_there_is_one_login_a_request_at_most(endpoint, lasts):
    server = LaggingStandby(lasts=lasts)
    client = keystore(endpoint, server, retry_for_s=0)
    for _ in range(3):
        with suppress(HostUnavailable):
            run(client, server, client.read(RECORD.name))
    assert server.logins <= 3


def test_a_server_that_refuses_each_token_and_lets_none_live_is_soon_left_alone(endpoint):
    server = LaggingStandby(lasts="1e-9", refuses=10**6, standby=False)
    client = keystore(endpoint, server)
    with pytest.raises(AccessDenied):
        run(client, server, client.read(RECORD.name))
    assert server.logins < 12


EXPIRED_AT = datetime.now(UTC) - timedelta(days=1)


@pytest.mark.parametrize(
    ("expired", "status", "says", "error", "cause"),
    [
        # What OpenBao 2.7 answers: to a role whose names do not fit, to one that is missing, and to what has expired.
        (False, 400, "no chain matching all constraints could be found", UnableToAuthenticate, Cause.NAME_REFUSED),
        (
            False,
            400,
            "invalid certificate or no client certificate supplied",
            UnableToAuthenticate,
            Cause.LOGIN_REFUSED,
        ),
        (True, 500, "certificate has expired or is not yet valid", UnableToAuthenticate, Cause.CLIENT_EXPIRED),
        (True, 400, "invalid certificate", UnableToAuthenticate, Cause.CLIENT_EXPIRED),
        (False, 500, "out of memory", HostUnavailable, Cause.FAILING),
        (True, 503, "Vault is sealed", HostUnavailable, Cause.SEALED),
    ],
)
def test_why_a_login_is_refused(expired, status, says, error, cause):
    issued = CertificateAuthority().issue("acme")
    certificate = ClientCertificate.from_pem(issued.certificate_pem.encode(), issued.key_pem.encode())
    if expired:
        certificate = replace(certificate, not_after=EXPIRED_AT)
    endpoint = Endpoint(KeystoreAddress.parse("https://vault.example.com:8200"), certificate)

    def answer(request):
        if request.path.startswith("/v1/sys/health"):
            return Response(200, b'{"cluster_id": "c"}')
        return Response(status, json.dumps({"errors": [says]}).encode())

    keystore = VaultKeystore(endpoint, Tenancy("acme"), cluster_id="c")
    with pytest.raises(error) as caught:
        drive(keystore.read("x.1"), answer)
    assert caught.value.cause is cause
