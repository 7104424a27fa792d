"""A name that leads to another cluster between two requests: what was meant for one is never done at the other."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keystore_harness.ca import CertificateAuthority

from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import AnotherCluster, HostUnavailable, KeystoreFault
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.requests import Endpoint, Response
from tests.flows import drive

OURS, OTHER = "ours", "other"
WAYS = st.lists(st.sampled_from([OURS, OTHER]), max_size=40)


class Name:
    """A mock of what a name leads to: for each request the next cluster of a list, the last one for ever.

    Each cluster is reached on a connection of its own, or on a new one for each request where none is `kept`. A token
    is good at the cluster that gave it.
    """

    def __init__(self, ways, *, kept=True):
        self.ways, self.kept = list(ways) or [OURS], kept
        self.asked, self.tokens, self.done, self.ended = 0, {}, [], []

    def answer(self, request):
        cluster = self.ways[min(self.asked, len(self.ways) - 1)]
        self.asked += 1
        connection = (OURS, OTHER).index(cluster) if self.kept else self.asked
        status, body = self.answer_of(cluster, request)
        return Response(status, json.dumps(body).encode(), "", connection, not self.kept)

    def answer_of(self, cluster, request):
        if request.path.startswith("/v1/sys/health"):
            return 200, {"cluster_id": cluster}
        if request.path.endswith("/cert/login"):
            token = f"hvs.{len(self.tokens)}"
            self.tokens[token] = cluster
            return 200, {"auth": {"client_token": token, "lease_duration": 3600}}
        if self.tokens[request.token] != cluster:
            return 403, {"errors": ["permission denied"]}
        if request.path.endswith("/revoke-self"):
            self.ended.append(request.token)
            return 204, {}
        self.done.append(cluster)
        return 204, {}

    def run(self, flow):
        return drive(flow, self.answer)


ISSUED = CertificateAuthority().issue("acme")
CERTIFICATE = ClientCertificate.from_pem(ISSUED.certificate_pem.encode(), ISSUED.key_pem.encode())


@pytest.fixture(scope="module")
def keystore():
    def made():
        endpoint = Endpoint(KeystoreAddress.parse("https://vault.example.com:8200"), CERTIFICATE)
        return VaultKeystore(endpoint, Tenancy("acme"), kv_version=1, cluster_id=OURS)

    return made


@given(ways=WAYS)
def test_a_key_is_deleted_at_the_proved_cluster_or_nowhere(keystore, ways):
    name = Name(ways)
    with suppress(KeystoreFault):
        name.run(keystore().erase("a-key"))
    assert OTHER not in name.done


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("kept", [True, False])
def test_a_name_that_is_led_elsewhere_once_leads_no_request_there(keystore, after, kept):
    name = Name([OURS] * after + [OTHER], kept=kept)
    try:
        name.run(keystore().erase("a-key"))
    except AnotherCluster:
        assert after < 4
    else:
        assert name.done == [OURS]
    assert OTHER not in name.done


def test_a_token_of_the_other_cluster_is_given_back(keystore):
    name = Name([OURS, OTHER, OTHER, OTHER])
    with pytest.raises(AnotherCluster):
        name.run(keystore().erase("a-key"))
    assert name.tokens == {"hvs.0": OTHER}
    assert name.ended == ["hvs.0"]


def test_a_name_that_leads_to_both_in_turns_is_given_up(keystore):
    with pytest.raises(HostUnavailable):
        Name([OURS, OTHER] * 100).run(keystore().erase("a-key"))
    # The one that is asked who it is is the right one each time.
    with pytest.raises(HostUnavailable, match="changes from request to request"):
        Name([OURS, OTHER, OURS, OTHER] * 100).run(keystore().erase("a-key"))


@given(ways=WAYS)
def test_tokens_of_others_are_ended_or_it_is_told(keystore, ways):
    name = Name(ways)
    name.tokens = dict.fromkeys(("hvs.a", "hvs.b"), OURS)
    try:
        name.run(keystore().end_tokens([("hvs.a", ""), ("hvs.b", "")]))
    except HostUnavailable:
        return
    assert set(name.ended) == {"hvs.a", "hvs.b"}
