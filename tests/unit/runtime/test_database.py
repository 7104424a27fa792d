"""URLs of databases, as people write them."""

import pytest
from sqlalchemy import make_url

from pulumi_keystore.control_plane.runtime.database import _with_hosts_in_query, connect
from pulumi_keystore.errors import KeystoreError


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "query"),
    [
        ("postgresql://u:p@a:1,b:2/n", "a,b", "1,2", {"target_session_attrs": "read-write"}),
        ("postgres://a,b,c:5433/n?sslmode=require", "a,b,c", "5432,5432,5433", {"sslmode": "require"}),
        ("postgresql+psycopg://u:p%40@a,b/n?target_session_attrs=any", "a,b", "5432,5432", {"target_session_attrs": "any"}),
        ("postgresql://[::1]:1,[::2]:2/n", "::1,::2", "1,2", {}),
    ],
)  # fmt: skip
def test_several_hosts_are_read_as_libpq_reads_them(url, hosts, ports, query):
    parsed = make_url(_with_hosts_in_query(url))
    assert (parsed.query["host"], parsed.query["port"], parsed.database) == (hosts, ports, "n")
    assert query.items() <= dict(parsed.query).items()


@pytest.mark.parametrize("url", ["postgresql://u:p@a:1/n", "postgresql:///n?host=/tmp/a", "postgresql://u:a,b@h/n"])
def test_one_host_is_left_as_it_is(url):
    assert _with_hosts_in_query(url) == url


@pytest.mark.parametrize(
    "url", ["mysql://x", "x", "postgresql://u:CANARY@a:port/n", "postgresql://u:CANARY@127.0.0.1:1/n"]
)
def test_what_is_no_database_is_told_without_its_password(url):
    with pytest.raises(KeystoreError) as caught:
        connect(url)
    assert "CANARY" not in str(caught.value)
