"""Keys a second of a whole migration, beside a plain hvac loop and the servers' own limit, in one run.

All contenders move the same keys between the same two servers: read at the source, write at the destination, read
back. The ceiling is the native load generator in loadgen/ (Go, net/http), which does just those requests and
compares nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hvac
from keystore_harness import Landscape, wait_until
from rich.console import Console
from rich.table import Table

from pulumi_keystore.address import KeystoreAddress
from pulumi_keystore.certificate import ClientCertificate
from pulumi_keystore.client import Client
from pulumi_keystore.keystores.record import ArchiveKey
from pulumi_keystore.keystores.tenancy import Tenancy
from pulumi_keystore.keystores.transport import Endpoint, Flow, Transport
from pulumi_keystore.keystores.vault import VaultKeystore
from pulumi_keystore.network import HostMap, Resolver

HERE = Path(__file__).resolve().parent
ORGANIZATION = "bench"
PASSWORD = "bench"  # noqa: S105 - of certificates that live as long as the run
THREADS = 16
console = Console(highlight=False)


class Bench:
    """Two servers, a service, and keys in the first server."""

    def __init__(self, land: Landscape, keys: int) -> None:
        self.land = land
        self.count = keys
        self.tenancy = Tenancy(ORGANIZATION)
        for letter in "ab":
            land.admit(letter, ORGANIZATION)
        self.admin = Client(land.service.url, land.service.make_token("bench", "provider-admin"))
        authority = Client(land.service.url, land.service.make_token("bench", "authority"))
        self.admin.put_organization(ORGANIZATION)
        for name, letter in (("first", "a"), ("second", "b")):
            self.admin.put_keystore(ORGANIZATION, name, land.declaration(letter, ORGANIZATION, PASSWORD))
        users = [f"user-{n:07}" for n in range(keys)]
        for start in range(0, keys, 1000):
            batch = {user: b64encode(secrets.token_bytes(32)).decode() for user in users[start : start + 1000]}
            authority.request("POST", "organizations", ORGANIZATION, "archive-keys", body={"keys": batch})
        self.names = [ArchiveKey(ORGANIZATION, user, 1, b"").name for user in users]

    # Contenders: each returns the seconds it took to copy and read back every key.

    def product(self, destination: str) -> float:
        """A migration by the service, as anybody would start it; the copy phase, all durable steps included."""
        row = self.admin.start_migration(ORGANIZATION, destination)

        def ended() -> dict[str, Any] | None:
            current = self.admin.migration(ORGANIZATION, row["id"])
            return current if current["phase"] == "ended" else None

        end = wait_until(ended, "the migration", 1800, 0.2) or {}
        if end["state"] != "succeeded":
            raise SystemExit(f"the migration failed: {end}")
        return float(self.count / end["rate"])

    def hvac_threads(self) -> float:
        """The plain way: hvac in threads, each with a client of its own."""
        clients = {letter: [self._hvac(letter) for _ in range(THREADS)] for letter in "ab"}
        path = f"{self.tenancy.mount}/{ORGANIZATION}"

        def move(number: int) -> None:
            source, destination = clients["a"][number], clients["b"][number]
            for name in self.names[number::THREADS]:
                value = source.read(f"{path}/{name}")["data"]
                destination.write_data(f"{path}/{name}", data=value)
                if destination.read(f"{path}/{name}")["data"] != value:
                    raise SystemExit("hvac read back something else")

        started = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(move, range(THREADS)))
        return time.monotonic() - started

    def ceiling(self, in_flight: int) -> float:
        """The native load generator."""
        binary = self.land.folder / "loadgen"
        environment = {**os.environ, "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", binary, "."], cwd=HERE / "loadgen", check=True, env=environment)
        work = {
            "ca": self.land.authority.pem,
            "in_flight": in_flight,
            "path": f"/v1/{self.tenancy.mount}/{ORGANIZATION}/",
            "names": self.names,
            "source": {"url": self._url("a"), "token": self._hvac("a").token},
            "destination": {"url": self._url("b"), "token": self._hvac("b").token},
        }
        done = subprocess.run([binary], input=json.dumps(work), text=True, capture_output=True, check=True)
        return float(json.loads(done.stdout)["seconds"])

    def empty_destination(self) -> None:
        """Remove what a contender left at the second server."""
        keystore = self._keystore("b")

        def remove() -> Iterator[Flow[None]]:
            return (keystore.delete(name) for name in self.names)

        with Transport() as transport:
            for _ in transport.run(remove(), 64):
                pass

    def _url(self, letter: str) -> str:
        return f"https://127.0.0.1:{self.land.vaults[letter].port}"

    def _hvac(self, letter: str) -> hvac.Client:
        """Return a client that is logged in with the organization's certificate, as the product is."""
        return self.land.admit(letter, ORGANIZATION).credentials().login()

    def _keystore(self, letter: str) -> VaultKeystore:
        server = self.land.vaults[letter]
        issued = self.land.authority.issue(ORGANIZATION)
        certificate = ClientCertificate.from_pem(issued.certificate_pem.encode(), issued.key_pem.encode())
        resolver = Resolver(HostMap(server.host_map))
        address = KeystoreAddress.parse(server.address)
        endpoint = Endpoint(address, certificate, self.land.authority.pem.encode(), resolver)
        return VaultKeystore(endpoint, self.tenancy, kv_version=1)


def peak_memory_mib(pid: int) -> float:
    """Return the largest resident size that a process has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> int:
    """Run the benchmark; print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=10_000, help="how many keys to move (default 10000)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how to print the result")
    options = parser.parse_args()
    if shutil.which("go") is None:
        console.print("bench: Go is needed for the load generator", style="red")
        return 1
    say: Callable[[str], None] = lambda text: print(f"bench: {text}", file=sys.stderr, flush=True)  # noqa: E731
    say("starting two Vault servers, PostgreSQL and the service ...")
    with Landscape("ab") as land:
        say(f"enrolling {options.keys:,} keys ...")
        bench = Bench(land, options.keys)
        before = peak_memory_mib(land.service.pid)
        rows: dict[str, float] = {}
        say("native load generator ...")
        rows["native load generator (the ceiling)"] = bench.ceiling(64)
        bench.empty_destination()
        say(f"hvac, {THREADS} threads ...")
        rows[f"hvac, {THREADS} threads"] = bench.hvac_threads()
        bench.empty_destination()
        say("pulumi-keystore, there and back ...")
        there = bench.product("second")
        back = bench.product("first")
        rows["pulumi-keystore"] = (there + back) / 2
        say("native load generator again ...")
        again = bench.ceiling(64)
        rows["native load generator (the ceiling)"] = (rows["native load generator (the ceiling)"] + again) / 2
        report(options, rows, peak_memory_mib(land.service.pid), before)
    return 0


def report(options: argparse.Namespace, seconds: dict[str, float], peak: float, before: float) -> None:
    """Print the outcome."""
    rates = {name: options.keys / value for name, value in seconds.items()}
    ceiling = rates["native load generator (the ceiling)"]
    if options.format == "json":
        print(json.dumps({"keys": options.keys, "rates": rates, "peak_memory_mib": peak}))
        return
    table = Table("contender", "keys/s", "of the ceiling", title=f"{options.keys:,} keys, copied and read back, KV v1")
    for name, rate in sorted(rates.items(), key=lambda item: item[1]):
        table.add_row(name, f"{rate:,.0f}", f"{rate / ceiling:.2f}")
    console.print(table)
    console.print(f"memory of the service: {peak:,.0f} MiB at its peak, {before:,.0f} MiB before the migrations")


if __name__ == "__main__":
    sys.exit(main())
