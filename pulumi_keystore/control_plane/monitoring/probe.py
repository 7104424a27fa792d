"""One test of a keystore: a real certificate login and an authorized read, under a hard deadline.

A keystore whose name leads to several servers is online if one of them serves it; what is wrong with the others is a
warning, for a sealed standby behind a healthy leader is an outage that has not happened yet.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace

from pulumi_keystore.causes import Cause
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.declarations.tenancy import CANARY_PREFIX, Tenancy
from pulumi_keystore.errors import HostUnavailable, KeystoreFault, RateLimited, Unsuitable
from pulumi_keystore.vault.checkpoint import Checkpoint
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import DamagedRecordError
from pulumi_keystore.vault.requests import Endpoint, Flow, Pause, Validity
from pulumi_keystore.vault.resolver import Target, Vetted

_LOOK_EVERY_S = 0.02
_FIRST_PAUSE_S = 0.2
_TOLD = 5
"""Of how many servers behind one name it is told what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A keystore to test; `counts` is how many keys should be there, where its entries are counted, too."""

    endpoint: Endpoint
    tenancy: Tenancy
    kv_version: int | None
    cluster_id: str | None = None
    counts: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at a keystore that works."""

    warning: str | None = None
    checkpoint: Checkpoint | None = None
    entries: int | None = None
    certificate: Validity | None = None


class _NotMadeError(Exception):
    """The test could not be made, for want of something of ours."""


def probe(subject: Subject, lookups: Executor, deadline_s: float) -> Flow[Result | None]:
    """Test a keystore; never raises a fault of the keystore, and returns within the deadline.

    Returns None where no test was made, because every look-up that may go on at a time was taken by other names.

    Args:
        subject: What to test.
        lookups: Where its name is looked up: the system's resolver blocks, and would hold up other tests.
        deadline_s: Seconds for everything together; giving the token back may take a moment more.

    """
    begun = time.monotonic()
    try:
        target = yield from _look_up(subject.endpoint, lookups, begun + deadline_s)
        seen = yield from _try_each(subject, target, begun + deadline_s)
    except _NotMadeError:
        return None
    except KeystoreFault as fault:
        return Result(
            online=False,
            reason=fault.reason,
            detail=explain(fault, subject.endpoint),
            seconds=time.monotonic() - begun,
            cause=fault.cause,
        )
    return Result(
        online=True,
        warning=seen.warning,
        seconds=time.monotonic() - begun,
        checkpoint=seen.checkpoint,
        entries=seen.entries,
        certificate=seen.certificate,
    )


def explain(fault: KeystoreFault, endpoint: Endpoint) -> str:
    """Return what is wrong and what to do, as in "sealed: unseal the server"; the address stands beside it."""
    what = fault.summary.removeprefix(f"{endpoint.address}: ")
    return f"{what}: {fault.hint}" if fault.hint else what


def _look_up(endpoint: Endpoint, lookups: Executor, until: float) -> Flow[Target]:
    found = lookups.submit(endpoint.resolver.resolve, endpoint.address)
    while not found.done():
        if time.monotonic() > until:
            if found.cancel():
                # It has not even begun.
                raise _NotMadeError
            raise HostUnavailable(
                f"{endpoint.address}: the name does not resolve in time", hint="check the DNS", cause=Cause.DNS
            )
        yield Pause(_LOOK_EVERY_S)
    return found.result()


def _try_each(subject: Subject, target: Target, until: float) -> Flow[Seen]:
    """Use every server that the name leads to; say what is wrong with some, raise what is wrong with all."""
    seen = Seen()
    shown: list[Validity] = []
    faults: list[tuple[str, HostUnavailable]] = []
    for number, ip in enumerate(target.ips):
        # One that hangs must leave time for the others.
        left = (until - time.monotonic()) / (len(target.ips) - number)
        node = replace(subject.endpoint, resolver=Vetted(target=Target((ip,), target.port)))
        try:
            seen = yield from _use(replace(subject, endpoint=node), time.monotonic() + left)
            shown += [seen.certificate] if seen.certificate else []
        except HostUnavailable as fault:
            faults.append((ip, fault))
    if len(faults) == len(target.ips):
        raise faults[0][1]
    seen = replace(seen, certificate=min(shown, key=lambda each: each.not_after, default=None))
    if not faults:
        return seen
    ill = "; ".join(f"{ip}: {explain(fault, subject.endpoint)}" for ip, fault in faults[:_TOLD])
    warning = f"{len(faults)} of {len(target.ips)} servers behind this name cannot be used: {ill}"
    return replace(seen, warning="; ".join(filter(None, (warning, seen.warning))))


def _use(subject: Subject, until: float) -> Flow[Seen]:
    vault = VaultKeystore(
        subject.endpoint,
        subject.tenancy,
        timeout_s=max(until - time.monotonic(), 0.001),
        kv_version=subject.kv_version,
        cluster_id=subject.cluster_id,
        until=until,
    )
    try:
        seen = yield from _within_its_quota(vault, subject, until)
        return replace(seen, certificate=vault.certificate)
    except DamagedRecordError:
        return Seen(certificate=vault.certificate)
    except HostUnavailable as fault:
        if fault.cause is not Cause.SEALED:
            raise
        # Where it does not answer any more: it has said so before.
        with suppress(HostUnavailable):
            fault = yield from vault.why_sealed()
        raise fault from None
    finally:
        yield from vault.revoke()


def _within_its_quota(vault: VaultKeystore, subject: Subject, until: float) -> Flow[Seen]:
    """Use a keystore; where a quota lets nothing through, ask again, and then see whether it is the right server.

    That many ask it so much says nothing against it: its quota does not hold for `/sys/health`.
    """
    pause = _FIRST_PAUSE_S
    while True:
        try:
            # Nothing lies there: an answer that says so is an authorized one.
            yield from vault.read(f"{CANARY_PREFIX}{secrets.token_hex(8)}")
            return (yield from _look(vault, subject))
        except RateLimited as limit:
            if subject.cluster_id is None:
                raise
            yield from vault.require_cluster()
            if time.monotonic() + 3 * pause > until:
                return Seen(f"{explain(limit, subject.endpoint)}: see its rate-limit quotas")
        yield Pause(pause)
        pause *= 2


def _look(vault: VaultKeystore, subject: Subject) -> Flow[Seen]:
    """See what the keystore remembers and holds; what is unfit about its mount is a warning, for it does work."""
    checkpoint = yield from vault.remembered()
    entries = None if subject.counts is None else (yield from vault.entries(subject.counts))
    try:
        yield from vault.detect()
    except Unsuitable as unfit:
        return Seen(explain(unfit, subject.endpoint), checkpoint, entries)
    return Seen(None, checkpoint, entries)
