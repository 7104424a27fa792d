"""The `KeystoreMigration` resource."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from pulumi_keystore.answers import MigrationAnswer
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.migration import Phase, State, has_ended, problems
from pulumi_keystore.errors import Conflict, KeystoreError, NotFound, ServiceUnavailable
from pulumi_keystore.resources.provider import (
    KeystoreProvider,
    changed,
    failure,
    one_line,
    program_client,
    tell,
    unknown_properties,
    with_ours,
)

if TYPE_CHECKING:
    from pulumi_keystore.client import Client

_POLL_S: Final = 0.5
_LINE_EVERY_S: Final = 2.0
_PATIENCE_S: Final = 120.0


class KeystoreMigrationProvider(KeystoreProvider):
    """Dynamic provider of `KeystoreMigration`; its id is the organization's name: there is one for each."""

    @one_line
    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Judge names and the e-mail address without asking anybody."""
        return CheckResult(news, [failure(violation) for violation in problems(news, unknown_properties(news))])

    @one_line
    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another destination is a migration; another organization is another resource."""
        replaces = changed(olds, news, ("organization",))
        return DiffResult(changes=True, replaces=replaces) if replaces else DiffResult()

    @one_line
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Move every key to the destination, unless it is active already."""
        return CreateResult(str(props["organization"]), self._migrate(props))

    @one_line
    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Move every key to the new destination."""
        return UpdateResult(self._migrate(news))

    @one_line
    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Return which keystore is active, so that a migration made elsewhere is shown as drift."""
        with self.client() as service:
            try:
                active = service.organization(id_)["active_keystore"]
            except NotFound:
                return ReadResult(None, {})
        outs = {**props, "destination": active}
        return ReadResult(
            id_, outs, {name: outs.get(name) for name in ("organization", "destination", "notify_email", "mode")}
        )

    @one_line
    def delete(self, id_: str, _props: dict[str, Any]) -> None:
        """Forget the declaration; the keys stay where they are."""
        tell(f"{id_}: the archive keys stay in the active keystore")

    def _migrate(self, props: dict[str, Any]) -> dict[str, Any]:
        organization, destination = str(props["organization"]), str(props["destination"])
        with self.client() as service:
            mode = str(props.get("mode") or "maintenance")
            row = service.start_migration(organization, destination, props.get("notify_email"), mode)
            if row is None:
                return {**props, "keys_moved": 0, "ending": None, "migration_id": None}
            row = _wait(service, organization, row)
        return {**props, "keys_moved": row["done"], "ending": row["ending"], "migration_id": row["id"]}


def _wait(service: Client, organization: str, row: MigrationAnswer) -> MigrationAnswer:
    """Follow a migration to its end, with a line now and then; it goes on if we are interrupted.

    Raises:
        Conflict: It failed; nothing has moved.
        ServiceUnavailable: The service has been away for two minutes.

    """
    tell(f"{organization}: migrating {count(row['total'], 'key')} from {row['source']} to {row['destination']}")
    told, gone_since = time.monotonic(), None
    while not has_ended(row["state"], row["phase"]):
        time.sleep(_POLL_S)
        try:
            row = service.migration(organization, row["id"])
            gone_since = None
        except ServiceUnavailable:
            # A service that restarts goes on with the migration; so do we.
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > _PATIENCE_S:
                raise
        if time.monotonic() - told > _LINE_EVERY_S:
            told = time.monotonic()
            tell(f"{organization}: {_progress(row)}")
    if row["state"] != State.SUCCEEDED:
        raise Conflict(
            f"{row['ending']}: {row['detail']}; all keys are still in {row['source']}, which is in use",
            hint="fix the cause and run `pulumi up` again",
        )
    tell(f"{organization}: {row['ending']}: {_progress(row)}")
    return row


def _progress(row: MigrationAnswer) -> str:
    moved = row["verified"] if row["phase"] == Phase.VERIFY else row["done"]
    text = f"{row['phase']}, {moved:,} of {count(row['total'], 'key')}"
    if row["rate"]:
        text += f", {row['rate']:,.0f} keys/s"
    if row["remaining_s"]:
        text += f", {row['remaining_s']:,.0f} s left"
    return text


class KeystoreMigration(Resource, module="keystore", name="KeystoreMigration"):
    """Which keystore of an organization is the active one.

    Changing `destination` moves every archive key there, all or nothing. The migration runs in the service: an
    interrupted `pulumi up` does not break it, and the next one attaches to it. One per organization.

    Args:
        resource_name: Name of the resource in the program.
        organization: Name of the organization.
        destination: Name of the keystore that shall be active: `keystore.name`.
        notify_email: Gets three kinds of mail: started, and succeeded or failed.
        mode: `maintenance`, the default: no key is enrolled while keys move. `online`: keys are enrolled, to both
            keystores, and held only for a moment at the end.
        opts: Pulumi's options.

    """

    organization: pulumi.Output[str]
    destination: pulumi.Output[str]
    keys_moved: pulumi.Output[int]
    """How many keys the last migration moved; 0 where none was needed."""
    ending: pulumi.Output[str | None]
    migration_id: pulumi.Output[str | None]

    def __init__(
        self,
        resource_name: str,
        organization: pulumi.Input[str],
        destination: pulumi.Input[str],
        notify_email: pulumi.Input[str] | None = None,
        mode: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        found = dict.fromkeys(("keys_moved", "ending", "migration_id"))
        props = {"organization": organization, "destination": destination, "notify_email": notify_email, **found}
        if mode is not None:
            # Only where it is given: programs without it keep the inputs, and so the state, that they have.
            props["mode"] = mode
        super().__init__(KeystoreMigrationProvider(), resource_name, props, with_ours(opts))
        if pulumi.runtime.is_dry_run():
            pulumi.Output.all(organization, destination).apply(lambda pair: self._announce(*pair))

    def _announce(self, organization: str, destination: str) -> None:
        """Say in preview what the update will do."""
        try:
            with program_client() as service:
                plan = service.plan_migration(organization, destination)
        except NotFound:
            return
        except KeystoreError as error:
            pulumi.log.warn(f"the migration cannot be planned: {error}", self)
            return
        if plan["moves"]:
            kept = f"; they stay at the source for another {plan['retain_s']:,.0f} s" if plan["retain_s"] else ""
            pulumi.log.info(
                f"will migrate {count(plan['keys'], 'key')} from {plan['source']} to {plan['destination']}, "
                f"about {plan['estimate_s']:,.0f} s{kept}",
                self,
            )
        for end in plan["unreachable"]:
            pulumi.log.warn(f"unreachable now: {end}", self)
