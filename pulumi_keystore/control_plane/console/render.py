"""Pages from templates; everything that is put into them is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

STATIC: Final = files("pulumi_keystore.control_plane.console") / "static"


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page made of a template."""
    return HTMLResponse(_environment.get_template(template).render(**values), status_code=status)


def when(stamp: str | datetime | None) -> Markup:
    """Return a moment: in UTC as it is, in the reader's own time where there is JavaScript."""
    if stamp is None:
        return Markup("-")
    moment = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}")


def span(seconds: float | None) -> str:
    """Return a duration in words, its two largest units."""
    if seconds is None:
        return "-"
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    left, parts = int(seconds), []
    for size, name in units:
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {name}{'' if number == 1 else 's'}")
    return " ".join(parts[:2]) or "less than a second"


def commands(text: str) -> Markup:
    """Return a text whose commands, between backticks, look like such."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )


def segment(text: str) -> str:
    """Return a text as one part of a path in a URL."""
    return quote(text, safe="")


def number(value: float) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,.0f}"


_environment = Environment(
    loader=PackageLoader("pulumi_keystore.control_plane.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"when": when, "span": span, "number": number, "segment": segment, "commands": commands}
