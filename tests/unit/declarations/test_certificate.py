"""PKCS#12 files: every case of group P."""

import base64
import datetime as dt
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keystore_harness import CertificateAuthority

from pulumi_keystore.clock import now_utc
from pulumi_keystore.declarations import pkcs12 as module
from pulumi_keystore.declarations.certificate import ClientCertificate, check_server_ca, decode_file
from pulumi_keystore.declarations.pkcs12 import _HELPERS
from pulumi_keystore.declarations.pkcs12_decryption import _decrypted, fits, keys_in
from pulumi_keystore.declarations.pkcs12_inspection import MAX_SIZE, inspect
from pulumi_keystore.errors import RuleViolation, TooManyRequests
from tests.conftest import effort
from tests.unit.declarations import pkcs12_builder as build

CA = CertificateAuthority()
NOW = dt.datetime.now(dt.UTC)
PASSWORD = "correct horse"
RSA = rsa.generate_private_key(65537, 2048)


def load(data: bytes, password: str | None = PASSWORD) -> ClientCertificate:
    return ClientCertificate.load(data, password, NOW)


def refusal(data: bytes, password: str | None = PASSWORD) -> str:
    started = time.process_time()
    with pytest.raises(RuleViolation) as caught:
        load(data, password)
    assert time.process_time() - started < 3
    assert "\n" not in str(caught.value)
    assert str(password or "CANARY") not in str(caught.value)
    return caught.value.rule or ""


def openssl(*arguments: str, cwd) -> None:
    assert shutil.which("openssl"), "openssl is needed: apt-get install openssl"
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


def openssl_pfx(folder, *options: str, password: str = PASSWORD) -> bytes:
    issued = CA.issue("client", key=RSA)
    (folder / "both.pem").write_text(issued.key_pem + issued.certificate_pem)
    arguments = ("-in", "both.pem", "-out", "out", "-passout", f"pass:{password}")
    openssl("pkcs12", "-export", *arguments, *options, cwd=folder)
    return (folder / "out").read_bytes()


# P 1: good files and passwords.


@pytest.mark.parametrize("password", [PASSWORD, "pässwörd ☃ пароль", "x" * 1000])
def test_a_file_opens_with_its_password(password):
    issued = CA.issue("acme")
    loaded = load(issued.pkcs12(password), password)
    assert loaded.subject == "CN=acme"
    assert loaded.certificate_pem.decode() == issued.certificate_pem
    assert loaded.warnings == ()


def test_a_file_is_recognised_by_its_content_alone():
    # Neither a name nor an extension is ever given to `load`: there is nothing else to go by.
    assert "name" not in ClientCertificate.load.__annotations__


def test_the_wrong_password_is_told_apart():
    assert refusal(CA.issue("acme").pkcs12(PASSWORD), "wrong") == "KS011"
    assert refusal(CA.issue("acme").pkcs12(PASSWORD), None) == "KS011"


@pytest.mark.parametrize("given_password", [None, ""])
def test_a_file_that_needs_no_password_opens_with_none_or_an_empty_one(given_password, tmp_path):
    protected_by_nothing = openssl_pfx(tmp_path, "-keypbe", "NONE", "-certpbe", "NONE", password="")
    encrypted_with_nothing = openssl_pfx(tmp_path, password="")
    assert load(protected_by_nothing, given_password).subject == "CN=client"
    assert load(encrypted_with_nothing, given_password).subject == "CN=client"


# P 2: what is no intact, protected PKCS#12 file.


def test_a_file_that_has_no_password_is_refused_with_one(tmp_path):
    bare = openssl_pfx(tmp_path, "-keypbe", "NONE", "-certpbe", "NONE", password="")
    with pytest.raises(RuleViolation, match="the file has none"):
        load(bare)


def test_contents_in_clear_under_a_mac_open_with_its_password_and_a_warning(tmp_path):
    clear = openssl_pfx(tmp_path, "-keypbe", "NONE", "-certpbe", "NONE")
    loaded = load(clear)
    assert loaded.subject == "CN=client"
    assert [warning for warning in loaded.warnings if "not encrypted" in warning]
    assert refusal(clear, "wrong") == "KS011"
    assert refusal(clear, None) == "KS011"


