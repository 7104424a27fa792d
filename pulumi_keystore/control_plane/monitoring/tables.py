"""Tables: tests of keystores."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pulumi_keystore.causes import Cause
from pulumi_keystore.control_plane.runtime.tables import Base, word


class KeystoreHealth(Base):
    """The tests of one self-administered keystore: the latest result, and who makes the next one.

    `minute` is that of the latest test; a process that has claimed the keystore until a moment makes the one that
    is due. `phase` is where in the minute that is. `server_not_before` and `server_not_after` are those of the
    certificate that the server has shown; of several servers, of the one that expires first.
    """

    __tablename__ = "keystore_health"
    __table_args__ = (
        Index("ix_keystore_health_offline", "keystore_id", postgresql_where=text("NOT online")),
        Index("ix_keystore_health_lacking", "keystore_id", postgresql_where=text("lacking > 0")),
        Index("ix_keystore_health_tested_at", "tested_at"),
        Index("ix_keystore_health_server_not_after", "server_not_after"),
    )
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[float]
    minute: Mapped[int | None] = mapped_column(BigInteger)
    claimed_by: Mapped[str | None] = mapped_column(String(100))
    claimed_until: Mapped[datetime | None]
    online: Mapped[bool | None]
    reason: Mapped[str | None] = mapped_column(String(40))
    detail: Mapped[str | None]
    cause: Mapped[Cause | None] = mapped_column(word(Cause, 20))
    warning: Mapped[str | None]
    seconds: Mapped[float | None]
    since: Mapped[datetime | None]
    tested_at: Mapped[datetime | None]
    lacking: Mapped[int] = mapped_column(server_default="0")
    surplus: Mapped[int] = mapped_column(server_default="0")
    alerted: Mapped[bool] = mapped_column(server_default="false")
    server_not_before: Mapped[datetime | None]
    server_not_after: Mapped[datetime | None]


class HealthSample(Base):
    """Whether a keystore was online in one minute, and why not; a minute without a row was not tested."""

    __tablename__ = "health_samples"
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    online: Mapped[bool]
    at: Mapped[datetime] = mapped_column(index=True)
    reason: Mapped[str | None] = mapped_column(String(40))
    cause: Mapped[Cause | None] = mapped_column(word(Cause, 20))
    seconds: Mapped[float | None]


class HealthHour(Base):
    """The tests of an hour, counted, and why the last that failed did: they are kept for longer than single minutes."""

    __tablename__ = "health_hours"
    __table_args__ = (Index("ix_health_hours_hour", "hour"),)
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    tested: Mapped[int]
    online: Mapped[int]
    slowest_s: Mapped[float]
    reason: Mapped[str | None] = mapped_column(String(40))
    cause: Mapped[Cause | None] = mapped_column(word(Cause, 20))


class Incident(Base):
    """A time in which a keystore was offline: reason, cause and detail are those of its first failed test.

    `alerts` counts how often somebody was told.
    """

    __tablename__ = "incidents"
    __table_args__ = (
        Index("ix_incidents_begun_at", "begun_at"),
        Index("ix_incidents_latest", "keystore_id", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"))
    begun_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(String(40))
    cause: Mapped[Cause | None] = mapped_column(word(Cause, 20))
    detail: Mapped[str | None]
    alerts: Mapped[int] = mapped_column(server_default="0")
