"""The tables of the control plane. No column ever holds a key, a password or a token in clear."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    String,
    any_,
    bindparam,
    or_,
    true,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column

_MANY: Final = 1000


class Base(DeclarativeBase):
    """Base of all tables; constraints get stable names."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True), bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy's interface


class Fact(Base):
    """Facts about this database, such as which master key it belongs to."""

    __tablename__ = "facts"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[bytes]


def word(kind: type[StrEnum], length: int = 16) -> Enum:
    """Return the type of a column that holds one of some words, as text."""
    return Enum(kind, native_enum=False, length=length, values_callable=lambda kind: [str(word) for word in kind])


def is_due(at: InstrumentedAttribute[datetime], now: datetime, longest_s: float) -> ColumnElement[bool]:
    """Return the condition that a moment has come, or lies further ahead than anybody would have set it.

    The latter is so after the clock was put back: better too early than a day late.
    """
    return or_(at <= now, at > now + timedelta(seconds=longest_s))


def one_of(column: InstrumentedAttribute[int], numbers: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that a column holds one of some numbers; of very many the database had rather tell all.

    They travel as one array: a text for each would have to be parsed, here and there.
    """
    if len(numbers) > _MANY:
        return true()
    return column == any_(bindparam(None, list(numbers), ARRAY(Integer)))


def is_away(error: BaseException) -> bool:
    """Tell whether the database is what fails, and not what was asked of it (PostgreSQL, "Error Codes")."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or not state or state[:2] in ("08", "53", "57", "58")


def iso(moment: datetime | None) -> str | None:
    """Return a moment in UTC, ISO 8601; None where there is none."""
    return moment.isoformat() if moment else None


def as_document(row: Base, *names: str) -> dict[str, Any]:
    """Return some columns of a row as a JSON-ready dictionary; times in UTC, ISO 8601."""
    document: dict[str, Any] = {}
    for name in names:
        value = getattr(row, name)
        document[name] = value.isoformat() if isinstance(value, datetime) else value
    return document