def test_a_file_without_mac_is_refused(tmp_path):
    assert refusal(openssl_pfx(tmp_path, "-nomac")) == "KS018"
    bare = build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), with_mac=False)
    assert refusal(bare) == "KS018"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x03\x02\x01\x03",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        CA.issue("acme").certificate_pem.encode(),
        CA.issue("acme").certificate.public_bytes(Encoding.DER),
        RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1",
        b"PK\x03\x04" + bytes(26),
        CA.issue("acme").pkcs12(PASSWORD)[:-1],
        CA.issue("acme").pkcs12(PASSWORD)[:200],
        CA.issue("acme").pkcs12(PASSWORD) + b"\0",
        b"\x30\x80" * 5000,
        b"\x30\x84\xff\xff\xff\xff" + bytes(100),
    ],
    ids=range(14),
)
def test_what_is_no_intact_pkcs12_file_is_refused(data):
    assert refusal(data) == "KS010"


def test_a_file_over_one_mebibyte_is_refused_unread():
    started = time.process_time()
    assert refusal(bytes(100_000_000)) == "KS016"
    assert refusal(bytes(MAX_SIZE + 1)) == "KS016"
    assert time.process_time() - started < 1


FLIPPED = CA.issue("acme").pkcs12(PASSWORD)


@given(st.integers(0, len(FLIPPED) * 8 - 1))
@settings(max_examples=effort(30, 300, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_flipped_bit_never_yields_another_certificate(position):
    data = bytearray(FLIPPED)
    data[position // 8] ^= 1 << position % 8
    try:
        loaded = load(bytes(data))
    except RuleViolation as violation:
        assert violation.rule in {"KS010", "KS011", "KS012", "KS017", "KS018", "KS019"}
    else:
        # A few bits carry no meaning (the MAC's NULL parameter, say): what opens is what was put in.
        assert loaded.fingerprint == load(FLIPPED).fingerprint


@given(st.binary(max_size=2000))
def test_random_bytes_are_refused_and_never_crash(data):
    with pytest.raises(RuleViolation):
        load(data)


# P 3: absurd cost.

AFFORDABLE = build.pbes2(b"salt" * 2, bytes(16), 2048)
ABSURD = build.pbes2(b"salt" * 2, bytes(16), build.HUGE)


@pytest.mark.parametrize(
    "data",
    [
        build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), mac_iterations=build.HUGE),
        build.pfx(build.plain_part(build.shrouded(ABSURD))),
        build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), build.encrypted_part(ABSURD)),
        build.pfx(build.plain_part(build.shrouded(build.pbe("1.2.840.113549.1.12.1.3", build.HUGE)))),
    ],
    ids=["MAC", "key bag", "certificate bag", "key bag, old scheme"],
)
def test_an_absurd_iteration_count_is_refused(data):
    assert refusal(data) == "KS017"


def test_an_absurd_iteration_count_that_only_decryption_shows_is_cut_off_and_nothing_spins():
    hidden = build.seq(build.shrouded(ABSURD))
    algorithm, ciphertext = build.encrypt(hidden, PASSWORD, 1000)
    assert refusal(build.pfx(build.encrypted_part(algorithm, ciphertext), password=PASSWORD)) == "KS017"
    assert _HELPERS.free[-1]._process is None
    assert load(CA.issue("acme").pkcs12(PASSWORD)).subject == "CN=acme"


