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

from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.errors import HostUnavailable, InvalidInput

RESOLVE_TIMEOUT_S: Final = 5.0

# Ranges that `is_global` lets pass although they lead inside, to many, or through a translator.
_DENIED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
        "192.88.99.0/24",  # 6to4 relay, RFC 7526
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.175.48.0/24",  # AS112
        "224.0.0.0/4",
        "240.0.0.0/4",
        "64:ff9b::/96",  # NAT64, RFC 6052
        "64:ff9b:1::/48",  # RFC 8215
        "::ffff:0:0/96",
        "::/96",  # IPv4-compatible, deprecated
        "2001::/23",  # Teredo, ORCHID and other protocol assignments
        "2002::/16",  # 6to4, RFC 3056
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation, RFC 9637
        "5f00::/16",  # segment routing, RFC 9602
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",
    )
)


def is_public(address: str) -> bool:
    """Tell whether an IP address is globally routable unicast that leads where it says."""
    ip = ipaddress.ip_address(address)
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in _DENIED if net.version == ip.version)


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
            raise HostUnavailable(f"{address}: the name does not resolve", hint="check the DNS name") from None
        except FutureTimeoutError:
            raise HostUnavailable(f"{address}: the name does not resolve within {RESOLVE_TIMEOUT_S:g} s") from None
        finally:
            pool.shutdown(wait=False)
        private = [ip for ip in ips if not is_public(ip.partition("%")[0])]
        if private or not ips:
            raise HostUnavailable(
                f"{address}: the name leads to {', '.join(private) or 'nothing'}, which is not a public address",
                hint="publish only public addresses for the keystore's name",
            )
        return Target(tuple(ips), address.port)


@dataclass(frozen=True, slots=True)
class Vetted(Resolver):
    """A resolver for an address that has been looked up and vetted: it knows that one target."""

    target: Target = Target((), 0)

    def resolve(self, address: KeystoreAddress) -> Target:  # noqa: ARG002 - it is known
        """Return the target."""
        return self.target
