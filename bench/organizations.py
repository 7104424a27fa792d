"""Lists and metrics beside many organizations: `python -m bench.organizations --write` writes docs/performance.md.

One service on its embedded PostgreSQL; organizations with a keystore, keys and a health check each are put into the
database, without Vault servers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Final

import httpx
from keystore_harness.service import ServiceProcess
from sqlalchemy import text

from docs.sections import replaced
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench.organizations -->\n", "<!-- end of bench.organizations -->"
TIMES: Final = 15
# Of a hundred, one is offline, one has a certificate that ends, and two alert nobody. There is no server to test, so
# that somebody else has claimed all of them.
FILL: Final = """
INSERT INTO organizations (name, environment)
  SELECT 'customer-' || lpad(n::text, 6, '0'), 'cloud' FROM generate_series(1, :count) n;
INSERT INTO keystores (organization_id, name, kind, address, mount, role, kv_version, cluster_id, alerts,
    certificate_not_after)
  SELECT id, 'first', 'self-administered', 'https://vault.example.com:8200', 'archive-keys', 'role', 1, 'cluster',
    id % 50 <> 0, now() + interval '1 day' * (CASE WHEN id % 100 = 1 THEN 9 ELSE 300 END) FROM organizations;
UPDATE organizations o SET active_keystore_id = k.id FROM keystores k WHERE k.organization_id = o.id;
INSERT INTO keystore_health (keystore_id, phase, minute, online, reason, seconds, since, tested_at, claimed_by,
    claimed_until)
  SELECT id, 0, extract(epoch FROM now())::bigint / 3600, id % 100 <> 2,
    CASE WHEN id % 100 = 2 THEN 'Host unavailable' END, 0.1, now(), now() + interval '1 hour', 'bench',
    now() + interval '1 day' FROM keystores;
INSERT INTO archive_keys (organization_id, user_id, generation, fingerprint)
  SELECT o.id, 'user-' || u, 1, 'x' FROM organizations o, generate_series(1, :keys) u
"""
ASKED: Final = {
    "first page of the console": "/console",
    "a page in the middle": "/console?after=customer-{middle:06}",
    "those that are offline": "/console?problem=offline",
    "those with any problem": "/console?problem=any",
    "those with any problem, by certificate expiry": "/console?problem=any&sort=certificate",
    "a search": "/console?search=er-0{middle}",
    "by name, Z to A": "/console?sort=-name",
    "the newest first": "/console?sort=newest",
    "by certificate expiry": "/console?sort=certificate",
    "by certificate expiry, a page in the middle": "/console?sort=certificate&after=customer-{middle:06}",
    "the API, a page": "/v1/organizations",
    "the API, by certificate expiry": "/v1/organizations?sort=certificate",
    "`/metrics`": "/metrics",
    "`/metrics` of one organization": "/metrics?organization=customer-000001",
}


def measure(count: int, keys: int) -> str:
    """Return a table: a line for each thing that is asked for."""
    lines = ["| what is asked for | median | size |", "| --- | ---: | ---: |"]
    with ServiceProcess({"health_check_interval_s": "3600"}) as service:
        token = service.make_token("bench", "provider-admin")
        with opened(Settings(data=service.data)) as local, local.plane.engine.connect() as connection:
            for statement in FILL.split(";"):
                names = {"count": count, "keys": keys}
                given = {name: value for name, value in names.items() if f":{name}" in statement}
                connection.execute(text(statement), given)
            # What autovacuum would do a minute later, in the midst of what is measured.
            connection.commit()
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
        with httpx.Client(base_url=service.url, timeout=120, headers={"Authorization": f"Bearer {token}"}) as client:
            client.post("/console/sign-in", data={"token": token})
            for name, path in ASKED.items():
                taken = []
                for _ in range(TIMES):
                    begun = time.monotonic()
                    answer = client.get(path.format(middle=count // 2))
                    taken.append(1000 * (time.monotonic() - begun))
                    answer.raise_for_status()
                median, size = statistics.median(taken), len(answer.content) / 1000
                lines.append(f"| {name} | {median:,.0f} ms | {size:,.0f} kB |")
                sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--organizations", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=10, help="archive keys of each")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/performance.md")
    options = parser.parse_args()
    figures = measure(options.organizations, options.keys)
    sys.stdout.write(figures)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text(), BEGIN, figures, END))


if __name__ == "__main__":
    main()
