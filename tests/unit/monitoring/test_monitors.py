"""Minutes, reliability, and what is shown of a connection."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keystore_harness import CertificateAuthority

from pulumi_keystore.control_plane.monitoring.probe import Subject, probe
from pulumi_keystore.control_plane.monitoring.status import Latest, Result, judge
from pulumi_keystore.control_plane.monitoring.timeline import Bucket, Minutes, Stretch, is_due, month, reliability
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.monitor import (
    check_declared_timings,
    check_recipients,
    check_timings,
    check_webhook,
    check_webhook_format,
    routing_key_of,
)
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import RuleViolation
from pulumi_keystore.vault.requests import Endpoint
from pulumi_keystore.vault.resolver import HostMap, Resolver
from pulumi_keystore.vault.transport import Transport

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
WELL = Result(online=True)
SEALED = Result(online=False, reason="Host unavailable", detail="sealed: unseal the server")


@given(st.floats(0, 0.999), st.integers(0, 10**6))
def test_a_minute_begins_where_the_one_before_ends(phase, number):
    minutes = Minutes(phase)
    begin = minutes.begin(number)
    assert minutes.at(begin + timedelta(milliseconds=1)) == number
    assert minutes.at(begin - timedelta(milliseconds=1)) == number - 1


@pytest.mark.parametrize(
    ("minute", "last", "due"),
    [(5, None, True), (5, 4, True), (5, 5, False), (5, 6, False), (5, 7, False), (5, 8, True), (5, 1000, True)],
)
def test_when_a_test_is_due(minute, last, due):
    """A little behind is the clock of another process; far behind is a clock that was put back."""
    assert is_due(minute, last) is due


def test_no_test_is_no_outage():
    minutes = Minutes()
    now = minutes.at(NOW)
    found = {now - 1: Stretch(1, 1), now - 2: Stretch(1, 0), now - 3: Stretch(1, 1), now - 4: Stretch(1, 1)}
    hour = reliability(found, minutes, NOW)
    assert len(hour.buckets) == 60
    assert hour.buckets[-5:] == (Bucket.ONLINE, Bucket.ONLINE, Bucket.OFFLINE, Bucket.ONLINE, Bucket.UNKNOWN)
    assert hour.ratio == 0.75
    assert hour.begin == datetime(2026, 3, 1, 11, 1, tzinfo=UTC)
    assert reliability({}, minutes, NOW).ratio is None


def test_a_quarter_of_an_hour_says_how_many_of_its_minutes_were_offline_and_why():
    minutes = Minutes()
    now = minutes.at(NOW)
    sealed = {
        now - 1: Stretch(1, 0, 0.2, "Host unavailable, sealed"),
        now: Stretch(1, 0, 0.5, "Host unavailable, refused"),
    }
    day = reliability({now - 20: Stretch(1, 1, 0.03), now - 2: Stretch(1, 1, 0.9), **sealed}, minutes, NOW, 15, 96)
    assert len(day.buckets) == 96
    assert day.bucket_s == 900
    # 12:00 has begun a quarter; the minutes before it belong to the one before.
    assert day.buckets[-3:] == (Bucket.ONLINE, Bucket.PARTLY, Bucket.OFFLINE)
    assert [str(each) for each in day.tests[-4:]] == [
        "no test made",
        "online, 30 ms",
        "1 of 2 tests offline: Host unavailable, sealed",
        "offline: Host unavailable, refused",
    ]
    assert day.begin + timedelta(seconds=96 * day.bucket_s) > NOW
    assert day.ratio == 0.5


@given(st.dictionaries(st.integers(-800, 5), st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40))
def test_a_month_counts_each_hour_once(hours):
    found = {
        NOW.replace(minute=0, second=0) + timedelta(hours=hour): Stretch(made, min(made, online), 0.1)
        for hour, (made, online) in hours.items()
    }
    shown = month(found, NOW)
    assert len(shown.tests) == 120
    end = shown.begin + 120 * timedelta(hours=6)
    assert shown.begin <= NOW - timedelta(days=29)
    assert end - timedelta(hours=6) <= NOW < end
    assert sum(each.made for each in shown.tests) == sum(
        tests.made for hour, tests in found.items() if shown.begin <= hour < end
    )


def latest(result, minute):
    return Latest(minute, result, NOW - timedelta(minutes=7), NOW)


@pytest.mark.parametrize(
    ("last", "migrated", "tests", "status", "reason"),
    [
        (latest(WELL, 100), None, 0, "Online", None),
        (latest(WELL, 98), None, 0, "Online", None),
        (latest(SEALED, 100), None, 0, "Offline", "Host unavailable"),
        (latest(WELL, 97), None, 0, "Offline", "No request"),
        (latest(SEALED, 97), None, 0, "Offline", "No request"),
        (latest(WELL, 101), None, 0, "Offline", "No request"),  # the clock was put back
        (None, None, 0, "Unknown", "Unknown"),
        (latest(WELL, 100), NOW, 0, "Unknown", "Unknown"),
        (latest(SEALED, 100), NOW, 4, "Unknown", "Unknown"),
        (latest(WELL, 100), NOW, 5, "Online", None),
    ],
)
def test_what_is_shown(last, migrated, tests, status, reason):
    shown = judge(last, 100, NOW, migrated, tests)
    assert (shown.status, shown.reason) == (status, reason)
    assert shown.detail or status == "Online"


@pytest.mark.parametrize(
    ("recipients", "others", "rule"),
    [
        (["a@example.com"], False, None),
        ([], True, None),
        ([], False, "KS039"),
        (["a@example.com"] * 2, False, "KS039"),
        (["a@example.com", "A@example.com"], False, "KS039"),
        ([f"a{n}@example.com" for n in range(21)], False, "KS039"),
        (["nobody"], False, "KS033"),
        (["a@example.com\r\nBcc: b@example.com"], False, "KS033"),
    ],
)
def test_whom_a_monitor_may_tell(recipients, others, rule):
    if rule is None:
        assert check_recipients(recipients, others=others) == recipients
    else:
        with pytest.raises(RuleViolation) as raised:
            check_recipients(recipients, others=others)
        assert (raised.value.rule, raised.value.prop) == (rule, "recipients")


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://hooks.example.com/services/T0/B1?x=y", True),
        ("https://hooks.example.com:8443/", True),
        ("https://hooks.example.com", True),
        ("http://hooks.example.com/", False),
        ("https://127.0.0.1/", False),
        ("https://0x7f.1/", False),
        ("https://[::1]/", False),
        ("https://localhost/", False),
        ("https://metadata.internal/", False),
        ("https://user:pw@hooks.example.com/", False),
        ("https://hooks.example.com/#x", False),
        ("https://hooks.example.com/a b", False),
        ("https://hooks.example.com/\r\nHost: x", False),
        ("https://hooks.example.com:99999/", False),
        ("https://h\u00f6oks.example.com/", False),
        ("https://[x/", False),
        ("", False),
        ("https://hooks.example.com/" + "a" * 1000, False),
    ],
)
def test_where_a_webhook_may_be(url, good):
    if good:
        assert check_webhook(url).host == "hooks.example.com"
    else:
        with pytest.raises(RuleViolation) as raised:
            check_webhook(url)
        assert raised.value.rule == "KS041"
        assert not url or url not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("offline_minutes", 0), ("repeat_hours", 169), ("online_minutes", 1.5), ("repeat_hours", 10**400)],
)
def test_timings_out_of_range(name, value):
    with pytest.raises(RuleViolation) as raised:
        check_timings(**{"offline_minutes": 5, "repeat_hours": 24, "online_minutes": 5, name: value})
    assert (raised.value.rule, raised.value.prop) == ("KS040", name)


@pytest.mark.parametrize("value", [10**400, "1e999", "nan", [5], "5 minutes", -(10**400)])
def test_a_declared_timing_that_is_no_number_of_minutes(value):
    with pytest.raises(RuleViolation) as raised:
        check_declared_timings({"offline_minutes": value})
    assert raised.value.rule == "KS040"


def test_a_look_up_that_waits_for_others_is_no_outage():
    """Names that hang take every thread there is for look-ups: that says nothing about the next name."""
    hang, closed = threading.Event(), HostMap({})
    issued = CertificateAuthority().issue("acme")
    certificate = ClientCertificate.from_pem(issued.certificate_pem.encode(), issued.key_pem.encode())

    def lookup(host, _port):
        hang.wait(5)
        raise OSError

    def subject(name):
        address = KeystoreAddress.parse(f"https://{name}.example.com:8200")
        return Subject(Endpoint(address, certificate, None, Resolver(closed, lookup)), Tenancy("acme"), 1)

    with ThreadPoolExecutor(1) as lookups, Transport() as transport:
        flows = [probe(subject("hangs"), lookups, 0.5), probe(subject("next"), lookups, 0.5)]
        found = list(transport.run(flows, 2, adaptive=False))
        hang.set()
    assert found[1] is None or found[0] is None
    (told,) = [result for result in found if result is not None]
    assert (told.online, told.reason) == (False, "Host unavailable")
    assert told.seconds < 2


@pytest.mark.parametrize(
    ("given", "url", "good"),
    [
        ("json", "", True),
        ("slack", "https://hooks.slack.com/services/T/B/x", True),
        ("pagerduty", "https://events.pagerduty.com/v2/enqueue?routing_key=R012", True),
        ("pagerduty", None, True),
        ("pagerduty", "https://events.pagerduty.com/v2/enqueue", False),
        ("pagerduty", "https://events.pagerduty.com/v2/enqueue?routing_key=a&routing_key=b", False),
        ("pagerduty", "https://events.pagerduty.com/v2/enqueue?routing_key=a%20b", False),
        ("teams", "", False),
        ("", "", False),
    ],
)
def test_what_a_webhook_may_be_called_with(given, url, good):
    if good:
        assert check_webhook_format(given, url) == given
    else:
        with pytest.raises(RuleViolation) as raised:
            check_webhook_format(given, url)
        assert (raised.value.rule, raised.value.prop) == ("KS046", "webhook_format")


def test_of_a_url_only_the_routing_key_is_taken():
    assert routing_key_of("https://events.pagerduty.com/v2/enqueue?x=y&routing_key=R012") == "R012"
