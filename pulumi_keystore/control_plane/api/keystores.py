"""Keystores: registration, validated swap, removal."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field, SecretStr

from pulumi_keystore.answers import KeystoreAnswer
from pulumi_keystore.control_plane.api.access import Actor, Body, Mark, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import registration, swapping
from pulumi_keystore.control_plane.organizations import keystores, registry
from pulumi_keystore.declarations.keystore import Declaration

router = APIRouter(route_class=Metered, tags=["keystores"])


class KeystoreBody(Body):
    """The declaration of a keystore."""

    kind: str = Field(description="provider, self-administered or legacy")
    address: str | None = Field(default=None, description="https://HOST:PORT")
    certificate: SecretStr | None = Field(default=None, description="base64 of the PKCS#12 file")
    certificate_password: SecretStr | None = Field(default=None, description="export password of the PKCS#12 file")
    server_ca: str | None = Field(default=None, description="CA certificates in PEM; public CAs if missing")
    mount: str | None = Field(default=None, description="KV mount, archive-keys by default")
    role: str | None = Field(default=None, description="certificate role, keystore-ORGANIZATION by default")
    namespace: str | None = Field(default=None, description="namespace of both, the root namespace by default")

    def declared(self) -> Declaration:
        """Return what was declared."""
        return Declaration(
            kind=self.kind,
            address=self.address,
            certificate=self.certificate.get_secret_value() if self.certificate else None,
            certificate_password=self.certificate_password.get_secret_value() if self.certificate_password else None,
            server_ca=self.server_ca,
            mount=self.mount,
            role=self.role,
            namespace=self.namespace,
        )


class EditBody(Body):
    """What changes of a keystore; what is left out stays."""

    address: str | None = Field(default=None, description="https://HOST:PORT")
    certificate: SecretStr | None = Field(default=None, description="base64 of the PKCS#12 file")
    certificate_password: SecretStr | None = Field(default=None, description="export password of the PKCS#12 file")
    server_ca: str | None = Field(default=None, description="CA certificates in PEM; empty for the public CAs")

    def wanted(self) -> swapping.Edit:
        """Return what changes."""
        return swapping.Edit(
            self.address,
            self.certificate.get_secret_value() if self.certificate else None,
            self.certificate_password.get_secret_value() if self.certificate_password else None,
            self.server_ca,
        )


@router.get("/organizations/{organization}/keystores")
def list_keystores(organization: str, actor: Actor, services: Services) -> list[KeystoreAnswer]:
    """List the keystores of an organization."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        return keystores.list_all(session, registry.find(session, organization))


@router.get("/organizations/{organization}/keystores/{name}")
def get_keystore(organization: str, name: str, actor: Actor, services: Services) -> KeystoreAnswer:
    """Return one keystore."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        return keystores.describe(owner, keystores.find(session, owner, name))


@router.put("/organizations/{organization}/keystores/{name}")
def put_keystore(
    organization: str,
    name: str,
    body: KeystoreBody,
    actor: Actor,
    services: Services,
    *,
    adopt: bool = False,
    mark: Mark = None,
) -> KeystoreAnswer:
    """Prove a keystore and register it; with `adopt` take over one that is registered differently."""
    actor.require(Right.MANAGE, organization)
    shown, warnings = registration.put(
        services.plane, actor.name, organization, name, body.declared(), adopt=adopt, mark=mark
    )
    return {**shown, "warnings": warnings}


@router.post("/organizations/{organization}/keystores/{name}/swap")
def swap_keystore(
    organization: str, name: str, body: KeystoreBody, actor: Actor, services: Services, mark: Mark = None
) -> KeystoreAnswer:
    """Prove a new address, certificate or both, and swap them in; on any failure the old pair stays."""
    actor.require(Right.MANAGE, organization)
    shown, warnings = swapping.swap(services.plane, actor.name, organization, name, body.declared(), mark=mark)
    return {**shown, "warnings": warnings}


@router.patch("/organizations/{organization}/keystores/{name}")
def edit_keystore(organization: str, name: str, body: EditBody, actor: Actor, services: Services) -> KeystoreAnswer:
    """Prove what changes of a keystore, and swap it in; kind and place stay, and on any failure everything does."""
    actor.require(Right.MANAGE, organization)
    shown, warnings = swapping.edit(services.plane, actor.name, organization, name, body.wanted())
    return {**shown, "warnings": warnings}


@router.post("/organizations/{organization}/keystores/{name}/prove")
def prove_keystore(organization: str, name: str, actor: Actor, services: Services) -> KeystoreAnswer:
    """Prove a keystore as it is registered: it is logged in to, and a canary is written, read, listed and deleted."""
    actor.require(Right.MANAGE, organization)
    return swapping.prove_again(services.plane, actor.name, organization, name)


@router.post("/organizations/{organization}/keystores/{name}/accept-cluster")
def accept_cluster(organization: str, name: str, actor: Actor, services: Services) -> KeystoreAnswer:
    """Prove the cluster that answers under a keystore's name now, and use it from then on."""
    actor.require(Right.MANAGE, organization)
    shown, warnings = swapping.accept_cluster(services.plane, actor.name, organization, name)
    return {**shown, "warnings": warnings}


@router.delete("/organizations/{organization}/keystores/{name}", status_code=204)
def delete_keystore(organization: str, name: str, actor: Actor, services: Services, mark: Mark = None) -> None:
    """Forget a keystore; refused while it is active and holds keys."""
    actor.require(Right.MANAGE, organization)
    registration.remove(services.plane, actor.name, organization, name, mark)
