"""What every part of the control plane works with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.control_plane.runtime.gate import Gate
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.vault.resolver import Resolver


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Settings, database, master key and resolver of one process, and a name that no other process has or had."""

    settings: Settings
    sessions: sessionmaker[Session]
    master_key: MasterKey
    resolver: Resolver
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    gate: Gate = field(default_factory=Gate)

    @property
    def engine(self) -> Engine:
        """The pool of connections to the database."""
        engine: Engine = self.sessions.kw["bind"]
        return engine

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One database transaction: committed at the end, rolled back on any exception."""
        with self.sessions.begin() as session:
            yield session
