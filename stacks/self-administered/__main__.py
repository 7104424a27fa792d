"""Two self-administered keystores of one organization, which of them is active, and who is told when it is offline."""

from pathlib import Path

import pulumi

from pulumi_keystore import HealthMonitor, Keystore, KeystoreMigration, Organization

config = pulumi.Config()
organization = Organization(config.require("organization"))

keystores: dict[str, Keystore] = {}
for name, settings in sorted(config.require_object("keystores").items()):
    keystores[name] = Keystore(
        name,
        organization=organization.name,
        kind="self-administered",
        address=settings["address"],
        certificate=Path(settings["certificate"]),
        certificate_password=settings.get("password"),
        server_ca=Path(settings["serverCa"]) if "serverCa" in settings else None,
        # The first keystore to be registered becomes the active one: one after the other, in a known order.
        opts=pulumi.ResourceOptions(depends_on=list(keystores.values())),
    )

administrators = config.get_object("administrators") or []
if administrators:
    for name, keystore in keystores.items():
        HealthMonitor(name, keystore, administrators, webhook=config.get_secret("webhook"))

chosen = config.require("active")
if chosen not in keystores:
    raise pulumi.RunError(f"active: there is no keystore {chosen!r}; choose one of {', '.join(keystores)}")

active = KeystoreMigration(
    "active",
    organization=organization.name,
    destination=keystores[chosen].name,
    notify_email=config.get("notifyEmail"),
)

pulumi.export("active", active.destination)
pulumi.export("keys_moved", active.keys_moved)
