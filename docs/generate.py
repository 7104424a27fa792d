"""Write the generated pages of docs/ anew (`make docs`); a test compares them with what they describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from docs import api_page, error_page, manual_page, metrics_page, rule_pages
from pulumi_keystore import cli, rules
from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.policy.policies import POLICIES

HERE = Path(__file__).resolve().parent


def openapi() -> str:
    """Return the OpenAPI document of the service."""
    return json.dumps(app.create(None).openapi(), indent=2, ensure_ascii=False) + "\n"


def rule_list() -> str:
    """Return the page of all rules."""
    lines = [
        "# Rules",
        "",
        "The providers (in preview), the service and the command check every input against the same rules.",
        "An error names the rule, what was found, and what is expected.",
        "",
        "| rule | property | expected | severity |",
        "| --- | --- | --- | --- |",
    ]
    for rule in rules.RULES.values():
        if rule.is_policy:
            continue
        outcome = "error" if rule.severity is rules.Severity.ERROR else "warning"
        lines.append(f"| [{rule.id}](rules/{rule.id}.md) | `{rule.prop}` | {rule.expects} | {outcome} |")
    return "\n".join(lines) + "\n"


def settings() -> str:
    """Return the page of the service's settings."""
    lines = [
        "# Settings",
        "",
        "Settings of `keystore serve` and `keystore worker`, given in the environment.",
        "",
        "| setting | default | meaning |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default in (None, "") else f"`{field.default}`"
        if name == "data":
            default = "`/var/lib/pulumi-keystore` for root, else `~/.local/share/pulumi-keystore`"
        lines.append(f"| `KEYSTORE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def command() -> str:
    """Return the page of the command's help."""
    lines = ["# The command", "", "The output of `--help`.", ""]

    def describe(node: Any, path: str) -> None:
        context = typer.Context(node, info_name=path, max_content_width=100, terminal_width=100)
        text = node.get_help(context)
        lines.extend((f"## {path}", "", "```text", *(line.rstrip() for line in text.strip().splitlines()), "```", ""))
        for name, child in getattr(node, "commands", {}).items():
            describe(child, f"{path} {name}")

    describe(typer.main.get_command(cli.app), "keystore")
    return "\n".join(lines)


def vault_setup() -> str:
    """Return the page on preparing a Vault server, with the policy that the product expects."""
    tenancy = Tenancy("acme")
    parameters = tenancy.role_parameters("@acme-ca.pem", "acme")
    role = " \\\n".join(
        f"    {name}={str(value).lower() if value is True else value}" for name, value in parameters.items()
    )
    inside = Tenancy("acme", "kv/archive-keys", namespace="team")
    return VAULT_SETUP.format(
        v1=tenancy.policy(1).strip(), v2=tenancy.policy(2).strip(), role=role, namespaced=inside.policy(1).strip()
    )


VAULT_SETUP = """\
# Preparing a Vault server

Each organization, here `acme`, needs a KV mount, a policy, and a role for its client certificate. With HashiCorp Vault, use
`vault` instead of `bao`.

```console
bao secrets enable -path=archive-keys -version=1 kv
bao auth enable cert
bao policy write keystore-acme keystore-acme.hcl
bao write auth/cert/certs/keystore-acme \\
{role}
```

`acme-ca.pem` is the CA that issued the client certificate, and `allowed_common_names` its common name. The token has no `default`
policy, which would make each request slower and grants more than is needed.

This is the policy, `keystore-acme.hcl`, for KV version 1. Version 1 is the better choice: with `create` but without `update` the server
itself makes each key write-once, and it handles about twice as many requests a second.

```hcl
{v1}
```

For an existing mount of KV version 2 (keys are written with `cas=0` and removed with all versions and metadata;
`delete_version_after` must be 0):

```hcl
{v2}
```

## Mounts with slashes, and namespaces

A mount may have any path, such as `kv/archive-keys`, if the keystore is declared with it: `mount="kv/archive-keys"`. A mount of
KV version 1 at that path has the policy above with the other path.

With OpenBao 2.3 or Vault Enterprise, all of it can be in a namespace, and the keystore is declared with `namespace="team"` (a child
namespace is `team/child`). Certificate login, role, policy and mount are then in that namespace: give each command above
`-namespace=team`.

```console
bao namespace create team
bao secrets enable -namespace=team -path=kv/archive-keys -version=1 kv
bao auth enable -namespace=team cert
```

A policy is written from where it is, so no path in it begins with the namespace. This is the policy for the mount
`kv/archive-keys` in the namespace `team`:

```hcl
{namespaced}
```

The service itself asks only `/v1/sys/health` outside of the namespace, which needs no token. Namespaces are part of the request
path (`/v1/team/kv/archive-keys/…`), never a header: a server without namespaces refuses such a request instead of
answering it from a mount of the same name.
"""


def policy_list() -> str:
    """Return the page on policies."""
    lines = [
        "# Policies",
        "",
        "Policies check a set of declarations as a whole; [rules](rules.md) check single inputs.",
        "The policy pack in [policies/](../policies/README.md) applies both in every preview, and",
        "`keystore check` does the same without Pulumi.",
        "",
        "| policy | name in the pack | expected | level | what to do |",
        "| --- | --- | --- | --- | --- |",
    ]
    for policy in POLICIES:
        level = "mandatory" if policy.severity is rules.Severity.ERROR else "advisory"
        lines.append(
            f"| [{policy.id}](rules/{policy.id}.md) | `{policy.name}` | {policy.expects} | {level} | {policy.remedy} |"
        )
    return "\n".join(lines) + "\n" + POLICY_USE


POLICY_USE = """\

KS100 lists inputs that could not be checked because they are secret or known only during the update. The provider checks them then,
before anything is changed.

## In Pulumi

```console
pulumi up --policy-pack path/to/policies
```

A mandatory policy stops the update before it starts; with `--skip-preview`, policies on the whole stack are checked only after the
update. [policies/README.md](../policies/README.md) explains how to choose levels and limits.

## Without Pulumi

```console
keystore check keystores.yaml
keystore check keystores.yaml --strict --format sarif
```

`keystore check` reads the output of `pulumi preview --json` or `pulumi stack export`, or a file such as

```yaml
organizations:
  - name: acme
keystores:
  - organization: acme
    name: ours
    kind: self-administered
    address: https://vault.example.com:8200
    certificate: acme.p12
    certificate_password_env: ACME_PASSWORD
    protect: true
monitors:
  - organization: acme
    keystore: ours
    recipients: [security@example.com]
```

and prints a table, JSON, JUnit or SARIF. It exits with 0 if there is nothing to report, and 1 otherwise. Each
finding names the file, line and column where the declaration is written; for a preview or an exported stack, that is the line of the
program that makes the resource.
"""

PAGES = {
    "api.md": lambda: api_page.page(app.create(None).openapi()),
    "policies.md": policy_list,
    "metrics.md": metrics_page.page,
    "openapi.json": openapi,
    "rules.md": rule_list,
    "settings.md": settings,
    "command.md": command,
    "keystore.1": manual_page.page,
    "vault-setup.md": vault_setup,
    "errors.md": error_page.page,
    **rule_pages.pages(),
}


def main() -> None:
    """Write every generated page."""
    (HERE / "rules").mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (HERE / name).write_text(page())


if __name__ == "__main__":
    main()
