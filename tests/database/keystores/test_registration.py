"""What registration does before it asks a server."""

from base64 import b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from keystore_harness import CertificateAuthority

from pulumi_keystore.control_plane.keystores import registration
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.declarations import pkcs12
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.errors import Conflict, KeystoreFault, TooManyRequests


@pytest.fixture
def plane(database_url, master_key_file):
    settings = Settings(database_url=database_url, master_key_file=master_key_file, retry_s=0.1, request_s=1)
    with opened(settings, lambda _: None) as database:
        yield database.plane


def test_a_certificate_file_is_opened_once_where_a_keystore_is_taken_over(plane, monkeypatch):
    issued = CertificateAuthority().issue("acme")
    declared = Declaration(
        kind="self-administered",
        address="https://nobody.example.com:8200",
        certificate=b64encode(issued.pkcs12("secret")).decode(),
        certificate_password="secret",
    )
    with plane.transaction() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        session.add(
            Keystore(organization_id=1, name="first", kind="self-administered", address="https://other.example")
        )
    seen = []
    unhindered = pkcs12.open_file

    def open_file(*arguments):
        seen.append(arguments)
        return unhindered(*arguments)

    monkeypatch.setattr(pkcs12, "open_file", open_file)
    with pytest.raises(KeystoreFault):
        registration.put(plane, "ops", "acme", "first", declared, adopt=True)
    assert len(seen) == 1


def test_a_file_with_another_chain_is_another_certificate(plane):
    root = CertificateAuthority()
    below = CertificateAuthority("below", root)
    issued = below.issue("acme")
    declared = Declaration(
        kind="self-administered",
        address="https://nobody.example.com:8200",
        certificate=b64encode(issued.pkcs12("secret", chain=(below.certificate,))).decode(),
        certificate_password="secret",
    )
    with plane.transaction() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        row = Keystore(organization_id=1, name="first", kind=declared.kind, address=declared.address)
        row.mount, row.role = "archive-keys", "keystore-acme"
        row.certificate_pem = issued.certificate_pem
        row.certificate_fingerprint = issued.certificate.fingerprint(SHA256()).hex()
        session.add(row)
    with pytest.raises(Conflict, match="another certificate"):
        registration.put(plane, "ops", "acme", "first", declared)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"server_ca": None}, "the keystore 'first' is registered with another server CA"),
        ({"mount": "other"}, "the keystore 'first' is registered with another mount"),
        ({"kind": "provider"}, "kind: 'first' is a self-administered keystore"),
    ],
)
def test_what_is_registered_otherwise_is_said_in_words(plane, changes, says):
    authority = CertificateAuthority()
    issued = authority.issue("acme")
    declared = Declaration(
        kind="self-administered",
        address="https://nobody.example.com:8200",
        certificate=b64encode(issued.pkcs12("secret")).decode(),
        certificate_password="secret",
        server_ca=authority.pem,
    )
    binding = declared.judge("acme")
    with plane.transaction() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        row = Keystore(organization_id=1, name="first", kind=declared.kind, address=declared.address)
        row.mount, row.role, row.namespace = binding.mount, binding.role, binding.namespace
        row.certificate_pem, row.server_ca = binding.certificate.certificate_pem.decode(), binding.server_ca.decode()
        session.add(row)
    registration.put(plane, "ops", "acme", "first", declared)
    with pytest.raises(Conflict) as caught:
        registration.put(plane, "ops", "acme", "first", replace(declared, **changes))
    assert caught.value.summary == says


def test_an_organization_has_so_many_keystores_and_no_more(plane):
    with plane.transaction() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
    most = plane.settings.keystores_per_organization
    for number in range(most):
        registration.put(plane, "test", "acme", f"k{number}", Declaration(kind="legacy"))
    with pytest.raises(TooManyRequests, match=f"has {most} keystores"):
        registration.put(plane, "test", "acme", "more", Declaration(kind="legacy"))
    registration.put(plane, "test", "acme", "k0", Declaration(kind="legacy"))  # it is there
    registration.remove(plane, "test", "acme", "k1")
    registration.put(plane, "test", "acme", "more", Declaration(kind="legacy"))
