"""Prepares a Vault server for organizations, and registers it as the keystore of each."""

from pathlib import Path

import pulumi

from pulumi_keystore import Keystore, Organization, VaultTenancy

config = pulumi.Config()
folder = Path(config.get("certificates") or "certificates")
server_ca = Path(config.require("serverCa")) if config.get("serverCa") else None
passwords = config.get_object("passwords") or {}

first: VaultTenancy | None = None
for name in config.require_object("organizations"):
    tenancy = VaultTenancy(
        name,
        organization=name,
        client_ca=Path(config.require("clientCa")),
        # What all of them share on the server is declared once.
        shared=first or False,
        namespace=config.get("namespace"),
        mount=config.get("mount"),
        audit_file=None if first else config.get("auditFile"),
        retain_mount=config.get_bool("retainMount") is not False,
    )
    first = first or tenancy
    Keystore(
        name,
        name="vault",
        organization=Organization(name).name,
        kind="self-administered",
        address=config.require("address"),
        certificate=folder / f"{name}.p12",
        certificate_password=passwords.get(name),
        server_ca=server_ca,
        namespace=tenancy.namespace,
        mount=tenancy.mount,
        role=tenancy.role,
    )
