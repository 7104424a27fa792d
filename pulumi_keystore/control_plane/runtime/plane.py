"""What every part of the control plane works with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.control_plane.runtime.tables import Keystore, Organization
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.archive_keys import Announce, VaultKeystore
from pulumi_keystore.vault.requests import Endpoint
from pulumi_keystore.vault.resolver import Resolver

CERTIFICATE_PURPOSE = "client-certificate"


def tenancy(organization: Organization, keystore: Keystore) -> Tenancy:
    """Return the organization's place in a registered Vault keystore."""
    return Tenancy(organization.name, keystore.mount or "", keystore.role or "")


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Settings, database, master key and resolver of one process, and a name that no other process has or had."""

    settings: Settings
    sessions: sessionmaker[Session]
    master_key: MasterKey
    resolver: Resolver
    instance: str = field(default_factory=lambda: secrets.token_hex(8))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One database transaction: committed at the end, rolled back on any exception."""
        with self.sessions.begin() as session:
            yield session

    def endpoint(self, organization: Organization, keystore: Keystore) -> Endpoint:
        """Return where a registered Vault keystore is, with its certificate opened."""
        if keystore.address is None or keystore.certificate_pem is None or keystore.certificate_key_sealed is None:
            raise KeystoreError(f"the keystore {keystore.name!r} has no address")
        key = self.master_key.open(
            CERTIFICATE_PURPOSE, f"{organization.id}/{keystore.name}", keystore.certificate_key_sealed
        )
        return Endpoint(
            KeystoreAddress.parse(keystore.address),
            ClientCertificate.from_pem(keystore.certificate_pem.encode(), key),
            keystore.server_ca.encode() if keystore.server_ca else None,
            self.resolver,
        )

    def vault(
        self,
        organization: Organization,
        keystore: Keystore,
        *,
        retry_for_s: float = 0,
        announce: Announce | None = None,
        mount: str | None = None,
        cluster_id: str | None = None,
    ) -> VaultKeystore:
        """Return a registered Vault keystore, ready for use; see there for what can be told it.

        `mount` and `cluster_id` are those of a place that it is reached for, where that is not the one in use.
        """
        there = tenancy(organization, keystore)
        return VaultKeystore(
            self.endpoint(organization, keystore),
            replace(there, mount=mount) if mount else there,
            retry_for_s=retry_for_s,
            timeout_s=self.settings.request_s,
            kv_version=keystore.kv_version,
            cluster_id=cluster_id or keystore.cluster_id,
            announce=announce,
        )
