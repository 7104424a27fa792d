"""What a hostile organization does to another one beside it: `python -m bench.neighbours` writes docs/performance.md.

One service, two organizations on two real servers. The normal one's users have keys released and enrol, and its
keystore is tested every five seconds; in turns with and without what the hostile one does, which runs in a process and
on a processor of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from keystore_harness import CertificateAuthority, HarnessError, Testbed, Toxiproxy, wait_until
from keystore_harness.binary import obtain_toxiproxy
from keystore_harness.ca import Issued
from keystore_harness.customer import Customer
from keystore_harness.impostor import Impostor
from sqlalchemy import select

from docs.sections import replaced
from pulumi_keystore.client import Client
from pulumi_keystore.control_plane.monitoring.tables import HealthSample
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.declarations.pkcs12_inspection import MAX_ITERATIONS
from pulumi_keystore.errors import KeystoreError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench.neighbours -->\n", "<!-- end of bench.neighbours -->"
KEYS = 50
RELEASES_A_SECOND, ENROLMENTS_A_SECOND = 5, 2
_MORE_PERCENT, _PATIENCE_S = 10, 60
_BEFORE_S = 15
"""After which it has used up what it may do at once."""
FOREIGN = {max(os.sched_getaffinity(0))}
"""The processor of the hostile organization, which would have a machine of its own."""
PUBLIC = b64encode(X25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


@dataclass(frozen=True)
class Target:
    """What the hostile organization works with: a service, its name and tokens, and a user of it."""

    url: str
    organization: str
    admin: str
    authority: str
    user: str
    declaration: dict[str, object] = field(repr=False)


# What it does, in its own process, again and again.


def has_keys_released(target: Target, client: Client) -> None:
    """Have a key released, at a server that answers what it likes."""
    body = {"user": target.user, "public_key": PUBLIC}
    client.request("POST", "organizations", target.organization, "archive-keys", "release", body=body)


def enrols(target: Target, client: Client) -> None:
    """Enrol one user."""
    keys = {f"{secrets.token_hex(6)}@{target.organization}": b64encode(secrets.token_bytes(32)).decode()}
    client.request("POST", "organizations", target.organization, "archive-keys", body={"keys": keys})


def edits(target: Target, client: Client) -> None:
    """Edit the keystore, with what was prepared for it."""
    client.swap_keystore(target.organization, "first", dict(target.declaration))


def computes(_target: Target, _client: Client) -> None:
    """Send nothing: what this does to the other one is the machine's doing, whose cores share more than one thinks."""
    sum(number * number for number in range(2_000_000))


def migrates(target: Target, client: Client) -> None:
    """Have all keys moved to the keystore that is not in use, and say what is in the way."""
    second = client.organization(target.organization)["active_keystore"] == "first"
    client.start_migration(target.organization, "second" if second else "first", None, "maintenance")


def reads_lists(target: Target, client: Client) -> None:
    """Ask for everything that is listed, and export it."""
    client.export_history(target.organization, "csv")
    client.migrations(target.organization)
    client.clean_ups(target.organization, ended=True)
    client.incidents(target.organization, "first")
    client.health(target.organization, "first", "month")


def verifies(target: Target, client: Client) -> None:
    """Have every key read."""
    client.verify(target.organization)
    client.plan_recovery(target.organization)


def tests_alerts(target: Target, client: Client) -> None:
    """Set alerts to as many as there may be, have each of them try, and remove them."""
    recipients = [f"{number}@{target.organization}.example.com" for number in range(20)]
    client.put_monitor(target.organization, "first", {"recipients": recipients})
    client.test_monitor(target.organization, "first")
    client.delete_monitor(target.organization, "first")


def asks_who_it_is(target: Target, client: Client) -> None:
    """Ask for what costs nothing but to find out who asks, and sign in to the console."""
    client.request("GET", "whoami")
    httpx.post(f"{target.url}/console/sign-in", data={"token": target.admin})


_held: list[socket.socket] = []


def sends_halves(target: Target, _: Client) -> None:
    """Open connections and send half a request on each."""
    parts = urlsplit(target.url)
    if len(_held) >= 1000:  # noqa: PLR2004
        _held.pop(0).close()
    connection = socket.create_connection((parts.hostname, parts.port), 10)
    head = f"POST /v1/organizations/{target.organization}/archive-keys HTTP/1.1\r\nHost: x\r\n"
    whole = len(_held) % 2 * f"Authorization: Bearer {target.authority}\r\nContent-Length: 8000000\r\n\r\n["
    connection.sendall((head + whole).encode())
    _held.append(connection)


@dataclass(frozen=True)
class Kind:
    """A kind of hostility: what its server is like meanwhile, and what is sent by how many at a time."""

    name: str
    act: Callable[[Target, Client], None]
    at_a_time: int
    server: Callable[[Testbed, int], AbstractContextManager[object]] = lambda _testbed, _port: nullcontext()
    answer: Callable[[], str] = str
    """What its server answers to every request, if it is not a real one."""
    declare: Callable[[dict[str, object]], dict[str, object]] = lambda declared: declared
    by: str = "authority"