def test_a_file_that_says_how_costly_it_is_has_the_time_for_it():
    """At the limit in all three places, however slow the machine is."""
    key = build.bag(build.KEY_BAG, RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    algorithm, ciphertext = build.encrypt(build.seq(key), PASSWORD, 2_000_000)
    assert refusal(build.pfx(build.encrypted_part(algorithm, ciphertext), password=PASSWORD)) == "KS012"


def test_a_helper_that_is_ended_leaves_no_core_file():
    load(CA.issue("acme").pkcs12(PASSWORD))
    limits = Path(f"/proc/{_HELPERS.free[-1]._process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)


def test_whoever_waits_too_long_for_a_helper_is_asked_to_come_back(monkeypatch):
    monkeypatch.setattr(module, "_TURN_S", 0.05)
    with _HELPERS.turn(""), _HELPERS.turn(""), pytest.raises(TooManyRequests):
        load(CA.issue("acme").pkcs12(PASSWORD))
    assert load(CA.issue("acme").pkcs12(PASSWORD)).subject == "CN=acme"


def test_the_files_of_one_organization_keep_one_helper_busy(monkeypatch):
    monkeypatch.setattr(module, "_TURN_S", 0.05)
    data = CA.issue("acme").pkcs12(PASSWORD)
    with _HELPERS.turn("acme"):
        with pytest.raises(TooManyRequests):
            ClientCertificate.load(data, PASSWORD, now_utc(), "acme")
        assert ClientCertificate.load(data, PASSWORD, now_utc(), "umbrella").subject == "CN=acme"
    assert ClientCertificate.load(data, PASSWORD, now_utc(), "acme").subject == "CN=acme"


def test_an_organization_whose_files_cost_too_much_waits_and_others_do_not(monkeypatch):
    monkeypatch.setattr(_HELPERS, "_budgets", {})
    data = CA.issue("acme").pkcs12(PASSWORD)
    _HELPERS.spend("acme", 7)
    with pytest.raises(TooManyRequests) as refused:
        ClientCertificate.load(data, PASSWORD, now_utc(), "acme")
    assert re.search(r"try again in 10[01] seconds", refused.value.hint)
    assert ClientCertificate.load(data, PASSWORD, now_utc(), "umbrella").subject == "CN=acme"
    monkeypatch.setattr(module, "_REFILL", 1e9)
    assert ClientCertificate.load(data, PASSWORD, now_utc(), "acme").subject == "CN=acme"


def test_what_a_file_costs_is_counted_and_forgotten_when_it_is_made_up_for(monkeypatch):
    monkeypatch.setattr(_HELPERS, "_budgets", {})
    hidden = build.seq(build.shrouded(ABSURD))
    algorithm, ciphertext = build.encrypt(hidden, PASSWORD, 1000)
    costly = build.pfx(build.encrypted_part(algorithm, ciphertext), password=PASSWORD)
    monkeypatch.setattr(module, "_BUDGET_S", 1.0)
    with pytest.raises(RuleViolation, match="KS017"):
        ClientCertificate.load(costly, PASSWORD, now_utc(), "acme")
    with pytest.raises(TooManyRequests):
        ClientCertificate.load(costly, PASSWORD, now_utc(), "acme")
    assert set(_HELPERS._budgets) == {"acme"}
    monkeypatch.setattr(module, "_REFILL", 1e9)
    ClientCertificate.load(CA.issue("umbrella").pkcs12(PASSWORD), PASSWORD, now_utc(), "umbrella")
    assert _HELPERS._budgets == {}


def test_a_costly_but_honest_file_opens():
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(600_000)
        .hmac_hash(hashes.SHA256())
        .build(PASSWORD.encode())
    )
    assert load(CA.issue("acme").pkcs12(PASSWORD, encryption=encryption)).subject == "CN=acme"


# P 4: ciphers.


def test_triple_des_opens_with_a_warning():
    old = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2048)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())
        .build(PASSWORD.encode())
    )
    warnings = load(CA.issue("acme").pkcs12(PASSWORD, encryption=old)).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("KS021")
    assert "3DES" in warnings[0]


def test_rc2_opens_with_a_warning(tmp_path):
    warnings = load(openssl_pfx(tmp_path, "-legacy")).warnings
    assert any("RC2" in warning for warning in warnings)


@pytest.mark.parametrize(
    "algorithm",
    [
        build.pbe("1.2.840.113549.1.12.1.1", 1),
        build.pbe("1.2.840.113549.1.12.1.2", 1),
        build.pbe("1.2.840.113549.1.5.3", 1),
        build.pbe("1.2.840.113549.1.5.10", 1),
        build.pbes2(b"salt" * 2, bytes(8), 1, build.DES),
        build.pbe("1.2.3.4", 1),
    ],
    ids=["RC4-128", "RC4-40", "MD5 and DES", "SHA-1 and DES", "PBES2 with DES", "unknown"],
)
def test_a_broken_cipher_is_refused(algorithm):
    assert refusal(build.pfx(build.plain_part(build.shrouded(algorithm)))) == "KS019"
    assert refusal(build.pfx(build.encrypted_part(algorithm))) == "KS019"


