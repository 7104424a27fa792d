"""Every mistake that a policy finds, in one program."""

from pathlib import Path

import pulumi
import pulumi.dynamic

from pulumi_keystore import HealthMonitor, Keystore, KeystoreMigration, Organization
from pulumi_keystore.resources.health_monitor import HealthMonitorProvider
from pulumi_keystore.resources.keystore_migration import KeystoreMigrationProvider

config = pulumi.Config()
folder = Path(config.require("folder"))
good, soon = folder / "good.p12", folder / "soon.p12"
protected = pulumi.ResourceOptions(protect=True)

Organization("acme")
Organization("fed", environment="federal")
known_later = Organization("later")


def keystore(name, organization="acme", certificate=good, host=None, opts=protected):
    return Keystore(
        name,
        organization,
        "self-administered",
        f"https://{host or name}.example.com:8200",
        certificate,
        "pw",
        opts=opts,
    )


keystore("ends-soon", certificate=soon)
keystore("same", host="ends-soon")
keystore("unprotected", opts=None)
keystore("federal", "fed")
Keystore("old", "acme", "legacy", opts=protected)
Keystore(
    "unknown",
    "acme",
    "self-administered",
    known_later.id.apply(lambda name: f"https://{name}.example.com:8200"),
    good,
    "pw",
    opts=protected,
)
HealthMonitor("no-mail", "same", [], "https://hooks.example.com/x", organization="acme")
HealthMonitor("weak", "ends-soon", ["a@example.com"], offline_minutes=30, organization="acme")
KeystoreMigration("one", "acme", "old")
KeystoreMigration("two", "acme", "same", notify_email="a@example.com")


class Careless(pulumi.dynamic.Resource, module="keystore", name="HealthMonitor"):
    """A monitor by somebody who does without our class, and so without its care for secrets."""

    def __init__(self, name: str, webhook: str) -> None:
        props = {"organization": "acme", "keystore": "same", "recipients": ["a@example.com"], "webhook": webhook}
        super().__init__(HealthMonitorProvider(), name, props)


class Theirs(KeystoreMigration, module="theirs", name="Move"):
    """A migration by a class that derives from ours, under another name."""


class Bare(pulumi.dynamic.Resource):
    """A resource with nothing of ours but the provider."""


Theirs("derived", "acme", "old")
Bare(KeystoreMigrationProvider(), "bare", {"organization": "acme", "destination": "old"})
Careless("careless", "https://hooks.example.com/CANARY-in-clear")
