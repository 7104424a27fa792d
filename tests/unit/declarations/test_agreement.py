"""One rule, one verdict: generated addresses and files, judged by the provider, the API's declaration and the policies."""

import re
from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from keystore_harness import CertificateAuthority

from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.errors import InvalidInput
from pulumi_keystore.policy.declared import of_inputs
from pulumi_keystore.policy.policies import check
from pulumi_keystore.resources.keystore import KeystoreResourceProvider
from pulumi_keystore.rules import Severity
from tests.conftest import effort
from tests.unit.declarations.test_address import ACCEPTED, REFUSED

PFX = CertificateAuthority().issue("acme").pkcs12("pw")
GOOD = {
    "kind": "provider",
    "address": "https://vault.example.com:8200",
    "certificate": b64encode(PFX).decode(),
    "certificate_password": "pw",
}
HOSTS = st.one_of(
    st.sampled_from([*ACCEPTED, *REFUSED]),
    st.from_regex(r"https?://[a-z0-9.%\[\]:x-]{0,24}(:[0-9]{0,6})?[/?#]?[a-z]{0,3}", fullmatch=True),
    st.ip_addresses().map(lambda ip: f"https://{ip}:8200"),
    st.integers(0, 2**33).map(lambda number: f"https://{number}:8200"),
    st.lists(
        st.sampled_from(["0x7f", "0177", "127", "1", "①", "１", "%31", "example", "com", "xn--a", ""]), max_size=5
    ).map(lambda labels: f"https://{'.'.join(labels)}:8200"),
    st.text(max_size=30),
)
FILES = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.integers(0, len(PFX) - 1), st.integers(0, 255)).map(
        lambda change: PFX[: change[0]] + bytes([change[1]]) + PFX[change[0] + 1 :]
    ),
    st.integers(0, len(PFX)).map(lambda length: PFX[:length]),
)


def by_declaration(declared):
    """What the API and the console do."""
    try:
        Declaration(**declared).judge("acme")
    except InvalidInput as violation:
        return violation.rule
    return None


def by_provider(declared):
    news = {"organization": "acme", "name": "first", **declared}
    failures = KeystoreResourceProvider().check({}, news).failures
    return [re.findall(r"\[(KS\d{3})\]", failure.reason)[-1] for failure in failures]


def by_policies(declared):
    """What the policy pack and `keystore check` do."""
    one = of_inputs("keystore", "first", {"organization": "acme", **declared}, protected=True)
    found = [finding.rule for finding in check([one])]
    return [rule.id for rule in found if rule.severity is Severity.ERROR and not rule.is_policy]


def assert_agreement(declared):
    verdict = by_declaration(declared)
    wanted = [verdict] if verdict else []
    assert by_provider(declared) == wanted
    assert by_policies(declared) == wanted


@settings(max_examples=effort(150, 1_500, 10_000), deadline=None)
@given(HOSTS)
def test_all_agree_on_an_address(address):
    # Without a certificate, which takes a while to open: its verdict comes second.
    declared = {"kind": "provider", "address": address}
    verdict = by_declaration(declared)
    wanted = {verdict, "KS010"}
    assert set(by_provider(declared)) == set(by_policies(declared)) == wanted


@settings(max_examples=effort(30, 300, 300), deadline=None)
@given(FILES)
def test_all_agree_on_a_file(file):
    assert_agreement({**GOOD, "certificate": b64encode(file).decode()})


def test_all_agree_on_what_is_well():
    assert_agreement(GOOD)
    assert by_declaration(GOOD) is None
