"""Declare, change and migrate the Vault keystores of a cloud backup service with Pulumi."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulumi_keystore.declarations.address import KeystoreAddress
    from pulumi_keystore.declarations.certificate import ClientCertificate
    from pulumi_keystore.errors import KeystoreError
    from pulumi_keystore.resources.health_monitor import HealthMonitor
    from pulumi_keystore.resources.keystore import Keystore
    from pulumi_keystore.resources.keystore_migration import KeystoreMigration
    from pulumi_keystore.resources.organization import Organization
    from pulumi_keystore.resources.vault_tenancy import VaultTenancy

__all__ = [
    "ClientCertificate",
    "HealthMonitor",
    "Keystore",
    "KeystoreAddress",
    "KeystoreError",
    "KeystoreMigration",
    "Organization",
    "VaultTenancy",
]

# Names are imported when they are first used: the service, the CLI and the PKCS#12 helper run without pulumi.
_HOMES = {
    "ClientCertificate": "declarations.certificate",
    "HealthMonitor": "resources.health_monitor",
    "Keystore": "resources.keystore",
    "KeystoreAddress": "declarations.address",
    "KeystoreError": "errors",
    "KeystoreMigration": "resources.keystore_migration",
    "Organization": "resources.organization",
    "VaultTenancy": "resources.vault_tenancy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
