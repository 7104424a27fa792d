"""What is one place has one spelling, and what is another has another; every request bears the namespace it is in."""

import json

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from keystore_harness.ca import CertificateAuthority

from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.names import check_mount, check_namespace
from pulumi_keystore.declarations.tenancy import Tenancy, within
from pulumi_keystore.errors import RuleViolation, Unsuitable
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.requests import Endpoint, Response
from tests.flows import drive

NAMES = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,5}", fullmatch=True)
PATHS = st.lists(NAMES, min_size=2, max_size=6)


def place(segments, cut, cluster="c", organization="acme"):
    """Return a place whose first segments are said to be the namespace."""
    namespace, mount = "/".join(segments[:cut]), "/".join(segments[cut:])
    try:
        tenancy = Tenancy(organization, check_mount(mount), namespace=check_namespace(namespace))
    except RuleViolation:
        reject()
    return Place(cluster, tenancy.path, organization)


@given(PATHS, st.data())
def test_a_place_is_one_however_namespace_and_mount_are_divided(segments, data):
    cuts = st.integers(0, len(segments) - 1)
    assert place(segments, data.draw(cuts)) == place(segments, data.draw(cuts))


@given(PATHS, PATHS, st.data())
def test_other_paths_are_other_places(first, second, data):
    assume(first != second)
    one, other = (place(path, data.draw(st.integers(0, len(path) - 1))) for path in (first, second))
    assert one != other


@given(
    PATHS, st.integers(0, 5), st.sampled_from(["{}/", "/{}", "//{}", "{}//", "./{}", "{}/..", "{}/.", "{} ", "{}\n"])
)
def test_no_second_spelling_of_a_path_is_taken(segments, cut, around):
    path = around.format("/".join(segments[: cut + 1]))
    for check in (check_mount, check_namespace):
        with pytest.raises(RuleViolation):
            check(path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("", "ns1/kv"), ("ns1", "kv")),
        (("ns1", "child/kv"), ("ns1/child", "kv")),
        (("", "ns1/child/kv"), ("ns1/child", "kv")),
    ],
)
def test_a_namespace_in_the_path_and_one_by_itself_are_one_place(one, other):
    assert within(*one) == within(*other)
    assert Place("c", within(*one), "acme") == Place("c", within(*other), "acme")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("", "kv"), ("ns1", "kv")),
        (("ns1", "kv"), ("NS1", "kv")),
        (("ns1", "kv"), ("ns1", "KV")),
        (("ns1", "kv"), ("ns1/child", "kv")),
        (("", "a-b/kv"), ("", "a/b-kv")),
    ],
)
def test_places_that_only_look_alike_are_two(one, other):
    assert Place("c", within(*one), "acme") != Place("c", within(*other), "acme")


# What is sent where.


class Server:
    """A mock that writes down what it is asked, and serves a mount of version 1 or 2."""

    def __init__(self, version=1, stated_path="a/kv/"):
        self.asked, self.version, self.stated_path = [], version, stated_path

    def run(self, flow):
        return drive(flow, self.answer)

    def answer(self, request):
        self.asked.append((request.method, request.path.partition("?")[0]))
        if request.path.endswith("/cert/login"):
            auth = {"client_token": "hvs.1", "lease_duration": 3600, "renewable": True, "token_type": "service"}
            return Response(200, json.dumps({"auth": auth}).encode())
        if "/sys/internal/ui/mounts/" in request.path:
            data = {"type": "kv", "path": self.stated_path, "options": {"version": str(self.version)}}
            return Response(200, json.dumps({"data": data}).encode())
        if request.path.startswith("/v1/sys/health"):
            return Response(200, b'{"cluster_id": "c", "version": "2.7.2"}')
        if request.method == "POST" and request.path.endswith("/revoke-self"):
            return Response(204, b"")
        return Response(200 if request.path.endswith("/config") else 404, b'{"data": {}}')


@pytest.fixture(scope="module")
def endpoint():
    issued = CertificateAuthority().issue("acme")
    certificate = ClientCertificate.from_pem(issued.certificate_pem.encode(), issued.key_pem.encode())
    return Endpoint(KeystoreAddress.parse("https://vault.example.com:8200"), certificate)


