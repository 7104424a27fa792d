"""`keystore register`, `edit`, `prove` and `delete`: which keystores there are, and what they are bound to."""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import Annotated, Final

import typer

from pulumi_keystore.cli.keystores import show_one
from pulumi_keystore.cli.output import (
    Format,
    FormatOption,
    KeystoreArgument,
    OrganizationArgument,
    YesOption,
    ask,
    out,
)
from pulumi_keystore.declarations.names import Kind

commands = typer.Typer()
_LARGEST: Final = 2 << 20
"""More than any file that is accepted (KS016): the service says what is wrong with it."""

CertificateOption = Annotated[
    typer.FileBinaryRead | None,
    typer.Option(help="PKCS#12 file (.p12, .pfx) with the client certificate and its key."),
]
PasswordOption = Annotated[
    typer.FileText | None,
    typer.Option(
        help="File with the export password of the PKCS#12 file; - reads it from standard input. "
        "Without it you are asked on a terminal."
    ),
]
ServerCaOption = Annotated[
    typer.FileText | None,
    typer.Option(help="PEM file with the CA certificates that verify the server; the public CAs by default."),
]


@commands.command()
def register(
    organization: OrganizationArgument,
    keystore: KeystoreArgument,
    address: Annotated[str | None, typer.Option(help="https://HOST:PORT with a public DNS name.")] = None,
    certificate: CertificateOption = None,
    password_file: PasswordOption = None,
    server_ca: ServerCaOption = None,
    mount: Annotated[str | None, typer.Option(help="KV mount; archive-keys by default.")] = None,
    role: Annotated[str | None, typer.Option(help="Certificate role; keystore-ORGANIZATION by default.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of both; the root namespace by default.")] = None,
    kind: Annotated[Kind, typer.Option(help="Who runs it.")] = Kind.SELF_ADMINISTERED,
    output: FormatOption = Format.TABLE,
) -> None:
    """Register a keystore after proving it. The first keystore of an organization becomes active.

    The service logs in with the certificate and writes, reads, lists and deletes a test entry. If any of it fails,
    nothing is registered. Succeeds if the keystore is already registered exactly so.
    """
    body = {
        "kind": kind.value,
        "address": address,
        **_file(certificate, password_file),
        "server_ca": server_ca.read(_LARGEST) if server_ca else None,
        "mount": mount,
        "role": role,
        "namespace": namespace,
    }
    with ask() as service:
        show_one(service.put_keystore(organization, keystore, body), output)


@commands.command()
def edit(
    organization: OrganizationArgument,
    keystore: KeystoreArgument,
    address: Annotated[str | None, typer.Option(help="New https://HOST:PORT.")] = None,
    certificate: CertificateOption = None,
    password_file: PasswordOption = None,
    server_ca: Annotated[
        typer.FileText | None,
        typer.Option(help="PEM file with the CA certificates that verify the server; an empty one for the public CAs."),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Change the URL, the certificate or the server CA of a keystore after proving the new ones.

    What you leave out stays. If the keystore is active, every archive key must be found with the new settings. If
    anything fails, the old settings stay in use.
    """
    if not any((address, certificate, server_ca)):
        raise typer.BadParameter("nothing to change: give --address, --certificate or --server-ca")
    wanted = {
        "address": address,
        **_file(certificate, password_file),
        "server_ca": server_ca.read(_LARGEST) if server_ca else None,
    }
    with ask() as service:
        show_one(service.edit_keystore(organization, keystore, wanted), output)


@commands.command()
def prove(organization: OrganizationArgument, keystore: KeystoreArgument, output: FormatOption = Format.TABLE) -> None:
    """Prove that a keystore can be relied on, as at its registration.

    The service logs in and writes, reads, lists and deletes a test entry. Exit status: 0 proved, 1 not.
    """
    with ask() as service:
        found = service.prove_keystore(organization, keystore)
    if output is Format.JSON:
        show_one(found, output)
    else:
        out.print(f"{keystore} is proved: {found['address_display']}", markup=False)


@commands.command()
def delete(organization: OrganizationArgument, keystore: KeystoreArgument, yes: YesOption = False) -> None:
    """Delete the registration of a keystore. Nothing is deleted on its server.

    Refused for an active keystore that holds archive keys, and while a clean-up of the keystore is pending.
    """
    if not yes and not typer.confirm(f"Delete the registration of {keystore}?", err=True):
        raise typer.Exit(1)
    with ask() as service:
        service.delete_keystore(organization, keystore)


def _file(certificate: typer.FileBinaryRead | None, password_file: typer.FileText | None) -> dict[str, str | None]:
    """Return a PKCS#12 file and its password, which is asked for on a terminal where it was not given."""
    password = password_file.read(_LARGEST).removesuffix("\n").removesuffix("\r") if password_file else None
    if certificate is not None and password_file is None and sys.stdin.isatty():
        name = getattr(certificate, "name", "the file")
        password = typer.prompt(f"Password of {name} (empty for none)", hide_input=True, default="", err=True)
    content = b64encode(certificate.read(_LARGEST)).decode() if certificate is not None else None
    return {"certificate": content, "certificate_password": password or None}
