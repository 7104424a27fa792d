"""Write the generated pages of docs/ anew (`make docs`); a test compares them with what they describe."""

from __future__ import annotations

import json
from pathlib import Path

from pulumi_keystore import rules
from pulumi_keystore.control_plane import api

HERE = Path(__file__).resolve().parent


def openapi() -> str:
    """Return the OpenAPI document of the service."""
    return json.dumps(api.create(None).openapi(), indent=2, ensure_ascii=False) + "\n"


def rule_list() -> str:
    """Return the page of all rules."""
    lines = [
        "# Rules",
        "",
        "Every input is judged by these rules, by the providers in preview, by the service and by the command alike.",
        "A refusal names the rule, what was found, and what is expected.",
        "",
        "| rule | property | expected | breaking it |",
        "| --- | --- | --- | --- |",
    ]
    for rule in rules.RULES.values():
        outcome = "is refused" if rule.severity is rules.Severity.ERROR else "is warned of"
        lines.append(f"| {rule.id} | `{rule.prop}` | {rule.expects} | {outcome} |")
    return "\n".join(lines) + "\n"


PAGES = {"openapi.json": openapi, "rules.md": rule_list}


def main() -> None:
    """Write every generated page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page())


if __name__ == "__main__":
    main()
