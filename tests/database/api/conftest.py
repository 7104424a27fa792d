"""The application on a database of its own, with two organizations and a token; no Vault."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.escrow.quota import Quota
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.runtime.database import upgrade_schema
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings

SHARE, CHANGES = 3, 5


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[tuple[FastAPI, str]]:
    """The application, and a token of the authority."""
    settings = Settings(
        database_url=database_url,
        data=tmp_path,
        master_key_file=None,
        requests_per_organization=SHARE,
        changes_per_day=CHANGES,
    )
    with opened(settings, upgrade_schema) as database:
        plane = database.plane
        with plane.transaction() as session:
            _, token = tokens.create(session, "test", "authority", "authority")
            registry.put(session, "test", "acme")
            registry.put(session, "test", "other")
        services = ServicesOfApp(plane, None, None, None, Quota(10), lambda _: None, None, None)
        yield app.create(services), token
