"""Organizations with a Vault of their own, one a line of a table."""

import csv
from pathlib import Path

import pulumi

from pulumi_keystore import HealthMonitor, Keystore, Organization

COLUMNS = ("organization", "address", "certificate", "administrators")

config = pulumi.Config()
table = Path(config.get("table") or "organizations.csv")
passwords = config.get_object("passwords") or {}
server_ca = Path(config.require("serverCa")) if config.get("serverCa") else None

with table.open(newline="") as file:
    reader = csv.DictReader(file)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise pulumi.RunError(f"{table}: the first line lacks {', '.join(missing)}; it has to be {','.join(COLUMNS)}")
    rows = list(reader)

for row in rows:
    organization = Organization(row["organization"])
    # Names of resources are those of the table, so that a line that goes takes with it what was its own.
    keystore = Keystore(
        row["organization"],
        name="own",
        organization=organization.name,
        kind="self-administered",
        address=row["address"],
        certificate=table.parent / row["certificate"],
        certificate_password=passwords.get(row["organization"]),
        server_ca=server_ca,
    )
    HealthMonitor(row["organization"], keystore, row["administrators"].split())

pulumi.export("organizations", len(rows))
