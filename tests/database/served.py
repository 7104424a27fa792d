"""Fixtures: the application on a database of its own, with two organizations and a token; no Vault."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from pulumi_keystore import client as client_module
from pulumi_keystore.client import Client
from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.escrow.quota import Quota
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.monitoring.runner import HealthChecks
from pulumi_keystore.control_plane.organizations import history, registry
from pulumi_keystore.control_plane.runtime.database import upgrade_schema
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.settings import Settings

SHARE, CHANGES, MIGRATIONS = 3, 5, 4
PAGE = 3


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[tuple[FastAPI, str]]:
    """The application, and a token of the authority."""
    settings = Settings(
        database_url=database_url,
        data=tmp_path,
        master_key_file=None,
        requests_per_organization=SHARE,
        changes_per_day=CHANGES,
        migrations_per_hour=MIGRATIONS,
    )
    with opened(settings, upgrade_schema) as database:
        plane = database.plane
        with plane.transaction() as session:
            _, token = tokens.create(session, "test", "authority", "authority")
            registry.put(session, "test", "acme")
            registry.put(session, "test", "other")
        services = ServicesOfApp(plane, None, None, None, Quota(10), lambda _: None, None, None, HealthChecks(plane))
        yield app.create(services), token


class Bridge(httpx.BaseTransport):
    """Has an application answer, without a server."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx.ASGITransport(app)
        self._loop = asyncio.new_event_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def answered() -> httpx.Response:
            answer = await self._inner.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return self._loop.run_until_complete(answered())

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def plane(served: tuple[FastAPI, str]) -> ControlPlane:
    plane: ControlPlane = served[0].state.services.plane
    return plane


@pytest.fixture
def client_of(
    served: tuple[FastAPI, str], plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Client]]:
    """Return a maker of clients as the command has them, by role, with pages of three rows."""
    monkeypatch.setattr(client_module, "_PAGE", PAGE)
    monkeypatch.setattr(history, "_PAGE", PAGE)
    made: list[Client] = []

    def make(role: str, organization: str | None = None) -> Client:
        with plane.transaction() as session:
            _, token = tokens.create(session, "test", "ops", role, organization)
        client = Client(token=token)
        headers = client._http.headers
        client._http.close()
        client._http = httpx.Client(transport=Bridge(served[0]), base_url=client.url, headers=headers)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    """That of an administrator."""
    return client_of("provider-admin")
