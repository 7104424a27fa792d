"""One rule, one verdict: generated addresses and files, judged by the provider, the API's declaration and the policies."""

import re
from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from keystore_harness import CertificateAuthority

from pulumi_keystore.control_plane.migration.lifecycle import check_request
from pulumi_keystore.control_plane.monitoring.monitors import Alerting
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.errors import InvalidInput
from pulumi_keystore.policy.declared import of_inputs
from pulumi_keystore.policy.policies import check
from pulumi_keystore.resources.health_monitor import HealthMonitorProvider
from pulumi_keystore.resources.keystore import KeystoreResourceProvider
from pulumi_keystore.resources.keystore_migration import KeystoreMigrationProvider
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


# Monitors and migrations.

EMAILS = ["ops@example.com", "OPS@example.com", "none", "None ", "", "a@b", "x", "=?utf-8?q?=0A?=@example.com", 5]
HOOKS = ["https://hooks.example.com/x", "https://127.0.0.1/x", "http://hooks.example.com/x", "", "x", 5]
NUMBERS = [1, 5, 5.0, 60, 61, 168, 169, 0, -1, 2.5, "5", "x", "", float("inf"), float("nan"), 10**400, [], True]
NAMES = ["first", "a/b", "..", "", "x" * 101, 5]
MONITORS = st.fixed_dictionaries(
    {},
    optional={
        "recipients": st.lists(st.sampled_from(EMAILS), max_size=3)
        | st.sampled_from([*EMAILS, {"a": "b"}, ["o@x.io"] * 21]),
        "webhook": st.sampled_from([*HOOKS, "https://events.example.com/v2?routing_key=abc"]),
        "webhook_format": st.sampled_from(["json", "slack", "pagerduty", "JSON", "", "x", 5]),
        **{name: st.sampled_from(NUMBERS) for name in ("offline_minutes", "repeat_hours", "online_minutes")},
    },
)
MIGRATIONS = st.fixed_dictionaries(
    {"organization": st.sampled_from(["acme", "ACME", "", None])},
    optional={
        "destination": st.sampled_from([*NAMES, None]),
        "notify_email": st.sampled_from([*EMAILS, None]),
        "mode": st.sampled_from(["maintenance", "online", "", "Online", "x", 5, None]),
    },
)


def by_resource(provider, declared):
    failures = provider.check({}, declared).failures
    return sorted(re.findall(r"\[(KS\d{3})\]", failure.reason)[-1] for failure in failures)


def by_policy(kind, declared):
    found = [finding.rule for finding in check([of_inputs(kind, "x", declared, protected=True)])]
    return sorted(rule.id for rule in found if rule.severity is Severity.ERROR and not rule.is_policy)


def first_of(judge):
    try:
        judge()
    except InvalidInput as violation:
        return violation.rule
    return None


@settings(max_examples=effort(300, 1_500, 10_000), deadline=None)
@given(MONITORS, st.sampled_from(["acme", "", "A"]), st.sampled_from(NAMES))
def test_all_agree_on_a_monitor(alerting, organization, keystore):
    declared = {"organization": organization, "keystore": keystore, **alerting}
    verdict = by_policy("monitor", declared)
    assert by_resource(HealthMonitorProvider(), declared) == verdict
    # The API has looked at the types of what came, and finds the organization and the keystore by their names.
    recipients = alerting.get("recipients", [])
    if isinstance(recipients, list):
        given = {**alerting, "recipients": tuple(map(str, recipients))}
        rule = first_of(Alerting(**given).check)
        assert rule in verdict if rule else not set(verdict) - {"KS031", "KS037"}


@settings(max_examples=effort(300, 1_500, 10_000), deadline=None)
@given(MIGRATIONS)
def test_all_agree_on_a_migration(declared):
    verdict = by_policy("migration", declared)
    assert by_resource(KeystoreMigrationProvider(), declared) == verdict
    email, mode = declared.get("notify_email"), declared.get("mode")
    rule = first_of(
        lambda: check_request(None if email is None else str(email), "online" if mode is None else str(mode))
    )
    assert rule in verdict if rule else not set(verdict) - {"KS031", "KS037"}
