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
    is due. `phase` is where in the minute that is.
    """

    __tablename__ = "keystore_health"
    __table_args__ = (
        Index("ix_keystore_health_offline", "keystore_id", postgresql_where=text("NOT online")),
        Index("ix_keystore_health_lacking", "keystore_id", postgresql_where=text("lacking > 0")),
        Index("ix_keystore_health_tested_at", "tested_at"),
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


class HealthSample(Base):
    """Whether a keystore was online in one minute; a minute without a row was not tested."""

    __tablename__ = "health_samples"
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    online: Mapped[bool]
    at: Mapped[datetime] = mapped_column(index=True)
