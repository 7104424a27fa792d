"""Where a keystore's name leads: resolution, vetting, and the operator's host map (contract: Address)."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Final

from pulumi_keystore.causes import Cause
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.errors import HostUnavailable, InvalidInput

RESOLVE_TIMEOUT_S: Final = 5.0
MOST_ADDRESSES: Final = 16
"""Each health check tries every one of them."""

_PUBLIC: Final = ipaddress.ip_network("2000::/3")
"""All of IPv6 that has been given out as global unicast (RFC 4291 and IANA's IPv6 address space registry)."""

# IANA's registries of special-purpose addresses (IPv4 and IPv6, RFC 6890), those that are reachable from everywhere
# among them: none is a keystore. The library's own table (`is_global`) differs between versions of Python.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; clouds keep services of their own there
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, RFC 6890, and the metadata of a cloud
        "192.0.2.0/24",
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 relay, RFC 7526
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112, RFC 7534
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # not IANA's: what a cloud answers its own machines at
        "2001::/23",  # Teredo, ORCHID and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4, RFC 3056
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, given back: RFC 3701
        "3fff::/20",  # documentation, RFC 9637
    )
)


def is_public(address: str) -> bool:
    """Tell whether an IP address is global unicast that leads where it says; one with a zone is not."""
    if "%" in address:
        return False
    ip = ipaddress.ip_address(address)
    given_out = ip.version == 4 or ip in _PUBLIC  # noqa: PLR2004
    return given_out and not any(ip in special for special in _SPECIAL if special.version == ip.version)


@dataclass(frozen=True, slots=True)
class Target:
    """Vetted places to dial for an address: IP addresses in text form, and a port."""

    ips: tuple[str, ...]
    port: int


def _mapped(text: str) -> Target:
    hosts, _, port = text.rpartition(":")
    return Target(tuple(host.strip("[]") for host in hosts.split(",")), int(port))


@dataclass(frozen=True, slots=True)
class HostMap:
    """The operator's explicit map from a public HOST:PORT to a loopback or private one, for tests and demos.

    The public name stays in TLS and is verified; only the dialled address changes. A name with several servers maps to
    several IP addresses with one port: `127.0.0.1,127.0.0.2:18200`.
    """

    entries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> HostMap:
        """Parse a JSON object such as `{"vault-a.example.com:8200": "127.0.0.1:18200"}`.

        Raises:
            InvalidInput: It is anything else.

        """
        try:
            entries = json.loads(text or "{}")
            for public, target in entries.items():
                KeystoreAddress.parse(f"https://{public}")
                for ip in _mapped(target).ips:
                    ipaddress.ip_address(ip)
        except (ValueError, AttributeError, InvalidInput) as error:
            raise InvalidInput(
                "the host map is not a JSON object of public to dialled HOST:PORT",
                hint='give for example {"vault-a.example.com:8200": "127.0.0.1:18200"}',
            ) from error
        return cls(entries)


Lookup = Callable[[str, int], list[str]]


def look_up(host: str, port: int) -> list[str]:
    """Return every address the system resolver knows for a host (`getaddrinfo`)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Resolver:
    """Turn addresses into vetted targets. What it returns is what is dialled: there is no second look-up."""

    host_map: HostMap = field(default_factory=HostMap)
    lookup: Lookup = look_up

    def resolve(self, address: KeystoreAddress) -> Target:
        """Return where to dial.

        Raises:
            HostUnavailable: The name does not resolve in 5 seconds, or one of its addresses is not public.

        """
        mapped = self.host_map.entries.get(f"{address.host}:{address.port}")
        if mapped is not None:
            return _mapped(mapped)
        # getaddrinfo knows no deadline of its own; a late one is left to finish in its thread.
        pool = ThreadPoolExecutor(1, thread_name_prefix="resolve")
        try:
            ips = pool.submit(self.lookup, address.host, address.port).result(RESOLVE_TIMEOUT_S)
        except (OSError, UnicodeError):
            raise HostUnavailable(
                f"{address}: the name does not resolve", hint="check the DNS name", cause=Cause.DNS
            ) from None
        except FutureTimeoutError:
            raise HostUnavailable(
                f"{address}: the name does not resolve within {RESOLVE_TIMEOUT_S:g} s", cause=Cause.DNS
            ) from None
        finally:
            pool.shutdown(wait=False)
        if len(ips) > MOST_ADDRESSES:
            raise HostUnavailable(
                f"{address}: the name leads to {len(ips):,} addresses, more than {MOST_ADDRESSES}",
                hint="name a load balancer, or fewer servers",
                cause=Cause.DNS,
            )
        private = [ip for ip in ips if not is_public(ip)]
        if private or not ips:
            raise HostUnavailable(
                f"{address}: the name leads to {', '.join(private) or 'nothing'}, which is not a public address",
                hint="publish only public addresses for the keystore's name",
                cause=Cause.PRIVATE_ADDRESS,
            )
        return Target(tuple(ips), address.port)


@dataclass(frozen=True, slots=True)
class Vetted(Resolver):
    """A resolver for an address that has been looked up and vetted: it knows that one target."""

    target: Target = Target((), 0)

    def resolve(self, address: KeystoreAddress) -> Target:  # noqa: ARG002 - it is known
        """Return the target."""
        return self.target
