"""The `Organization` resource."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from pulumi_keystore.declarations.names import check_organization
from pulumi_keystore.errors import InvalidInput, ManagedElsewhere, NotFound
from pulumi_keystore.resources.provider import (
    KeystoreProvider,
    changed,
    failure,
    is_unknown,
    mark_of,
    new_mark,
    one_line,
    tell,
    with_ours,
)


class OrganizationProvider(KeystoreProvider):
    """Dynamic provider of `Organization`; its id is the organization's name."""

    @one_line
    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Judge the name (KS031) without asking anybody."""
        try:
            if not is_unknown(news.get("name")):
                check_organization(str(news.get("name")))
        except InvalidInput as violation:
            violation.prop = "name"
            return CheckResult(news, [failure(violation)])
        return CheckResult(news, [])

    @one_line
    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another name or environment is another organization."""
        replaces = changed(olds, news, ("name", "environment"))
        return DiffResult(changes=True, replaces=replaces) if replaces else DiffResult()

    @one_line
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Create the organization, or take over the one there is."""
        mark = new_mark()
        with self.client() as service:
            found = service.put_organization(str(props["name"]), str(props["environment"]), mark=mark)
        for warning in found.get("warnings", ()):
            tell(f"warning: {warning}")
        return CreateResult(str(props["name"]), {**props, "mark": mark})

    @one_line
    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Return what the service knows."""
        with self.client() as service:
            try:
                found = service.organization(id_)
            except NotFound:
                return ReadResult(None, {})
        known = {"name": found["name"], "environment": found["environment"]}
        return ReadResult(id_, {**props, **known}, known)

    @one_line
    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Nothing of an organization can be changed in place."""
        return UpdateResult({**news, "mark": mark_of(olds)})

    @one_line
    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Delete the organization; refused while it has keystores or keys."""
        with self.client() as service:
            try:
                service.delete_organization(id_, mark=mark_of(props))
            except NotFound:
                return
            except ManagedElsewhere as reason:
                tell(f"warning: {reason.summary}")


class Organization(Resource, module="keystore", name="Organization"):
    """A customer whose archive keys are kept.

    Args:
        resource_name: Name of the resource in the program.
        name: Name of the organization: 1 to 63 of a-z, 0-9 and '-'. The resource's name by default.
        environment: cloud or federal; keystores are managed in the cloud only.
        opts: Pulumi's options.

    """

    name: pulumi.Output[str]
    environment: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        name: pulumi.Input[str] | None = None,
        environment: pulumi.Input[str] = "cloud",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"name": resource_name if name is None else name, "environment": environment}
        super().__init__(OrganizationProvider(), resource_name, props, with_ours(opts))
