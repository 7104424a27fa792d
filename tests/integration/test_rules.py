"""Every rule on inputs by the real engine, in preview and in up: refused in one line, before anybody is asked."""

import datetime as dt
import re
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID
from keystore_harness.engine import errors

from pulumi_keystore import rules
from tests.conftest import WHOLE
from tests.unit.declarations import pkcs12_builder as build
from tests.unit.declarations.test_certificate import AFFORDABLE, CA, NOW, RSA

PASSWORD = "CANARY-password"
DAY = dt.timedelta(days=1)
GOOD = CA.issue("acme").pkcs12(PASSWORD)
OLD = (
    PrivateFormat.PKCS12.encryption_builder()
    .kdf_rounds(2048)
    .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
    .hmac_hash(hashes.SHA1())
    .build(PASSWORD.encode())
)


def keystore(address: str = "https://vault.example.com:8200", certificate: bytes = GOOD, **changes):
    given = {
        "organization": "acme",
        "kind": "self-administered",
        "address": address,
        "certificate": b64encode(certificate).decode(),
        "certificate_password": PASSWORD,
        **changes,
    }
    return "Keystore", "ours", given, {}


def monitor(**changes):
    return "HealthMonitor", "watch", {"keystore": "ours", "organization": "acme", **changes}, {}


def migration(**changes):
    return "KeystoreMigration", "active", {"organization": "acme", "destination": "ours", **changes}, {}


REFUSED = [
    (keystore("http://vault.example.com:8200", b"no file"), "KS001 KS010"),
    (keystore("https://vault.example.com", certificate_password="CANARY-wrong"), "KS002 KS011"),
    (
        keystore(
            "https://vault.example.com:8200/v1",
            pkcs12.serialize_key_and_certificates(b"x", RSA, None, None, BestAvailableEncryption(PASSWORD.encode())),
        ),
        "KS003 KS012",
    ),
    (keystore("https://0x7f.1:8200", CA.issue("acme", not_after=NOW - DAY, not_before=NOW - 3 * DAY).pkcs12(PASSWORD)), "KS004 KS013"),
    (keystore("https://vault.internal:8200", CA.issue("acme", key=rsa.generate_private_key(65537, 1024)).pkcs12(PASSWORD)), "KS005 KS014"),
    (keystore("https://vault..example.com:8200", CA.issue("acme", usage=ExtendedKeyUsageOID.SERVER_AUTH).pkcs12(PASSWORD)), "KS006 KS015"),
    (keystore("https://va\u200bult.example.com:8200", bytes(2**20 + 1)), "KS007 KS016"),
    (keystore(certificate=build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), mac_iterations=build.HUGE), mount="a/b/"), "KS017 KS034"),
    (keystore(certificate=build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), with_mac=False), kind="cloud"), "KS018 KS030"),
    (keystore(certificate=build.pfx(build.plain_part(build.shrouded(AFFORDABLE)), digest=build.MD5), organization="ACME"), "KS019 KS031"),
    (keystore(server_ca="no CA", name="a/b", namespace="root"), "KS025 KS037 KS044"),
    (migration(notify_email="ops", mode="fast"), "KS033 KS038"),
    (monitor(offline_minutes=0, webhook="http://hooks.example.com/CANARY"), "KS040 KS041"),
    (monitor(webhook="https://hooks.example.com/CANARY", webhook_format="pagerduty"), "KS046"),
    (monitor(), "KS039"),
    (keystore(kind="legacy"), "KS042"),
]  # fmt: skip
WARNED = [
    (keystore(certificate=CA.issue("acme", not_after=NOW + 7 * DAY).pkcs12(PASSWORD, encryption=OLD)), "KS021 KS101"),
]
# Of these the update is tried in a short run, too.
FIRST = [REFUSED[0][0], WARNED[0][0]]
ELSEWHERE = {
    "KS035": "is about requests of the authority: test_migration.py",
    "KS036": "is about requests of the authority: test_service.py",
    "KS045": "is about what a file of declarations points to: tests/unit/policy",
    "KS043": "is about files of declarations, as Python judges those of a program: tests/unit/policy",
}


@pytest.fixture
def run(declaring):
    """Preview a declaration and try to make it, where there is no service."""
    with declaring("http://127.0.0.1:9", "none") as made:

        def run(one):
            made.declare(one)
            # That both judge alike is the provider's matter: `check` is called by either.
            for command in (
                (["preview"], ["up", "--yes", "--skip-preview"]) if WHOLE or one in FIRST else (["preview"],)
            ):
                yield command[0], made.stack.run(*command, check=False)

        yield run


@pytest.mark.parametrize(("one", "broken"), REFUSED, ids=[broken for _, broken in REFUSED])
def test_a_broken_rule_is_refused_in_preview_and_in_up(run, one, broken):
    for _, done in run(one):
        assert done.returncode != 0
        told = errors(done.stdout.partition("Diagnostics:")[2])
        assert sorted(re.findall(r"\[(KS\d{3})\]; expected ", "\n".join(told))) == broken.split()
        assert len(told) == len(broken.split())
        assert "CANARY" not in done.stdout
        assert "Traceback" not in done.stdout


@pytest.mark.parametrize(("one", "warned"), WARNED, ids=[warned for _, warned in WARNED])
def test_what_is_warned_of_is_told_in_preview_and_in_up(run, one, warned):
    for command, done in run(one):
        assert sorted(set(re.findall(r"warning: ours: .*?(KS\d{3})", done.stdout))) == warned.split()
        assert "CANARY" not in done.stdout
        if command == "preview":
            assert done.returncode == 0
        else:
            assert "does not answer" in done.stdout


def test_each_rule_is_here_or_is_said_to_be_elsewhere():
    here = {rule for _, ids in [*REFUSED, *WARNED] for rule in ids.split()}
    assert here.isdisjoint(ELSEWHERE)
    assert here | set(ELSEWHERE) >= {rule.id for rule in rules.RULES.values() if not rule.is_policy}