@pytest.mark.parametrize("digest", ["1.2.840.113549.2.6", "1.2.3.4"], ids=["HMAC-MD5", "unknown"])
def test_a_key_made_with_a_broken_digest_is_refused(digest):
    right = build.oid(build.HMAC_SHA256)
    assert build.oid(digest) != right
    algorithm = AFFORDABLE.replace(right, build.oid(digest))
    if len(build.oid(digest)) == len(right):
        assert refusal(build.pfx(build.plain_part(build.shrouded(algorithm)))) == "KS019"
    kdf = build.seq(
        build.oid(build.PBKDF2), build.seq(build.octets(b"salt"), build.integer(9), build.seq(build.oid(digest)))
    )
    algorithm = build.seq(
        build.oid(build.PBES2), build.seq(kdf, build.seq(build.oid(build.AES256), build.octets(bytes(16))))
    )
    assert refusal(build.pfx(build.encrypted_part(algorithm))) == "KS019"


def test_a_mac_with_md5_is_refused():
    assert refusal(build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), digest=build.MD5)) == "KS019"


def test_pbmac1_opens_or_is_refused_in_words(tmp_path):
    try:
        data = openssl_pfx(tmp_path, "-pbmac1_pbkdf2")
    except subprocess.CalledProcessError:
        # This openssl cannot write it (it is older than 3.4): a file of that shape is made by hand.
        parameters = build.seq(build.pbes2(b"salt" * 2, b"", 1000)[2:])
        pbmac1 = build.seq(
            build.seq(build.seq(build.oid("1.2.840.113549.1.5.14"), parameters), build.octets(bytes(32)))
        )
        safe = build.seq(build.plain_part(build.shrouded(AFFORDABLE)))
        content = build.seq(build.oid(build.DATA), build.explicit(build.octets(safe)))
        data = build.seq(build.integer(3), content, pbmac1)
        assert refusal(data) in {"KS010", "KS011", "KS019"}
    else:
        assert load(data).subject == "CN=client"


# P 5: keys and certificates.


def test_a_key_alone_is_refused():
    alone = pkcs12.serialize_key_and_certificates(b"x", RSA, None, None, BestAvailableEncryption(PASSWORD.encode()))
    assert refusal(alone) == "KS012"


def test_a_certificate_alone_is_refused():
    certificate = CA.issue("acme").certificate
    encryption = BestAvailableEncryption(PASSWORD.encode())
    assert refusal(pkcs12.serialize_key_and_certificates(b"x", None, certificate, None, encryption)) == "KS012"
    assert refusal(pkcs12.serialize_key_and_certificates(b"x", None, None, [certificate], encryption)) == "KS012"


