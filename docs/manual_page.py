"""The manual page of the command, `man keystore` (man(7)): what `--help` says of each command, in one page."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from pulumi_keystore import cli

_WIDTH = 1000
"""Nothing is folded here: man(1) does that."""
_HEAD = r""".\" Written by `make docs`.
.TH KEYSTORE 1 "" "pulumi-keystore" "User Commands"
.SH NAME
keystore \- run and manage the keystores of a cloud backup service
.SH SYNOPSIS
.B keystore
.RI [ OPTIONS ]
.I COMMAND
.RI [ ARGUMENTS ]
.SH DESCRIPTION"""
_TAIL = r""".SH ENVIRONMENT
.TP
.B KEYSTORE_URL
URL of the service, http://127.0.0.1:8700 by default
.TP
.B KEYSTORE_TOKEN
API token
.TP
.B KEYSTORE_CA_FILE
CA of the service's certificate in PEM; the public CAs by default
.PP
.BR "keystore serve" " and " "keystore worker"
have settings of their own, which their options name in lower case.
.SH EXIT STATUS
.TP
.B 0
success
.TP
.B 1
an error, or findings
.TP
.B 2
a keystore is offline
.TP
.B 64
wrong usage"""


def page() -> str:
    """Return the page in roff."""
    root: Any = typer.main.get_command(cli.app)
    lines = [_HEAD, *_paragraphs(root.help), ".SH OPTIONS", *_options(root, "keystore"), ".SH COMMANDS"]
    for name, child in root.commands.items():
        lines.extend(_command(child, f"keystore {name}"))
    return "\n".join([*lines, _TAIL, ""])


def _command(node: Any, path: str) -> Iterator[str]:
    """Describe a command, or each of a group."""
    for name, child in getattr(node, "commands", {}).items():
        yield from _command(child, f"{path} {name}")
    if hasattr(node, "commands"):
        return
    pieces = node.collect_usage_pieces(_context(node, path))
    yield f".SS {_plain(' '.join([path, *pieces]))}"
    yield from _paragraphs(node.help)
    yield from _options(node, path)


def _options(node: Any, path: str) -> Iterator[str]:
    context = _context(node, path)
    for param in node.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            yield from (".TP", f".B {_plain(record[0])}", _plain(record[1]) or "\\&")


def _paragraphs(text: str | None) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        yield ".PP"
        yield _plain(" ".join(paragraph.replace("\b", "").split()))


def _context(node: Any, path: str) -> typer.Context:
    return typer.Context(node, info_name=path, max_content_width=_WIDTH, terminal_width=_WIDTH)


def _plain(text: str) -> str:
    """Return text that roff takes as it is."""
    escaped = text.strip().replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
