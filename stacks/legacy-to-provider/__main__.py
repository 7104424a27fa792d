"""An organization moves out of the provider's database, into the provider's Vault."""

from pathlib import Path

import pulumi

from pulumi_keystore import Keystore, KeystoreMigration, Organization

config = pulumi.Config()
organization = Organization(config.require("organization"))

legacy = Keystore("legacy", organization=organization.name, kind="legacy")
provider = Keystore(
    "provider",
    organization=organization.name,
    kind="provider",
    address=config.require("address"),
    certificate=Path(config.require("certificate")),
    certificate_password=config.get_secret("password"),
    server_ca=Path(config.require("serverCa")) if config.get("serverCa") else None,
    # The one that is registered first is the active one.
    opts=pulumi.ResourceOptions(depends_on=[legacy]),
)

if config.get_bool("move"):
    moved = KeystoreMigration(
        "out-of-the-database",
        organization=organization.name,
        destination=provider.name,
        notify_email=config.require("notifyEmail"),
    )
    pulumi.export("keys_moved", moved.keys_moved)
