"""What is declared, wherever it was read: a file of declarations, a preview, an exported stack, or the engine."""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import yaml

from pulumi_keystore.errors import InvalidInput

KINDS: Final = {
    "keystore:Organization": "organization",
    "keystore:Keystore": "keystore",
    "keystore:KeystoreMigration": "migration",
    "keystore:HealthMonitor": "monitor",
}
DYNAMIC: Final = "pulumi-python:dynamic"
_PROVIDERS: Final = {
    "keystore_migration": "migration",
    "keystore": "keystore",
    "health_monitor": "monitor",
    "organization": "organization",
}
"""Kinds by the module of `pulumi_keystore.resources` that provides them."""
_PROVIDER = re.compile(rb"pulumi_keystore\.resources\.(" + "|".join(_PROVIDERS).encode() + rb")\b")
_LONGEST_PROVIDER: Final = 1 << 20
_SHAPES: Final = {
    "keystore": {"organization", "kind"},
    "migration": {"organization", "destination"},
    "monitor": {"organization", "keystore", "recipients"},
}
"""Inputs by which a resource is known whose provider cannot be read."""
INPUTS: Final = {
    "organization": {"name", "environment", "adopt"},
    "keystore": {
        "organization", "name", "kind", "address", "certificate", "certificate_password", "certificate_password_env",
        "server_ca", "namespace", "mount", "role", "adopt", "protect",
    },
    "migration": {"organization", "name", "destination", "notify_email", "mode"},
    "monitor": {
        "organization", "name", "keystore", "recipients", "webhook", "webhook_format", "offline_minutes",
        "repeat_hours", "online_minutes", "adopt",
    },
}  # fmt: skip
"""What may be written of each in a file of declarations."""
SECRETS: Final = {"keystore": ("certificate", "certificate_password"), "monitor": ("webhook",)}
_PLURALS: Final = {
    "organizations": "organization",
    "keystores": "keystore",
    "migrations": "migration",
    "monitors": "monitor",
}
# Pulumi's signatures of a secret in a state, and of a value that is not known yet (sdk/go/common/resource/sig).
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - it is none
_UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_SOURCE: Final = re.compile(r"project:///(?P<file>[^#]{1,1000})#(?P<line>[1-9]\d{0,8})(?:,(?P<column>[1-9]\d{0,8}))?")
"""How the engine says where a program makes a resource."""
_LIBRARY: Final = re.compile(r"(^|/)(\.\.|site-packages|node_modules|pulumi_keystore/resources)/")
_MOST_FRAMES: Final = 100
_HIDDEN: Final = "[secret]"


class _Loader(yaml.SafeLoader):
    """YAML without dates and without aliases: names stay what they are, and nobody lets a small file grow large."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class Position:
    """Where something is written.

    Attributes:
        line: From 1.
        column: From 1; None where it is not known.
        file: The program's, from its project's folder; empty for the file that was read.

    """

    line: int
    column: int | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared resource.

    Attributes:
        kind: organization, keystore, migration or monitor.
        name: Name of the resource in its program or file.
        props: Inputs by name; those in `hidden` are missing.
        hidden: Inputs whose value is not to be seen here: secret, or not known before the update.
        plain: Secret inputs that are written in clear where this was read.
        protected: Whether it is protected against deletion; None where that is not told.
        unknown: What was written that is no input.
        missing: By input, why the file or variable that it names cannot be read.
        positions: Where each input is written, and under "" the declaration, if it is known.

    """

    kind: str
    name: str
    props: Mapping[str, Any] = field(repr=False)
    hidden: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    protected: bool | None = None
    unknown: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, Position] = field(default_factory=dict)

    def position(self, prop: str | None = None) -> Position | None:
        """Return where an input is written, or the declaration; None where that is not known."""
        return self.positions.get(prop or "", self.positions.get(""))

    @property
    def organization(self) -> str | None:
        """Name of its organization, None where it is not known."""
        found = self.props.get("name" if self.kind == "organization" else "organization")
        return str(found) if found is not None else None


def read(path: Path) -> list[Declared]:
    """Read declarations from a file.

    It may be the output of `pulumi preview --json` or `pulumi stack export`, or YAML or JSON with the lists
    `organizations`, `keystores`, `migrations` and `monitors`, whose entries have the inputs of the resources. There,
    `certificate` is the path of a PKCS#12 file, seen from the file, and `certificate_password_env` names a variable of
    the environment.

    Raises:
        InvalidInput: It cannot be read, or is none of these.

    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidInput(f"{path}: cannot be read ({reason})", hint="give a file of declarations") from None
    return parse(text, path.parent, str(path))


def parse(text: str, folder: Path, name: str) -> list[Declared]:
    """Read declarations from a text; see `read`.

    Args:
        text: The declarations.
        folder: Where the paths of certificates are seen from.
        name: What to call the text in errors.

    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        document = loader.construct_document(root) if root else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InvalidInput(f"{name}: neither YAML nor JSON{where}", hint="correct it there") from None
    if isinstance(document, dict):
        if isinstance(document.get("steps"), list):
            steps = [step for step in document["steps"] if isinstance(step, dict) and step.get("op") != "delete"]
            return list(_of_states([step.get("newState") for step in steps]))
        if isinstance(document.get("deployment"), dict):
            return list(_of_states(document["deployment"].get("resources")))
        if set(document) & set(_PLURALS):
            return list(_of_lists(document, _positions(root), folder, name))
    raise InvalidInput(
        f"{name}: holds no declarations",
        hint=f"expected {', '.join(_PLURALS)}, or the output of `pulumi preview --json` or `pulumi stack export`",
    )


