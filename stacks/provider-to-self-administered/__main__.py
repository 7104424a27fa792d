"""An organization moves from the provider's keystore to its own Vault, and may come back."""

from pathlib import Path

import pulumi

from pulumi_keystore import HealthMonitor, Keystore, KeystoreMigration, Organization

config = pulumi.Config()
organization = Organization(config.require("organization"))


def keystore(kind: str, *before: Keystore) -> Keystore:
    """Declare the keystore of a kind, as the configuration describes it."""
    settings = config.require_object(kind)
    return Keystore(
        kind,
        organization=organization.name,
        kind=kind,
        address=settings["address"],
        certificate=Path(settings["certificate"]),
        certificate_password=settings.get("password"),
        server_ca=Path(settings["serverCa"]) if "serverCa" in settings else None,
        # The one that is registered first is the active one.
        opts=pulumi.ResourceOptions(depends_on=before),
    )


provider = keystore("provider")
own = keystore("self-administered", provider)
HealthMonitor("own", own, config.require_object("administrators"))

chosen = {"provider": provider, "self-administered": own}.get(config.require("active"))
if chosen is None:
    raise pulumi.RunError("active: choose provider or self-administered")

active = KeystoreMigration(
    "active",
    organization=organization.name,
    destination=chosen.name,
    notify_email=config.require("notifyEmail"),
)

pulumi.export("active", active.destination)
pulumi.export("keys_moved", active.keys_moved)
