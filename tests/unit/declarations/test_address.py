"""Addresses: every case of group U that needs no server, as a table, and what generated texts may do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.errors import RuleViolation

ACCEPTED = {
    "https://vault.example.com:8200": "https://vault.example.com:8200",
    "https://vault.example.com:8200/": "https://vault.example.com:8200",
    "HTTPS://Vault.EXAMPLE.com:8200": "https://vault.example.com:8200",
    "https://vault.example.com:443": "https://vault.example.com:443",
    "https://vault.example.com:1": "https://vault.example.com:1",
    "https://vault.example.com:65535": "https://vault.example.com:65535",
    "https://example.net:8200": "https://example.net:8200",
    "https://a.example.org:8200": "https://a.example.org:8200",
    "https://faß.de:8200": "https://xn--fa-hia.de:8200",
    "https://пример.рф:8200": "https://xn--e1afmkfd.xn--p1ai:8200",
    "https://xn--fa-hia.de:8200": "https://xn--fa-hia.de:8200",
    "https://1password.com:8200": "https://1password.com:8200",
    f"https://{'a' * 63}.com:8200": f"https://{'a' * 63}.com:8200",
}

REFUSED = {
    # no or unusable port
    "https://vault.example.com": "KS002",
    "https://vault.example.com/": "KS002",
    "https://vault.example.com:": "KS002",
    "https://vault.example.com:0": "KS002",
    "https://vault.example.com:65536": "KS002",
    "https://vault.example.com:99999": "KS002",
    "https://vault.example.com:-1": "KS002",
    "https://vault.example.com:+443": "KS002",
    "https://vault.example.com:44 3": "KS007",
    "https://vault.example.com:４４３": "KS002",
    "https://vault.example.com:٤٤٣": "KS002",
    "https://vault.example.com:1_000": "KS002",
    "https://vault.example.com:0443": "KS002",
    "https://vault.example.com:8200x": "KS002",
    # scheme
    "http://vault.example.com:8200": "KS001",
    "ftp://vault.example.com:8200": "KS001",
    "https:vault.example.com:8200": "KS001",
    "https:/vault.example.com:8200": "KS001",
    "https:///vault.example.com:8200": "KS003",
    "//vault.example.com:8200": "KS001",
    "vault.example.com:8200": "KS001",
    "": "KS001",
    # anything after the port, or before the host
    "https://vault.example.com:8200/v1": "KS003",
    "https://vault.example.com:8200//": "KS003",
    "https://vault.example.com:8200/../": "KS003",
    "https://vault.example.com:8200?x=1": "KS003",
    "https://vault.example.com:8200/?": "KS003",
    "https://vault.example.com:8200#x": "KS003",
    "https://vault.example.com:8200;x": "KS003",
    "https://user@vault.example.com:8200": "KS003",
    "https://user:pw@vault.example.com:8200": "KS003",
    "https://vault.example.com\\@evil.example:8200": "KS003",
    # white space and the like, some of which urlsplit would strip
    " https://vault.example.com:8200": "KS007",
    "https://vault.example.com:8200 ": "KS007",
    "https://vault.example.com:8200\n": "KS007",
    "\thttps://vault.example.com:8200": "KS007",
    "https://vault.exa\tmple.com:8200": "KS007",
    "https://vault.exa\rmple.com:8200": "KS007",
    "https://vault.exa\nmple.com:8200": "KS007",
    "https://vault.exa\0mple.com:8200": "KS007",
    "https://vault.example.com:8200\0": "KS007",
    "https://vault.\u00adexample.com:8200": "KS007",
    "https://vault.\u200dexample.com:8200": "KS007",
    "https://vault.\u202eexample.com:8200": "KS007",
    "\ufeffhttps://vault.example.com:8200": "KS007",
    # IPv4 in every spelling
    "https://127.0.0.1:8200": "KS004",
    "https://8.8.8.8:8200": "KS004",
    "https://127.1:8200": "KS004",
    "https://0:8200": "KS004",
    "https://2130706433:8200": "KS004",
    "https://0x7f.1:8200": "KS004",
    "https://0x7f000001:8200": "KS004",
    "https://0177.0.0.1:8200": "KS004",
    "https://017700000001:8200": "KS004",
    "https://0x.0x.0:8200": "KS004",
    "https://vault.example.0x:8200": "KS004",
    "https://vault.example.123:8200": "KS004",
    "https://127.0.0.1.:8200": "KS004",
    "https://①②⑦.⓪.⓪.①:8200": "KS004",
    "https://１２７.0.0.1:8200": "KS004",
    "https://127。0。0。1:8200": "KS004",
    # IPv6
    "https://[::1]:8200": "KS004",
    "https://[::ffff:7f00:1]:8200": "KS004",
    "https://[64:ff9b::7f00:1]:8200": "KS004",
    "https://[fe80::1%25lo]:8200": "KS004",
    "https://[v1.x]:8200": "KS004",
    "https://::1:8200": "KS004",
    "https://vault%2eexample.com:8200": "KS006",
    "https://%76ault.example.com:8200": "KS006",
    # names that are not public
    "https://localhost:8200": "KS005",
    "https://ⓛocalhost:8200": "KS005",
    "https://vault.localhost:8200": "KS005",
    "https://mail:8200": "KS005",
    "https://com:8200": "KS005",
    "https://x.internal:8200": "KS005",
    "https://x.local:8200": "KS005",
    "https://x.test:8200": "KS005",
    "https://x.invalid:8200": "KS005",
    "https://x.onion:8200": "KS005",
    "https://1.in-addr.arpa:8200": "KS005",
    "https://home.arpa:8200": "KS005",
    "https://vault.example:8200": "KS005",
    # no DNS name at all
    "https://vault.example.com.:8200": "KS006",
    "https://:8200": "KS006",
    "https://a..b:8200": "KS006",
    "https://.example.com:8200": "KS006",
    "https://-a.com:8200": "KS006",
    "https://a-.com:8200": "KS006",
    f"https://{'a' * 64}.com:8200": "KS006",
    f"https://{'a.' * 125}abcd:8200": "KS006",
    "https://a_b.example.com:8200": "KS006",
    "https://xn--zz.com:8200": "KS006",
    "https://xn--a.com:8200": "KS006",
    "https://a!b.example.com:8200": "KS006",
}


@pytest.mark.parametrize(("text", "canonical"), ACCEPTED.items())
def test_an_address_is_accepted_in_one_canonical_form(text, canonical):
    address = KeystoreAddress.parse(text)
    assert str(address) == canonical
    assert KeystoreAddress.parse(canonical) == address


@pytest.mark.parametrize(("text", "rule"), REFUSED.items())
def test_an_address_is_refused_with_its_rule_in_one_line(text, rule):
    with pytest.raises(RuleViolation) as caught:
        KeystoreAddress.parse(text)
    assert caught.value.rule == rule
    assert caught.value.prop == "address"
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_an_international_name_is_shown_in_both_forms():
    address = KeystoreAddress.parse("https://пример.рф:8200")
    assert (str(address), address.display) == ("https://xn--e1afmkfd.xn--p1ai:8200", "https://пример.рф:8200")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("https://admin:CANARY@vault.example.com:8200", "KS003"),
        ("https://admin:CANARY%40vault.example.com:8200", "KS003"),
        ("https://admin:CANARY＠vault.example.com:8200", "KS003"),
        ("https://admin:CANARY﹫vault.example.com:8200", "KS003"),
        ("http://admin:CANARY@vault.example.com:8200", "KS003"),
        ("https://vault.example.com:8200?token=CANARY", "KS003"),
        ("https://vault.example.com:8200/#CANARY", "KS003"),
        ("https://vault.example.com:8200/v1/CANARY", "KS003"),
        ("http://vault.example.com:8200/?token=CANARY", "KS001"),
        ("vault.example.com:8200/?token=CANARY", "KS001"),
        ("https://vault.example.com%CANARY:8200", "KS006"),
        ("https://vault.example.com?token=CANARY", "KS003"),
        ("https://vault.example.com:82;CANARY", "KS003"),
        ("https://vault.example.com:8200？token=CANARY", "KS003"),
        ("https://vault.example.com:8200／CANARY", "KS003"),
        ("https://vault.example.com:8200＃CANARY", "KS003"),
        ("https://vault.example.com:8200；CANARY", "KS003"),
        ("https://vault.example.com:8200&token=CANARY", "KS003"),
        ("https://vault.example.com:8200CANARY", "KS002"),
        ("https://vault.example.com:CANARY", "KS002"),
    ],
)
def test_credentials_in_an_address_are_not_repeated(text, rule):
    with pytest.raises(RuleViolation) as caught:
        KeystoreAddress.parse(text)
    assert "CANARY" not in str(caught.value)
    assert caught.value.rule == rule


def test_a_host_with_two_ports_is_not_called_an_ipv6_address():
    with pytest.raises(RuleViolation, match="port") as caught:
        KeystoreAddress.parse("https://vault.example.com:8200:8200")
    assert caught.value.rule == "KS002"


@pytest.mark.parametrize("name", ["نامه\u200cای.com", "क्\u200dष.com", "क्\u200cष.com"])
def test_a_joiner_is_accepted_where_its_script_has_one_in_either_form(name):
    address = KeystoreAddress.parse(f"https://{name}:8200")
    assert address.display == f"https://{name}:8200"
    assert KeystoreAddress.parse(str(address)) == address


@given(
    st.text() | st.text().map(lambda text: f"https://{text}:8200") | st.text().map(lambda text: f"https://a.com{text}")
)
def test_any_text_is_an_address_or_a_violation(text):
    try:
        address = KeystoreAddress.parse(text)
    except RuleViolation as violation:
        assert violation.rule in {f"KS00{number}" for number in range(1, 8)}
    else:
        assert KeystoreAddress.parse(str(address)) == address
        assert address.host.isascii()
        assert not address.host.split(".")[-1].isdigit()


@given(st.ip_addresses())
def test_no_ip_address_is_accepted(ip):
    for host in (str(ip), f"[{ip}]", str(int(ip)), hex(int(ip))):
        with pytest.raises(RuleViolation):
            KeystoreAddress.parse(f"https://{host}:8200")
