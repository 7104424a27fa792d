"""Keys a second of a whole migration, beside peers and the servers' own limit, on the same two servers in one run.

All contenders move the same keys between the same two servers. The ceiling is the native load generator in loadgen/
(Go, net/http), which sends just the requests of a migration (read, write, read back) and compares nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import hvac
import psutil
import psycopg
from keystore_harness import Testbed, Toxiproxy, wait_until
from keystore_harness.binary import obtain_toxiproxy
from keystore_harness.service import WorkerProcess
from keystore_harness.tenancy import Tenancy

from docs.sections import replaced
from pulumi_keystore.client import Client
from pulumi_keystore.control_plane.organizations.legacy import LEGACY_PURPOSE
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.vault.record import ArchiveKey

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
PASSWORD = "bench"  # noqa: S105 - of certificates that live as long as the run
THREADS = 16
FEW = 1000
"""Keys for contenders that would take minutes otherwise; the rate is what is compared."""
ROUNDS = 3
"""How often the product and the ceilings take turns; medians are told."""
PEER = "vault-migrate==0.1.9"
PARTS = ("v1", "v2", "far", "growth", "million")
SETTINGS = {"retry_s": "60", "request_s": "30", "stall_s": "600"}


def say(text: str) -> None:
    """Tell what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclass
class Row:
    """What a contender did: keys a second, and its share of the ceiling."""

    name: str
    rate: float
    ceiling: float = 0.0
    note: str = ""

    @property
    def share(self) -> str:
        """Its share of the ceiling, as text."""
        return f"{self.rate / self.ceiling:.2f}" if self.ceiling else ""


@dataclass
class Organization:
    """An organization of the run, with its keys in the first server."""

    bench: Bench
    name: str
    version: int
    names: list[str] = field(default_factory=list)

    @property
    def tenancy(self) -> Tenancy:
        """Its place on the servers."""
        return Tenancy(self.name, "archive-keys" if self.version == 1 else "archive-keys-v2")

    def path(self, kind: str = "data") -> str:
        """Return the path below which its keys lie."""
        kind = "" if self.version == 1 else f"/{kind}"
        return f"{self.tenancy.mount}{kind}/{self.name}"

    def enrol(self, count: int) -> None:
        """Have so many users more enrolled."""
        users = [f"user-{len(self.names) + number:07}" for number in range(count)]
        for start in range(0, count, 1000):
            batch = {user: b64encode(secrets.token_bytes(32)).decode() for user in users[start : start + 1000]}
            path = ("organizations", self.name, "archive-keys")
            self.bench.escrow_client.request("POST", *path, body={"keys": batch})
        self.names += [ArchiveKey(self.name, user, 1, b"").name for user in users]


