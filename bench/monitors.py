"""How many keystores one process tests a minute: `python -m bench.monitors` writes the figures of docs/monitoring.md.

Real probes (certificate login, authorized read, token given back) of real servers on the same two cores; one of the
keystores hangs. All belong to one organization: what a login costs does not depend on whose it is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import psutil
from keystore_harness import Testbed, Toxiproxy, wait_until
from keystore_harness.binary import obtain_toxiproxy
from sqlalchemy import func, select, text

from docs.sections import replaced
from pulumi_keystore.client import Client
from pulumi_keystore.control_plane.keystores.opening import CERTIFICATE_PURPOSE
from pulumi_keystore.control_plane.monitoring.tables import HealthSample, KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "monitoring.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"
MINUTES = 3


def cpu_s(process: psutil.Process) -> float:
    """Return the seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def register(testbed: Testbed, admin: Client, count: int) -> None:
    """Register one keystore by proof and the others as copies of it; the last one is on the server that hangs."""
    admin.put_organization("acme")
    for letter, name in (("a", "k-0"), ("b", "hanging")):
        testbed.admit(letter, "acme")
        admin.put_keystore("acme", name, testbed.declaration(letter, "acme", "bench"))
    with opened(Settings(data=testbed.service.data)) as database, database.plane.transaction() as session:
        first = session.scalars(select(Keystore).where(Keystore.name == "k-0")).one()
        key = database.plane.master_key
        pem = key.open(CERTIFICATE_PURPOSE, f"{first.organization_id}/k-0", first.certificate_key_sealed or b"")
        same = {
            column.name: getattr(first, column.name)
            for column in Keystore.__table__.columns
            if column.name not in ("id", "name", "certificate_key_sealed")
        }
        for number in range(1, count - 1):
            name = f"k-{number}"
            sealed = key.seal(CERTIFICATE_PURPOSE, f"{first.organization_id}/{name}", pem)
            session.add(Keystore(**same, name=name, certificate_key_sealed=sealed))


def measure(count: int) -> str:
    """Return the figures of some minutes, in words."""
    with Toxiproxy(obtain_toxiproxy()) as network, Testbed("ab", network=network) as testbed:
        admin = Client(testbed.service.url, testbed.service.make_token("ops", "provider-admin"))
        register(testbed, admin, count)
        service, server = psutil.Process(testbed.service.pid), psutil.Process(testbed.servers["a"].pid)
        with opened(Settings(data=testbed.service.data)) as database, testbed.servers["b"].network.hang():
            plane = database.plane

            def all_tested() -> bool:
                with plane.transaction() as session:
                    tested = select(func.count()).where(KeystoreHealth.tested_at.is_not(None))
                    return (session.scalar(tested) or 0) == count

            wait_until(all_tested, "every keystore to be tested once", 180, 1)
            time.sleep(60)  # the first ones came all at once
            with plane.transaction() as session:
                begun, since = time.monotonic(), session.scalar(text("select now()"))
            used = cpu_s(service), cpu_s(server)
            time.sleep(60 * MINUTES)
            elapsed = time.monotonic() - begun
            with plane.transaction() as session:
                samples = session.scalar(select(func.count()).where(HealthSample.at >= since)) or 0
                online = (
                    session.scalar(select(func.count()).where(HealthSample.at >= since, HealthSample.online.is_(True)))
                    or 0
                )
                rows = session.scalars(select(KeystoreHealth.seconds).where(KeystoreHealth.online.is_(True)))
                took = sorted(1000 * (seconds or 0.0) for seconds in rows)
        admin.close()
        rate, failing = 60 * samples / elapsed, 60 * (samples - online) / elapsed
        ours, theirs = (cpu_s(process) - before for process, before in zip((service, server), used, strict=True))
        return (
            f"{count:,} keystores on real servers, one of them on a server that hangs: {rate:,.0f} tests a minute, "
            f"{failing:.0f} of them of the one that hangs. A test takes {statistics.median(took):.0f} ms, and 99 of "
            f"100 less than {took[int(len(took) * 0.99)]:.0f} ms.\n"
            f"The service used {ours / elapsed:.0%} of a core for it, and the Vault server {theirs / elapsed:.0%}.\n"
        )


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keystores", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help="put the figures into docs/monitoring.md")
    options = parser.parse_args()
    figures = measure(options.keystores)
    sys.stdout.write(figures)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text(), BEGIN, figures, END))


if __name__ == "__main__":
    main()
