"""The shards of a migration: who has to copy, or read back, which users' keys.

A worker takes a free shard, tells now and then that it lives, and writes the outcome down. Whatever it writes counts
only as long as it holds the shard: one that was replaced changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import CursorResult, Update, delete, func, select, text, update
from sqlalchemy.orm import Session

from pulumi_keystore import failpoints
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import fencing
from pulumi_keystore.control_plane.migration.endings import Ending
from pulumi_keystore.control_plane.migration.inventory import Inventory
from pulumi_keystore.control_plane.migration.tables import Migration, Shard, ShardState, Work
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, LateKey
from pulumi_keystore.control_plane.runtime.leadership import Superseded
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.migration import State
from pulumi_keystore.vault.session import Announce


@dataclass(frozen=True, slots=True)
class Task:
    """A shard that is leased: the users after `after` up to and with `upto`, None for no bound."""

    id: int
    migration_id: str
    work: Work
    after: str | None
    upto: str | None


@dataclass(frozen=True, slots=True)
class Leased:
    """A shard that somebody works on, as the supervisor sees it."""

    id: int
    holder: str
    heartbeats: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one kind of work of a migration is."""

    shards: int
    finished: int
    keys: int
    leased: Sequence[Leased]
    fenced: Sequence[str]
    """Holders that were lost and whose tokens may still be good."""
    failure: tuple[str, str] | None
    """Ending and detail of a shard that failed."""


def plan(session: Session, migration: Migration, work: Work, size: int) -> None:
    """Divide the enrolled keys into shards of about `size`, unless that is done already.

    Keys that are enrolled meanwhile (an online migration) are late ones and in no shard.
    """
    if session.scalar(select(func.count()).where(Shard.migration_id == migration.id, Shard.work == work)):
        return
    numbered = (
        select(ArchiveKeyEntry.user, func.row_number().over(order_by=ArchiveKeyEntry.user).label("number"))
        .where(ArchiveKeyEntry.organization_id == migration.organization_id)
        .subquery()
    )
    bounds = session.scalars(
        select(numbered.c.user).where(numbered.c.number % size == 0).order_by(numbered.c.number)
    ).all()
    for after, upto in zip([None, *bounds], [*bounds, None], strict=True):
        session.add(Shard(migration_id=migration.id, work=work, after=after, upto=upto, state=ShardState.FREE))


_CLAIM = text("""
    update shards
    set state = 'leased', holder = :holder, heartbeats = heartbeats + 1, done = 0, digest = null, annotated = 0
    where id = (
        select shard.id from shards shard
        join migrations migration on migration.id = shard.migration_id
        where shard.state = 'free' and migration.state = 'running' and migration.cancel_by is null
            and migration.ending is null and not shard.migration_id = any(:busy)
        order by
            (select count(*) from shards other where other.state = 'leased' and other.migration_id = migration.id),
            migration.served_at nulls first, shard.id
        limit 1 for update of shard skip locked
    )
    returning id, migration_id, work, after_user, upto_user
""")


def any_free(plane: ControlPlane, busy: Collection[str]) -> bool:
    """Tell whether there is a free shard of a migration that this process does not work on."""
    free = select(Shard.id).where(Shard.state == ShardState.FREE, Shard.migration_id.not_in(list(busy)))
    with plane.transaction() as session:
        return session.scalar(free.limit(1)) is not None


def claim(plane: ControlPlane, holders: dict[str, str], default: str, busy: Collection[str]) -> tuple[Task, str] | None:
    """Take a free shard: of the migration that is worked on least, and of those of the one that waited longest.

    Args:
        plane: Where the shards are.
        holders: The sessions there are already, by migration.
        default: The name of the session if there is none for the migration.
        busy: Migrations that this process works on already.

    Returns:
        The shard, and the name of the session that holds it; None where nothing is free.

    """
    with plane.transaction() as session:
        row = session.execute(_CLAIM, {"holder": default, "busy": list(busy)}).one_or_none()
        if row is None:
            return None
        task = Task(row.id, row.migration_id, Work(row.work), row.after_user, row.upto_user)
        holder = holders.get(task.migration_id, default)
        if holder != default:
            session.execute(update(Shard).where(Shard.id == task.id).values(holder=holder))
        session.execute(update(Migration).where(Migration.id == task.migration_id).values(served_at=now_utc()))
    return task, holder


def heartbeat(plane: ControlPlane, task: Task, holder: str, done: int) -> None:
    """Tell that the holder of a shard lives, and how many keys it has done.

    Raises:
        Superseded: The shard is not its own any more, or the migration has ended.

    """
    with plane.transaction() as session:
        statement = _own(task, holder).values(heartbeats=Shard.heartbeats + 1, done=done)
        _must_change(session.execute(statement))
        state = session.execute(
            select(Migration.state, Migration.cancel_by).where(Migration.id == task.migration_id)
        ).one()
        if state != (State.RUNNING, None):
            raise Superseded("the migration has ended")