class Bench:
    """Two servers, a service, and organizations."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.admin = Client(testbed.service.url, testbed.service.make_token("bench", "provider-admin"))
        self.escrow_client = Client(testbed.service.url, testbed.service.make_token("bench", "authority"))
        self.loadgen = testbed.folder / "loadgen"
        environment = {**os.environ, "CGO_ENABLED": "0"}
        command = ["go", "build", "-o", str(self.loadgen), "."]
        subprocess.run(command, cwd=HERE / "loadgen", check=True, env=environment)

    def organization(self, name: str, version: int, keys: int) -> Organization:
        """Make an organization with keys."""
        made = Organization(self, name, version)
        self.admin.put_organization(name)
        for keystore, letter in (("first", "a"), ("second", "b")):
            self.testbed.admit(letter, made.tenancy, version)
            declaration = self.testbed.declaration(letter, name, PASSWORD, mount=made.tenancy.mount)
            self.admin.put_keystore(name, keystore, declaration)
        say(f"enrolling {keys:,} keys on KV version {version} ...")
        made.enrol(keys)
        return made

    def url(self, letter: str) -> str:
        """Where a server answers."""
        return f"https://127.0.0.1:{self.ports[letter]}"

    @property
    def ports(self) -> dict[str, int]:
        """The ports contenders use."""
        return self._ports or {letter: vault.port for letter, vault in self.testbed.vaults.items()}

    _ports: dict[str, int] | None = None

    def login(self, org: Organization, letter: str) -> hvac.Client:
        """Return a client that is logged in with the organization's certificate, as the product is."""
        client = self.testbed.admit(letter, org.tenancy, org.version).credentials().login()
        client.url = self.url(letter)
        return client

    # Contenders: each returns keys a second.

    def ceiling(self, org: Organization, read_back: str = "") -> float:
        """The native load generator; it reads `each` key back at once, all in a `second pass`, or none."""
        work = {
            "ca": self.testbed.ca.pem,
            "in_flight": 64,
            "path": f"/v1/{org.path()}/",
            "version": org.version,
            "read_back": read_back,
            "names": org.names,
            "source": {"url": self.url("a"), "token": self.login(org, "a").token},
            "destination": {"url": self.url("b"), "token": self.login(org, "b").token},
        }
        done = subprocess.run([self.loadgen], input=json.dumps(work), text=True, capture_output=True, check=True)
        self.empty(org)
        return len(org.names) / float(json.loads(done.stdout)["seconds"])

    def hvac(self, org: Organization, threads: int, keys: int, *, read_back: bool) -> float:
        """The plain way: hvac, one after another or in threads with a client each."""
        clients = {letter: [self.login(org, letter) for _ in range(threads)] for letter in "ab"}
        names = org.names[:keys]

        def value(answer: dict[str, Any]) -> Any:
            return answer["data"] if org.version == 1 else answer["data"]["data"]

        def move(number: int) -> None:
            source, destination = clients["a"][number], clients["b"][number]
            for name in names[number::threads]:
                path = f"{org.path()}/{name}"
                found = value(source.read(path))
                destination.write_data(path, data=found if org.version == 1 else {"data": found})
                if read_back and value(destination.read(path)) != found:
                    raise SystemExit("hvac read back something else")

        started = time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(move, range(threads)))
        seconds = time.monotonic() - started
        self.empty(org)
        return len(names) / seconds

    def vault_migrate(self, org: Organization) -> float:
        """vault-migrate of PyPI, in an environment of its own; it copies, and reads nothing back."""
        few = Organization(self, f"{org.name}-few", org.version)
        tenants = {letter: self.testbed.admit(letter, few.tenancy, org.version) for letter in "ab"}
        for number in range(FEW):
            tenants["a"].add(f"user-{number}")
        side = {"namespace": "", "mount": few.tenancy.mount, "path_prefix": few.name}
        ends = {
            end: {"address": self.url(letter), "token": self.testbed.vaults[letter].root_token, "tls_verify": False}
            for end, letter in (("source", "a"), ("target", "b"))
        }
        with self._folder() as folder:
            ends_and_map = {**ends, "mapping_file": str(folder / "map.json"), "timeout": 30}
            (folder / "migrate.json").write_text(
                json.dumps({"settings": ends_and_map, "kv": [{"from": side, "to": side}]})
            )
            uv = os.environ.get("UV") or shutil.which("uv") or "uv"
            # It does not even parse with Python 3.11.
            run = [uv, "tool", "run", "--system-certs", "--quiet", "--python=>=3.12", "--from", PEER, "vault-migrate"]
            subprocess.run([*run, "--help"], capture_output=True, check=False)  # installed before the clock runs
            started = time.monotonic()
            done = subprocess.run([*run, str(folder / "migrate.json")], capture_output=True, text=True, check=False)
            seconds = time.monotonic() - started
        moved = len(tenants["b"].names())
        for tenant in tenants.values():
            for name in tenant.names():
                tenant.remove(name)
        if moved < FEW:
            say(f"vault-migrate moved {moved} of {FEW} keys (exit {done.returncode}): {done.stderr[-200:]}")
            return 0.0
        return FEW / seconds

    def peer(self, org: Organization, command: str) -> float:
        """Any program that copies a path; {source}, {destination}, their {…_token}s, {path} and {ca} are filled in."""
        with self._folder() as folder:
            (folder / "ca.pem").write_text(self.testbed.ca.pem)
            filled = command.format(
                source=self.url("a"), destination=self.url("b"), path=org.path(), ca=folder / "ca.pem",
                source_token=self.login(org, "a").token, destination_token=self.login(org, "b").token,
            )  # fmt: skip
            started = time.monotonic()
            subprocess.run(shlex.split(filled), check=True, capture_output=True)
            seconds = time.monotonic() - started
        self.empty(org)
        return len(org.names) / seconds

    def product(self, org: Organization, destination: str) -> dict[str, Any]:
        """A migration by the service, as anybody would start it; its rate is that of copy and verify."""
        started = time.monotonic()
        row = self.admin.start_migration(org.name, destination)

        if row is None:
            raise RuntimeError(f"{destination} is active already")
        migration_id = row["id"]

        def ended() -> dict[str, Any] | None:
            current = dict(self.admin.migration(org.name, migration_id))
            return current if current["phase"] == "ended" else None

        end = wait_until(ended, "the migration", 7200, 1) or {}
        if end["state"] != "succeeded" or end["clean_up_pending"]:
            raise SystemExit(f"the migration failed: {end}")
        return {**end, "whole_s": time.monotonic() - started}

    def there_and_back(self, org: Organization) -> tuple[float, float]:
        """Move all keys there and back; return the mean rate and the mean seconds from preflight to purged source."""
        runs = [self.product(org, destination) for destination in ("second", "first")]
        return sum(run["rate"] for run in runs) / 2, sum(run["whole_s"] for run in runs) / 2

    def empty(self, org: Organization) -> None:
        """Remove what a contender left at the second server."""
        client = self.testbed.vaults["b"].client()
        client.delete(f"sys/mounts/{org.tenancy.mount}")
        self.testbed.admit("b", org.tenancy, org.version)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        path = self.testbed.folder / f"peer-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path)

    # What the machine does meanwhile.

    @contextmanager
    def cpu(self) -> Iterator[dict[str, float]]:
        """Measure the CPU seconds of the service, its database, and both servers."""
        groups = {
            "service": [psutil.Process(self.testbed.service.pid)],
            "database": [p for p in psutil.process_iter() if p.name() == "postgres"],
            "source and destination": [psutil.Process(server.pid) for server in self.testbed.servers.values()],
        }

        def used() -> dict[str, float]:
            total = dict.fromkeys(groups, 0.0)
            for name, processes in groups.items():
                for process in processes:
                    try:
                        times = process.cpu_times()
                    except psutil.NoSuchProcess:
                        continue
                    total[name] += times.user + times.system
            return total

        before = used()
        found: dict[str, float] = {}
        yield found
        found.update({name: seconds - before[name] for name, seconds in used().items()})

    @contextmanager
    def far_away(self, milliseconds: int) -> Iterator[None]:
        """Let every answer of both servers come so much later, to the service and to all contenders."""
        with ExitStack() as stack:
            toxiproxy = stack.enter_context(Toxiproxy(obtain_toxiproxy()))
            service, targets, ports = self.testbed.service, {}, {}
            for letter, vault in self.testbed.vaults.items():
                proxy = toxiproxy.proxy(f"far-{letter}", vault.port)
                stack.enter_context(proxy.latency(milliseconds))
                ports[letter] = proxy.port
                targets[f"{vault.name}:{vault.port}"] = f"127.0.0.1:{proxy.port}"
            before, service.settings["host_map"] = service.settings["host_map"], json.dumps(targets)
            self._ports = ports
            service.restart()
            try:
                yield
            finally:
                self._ports = None
                service.settings["host_map"] = before
                service.restart()


