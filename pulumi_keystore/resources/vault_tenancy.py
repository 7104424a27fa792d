"""The `VaultTenancy` component: what one organization needs on a Vault server, by Pulumi's own Vault provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pulumi

from pulumi_keystore.declarations.tenancy import DEFAULT_MOUNT, Tenancy, default_role
from pulumi_keystore.resources.keystore import certificates

try:
    import pulumi_vault as vault
except ImportError as missing:
    raise ImportError("VaultTenancy needs pulumi-vault: pip install 'pulumi-keystore[vault]'") from missing

_LOGIN: Final = "cert"
"""Where the service looks for the certificate login."""


class VaultTenancy(pulumi.ComponentResource):
    """One organization's place on a Vault server: KV mount, policy, certificate role, and an audit device.

    Give its outputs to a `Keystore`, which is then registered when the server is ready for it. The server is the one
    of pulumi-vault's provider: `VAULT_ADDR` and `VAULT_TOKEN`, or a `pulumi_vault.Provider` in `opts`.

    What all organizations of a server share (mount, certificate login, audit device) is declared by the first one
    and named by the others: `shared=first`.

    Args:
        resource_name: Name of the resource in the program.
        organization: Name of the organization.
        client_ca: The CA that issues the organization's client certificates: path of a PEM file, or its text.
        common_name: Common name of those certificates; the organization's name by default.
        shared: The `VaultTenancy` that declares what the organizations of this server share; True where it is there
            already, made by other means.
        mount: Path of the KV mount; that of the tenancy it is shared with, or archive-keys, by default.
        kv_version: 1, which makes each archive key write-once in the server itself and is faster, or 2.
        role: Name of the policy and of the certificate role; keystore-ORGANIZATION by default.
        namespace: The namespace that all of it but the audit device belongs to, which has to exist; that of the
            tenancy it is shared with, or the root namespace, by default. The provider must not have one of its own.
        audit_file: Where on the server an audit device writes each request, "stdout" for its output; none by default.
        retain_mount: Leave the mount on the server when the component is deleted: archive keys may be in it.
        opts: Pulumi's options.

    """

    organization: pulumi.Output[str]
    mount: pulumi.Output[str]
    kv_version: pulumi.Output[int]
    role: pulumi.Output[str]
    namespace: pulumi.Output[str | None]
    """None for the root namespace."""

    def __init__(
        self,
        resource_name: str,
        organization: pulumi.Input[str],
        client_ca: pulumi.Input[str | Path],
        *,
        common_name: pulumi.Input[str] | None = None,
        shared: VaultTenancy | bool = False,
        mount: pulumi.Input[str] | None = None,
        kv_version: pulumi.Input[int] | None = None,
        role: pulumi.Input[str] | None = None,
        namespace: pulumi.Input[str] | None = None,
        audit_file: pulumi.Input[str] | None = None,
        retain_mount: bool = True,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("keystore:index:VaultTenancy", resource_name, {}, opts)
        beside = shared if isinstance(shared, VaultTenancy) else None
        if mount is None:
            mount = beside.mount if beside else DEFAULT_MOUNT
        if kv_version is None:
            kv_version = beside.kv_version if beside else 1
        owner = pulumi.Output.from_input(organization)
        self.mount = pulumi.Output.from_input(mount)
        self.kv_version = pulumi.Output.from_input(kv_version).apply(int)
        # "" is the root namespace, too; pulumi-vault would send it as the name of one.
        inherited = beside.namespace if beside and namespace is None else pulumi.Output.from_input(namespace)
        self.namespace = inherited.apply(lambda given: given or None)
        role = owner.apply(default_role) if role is None else pulumi.Output.from_input(role)
        prepared: list[pulumi.Resource] = [beside] if beside else []
        if not shared:
            prepared = self._prepare_server(resource_name, audit_file, retain_mount)
        policy = vault.Policy(
            resource_name,
            name=role,
            namespace=self.namespace,
            policy=pulumi.Output.all(owner, self.mount, role, self.kv_version).apply(_policy),
            opts=pulumi.ResourceOptions(parent=self, depends_on=prepared),
        )
        ca = pulumi.Output.from_input(client_ca).apply(lambda given: certificates(given, "client_ca"))
        parameters = pulumi.Output.all(owner, role, ca, common_name).apply(_role_parameters)
        login = vault.CertAuthBackendRole(
            resource_name,
            name=role,
            namespace=self.namespace,
            backend=_LOGIN,
            certificate=parameters["certificate"],
            allowed_common_names=[parameters["allowed_common_names"]],
            token_policies=[parameters["token_policies"]],
            token_no_default_policy=parameters["token_no_default_policy"],
            token_ttl=parameters["token_ttl"],
            token_max_ttl=parameters["token_max_ttl"],
            token_type=parameters["token_type"],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy, *prepared]),
        )
        # Whoever uses these waits until somebody can log in.
        self.role = login.name.apply(str)
        self.organization = pulumi.Output.all(owner, self.role).apply(lambda pair: str(pair[0]))
        self.mount = pulumi.Output.all(self.mount, self.role).apply(lambda pair: str(pair[0]))
        self.namespace = pulumi.Output.all(self.namespace, self.role).apply(lambda pair: pair[0])
        self.register_outputs(
            {
                "organization": self.organization,
                "mount": self.mount,
                "kv_version": self.kv_version,
                "role": self.role,
                "namespace": self.namespace,
            }
        )

    def _prepare_server(
        self, name: str, audit_file: pulumi.Input[str] | None, retain_mount: bool
    ) -> list[pulumi.Resource]:
        """Declare what all organizations of the server share."""
        audits: list[pulumi.Resource] = []
        if audit_file is not None:
            log = {"file_path": audit_file}
            audits.append(vault.Audit(name, type="file", options=log, opts=pulumi.ResourceOptions(parent=self)))
        # The audit device first: it shall hold all that comes, and requests made while it begins may fail.
        mount = vault.Mount(
            name,
            path=self.mount,
            namespace=self.namespace,
            type="kv",
            description="archive keys of pulumi-keystore",
            options={"version": self.kv_version.apply(str)},
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=retain_mount, depends_on=audits),
        )
        login = vault.AuthBackend(
            name,
            type="cert",
            path=_LOGIN,
            namespace=self.namespace,
            opts=pulumi.ResourceOptions(parent=self, depends_on=audits),
        )
        return [*audits, mount, login]


def _policy(given: Sequence[Any]) -> str:
    organization, mount, role, version = given
    return Tenancy(organization, mount, role).policy(version)


def _role_parameters(given: Sequence[Any]) -> dict[str, Any]:
    organization, role, ca, common_name = given
    return Tenancy(organization, role=role).role_parameters(ca, common_name or organization)
