"""Where a name may lead: group U 10."""

import ipaddress
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulumi_keystore.causes import Cause
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.errors import HostUnavailable, InvalidInput
from pulumi_keystore.vault.resolver import HostMap, Resolver, is_public
from tests.conftest import effort
from tests.unit.declarations.test_address import ACCEPTED
from tests.unit.declarations.test_agreement import HOSTS

ADDRESS = KeystoreAddress("vault.example.com", 8200)

PRIVATE = (
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "192.88.99.1", "::1", "::", "fe80::1", "fc00::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1",
    "2002:7f00:1::", "2001::1", "2001:db8::1", "fec0::1", "3fff::1", "5f00::1", "::7f00:1",
    "192.0.0.192", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.128", "192.31.196.1", "192.52.193.1",
    "192.175.48.1", "198.51.100.1", "203.0.113.1", "168.63.129.16", "::ffff:0:127.0.0.1", "100:0:0:1::1", "100::1",
    "200::1", "4000::1", "fe00::1", "3ffe::1", "2001:1::1", "2001:4:112::1", "2620:4f:8000::1", "ffff::1",
    "fe80::1%eth0", "2a00:1450:4001:80b::200e%eth0",
)  # fmt: skip
PUBLIC = (
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "192.0.1.1", "192.0.3.1", "168.63.129.17", "100.128.0.1", "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e", "2001:200::1", "3000::1",
)  # fmt: skip


@pytest.mark.parametrize("ip", PRIVATE)
def test_an_address_that_leads_inside_is_not_dialled(ip):
    assert not is_public(ip)
    with pytest.raises(HostUnavailable, match="not a public address"):
        Resolver(lookup=lambda *_: [ip]).resolve(ADDRESS)


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_is_dialled_as_it_was_vetted(ip):
    assert Resolver(lookup=lambda *_: [ip]).resolve(ADDRESS).ips == (ip,)


def test_one_private_address_among_public_ones_is_enough_to_refuse():
    with pytest.raises(HostUnavailable, match=r"10\.0\.0\.1"):
        Resolver(lookup=lambda *_: ["8.8.8.8", "10.0.0.1"]).resolve(ADDRESS)


def test_a_name_that_leads_to_a_crowd_is_refused():
    """Each of them would be tried, each minute, and what is wrong with each be told."""
    crowd = [f"8.8.{number // 256}.{number % 256}" for number in range(17)]
    assert len(Resolver(lookup=lambda *_: crowd[:16]).resolve(ADDRESS).ips) == 16
    with pytest.raises(HostUnavailable, match="leads to 17 addresses"):
        Resolver(lookup=lambda *_: crowd).resolve(ADDRESS)


def test_a_name_that_does_not_resolve_is_unavailable():
    def fail(*_):
        raise OSError(-2, "Name or service not known")

    with pytest.raises(HostUnavailable, match="does not resolve") as raised:
        Resolver(lookup=fail).resolve(ADDRESS)
    assert raised.value.cause is Cause.DNS


def test_only_the_host_map_leads_to_loopback():
    resolver = Resolver(HostMap({"vault.example.com:8200": "127.0.0.1:18200"}), lookup=lambda *_: ["127.0.0.1"])
    assert resolver.resolve(ADDRESS).port == 18200
    with pytest.raises(HostUnavailable):
        resolver.resolve(KeystoreAddress("vault.example.com", 8201))


@pytest.mark.parametrize(
    "text", ["x", "[]", "1", '{"a": 1}', '{"vault.example.com:8200": "localhost:1"}', '{"127.0.0.1:1": "127.0.0.1:1"}']
)
def test_an_unusable_host_map_is_refused_in_one_line(text):
    with pytest.raises(InvalidInput) as caught:
        HostMap.parse(text)
    assert "\n" not in str(caught.value)


def is_number_to_the_system(host: str) -> bool:
    """Whether the C library takes a host for an address, in whatever spelling, and would not ask the DNS."""
    try:
        socket.getaddrinfo(host, 443, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


@settings(max_examples=effort(60, 600, 3000), deadline=None)
@given(HOSTS, st.lists(st.ip_addresses().map(str), min_size=1, max_size=3))
@example(next(iter(ACCEPTED)), ["8.8.8.8"])
@example(next(iter(ACCEPTED)), ["8.8.8.8", "169.254.169.254"])
def test_what_the_rules_accept_is_a_name_and_dials_vetted_public_addresses_alone(text, ips):
    try:
        address = KeystoreAddress.parse(text)
    except InvalidInput:
        return
    assert not is_number_to_the_system(address.host)
    asked: list[str] = []
    resolver = Resolver(lookup=lambda host, _: (asked.append(host), ips)[1])
    try:
        target = resolver.resolve(address)
    except HostUnavailable:
        assert not all(map(is_public, ips))
    else:
        assert list(target.ips) == ips
        assert all(ipaddress.ip_address(ip).is_global for ip in ips)
        assert not set(PRIVATE) & set(ips)
    assert asked == [address.host]
