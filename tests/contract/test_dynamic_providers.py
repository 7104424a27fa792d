"""The providers as the engine sees them: gRPC to `python -m pulumi.dynamic`, and the format of the state."""

import subprocess
import sys
from base64 import b64encode

import grpc
import pytest
from google.protobuf import struct_pb2
from keystore_harness import CertificateAuthority
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc
from pulumi.runtime.rpc import UNKNOWN

from pulumi_keystore import HealthMonitor, Keystore, KeystoreMigration, Organization
from pulumi_keystore.resources.health_monitor import HealthMonitorProvider
from pulumi_keystore.resources.keystore import KeystoreResourceProvider
from pulumi_keystore.resources.keystore_migration import KeystoreMigrationProvider
from pulumi_keystore.resources.organization import OrganizationProvider

# What users have in their state: never change these.
PICKLED = {
    OrganizationProvider: "gASVRgAAAAAAAACMJnB1bHVtaV9rZXlzdG9yZS5yZXNvdXJjZXMub3JnYW5pemF0aW9ulIwUT3JnYW5pemF0aW9uUHJvdmlkZXKUk5QpgZQu",
    KeystoreResourceProvider: "gASVRgAAAAAAAACMInB1bHVtaV9rZXlzdG9yZS5yZXNvdXJjZXMua2V5c3RvcmWUjBhLZXlzdG9yZVJlc291cmNlUHJvdmlkZXKUk5QpgZQu",
    HealthMonitorProvider: "gASVSQAAAAAAAACMKHB1bHVtaV9rZXlzdG9yZS5yZXNvdXJjZXMuaGVhbHRoX21vbml0b3KUjBVIZWFsdGhNb25pdG9yUHJvdmlkZXKUk5QpgZQu",
    KeystoreMigrationProvider: "gASVUQAAAAAAAACMLHB1bHVtaV9rZXlzdG9yZS5yZXNvdXJjZXMua2V5c3RvcmVfbWlncmF0aW9ulIwZS2V5c3RvcmVNaWdyYXRpb25Qcm92aWRlcpSTlCmBlC4=",
}
TOKENS = {
    Organization: "dynamic/keystore:Organization",
    Keystore: "dynamic/keystore:Keystore",
    HealthMonitor: "dynamic/keystore:HealthMonitor",
    KeystoreMigration: "dynamic/keystore:KeystoreMigration",
}
CA = CertificateAuthority()


@pytest.mark.parametrize("resource", TOKENS, ids=lambda resource: resource.__name__)
def test_the_type_token_is_frozen(resource):
    assert resource._resource_type_name == TOKENS[resource]


@pytest.mark.parametrize("provider", PICKLED, ids=lambda provider: provider.__name__)
def test_the_pickled_provider_is_a_bare_reference_and_frozen(provider):
    text = serialize_provider(provider())
    assert len(text) < 200
    assert provider.serialize_as_secret_always is False
    assert text == PICKLED[provider]


@pytest.fixture(scope="module")
def provider():
    """A provider process, as the engine starts it."""
    command = [sys.executable, "-u", "-m", "pulumi.dynamic"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            stub.Configure(provider_pb2.ConfigureRequest(args=struct({"keystore:serviceUrl": "http://127.0.0.1:9"})))
            yield stub
        process.kill()


def struct(values: dict) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(values)
    return message


def keystore(**changes) -> dict:
    pfx = b64encode(CA.issue("acme").pkcs12("CANARY-pw")).decode()
    return {
        "__provider": serialize_provider(KeystoreResourceProvider()), "organization": "acme", "name": "first",
        "kind": "self-administered", "address": "https://Vault.Example.com:8200/", "certificate": pfx,
        "certificate_password": "CANARY-pw", "server_ca": CA.pem, **changes,
    }  # fmt: skip


def check(provider, **changes):
    request = provider_pb2.CheckRequest(urn="urn", olds=struct({}), news=struct(keystore(**changes)))
    return provider.Check(request)


def test_a_good_declaration_passes_in_canonical_form(provider):
    answer = check(provider)
    assert not answer.failures
    assert answer.inputs["address"] == "https://vault.example.com:8200"


def test_what_is_unknown_in_preview_is_not_judged(provider):
    assert not check(provider, address=UNKNOWN, certificate=UNKNOWN, server_ca=UNKNOWN, organization=UNKNOWN).failures
    assert [f.property for f in check(provider, address="x", certificate=UNKNOWN).failures] == ["address"]


def test_every_wrong_property_is_named_at_once_and_secrets_are_not_quoted(provider):
    failures = check(
        provider, address="https://10.0.0.1:1", certificate_password="CANARY-no", mount="a//b", organization="A!"
    ).failures
    reasons = " ".join(f.reason for f in failures)
    assert {"KS004", "KS011", "KS031", "KS034"} <= set(
        reasons.replace("[", " ").replace("]", " ").replace(";", " ").split()
    )
    assert "CANARY" not in reasons
    assert all("\n" not in f.reason for f in failures)
    assert {f.property for f in failures} == {"address", "", "mount", "organization"}


def test_a_certificate_in_use_is_not_judged_again_and_all_else_is(provider):
    olds = keystore(certificate="not one that opens")
    legacy = {**olds, "kind": "legacy", "address": None, "certificate": None, "certificate_password": None}
    for before, change, wrong in (
        (olds, {}, []),
        (olds, {"address": "x"}, ["address"]),
        (olds, {"certificate_password": "CANARY-other"}, [""]),
        (legacy, {}, []),
        (legacy, {"address": "https://vault.example.com:8200"}, ["kind"]),
    ):
        request = provider_pb2.CheckRequest(urn="urn", olds=struct(before), news=struct({**before, **change}))
        assert [failure.property for failure in provider.Check(request).failures] == wrong


def test_another_kind_replaces_and_another_address_does_not(provider):
    olds = keystore(address="https://vault.example.com:8200")
    for change, replaces in (
        ({"kind": "provider"}, ["kind"]),
        ({"address": "https://b.example.com:1"}, []),
        ({"namespace": "team", "mount": "a/kv"}, []),
    ):
        request = provider_pb2.DiffRequest(
            id="acme/first", urn="urn", olds=struct(olds), news=struct({**olds, **change})
        )
        assert list(provider.Diff(request).replaces) == replaces


def test_an_unreachable_service_is_one_line(provider):
    for call, request in (
        (provider.Create, provider_pb2.CreateRequest(urn="urn", properties=struct(keystore()))),
        (provider.Read, provider_pb2.ReadRequest(id="acme/first", urn="urn", properties=struct(keystore()))),
        (provider.Delete, provider_pb2.DeleteRequest(id="acme/first", urn="urn", properties=struct(keystore()))),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        details = caught.value.details().strip()
        assert details.startswith("keystore: the keystore service at http://127.0.0.1:9 does not answer")
        assert "\n" not in details
        assert "CANARY" not in details