def finish(plane: ControlPlane, task: Task, holder: str, found: Inventory, annotated: int) -> None:
    """Write down that a shard is done, what was found in it, and how many keys had custom metadata at the source.

    Raises:
        Superseded: The shard is not its own any more.

    """
    done = _own(task, holder).values(state=ShardState.DONE, holder=None, done=found.count, digest=found.digest)
    with plane.transaction() as session:
        _must_change(session.execute(done.values(annotated=annotated)))


def fail(plane: ControlPlane, task: Task, holder: str, ending: Ending, detail: str) -> None:
    """Write down that a shard cannot be done, and why.

    Raises:
        Superseded: The shard is not its own any more.

    """
    values = {"state": ShardState.FAILED, "holder": None, "ending": ending.value, "detail": detail}
    with plane.transaction() as session:
        _must_change(session.execute(_own(task, holder).values(**values)))


def progress(session: Session, migration_id: str, work: Work) -> Progress:
    """Return how far one kind of work is."""
    mine = (Shard.migration_id == migration_id, Shard.work == work)
    counts: dict[ShardState, int] = {}
    keys = 0
    for state, number, done in session.execute(
        select(Shard.state, func.count(), func.sum(Shard.done)).where(*mine).group_by(Shard.state)
    ):
        counts[state] = number
        keys += done or 0
    leased = select(Shard.id, Shard.holder, Shard.heartbeats).where(*mine, Shard.state == ShardState.LEASED)
    fenced = session.scalars(select(Shard.holder).where(*mine, Shard.state == ShardState.FENCED).distinct())
    failed = session.execute(
        select(Shard.ending, Shard.detail).where(*mine, Shard.state == ShardState.FAILED).order_by(Shard.id).limit(1)
    ).one_or_none()
    return Progress(
        shards=sum(counts.values()),
        finished=counts.get(ShardState.DONE, 0),
        keys=keys,
        leased=[Leased(number, holder or "", heartbeats) for number, holder, heartbeats in session.execute(leased)],
        fenced=[holder for holder in fenced if holder],
        failure=None if failed is None else (str(failed[0]), str(failed[1])),
    )


def take_away(session: Session, migration_id: str, holder: str) -> None:
    """Take every shard of a migration from a holder that was lost: it can get no token from now on."""
    mine = (Shard.migration_id == migration_id, Shard.holder == holder, Shard.state == ShardState.LEASED)
    session.execute(update(Shard).where(*mine).values(state=ShardState.FENCED))


def take_from_process(session: Session, instance: str) -> None:
    """Take every shard from a process that has ended or is about to."""
    mine = (Shard.holder.startswith(f"{instance}-", autoescape=True), Shard.state == ShardState.LEASED)
    session.execute(update(Shard).where(*mine).values(state=ShardState.FENCED))


def give_back(session: Session, migration_id: str, holder: str) -> None:
    """Make the shards that were taken from a holder free, now that its tokens have ended."""
    mine = (Shard.migration_id == migration_id, Shard.holder == holder, Shard.state == ShardState.FENCED)
    session.execute(update(Shard).where(*mine).values(state=ShardState.FREE, holder=None))


def take_all_away(session: Session, migration_id: str) -> None:
    """Take every shard from whoever holds it: the migration goes no further."""
    mine = (Shard.migration_id == migration_id, Shard.state.in_((ShardState.FREE, ShardState.LEASED)))
    session.execute(update(Shard).where(*mine).values(state=ShardState.FENCED))


def inventory(session: Session, migration_id: str, work: Work) -> Inventory:
    """Return what all done shards of one kind of work have found together."""
    total = Inventory()
    for done, digest in session.execute(
        select(Shard.done, Shard.digest).where(
            Shard.migration_id == migration_id, Shard.work == work, Shard.state == ShardState.DONE
        )
    ):
        total.merge(Inventory.of(done, digest or b""))
    return total


def annotated(session: Session, migration_id: str) -> int:
    """Return how many keys had custom metadata at the source, which is not moved."""
    return session.scalar(select(func.sum(Shard.annotated)).where(Shard.migration_id == migration_id)) or 0


def forget(session: Session, migration_id: str) -> None:
    """Remove the shards and late keys of a migration that has ended."""
    session.execute(delete(Shard).where(Shard.migration_id == migration_id))
    session.execute(delete(LateKey).where(LateKey.migration_id == migration_id))


def _own(task: Task, holder: str) -> Update:
    return update(Shard).where(Shard.id == task.id, Shard.holder == holder, Shard.state == ShardState.LEASED)


def _must_change(result: object) -> None:
    if not isinstance(result, CursorResult) or result.rowcount != 1:
        raise Superseded("the shard was given to another worker")


def for_holder(plane: ControlPlane, keystore: Keystore, holder: str) -> Announce:
    """Return what a keystore announces its tokens to while a worker's session works on a shard."""

    def announce(token: str, cluster_id: str, namespace: str) -> Callable[[], None]:
        with plane.transaction() as session:
            held = select(Shard.id).where(Shard.holder == holder, Shard.state == ShardState.LEASED).limit(1)
            if session.scalar(held.with_for_update(read=True)) is None:
                raise Superseded("the shard was given to another worker")
            ended = fencing.record(plane, session, keystore, holder, token, cluster_id, namespace)
        failpoints.reach("shard.granted")
        return ended

    return announce