def test_a_key_of_another_certificate_is_refused():
    other = CA.issue("other").certificate
    key_bag = build.bag(build.KEY_BAG, RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    x509 = build.seq(
        build.oid("1.2.840.113549.1.9.22.1"), build.explicit(build.octets(other.public_bytes(Encoding.DER)))
    )
    data = build.pfx(build.plain_part(key_bag), build.plain_part(build.bag(build.CERT_BAG, x509)), password="")
    assert refusal(data, None) == "KS012"


def test_two_keys_are_refused():
    key_bag = build.bag(build.KEY_BAG, RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    assert refusal(build.pfx(build.plain_part(key_bag, key_bag), password=""), None) == "KS012"
    assert refusal(build.pfx(build.plain_part(key_bag), build.plain_part(build.shrouded(AFFORDABLE)))) == "KS012"


@pytest.mark.parametrize("scheme", ["PBES2", "3DES"])
def test_two_keys_are_refused_where_they_are_encrypted(scheme):
    if scheme == "PBES2":
        one = build.bag(build.KEY_BAG, RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        issued = CA.issue("acme", key=RSA).certificate.public_bytes(Encoding.DER)
        x509_bag = build.bag(
            build.CERT_BAG, build.seq(build.oid("1.2.840.113549.1.9.22.1"), build.explicit(build.octets(issued)))
        )
        for keys, opens in (((one,), True), ((one, one), False)):
            algorithm, ciphertext = build.encrypt(build.seq(*keys, x509_bag), PASSWORD, 1000)
            data = build.pfx(build.encrypted_part(algorithm, ciphertext), password=PASSWORD)
            if opens:
                assert load(data).subject == "CN=acme"
            else:
                with pytest.raises(RuleViolation, match="more than one private key"):
                    load(data)
    old = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2048)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())
        .build(PASSWORD.encode())
    )
    # The certificates are encrypted there: that they are read shows that a key would be.
    data = CA.issue("acme").pkcs12(PASSWORD, encryption=old if scheme == "3DES" else None)
    (part,) = inspect(data).encrypted_parts
    assert _decrypted(part, PASSWORD.encode()).startswith(b"\x30")
    assert keys_in(data, PASSWORD.encode()) == 1


@pytest.mark.parametrize("renewed_first", [False, True])
def test_of_a_renewed_certificate_with_the_same_key_the_valid_one_is_taken(renewed_first):
    day = dt.timedelta(days=1)
    old = CA.issue("acme", key=RSA, not_before=NOW - 30 * day, not_after=NOW - day)
    new = CA.issue("acme", key=RSA)
    bags = [
        build.bag(
            build.CERT_BAG,
            build.seq(
                build.oid("1.2.840.113549.1.9.22.1"),
                build.explicit(build.octets(issued.certificate.public_bytes(Encoding.DER))),
            ),
        )
        for issued in ((new, old) if renewed_first else (old, new))
    ]
    key_bag = build.bag(build.KEY_BAG, RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    loaded = load(build.pfx(build.plain_part(*bags, key_bag), password=""), None)
    assert loaded.certificate_pem.decode() == new.certificate_pem


def test_the_leaf_is_the_certificate_of_the_key_whatever_the_order():
    issued = CA.issue("acme", key=RSA)
    reversed_chain = pkcs12.serialize_key_and_certificates(
        b"x", RSA, issued.certificate, [CA.certificate], BestAvailableEncryption(PASSWORD.encode())
    )
    for data in (reversed_chain, issued.pkcs12(PASSWORD, chain=(CA.certificate,))):
        loaded = load(data)
        assert loaded.subject == "CN=acme"
        assert loaded.certificate_pem.decode() == issued.certificate_pem + CA.pem


def test_the_leaf_is_found_where_a_ca_comes_first():
    issued = CA.issue("acme", key=RSA)
    bags = [
        build.bag(
            build.CERT_BAG,
            build.seq(build.oid("1.2.840.113549.1.9.22.1"), build.explicit(build.octets(c.public_bytes(Encoding.DER)))),
        )
        for c in (CA.certificate, issued.certificate)
    ]
    key_bag = build.bag(build.KEY_BAG, RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    assert load(build.pfx(build.plain_part(*bags, key_bag), password=""), None).subject == "CN=acme"


# P 6: what the certificate must be.


def test_an_expired_or_future_certificate_is_refused():
    day = dt.timedelta(days=1)
    expired = CA.issue("acme", not_before=NOW - 3 * day, not_after=NOW - day)
    future = CA.issue("acme", not_before=NOW + day, not_after=NOW + 3 * day)
    assert refusal(expired.pkcs12(PASSWORD)) == "KS013"
    assert refusal(future.pkcs12(PASSWORD)) == "KS013"


@pytest.mark.parametrize(("days", "warned"), [(29, True), (31, False)])
def test_a_certificate_that_ends_within_30_days_is_warned_of(days, warned):
    issued = CA.issue("acme", not_after=NOW + dt.timedelta(days=days))
    assert bool(load(issued.pkcs12(PASSWORD)).warnings) is warned


def test_a_certificate_for_servers_only_is_refused():
    assert refusal(CA.issue("acme", usage=ExtendedKeyUsageOID.SERVER_AUTH).pkcs12(PASSWORD)) == "KS015"
    assert load(CA.issue("acme", usage=None).pkcs12(PASSWORD)).subject == "CN=acme"


@pytest.mark.parametrize(
    "key",
    [
        RSA,
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA 2048", "P-256", "P-384", "Ed25519"],
)
def test_a_strong_key_is_accepted(key):
    assert load(CA.issue("acme", key=key).pkcs12(PASSWORD)).subject == "CN=acme"


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP192R1()), dsa.generate_private_key(1024)],
    ids=["RSA 1024", "P-192", "DSA"],
)
def test_a_weak_or_unsupported_key_is_refused(key):
    assert refusal(CA.issue("acme", key=key).pkcs12(PASSWORD)) == "KS014"


