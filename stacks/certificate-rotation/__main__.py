"""A keystore uses the newest client certificate of a folder."""

from pathlib import Path

import pulumi

from pulumi_keystore import Keystore, Organization

config = pulumi.Config()
organization = Organization(config.require("organization"))

# Named so that the newest one comes last, such as 2027-03.p12.
folder = Path(config.get("certificates") or "certificates")
certificates = sorted(folder.glob("*.p12"))
if not certificates:
    raise pulumi.RunError(f"certificates: there is no file *.p12 in {folder}; put the client certificate there")

keystore = Keystore(
    "own",
    organization=organization.name,
    kind="self-administered",
    address=config.require("address"),
    certificate=certificates[-1],
    certificate_password=config.get_secret("password"),
    server_ca=Path(config.require("serverCa")) if config.get("serverCa") else None,
)

pulumi.export("certificate", certificates[-1].name)
pulumi.export("fingerprint", keystore.certificate_fingerprint)
pulumi.export("expires", keystore.certificate_not_after)
