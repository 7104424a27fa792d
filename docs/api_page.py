"""The page of the API, for people: each operation with what it takes and answers, and each shape once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

_HEAD: Final = """\
# API

The service answers at its URL, with a token in `Authorization: Bearer …` (`keystore token create`). Errors are problem documents
([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)), listed in [Errors](errors.md). [openapi.json](openapi.json) describes the same
for programs; what is stable is in [Stability](stability.md).
"""
_TITLES: Final = {
    "service": "The service",
    "organizations": "Organizations",
    "keystores": "Keystores",
    "migrations": "Migrations",
    "health": "Health and alerts",
    "archive-keys": "Archive keys",
    "safety": "Safety",
    "tokens": "Tokens",
}


def page(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    by_tag: defaultdict[str, list[str]] = defaultdict(list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag[operation["tags"][0]] += [*_operation(method, path, operation), ""]
    lines = [_HEAD]
    for tag in sorted(by_tag, key=lambda tag: [*_TITLES, tag].index(tag)):
        lines += [f"## {_TITLES.get(tag, tag.capitalize())}", "", *by_tag[tag]]
    lines += ["## Shapes", ""]
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema:
            lines += [f"### {name}", "", *_paragraph(schema), *_table(_fields(schema))]
        elif "enum" in schema:
            lines += [f"### {name}", "", *_paragraph(schema), f"One of {_shape(schema).replace(' or ', ', ')}.", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield ""
    yield from _paragraph(operation)
    given = [(each["name"], _shape(each["schema"]), _about(each)) for each in operation.get("parameters", ())]
    yield from _table(row for row in given if f"{{{row[0]}}}" not in path)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Takes {_shape(content['schema'])}{'' if kind == 'application/json' else f' ({kind})'}."
        yield ""
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            shapes = [_shape(content.get("schema", {})) for content in answer.get("content", {}).values()]
            yield f"Answers {status}" + (f" with {' or '.join(shapes)}." if any(shapes) else ".")


def _paragraph(of: Mapping[str, Any]) -> Iterator[str]:
    if text := of.get("description"):
        yield from (text.replace("<", "&lt;"), "")


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, field in schema["properties"].items():
        yield name, _shape(field), _about({"schema": field, **field, "required": name in schema.get("required", ())})


def _table(rows: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    lines = [f"| `{name}` | {shape} | {about} |" for name, shape, about in rows]
    if lines:
        yield from ("| name | type | meaning |", "| --- | --- | --- |", *lines, "")


def _about(given: Mapping[str, Any]) -> str:
    """Return what a parameter or a field means, and its default."""
    schema = given["schema"]
    text = str(given.get("description") or schema.get("description") or "")
    if schema.get("default") not in (None, "", [], {}):
        text += f"{'; ' if text else ''}`{json.dumps(schema['default']).strip(chr(34))}` by default"
    elif given.get("required"):
        text += f"{'; ' if text else ''}required"
    return text.replace("|", "\\|").replace("<", "&lt;")


def _shape(schema: Mapping[str, Any]) -> str:
    """Return the type of something in a few words, with links to the shapes that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            shapes = [_shape(each) for each in schema[several]]
            return " or ".join(shape for shape in shapes if shape)
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_shape(schema.get('items', {})) or 'anything'}"
    if kind == "object" and schema.get("additionalProperties"):
        return f"object of {_shape(schema['additionalProperties']) if schema['additionalProperties'] is not True else 'anything'}"
    return str(kind)