def peak_memory_mib(pid: int) -> float:
    """Return the largest resident size that a process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def side_by_side(bench: Bench, org: Organization, peers: dict[str, str], sections: list[str]) -> None:
    """All contenders on one KV version."""
    version = org.version
    kinds = ("each", "second pass", "")
    rounds: dict[str, list[float]] = {name: [] for name in (*kinds, "rate", "whole")}
    split: dict[str, float] = {}
    for number in range(1, ROUNDS + 1):
        say(f"KV version {version}, round {number} of {ROUNDS}: pulumi-keystore there and back, then the ceilings ...")
        with bench.cpu() as cpu:
            rate, whole = bench.there_and_back(org)
        split = {name: split.get(name, 0.0) + seconds for name, seconds in cpu.items()}
        rounds["rate"].append(rate)
        rounds["whole"].append(whole)
        for kind in kinds:
            rounds[kind].append(bench.ceiling(org, kind))
        say(", ".join(f"{kind or 'bare'} {found[-1]:,.1f}" for kind, found in rounds.items()))
    each, second_pass, bare = (median(rounds[kind]) for kind in kinds)
    rate, whole = median(rounds["rate"]), median(rounds["whole"])
    ceiling = max(each, second_pass)
    say(f"KV version {version}: hvac ...")
    read_back = [
        Row("hvac, one by one", bench.hvac(org, 1, FEW, read_back=True), ceiling),
        Row(f"hvac, {THREADS} threads", bench.hvac(org, THREADS, 3 * FEW, read_back=True), ceiling),
        Row("**pulumi-keystore**, as `POST /migrations`", rate, ceiling),
        Row("native load generator, each key read back at once", each, ceiling),
        Row("native load generator, read back in a second pass, as we do", second_pass, ceiling),
    ]
    copied = [
        Row("hvac, one by one", bench.hvac(org, 1, FEW, read_back=False), bare),
        Row(f"hvac, {THREADS} threads", bench.hvac(org, THREADS, 3 * FEW, read_back=False), bare),
        Row("native load generator", bare, bare),
    ]
    say(f"KV version {version}: vault-migrate ...")
    if peer := bench.vault_migrate(org):
        copied.insert(0, Row("vault-migrate 0.1.9", peer, bare))
    copied[-1:-1] = [Row(name, bench.peer(org, command), bare) for name, command in peers.items()]
    total = sum(split.values())
    used = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in split.items())
    lines = [
        f"### {len(org.names):,} keys, KV version {version}",
        "",
        "| copied and read back | keys/s | of the ceiling |",
    ]
    lines += ["| --- | ---: | ---: |"]
    lines += [f"| {row.name} | {row.rate:,.0f} | {row.share} |" for row in read_back]
    lines += ["", "| copied only, nothing verified | keys/s | of its ceiling |", "| --- | ---: | ---: |"]
    lines += [f"| {row.name} | {row.rate:,.0f} | {row.share} |" for row in copied]
    lines += [
        "",
        f"From preflight to the purged source: **{whole:.1f} s** for {len(org.names):,} keys. CPU meanwhile: {used}.",
        "",
    ]
    sections.append("\n".join(lines))


def far(bench: Bench, org: Organization, milliseconds: int, sections: list[str]) -> None:
    """The same over a network, with one worker and two."""
    lines = [
        f"### {len(org.names):,} keys, {milliseconds} ms away",
        "",
        "| copied and read back | keys/s |",
        "| --- | ---: |",
    ]
    service = bench.testbed.service
    with bench.far_away(milliseconds):
        say(f"{milliseconds} ms away: hvac ...")
        lines.append(f"| hvac, {THREADS} threads | {bench.hvac(org, THREADS, FEW, read_back=True):,.0f} |")
        say(f"{milliseconds} ms away: pulumi-keystore ...")
        lines.append(f"| pulumi-keystore, the service alone | {bench.there_and_back(org)[0]:,.0f} |")
        before = dict(service.settings)
        service.settings.update(slots="0", shard_size="500")
        service.restart()
        with WorkerProcess(service):
            lines.append(f"| one `keystore worker` | {bench.there_and_back(org)[0]:,.0f} |")
            with WorkerProcess(service):
                lines.append(f"| two `keystore worker`s | {bench.there_and_back(org)[0]:,.0f} |")
        service.settings.clear()
        service.settings.update(before)
        service.restart()
        lines.append(f"| native load generator, 64 in flight | {bench.ceiling(org, 'second pass'):,.0f} |")
    sections.append("\n".join([*lines, ""]))


def growth(bench: Bench, sizes: list[int], sections: list[str]) -> None:
    """Time and memory as there are more and more keys."""
    lines = [
        "### Growth, KV version 1",
        "",
        "| keys | keys/s, copied and read back | time a key, against the first | preflight to purged source | memory |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    bench.testbed.service.restart()
    org = bench.organization("growth", 1, 0)
    first = 0.0
    for size in sizes:
        say(f"growth: {size:,} keys ...")
        org.enrol(size - len(org.names))
        rate, whole = bench.there_and_back(org)
        first = first or rate
        memory = peak_memory_mib(bench.testbed.service.pid)
        lines.append(f"| {size:,} | {rate:,.0f} | {first / rate:.2f} | {whole:,.1f} s | {memory:,.0f} MiB |")
    sections.append("\n".join([*lines, ""]))


def million(bench: Bench, keys: int, sections: list[str]) -> None:
    """So many keys once, from a legacy keystore to a Vault (to fill one would take longer), and on to the other."""
    organization, service = "million", bench.testbed.service
    bench.admin.put_organization(organization)
    bench.admin.put_keystore(organization, "legacy", {"kind": "legacy"})
    for keystore, letter in (("first", "a"), ("second", "b")):
        bench.testbed.admit(letter, organization)
        bench.admin.put_keystore(organization, keystore, bench.testbed.declaration(letter, organization, PASSWORD))
    say(f"writing {keys:,} legacy rows ...")
    settings = Settings(database_url=service.database_url, master_key_file=service.data / "master.key")
    with opened(settings) as database, psycopg.connect(service.database_url) as connection:
        master_key, cursor = database.plane.master_key, connection.cursor()
        query = "select id from organizations where name = %s"
        (number,) = cursor.execute(query, (organization,)).fetchone() or (0,)
        users = {f"user-{n:07}": secrets.token_bytes(32) for n in range(keys)}
        with cursor.copy("copy archive_keys (organization_id, user_id, generation, fingerprint) from stdin") as copy:
            for user, key in users.items():
                copy.write_row((number, user, 1, master_key.fingerprint(organization, user, key)))
        with cursor.copy("copy legacy_keys (organization_id, user_id, key_sealed) from stdin") as copy:
            for user, key in users.items():
                copy.write_row((number, user, master_key.seal(LEGACY_PURPOSE, f"{number}/{user}", key)))
    lines = [
        f"### {keys:,} keys once, KV version 1",
        "",
        "| from, to | keys/s, copied and read back | preflight to purged source | memory of the service at its peak |",
        "| --- | ---: | ---: | ---: |",
    ]
    for ends, destination in (("legacy to Vault", "first"), ("Vault to Vault", "second")):
        service.restart()
        say(f"migrating {keys:,} keys, {ends} ...")
        end = bench.product(Organization(bench, organization, 1), destination)
        memory = peak_memory_mib(service.pid)
        lines.append(f"| {ends} | {end['rate']:,.0f} | {end['whole_s']:,.0f} s | {memory:,.0f} MiB |")
    sections.append("\n".join([*lines, ""]))


def main() -> int:
    """Run the benchmark; print its tables, or write them into docs/performance.md."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=10_000, help="how many keys to move (default 10000)")
    parser.add_argument("--most", type=int, default=100_000, help="where growth ends (default 100000)")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; million only by itself")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=COMMAND",
        help="a program that copies a path; {source} {destination} {source_token} {destination_token} {path} {ca}",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args()
    if shutil.which("go") is None:
        say("Go is needed for the load generator; install it, or put it on PATH")
        return 1
    wanted: Callable[[str], bool] = lambda part: part in (options.only or PARTS[:-1])  # noqa: E731
    peers = dict(peer.split("=", 1) for peer in options.peer)
    sections: list[str] = []
    say("starting two Vault servers, PostgreSQL and the service ...")
    with Testbed("ab", SETTINGS) as testbed:
        bench = Bench(testbed)
        for version in (1, 2):
            if wanted(f"v{version}"):
                side_by_side(bench, bench.organization(f"bench-{version}", version, options.keys), peers, sections)
        if wanted("far"):
            far(bench, bench.organization("far", 1, options.keys // 5), 20, sections)
        if wanted("growth"):
            growth(bench, [size for size in (1000, 10_000, 100_000) if size <= options.most], sections)
        if wanted("million"):
            million(bench, 100 * options.keys, sections)
    text = "\n".join(sections)
    print(text)
    if options.write:
        begin, end = "<!-- make bench -->\n", "<!-- end of make bench -->"
        PAGE.write_text(replaced(PAGE.read_text(), begin, f"\n{text}\n", end))
    return 0


if __name__ == "__main__":
    sys.exit(main())