def _impostor(testbed: Testbed, port: int) -> AbstractContextManager[object]:
    return testbed.servers["b"].network.leading_to(port)


def _hanging(testbed: Testbed, _: int) -> AbstractContextManager[object]:
    return testbed.servers["b"].network.hang()


def _costly(declared: dict[str, object]) -> dict[str, object]:
    issued, password = CertificateAuthority().issue("hostile"), secrets.token_urlsafe(12)
    rounds = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(MAX_ITERATIONS).hmac_hash(SHA256())
    content = issued.pkcs12(password, encryption=rounds.build(password.encode()))
    return {**declared, "certificate": b64encode(content).decode(), "certificate_password": password}


def _cas(number: int, declared: dict[str, object]) -> dict[str, object]:
    return {**declared, "server_ca": CertificateAuthority().pem * number}


KINDS = (
    Kind("nothing", lambda _target, _client: time.sleep(1), 1),
    Kind("nothing, but it computes on its own processor", computes, 1),
    Kind(
        "logins that are worth nothing", has_keys_released, 20, _impostor,
        lambda: json.dumps({"auth": {"client_token": "t", "lease_duration": -1}}),
    ),
    Kind("answers of 100,000 brackets", has_keys_released, 20, _impostor, lambda: "[" * 100_000),
    Kind("answers of 40 MB", has_keys_released, 4, _impostor, lambda: '"' + "x" * (40 << 20) + '"'),
    Kind("a Vault that hangs, and enrolments", enrols, 45, _hanging),
    Kind("certificate files that cost as much as they may", edits, 8, declare=_costly, by="admin"),
    Kind("6,000 CA certificates, which are read", edits, 8, declare=partial(_cas, 6_000), by="admin"),
    Kind("10,000 CA certificates, which are too much to be read", edits, 8, declare=partial(_cas, 10_000), by="admin"),
    Kind("requests that are sent half", sends_halves, 4),
    Kind("migrations there and back, without a pause", migrates, 4, by="admin"),
    Kind("all lists and exports, again and again", reads_lists, 20, by="admin"),
    Kind("its own name and signing in, again and again", asks_who_it_is, 20, by="admin"),
    Kind("verifications and plans of a recovery", verifies, 8, by="admin"),
    Kind("alerts that are set, tested and removed", tests_alerts, 8, by="admin"),
)  # fmt: skip


def act() -> None:
    """Be the hostile organization until killed: which and how comes on standard input."""
    given = json.loads(sys.stdin.readline())
    kind, target = KINDS[given["kind"]], Target(**given["target"])
    # It would have a machine of its own.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(0, set(given["processors"]))
    certificate, key = (text.encode() for text in given["server"])
    issued = Issued(load_pem_x509_certificate(certificate), load_pem_private_key(key, None))

    def repeat() -> None:
        with Client(target.url, target.admin if kind.by == "admin" else target.authority) as client:
            while True:
                with suppress(KeystoreError, OSError):
                    kind.act(target, client)
                time.sleep(0.05)

    with Impostor(issued, 200, kind.answer()) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        for _ in range(kind.at_a_time - 1):
            threading.Thread(target=repeat, daemon=True).start()
        repeat()


