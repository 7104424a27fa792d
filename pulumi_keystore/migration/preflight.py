"""What must be true before the first key moves."""

from __future__ import annotations

from collections.abc import Callable

from pulumi_keystore.errors import Conflict, HostUnavailable, KeystoreFault, Unsuitable
from pulumi_keystore.keystores.record import DamagedRecordError
from pulumi_keystore.keystores.tenancy import CANARY_PREFIX
from pulumi_keystore.keystores.transport import Transport
from pulumi_keystore.keystores.vault import VaultKeystore
from pulumi_keystore.migration.endings import Ending, MigrationFailed


def preflight(source: VaultKeystore | None, destination: VaultKeystore, clean_up: Callable[[], None]) -> None:
    """Prove both ends, and that the destination is another cluster and holds nothing.

    Args:
        source: The Vault keystore that is active; None for a legacy one, which is always within reach.
        destination: Where the keys shall go.
        clean_up: Removes what earlier migrations left at the destination; called once it answers.

    Raises:
        MigrationFailed: A side cannot be reached.
        KeystoreFault: The destination refuses us or is unfit.
        Conflict: Both are one cluster.

    """
    with Transport() as transport:
        cluster = None
        if source is not None:
            try:
                cluster, _ = transport.run_one(source.identify())
                transport.run_one(source.names())
            except KeystoreFault as fault:
                raise MigrationFailed(Ending.SOURCE_NOT_REACHABLE, str(fault)) from None
            finally:
                transport.run_one(source.revoke())
        try:
            proof = transport.run_one(destination.prove())
            if cluster and proof.cluster_id == cluster:
                raise Conflict(
                    f"destination: {destination} and {source} are the same Vault cluster under two names",
                    hint="choose a keystore on another server",
                    prop="destination",
                )
            clean_up()
            foreign = [n for n in transport.run_one(destination.names()) if not n.startswith(CANARY_PREFIX)]
        except HostUnavailable as fault:
            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise Unsuitable(f"{destination}: {damage}", hint="check the server's storage") from None
        finally:
            transport.run_one(destination.revoke())
        if foreign:
            tenancy = destination.tenancy
            raise Unsuitable(
                f"{destination}: the path {tenancy.mount}/{tenancy.organization}/ holds {len(foreign):,} entries",
                hint="nothing is written over; look whose they are, and empty the path first",
            )
