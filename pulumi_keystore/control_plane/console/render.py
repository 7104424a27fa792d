"""Pages from templates; everything that is put into them is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pulumi_keystore.control_plane.console.wording import capitalized, here, hint_of, summary_of
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.expiry import WARN_BEFORE_EXPIRY

STATIC: Final = files("pulumi_keystore.control_plane.console") / "static"
_NEAR: Final = timedelta(days=300)
"""Within which a day is of one year only."""


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page made of a template."""
    return HTMLResponse(_environment.get_template(template).render(**values), status_code=status)


def when(stamp: str | datetime | None) -> Markup:
    """Return a moment: in UTC as it is, in the reader's own time where there is JavaScript."""
    if stamp is None:
        return Markup("-")
    utc = _in_utc(stamp)
    return Markup('<time datetime="{}">{} UTC</time>').format(utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}")


def day(stamp: str | datetime) -> Markup:
    """Return the day of a moment, with its year only where that is not clear."""
    utc = _in_utc(stamp)
    year = "" if abs(utc - datetime.now(UTC)) < _NEAR else f", {utc.year}"
    return Markup('<time class="day" datetime="{}" title="{} UTC">{}</time>').format(
        utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}", f"{utc:%b} {utc.day}{year}"
    )


def _in_utc(stamp: str | datetime) -> datetime:
    moment = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    return moment.astimezone(UTC)


def span(seconds: float | None) -> str:
    """Return a duration in words, its two largest units."""
    if seconds is None:
        return "-"
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    left, parts = int(seconds), []
    for size, name in units:
        number, left = divmod(left, size)
        if number:
            parts.append(count(number, name))
    return " ".join(parts[:2]) or "less than a second"


def commands(text: str) -> Markup:
    """Return a text that names actions of the console, and whose other commands, between backticks, look like such."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(here(text).split("`"))
    )


def sentence(text: str) -> Markup:
    """Return the same with a capital letter at the beginning."""
    return commands(capitalized(text))


def segment(text: str) -> str:
    """Return a text as one part of a path in a URL."""
    return quote(text, safe="")


def number(value: float) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class Latency:
    """A line of how long tests took: the slowest of all, and the points of each unbroken part for an SVG polyline."""

    most_ms: int
    lines: tuple[str, ...]


def latency(slowest_ms: Sequence[int | None]) -> Latency | None:
    """Return the line through the slowest test of each bucket, 24 high and a bucket wide; None where none was made."""
    known = [each for each in slowest_ms if each is not None]
    if not known:
        return None
    most = max(*known, 1)
    lines: list[list[str]] = []
    for index, each in enumerate(slowest_ms):
        if each is None:
            continue
        if not index or slowest_ms[index - 1] is None:
            lines.append([f"{index},{23 - 22 * each / most:.1f}"])
        lines[-1].append(f"{index + 1},{23 - 22 * each / most:.1f}")
    return Latency(most, tuple(" ".join(points) for points in lines))


_environment = Environment(
    loader=PackageLoader("pulumi_keystore.control_plane.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "when": when,
    "day": day,
    "span": span,
    "number": number,
    "segment": segment,
    "commands": commands,
    "count": count,
    "sentence": sentence,
    "latency": latency,
    "summary": summary_of,
    "hint": hint_of,
}
_environment.globals["warn_days"] = WARN_BEFORE_EXPIRY.days