@contextmanager
def hostility(number: int, target: Target, testbed: Testbed) -> Iterator[None]:
    """Let the hostile organization do something."""
    kind = KINDS[number]
    declared = kind.declare(dict(target.declaration))
    server = testbed.servers["b"]
    issued = testbed.ca.issue_server(server.name, server.alias, "127.0.0.1")
    given = {
        "kind": number,
        "target": {**vars(target), "declaration": declared},
        "server": [issued.certificate_pem, issued.key_pem],
        "processors": sorted(FOREIGN),
    }
    command, pipe = [sys.executable, "-m", "bench.neighbours", "--act"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.close()
        try:
            with kind.server(testbed, int(process.stdout.readline())):
                yield
        finally:
            process.kill()


# What the normal one notices.


@dataclass
class Noticed:
    """Seconds that each call took, and between the tests of the keystore."""

    releases: list[float] = field(default_factory=list)
    enrolments: list[float] = field(default_factory=list)
    tests: list[float] = field(default_factory=list)
    failed: int = 0

    def p99_ms(self) -> tuple[float, float, float]:
        """Return the 99th percentiles, in milliseconds."""
        first, second, third = (
            1000 * sorted(taken)[int(len(taken) * 0.99)] if taken else 0.0
            for taken in (self.releases, self.enrolments, self.tests)
        )
        return first, second, third


def watch(normal: Customer, token: str, plane: ControlPlane, seconds: float, noticed: Noticed) -> None:
    """Go on as users do for some time, and note how long each thing takes."""
    user, until = next(iter(normal.keys)), time.monotonic() + seconds

    mine = threading.local()

    def once(each: Callable[[Client], object], due: float, taken: list[float]) -> None:
        client = getattr(mine, "client", None)
        if client is None:
            client = mine.client = Client(normal.testbed.service.url, token)
        try:
            each(client)
        except KeystoreError:
            noticed.failed += 1
        taken.append(time.monotonic() - due)

    def repeat(each: Callable[[Client], object], every_s: float, taken: list[float]) -> None:
        # Users do not wait for each other.
        with ThreadPoolExecutor(30) as pool:
            due = time.monotonic()
            while due < until:
                time.sleep(max(due - time.monotonic(), 0))
                pool.submit(once, each, due, taken)
                due += every_s

    def release(client: Client) -> None:
        body = {"user": user, "public_key": PUBLIC}
        client.request("POST", "organizations", normal.name, "archive-keys", "release", body=body)

    def enrol(client: Client) -> None:
        keys = {f"{secrets.token_hex(6)}@{normal.name}": b64encode(secrets.token_bytes(32)).decode()}
        client.request("POST", "organizations", normal.name, "archive-keys", body={"keys": keys})

    with plane.transaction() as session:
        tested = select(HealthSample.at).join(Keystore, Keystore.id == HealthSample.keystore_id)
        tested = tested.join(Organization, Organization.id == Keystore.organization_id)
        tested = tested.where(Organization.name == normal.name, Keystore.name == "first").order_by(HealthSample.at)
        known = len(session.scalars(tested).all())
    threads = [
        threading.Thread(target=repeat, args=arguments)
        for arguments in (
            (release, 1 / RELEASES_A_SECOND, noticed.releases),
            (enrol, 1 / ENROLMENTS_A_SECOND, noticed.enrolments),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with plane.transaction() as session:
        at = session.scalars(tested).all()[known:]
    noticed.tests += [(later - earlier).total_seconds() for earlier, later in pairwise(at)]


def has_ended(hostile: Customer) -> bool:
    """Tell whether the hostile organization has its share of requests free again."""
    try:
        hostile.call("GET", "keystores/first")
    except HarnessError:
        return False
    return True


def calm_down(idle: float) -> None:
    """Wait until the machine does no more than before: certificate files that were sent are opened for a while yet."""
    until = time.monotonic() + _PATIENCE_S
    while psutil.cpu_percent(2) > idle + _MORE_PERCENT and time.monotonic() < until:
        pass


def measure(seconds: float, rounds: int, only: str) -> str:
    """Return a table: a line a kind."""
    lines = [
        "| what the hostile organization has or sends | release, p99 | enrolment, p99 | between two tests, p99 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for number, kind in enumerate(KINDS):
        if only in kind.name:
            # On a landscape of its own: what one kind leaves behind is nothing to the next.
            lines.append(measure_one(number, seconds, rounds))
            sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines) + "\n"


def stay_apart() -> None:
    """Leave one processor to the hostile organization alone: what it computes itself is no fault of the service."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - FOREIGN or FOREIGN)


def measure_one(number: int, seconds: float, rounds: int) -> str:
    """Return the line of a kind: turns without it and beside it alternate."""
    with ExitStack() as stack:
        network = stack.enter_context(Toxiproxy(obtain_toxiproxy()))
        testbed = stack.enter_context(Testbed("abc", {"health_check_interval_s": "5"}, network=network))
        normal, hostile = Customer(testbed, KEYS, "a", "c"), Customer(testbed, KEYS, "b", "c")
        for letter in "bc":
            # These serve the hostile one alone: the keys of the other stay where they are.
            os.sched_setaffinity(testbed.servers[letter].pid, FOREIGN)
        service = testbed.service
        plane = stack.enter_context(opened(Settings(data=service.data))).plane
        authority = service.make_token("authority", "authority")
        target = Target(
            service.url,
            hostile.name,
            service.make_token("hostile", "customer-cloud-admin", hostile.name),
            authority,
            next(iter(hostile.keys)),
            hostile.declaration("first"),
        )
        quiet, beside = Noticed(), Noticed()
        idle = psutil.cpu_percent(5)
        watch(normal, authority, plane, 5, Noticed())  # connections, caches
        for _ in range(rounds):
            watch(normal, authority, plane, seconds, quiet)
            with hostility(number, target, testbed):
                time.sleep(_BEFORE_S)
                watch(normal, authority, plane, seconds, beside)
            wait_until(partial(has_ended, hostile), "what the hostile one has begun to end", 120, 1)
            calm_down(idle)
        cells = [
            f"{before:,.0f} → {after:,.0f} ms" for before, after in zip(quiet.p99_ms(), beside.p99_ms(), strict=True)
        ]
        failed = f" ({beside.failed} failed)" if beside.failed else ""
        return f"| {KINDS[number].name}{failed} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--act", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=20, help="how long each turn takes")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind, with and without")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/performance.md")
    options = parser.parse_args()
    if options.act:
        act()
    stay_apart()
    figures = measure(options.seconds, options.rounds, options.only)
    sys.stdout.write(figures)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text(), BEGIN, figures, END))


if __name__ == "__main__":
    main()