def test_a_sha1_signature_is_refused(tmp_path):
    issued = CA.issue("ignored", key=RSA)
    (tmp_path / "key.pem").write_text(issued.key_pem)
    subject = ("-subj", "/CN=old", "-days", "90", "-addext", "extendedKeyUsage=clientAuth")
    openssl("req", "-x509", "-key", "key.pem", "-sha1", *subject, "-out", "cert.pem", cwd=tmp_path)
    arguments = ("-inkey", "key.pem", "-in", "cert.pem", "-out", "out", "-passout", f"pass:{PASSWORD}")
    openssl("pkcs12", "-export", *arguments, cwd=tmp_path)
    assert refusal((tmp_path / "out").read_bytes()) == "KS014"


def odd(old: bytes, new: bytes, *extensions: x509.ExtensionType, name: str = "acme", ca: bool = False) -> bytes:
    """Return a certificate of RSA in DER of which some octets are others; nobody looks at its signature."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, RSA.public_key(), 5, NOW - dt.timedelta(1), NOW + dt.timedelta(300))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )  # fmt: skip
    for extension in extensions:
        made = made.add_extension(extension, critical=False)
    der = made.sign(RSA, hashes.SHA256()).public_bytes(Encoding.DER)
    assert old in der
    return der.replace(old, new)


def unknown(oid: str) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")


TWICE = (build.oid("1.2.3.5"), build.oid("1.2.3.4"), unknown("1.2.3.4"), unknown("1.2.3.5"))
DIRECTORY = x509.SubjectAlternativeName(
    [x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")]))]
)
SIGNED_WITH = build.oid("1.2.840.113549.1.1.11")
ODD = {
    "one extension twice": (TWICE, "KS010"),
    "x400Address": ((b"\xa4\x0e\x30\x0c", b"\xa3\x0e\x30\x0c", DIRECTORY), "KS010"),
    "ediPartyName": ((b"\xa4\x0e\x30\x0c", b"\xa5\x0e\x30\x0c", DIRECTORY), "KS010"),
    "unknown signature algorithm": ((SIGNED_WITH, build.oid("1.2.840.113549.1.1.99")), "KS014"),
}


def openssl_export(folder, der: bytes) -> bytes:
    """Export a certificate as OpenSSL does without complaint."""
    (folder / "odd.der").write_bytes(der)
    (folder / "key.pem").write_bytes(RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    openssl("x509", "-inform", "DER", "-in", "odd.der", "-out", "odd.pem", cwd=folder)
    arguments = ("-in", "odd.pem", "-inkey", "key.pem", "-out", "out", "-passout", f"pass:{PASSWORD}")
    openssl("pkcs12", "-export", *arguments, cwd=folder)
    return (folder / "out").read_bytes()


@pytest.mark.parametrize(("made", "rule"), ODD.values(), ids=ODD)
def test_a_certificate_that_openssl_exports_and_we_cannot_read_is_refused_in_words(tmp_path, made, rule):
    assert refusal(openssl_export(tmp_path, odd(*made))) == rule


@pytest.mark.parametrize("made", [made for made, _ in ODD.values()], ids=ODD)
def test_a_server_ca_that_we_cannot_read_is_refused_in_words(made):
    der = odd(*made, ca=True)
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    with pytest.raises(RuleViolation) as caught:
        check_server_ca(pem)
    assert caught.value.rule == "KS025"


def test_a_subject_in_an_old_encoding_is_no_obstacle(tmp_path):
    """T61String: servers read it."""
    der = odd(b"\x0c\x05acmXY", b"\x14\x05acm\xe9\xfa", name="acmXY")
    loaded = load(openssl_export(tmp_path, der))
    assert loaded.subject == "serial number 5"
    assert ClientCertificate.from_pem(loaded.certificate_pem, loaded.key_pem).subject == loaded.subject


def test_more_server_cas_than_anybody_has_are_refused():
    for pem in (CA.pem * 101, "#" * 300_000 + CA.pem):
        with pytest.raises(RuleViolation) as caught:
            check_server_ca(pem)
        assert caught.value.rule == "KS025"
    assert check_server_ca(CA.pem * 100)


@pytest.mark.parametrize("password", ["a\0b", "\udc80"])
def test_a_password_that_cannot_be_one_is_told(password):
    with pytest.raises(RuleViolation, match="no password can hold") as caught:
        load(CA.issue("acme").pkcs12(PASSWORD), password)
    assert caught.value.rule == "KS011"


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_a_right_password_is_told_from_a_wrong_one_by_the_integrity_code(digest):
    made = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(1000).hmac_hash(digest).build(PASSWORD.encode())
    data = CA.issue("acme").pkcs12(PASSWORD, encryption=made)
    assert fits(data, PASSWORD.encode())
    assert not fits(data, b"wrong")


def test_a_key_of_an_unknown_kind_is_told():
    """Its algorithm is one that nobody knows; the password is right."""
    der = RSA.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    strange = der.replace(build.oid("1.2.840.113549.1.1.1"), build.oid("1.2.840.113549.1.1.98"))
    issued = CA.issue("acme", key=RSA).certificate.public_bytes(Encoding.DER)
    x509_bag = build.bag(
        build.CERT_BAG, build.seq(build.oid("1.2.840.113549.1.9.22.1"), build.explicit(build.octets(issued)))
    )
    data = build.pfx(build.plain_part(build.bag(build.KEY_BAG, strange), x509_bag), password="")
    assert refusal(data, None) == "KS014"


# P 7 and the rest.


@pytest.mark.parametrize("name", ["Ключ", "鍵 🔑", "a" * 500, ""])
def test_a_friendly_name_may_be_anything(name):
    assert load(CA.issue("acme").pkcs12(PASSWORD, name=name)).subject == "CN=acme"


def test_no_repr_shows_a_key():
    loaded = load(CA.issue("acme").pkcs12(PASSWORD))
    assert "PRIVATE" not in repr(loaded)
    assert "PRIVATE" not in str(loaded)
    assert b"PRIVATE" in loaded.key_pem


def test_a_file_travels_as_base64():
    assert decode_file("TUlJ\nQg==\n") == b"MIIB"
    for text, rule in (("not base64!", "KS010"), ("A" * (3 * MAX_SIZE), "KS016")):
        with pytest.raises(RuleViolation) as caught:
            decode_file(text)
        assert caught.value.rule == rule


@pytest.mark.parametrize(
    "pem", ["x", CA.issue("acme").certificate_pem, CA.issue("acme").key_pem, CA.pem + "\n-----BEGIN PRIVATE KEY-----"]
)
def test_a_server_ca_that_is_none_is_refused(pem):
    with pytest.raises(RuleViolation) as caught:
        check_server_ca(pem)
    assert caught.value.rule == "KS025"


def test_a_server_ca_is_kept_in_canonical_pem():
    assert check_server_ca(f"comment\n{CA.pem}\n\n") == CA.pem.encode()
    assert check_server_ca(None) is None
    assert check_server_ca("  \n") is None


def test_the_helper_survives_being_killed():
    load(CA.issue("acme").pkcs12(PASSWORD))
    process = _HELPERS.free[-1]._process
    assert process is not None
    os.kill(process.pid, 9)
    process.wait()
    assert load(CA.issue("acme").pkcs12(PASSWORD)).subject == "CN=acme"
