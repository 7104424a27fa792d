"""What must be true before the first key moves."""

from __future__ import annotations

from collections.abc import Callable

from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.counting import count
from pulumi_keystore.errors import AnotherCluster, Conflict, HostUnavailable, KeystoreFault, Unsuitable
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import DamagedRecordError
from pulumi_keystore.vault.transport import Transport

Look = Callable[[Transport, VaultKeystore], None]
"""Compares what a keystore remembers with the database."""


def preflight(
    source: VaultKeystore | None,
    destination: VaultKeystore,
    origin: str,
    look: Look,
    make_room: Callable[[Transport], None],
) -> None:
    """Prove both ends, and that the destination is another cluster and holds nothing.

    Nothing is written before all that can be read is as it should be.

    Args:
        source: The Vault keystore that is active; None for a legacy one, which is always within reach.
        destination: Where the keys shall go.
        origin: Id of the migration; the canary carries it.
        look: Is called with each end.
        make_room: Ends old tokens, and removes copies that lie at the destination, as far as the active keystore
            holds the same; called once both ends are as they should be.

    Raises:
        MigrationFailed: A side cannot be reached.
        KeystoreFault: The destination refuses us or is unfit, or either is another cluster than it was.
        Conflict: Both are one cluster, or an end knows more than the database.

    """
    with Transport() as transport:
        cluster = ""
        if source is not None:
            try:
                cluster, _ = transport.run_one(source.identify())
                transport.run_one(source.check_list())
                look(transport, source)
            except AnotherCluster:
                raise
            except KeystoreFault as fault:
                raise MigrationFailed(Ending.SOURCE_NOT_REACHABLE, str(fault)) from None
            finally:
                transport.run_one(source.revoke())
            _require_cluster_id(source, cluster)
        try:
            transport.run_one(destination.detect())
            found, _ = transport.run_one(destination.identify())
            _require_cluster_id(destination, found)
            if found == cluster:
                raise Conflict(
                    f"destination: {destination} and {source} are the same Vault cluster under two names",
                    hint="choose a keystore on another server",
                    prop="destination",
                )
            look(transport, destination)
            make_room(transport)
            if foreign := destination.count(transport):
                raise Unsuitable(
                    f"{destination}: {destination.place} holds {count(foreign, 'entry')} that are not keys of the "
                    "active keystore",
                    hint="nothing was overwritten: find out who owns these entries; if in doubt, use another mount or "
                    "server",
                )
            transport.run_one(destination.prove(origin))
        except AnotherCluster:
            raise
        except HostUnavailable as fault:
            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise Unsuitable(f"{destination}: {damage}", hint="check the server's storage") from None
        finally:
            transport.run_one(destination.revoke())


def _require_cluster_id(keystore: VaultKeystore, cluster: str) -> None:
    if not cluster:
        # Without it nobody could tell whether two names lead to one server.
        raise Unsuitable(f"{keystore}: does not state its cluster id", hint="look at /v1/sys/health of the server")