def _of_states(states: Any) -> Iterator[Declared]:
    for state in states if isinstance(states, list) else ():
        inputs = state.get("inputs") if isinstance(state, dict) else None
        if not isinstance(inputs, dict):
            continue
        kind = kind_of(str(state.get("type", "")), inputs)
        if kind is not None:
            name = str(state.get("urn", "")).rpartition("::")[2]
            found = of_inputs(kind, name, inputs, protected=bool(state.get("protect")))
            yield replace(found, positions=_of_program(state))


def _of_program(state: Mapping[str, Any]) -> dict[str, Position]:
    """Return where a program makes a resource: the innermost call that stands in the project and is no library's."""
    stack = state.get("stackTrace")
    frames = [state, *(stack if isinstance(stack, list) else ())]
    for frame in frames[:_MOST_FRAMES]:
        stated = frame.get("sourcePosition") if isinstance(frame, dict) else None
        found = _SOURCE.fullmatch(stated) if isinstance(stated, str) else None
        if found and not _LIBRARY.search(found["file"]):
            column = int(found["column"]) if found["column"] else None
            return {"": Position(int(found["line"]), column, unquote(found["file"]))}
    return {}


def kind_of(type_token: str, inputs: Mapping[str, Any]) -> str | None:
    """Return which of our kinds a resource is, None where it is none.

    Not by its type alone: a class may derive from ours under another name, or be made with one of our providers.
    """
    kind = KINDS.get(type_token.rpartition("dynamic/")[2])
    if kind is not None or not type_token.startswith(DYNAMIC):
        return kind
    provider = _provider(inputs)
    if provider is None:
        return next((kind for kind, shape in _SHAPES.items() if shape <= set(inputs)), None)
    found = _PROVIDER.search(provider)
    return _PROVIDERS[found.group(1).decode()] if found else None


def _provider(inputs: Mapping[str, Any]) -> bytes | None:
    """Return the pickled provider of a resource, None where it cannot be read."""
    provider = inputs.get("__provider")
    if not isinstance(provider, str) or _is_hidden(provider) or len(provider) > _LONGEST_PROVIDER:
        return None
    try:
        return b64decode(provider)
    except ValueError:
        return None


def of_inputs(kind: str, name: str, inputs: Mapping[str, Any], *, protected: bool | None) -> Declared:
    """Return a resource with inputs as the engine has them."""
    props: dict[str, Any] = {}
    hidden = set()
    for key, value in inputs.items():
        if key.startswith("__") or value is None:
            continue
        if _is_hidden(value):
            hidden.add(key)
        else:
            props[key] = value
    plain = frozenset(key for key in SECRETS.get(kind, ()) if key in props)
    return Declared(kind, name, props, frozenset(hidden), plain, protected)


def _is_hidden(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get(_SIGNATURE) == _SECRET or any(map(_is_hidden, value.values()))
    if isinstance(value, list):
        return any(map(_is_hidden, value))
    return isinstance(value, str) and value in (_UNKNOWN, _HIDDEN)


def _positions(root: yaml.Node | None) -> dict[tuple[str, int], dict[str, Position]]:
    """Return where the inputs of each declaration are written, by the list it is in and its number there, from 1."""
    found: dict[tuple[str, int], dict[str, Position]] = {}
    for plural, entries in root.value if isinstance(root, yaml.MappingNode) else ():
        for number, entry in enumerate(entries.value if isinstance(entries, yaml.SequenceNode) else (), 1):
            marks = {"": entry.start_mark}
            if isinstance(entry, yaml.MappingNode):
                marks |= {str(name.value): name.start_mark for name, _ in entry.value}
            found[str(plural.value), number] = {
                name: Position(mark.line + 1, mark.column + 1) for name, mark in marks.items()
            }
    return found


def _of_lists(
    document: Mapping[str, Any], positions: Mapping[tuple[str, int], Mapping[str, Position]], folder: Path, file: str
) -> Iterator[Declared]:
    for plural, kind in _PLURALS.items():
        entries = document.get(plural) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidInput(f"{file}: {plural} is not a list of declarations", hint="begin each one with '-'")
        for number, entry in enumerate(entries, 1):
            props = {str(key): value for key, value in entry.items() if value is not None}
            unknown = frozenset(set(props) - INPUTS[kind])
            name = str(props.get("name") or props.get("organization") or f"{kind} {number}")
            plain = frozenset({"certificate_password"} & set(props))
            missing = _fill_in(props, folder) if kind == "keystore" else {}
            protected = bool(props.pop("protect", False))
            where = positions.get((plural, number), {})
            # Without a certificate its password is not judged, and the other way round.
            hidden = frozenset(SECRETS["keystore"]) if missing else frozenset()
            yield Declared(kind, name, props, hidden, plain, protected, unknown, missing, where)


def _fill_in(props: dict[str, Any], folder: Path) -> dict[str, str]:
    """Put what files and variables hold in the place of their names; return why one cannot be read, by input."""
    missing = {}
    variable = props.pop("certificate_password_env", None)
    if variable is not None and str(variable) in os.environ:
        props["certificate_password"] = os.environ[str(variable)]
    elif variable is not None:
        missing["certificate_password_env"] = f"the environment has no {variable}"
    if "certificate" in props:
        path = folder / str(props["certificate"])
        try:
            props["certificate"] = b64encode(path.read_bytes()).decode()
        except (OSError, ValueError) as error:
            missing["certificate"] = f"{path} cannot be read ({getattr(error, 'strerror', None) or error})"
    return missing