@pytest.mark.parametrize("namespace", ["", "team", "team/child"])
@pytest.mark.parametrize("version", [1, 2])
def test_every_request_is_sent_to_its_namespace_but_that_for_the_cluster(endpoint, namespace, version):
    told, server = [], Server(version)
    vault = VaultKeystore(
        endpoint,
        Tenancy("acme", "a/kv", namespace=namespace),
        cluster_id="c",
        announce=lambda *given: told.append(given),
    )
    server.run(vault.detect())
    server.run(vault.read("x.1"))
    server.run(vault.erase("x.1"))
    server.run(vault.check_list())
    server.run(vault.remembered())
    server.run(vault.identify())
    vault._token.issued -= 3000
    server.run(vault.read("x.1"))
    server.run(vault.revoke())
    prefix = f"/v1/{namespace}/" if namespace else "/v1/"
    outside = {path for _, path in server.asked if not path.startswith(prefix)}
    assert outside == ({"/v1/sys/health"} if namespace else set())
    asked = {path.removeprefix(prefix) for _, path in server.asked}
    assert {
        "auth/cert/login",
        "auth/token/renew-self",
        "auth/token/revoke-self",
        "sys/internal/ui/mounts/a/kv",
    } <= asked
    assert told[0] == ("hvs.1", "c", namespace)
    assert vault.place == Place("c", within(namespace, "a/kv"), "acme")


def test_a_token_is_ended_in_the_namespace_that_gave_it(endpoint):
    server = Server()
    vault = VaultKeystore(endpoint, Tenancy("acme", "kv", namespace="team"))
    server.run(vault.surrender("hvs.ours"))
    server.run(vault.surrender("hvs.roots", ""))
    server.run(vault.surrender("hvs.others", "other/child"))
    assert [path for _, path in server.asked] == [
        "/v1/team/auth/token/revoke-self",
        "/v1/auth/token/revoke-self",
        "/v1/other/child/auth/token/revoke-self",
    ]


def test_a_pinned_path_is_what_is_touched_and_the_login_is_that_of_today(endpoint):
    server = Server()
    vault = VaultKeystore(endpoint, Tenancy("acme", "kv", namespace="team"), path="kv-before", kv_version=1)
    server.run(vault.erase("x.1"))
    assert server.asked == [("POST", "/v1/team/auth/cert/login"), ("DELETE", "/v1/kv-before/acme/x.1")]
    assert vault.place == Place("", "kv-before", "acme")


@pytest.mark.parametrize("stated", ["a/kv/", "team/a/kv/"])
def test_a_mount_is_what_a_server_states_from_either_namespace(endpoint, stated):
    vault = VaultKeystore(endpoint, Tenancy("acme", "a/kv", namespace="team"))
    assert Server(stated_path=stated).run(vault.detect()) == 1


@pytest.mark.parametrize("stated", ["a/", "a/kv", "kv/", "team/a/", "", None])
def test_a_path_that_a_server_finds_in_another_mount_is_not_a_mount(endpoint, stated):
    vault = VaultKeystore(endpoint, Tenancy("acme", "a/kv", namespace="team"))
    with pytest.raises(Unsuitable, match="'team/a/kv' is a path in another mount"):
        Server(stated_path=stated).run(vault.detect())


@pytest.mark.parametrize(("status", "ended"), [(204, True), (200, True), (403, False), (500, False)])
def test_who_is_told_of_a_token_is_told_when_it_was_ended_and_only_then(endpoint, status, ended):
    """What is written down of it would have to be ended by somebody else, for ever, and is not needed any more."""
    calls = []

    class Ending(Server):
        def answer(self, request):
            if request.path.endswith("/revoke-self"):
                return Response(status, b"{}")
            return super().answer(request)

    server = Ending(1)
    vault = VaultKeystore(endpoint, Tenancy("acme"), cluster_id="c", announce=lambda *_: lambda: calls.append(1))
    server.run(vault.read("x.1"))
    assert calls == []
    server.run(vault.revoke())
    server.run(vault.revoke())
    assert calls == [1] * ended
