"""Whether the service lives, and whether it can work."""

from types import SimpleNamespace

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.settings import Settings


@pytest.fixture
def get():
    """Ask a service whose database is away."""
    engine = create_engine("postgresql+psycopg://127.0.0.1:1/nowhere")
    plane = ControlPlane(Settings(), sessionmaker(engine), None, None)
    transport = httpx.ASGITransport(app.create(SimpleNamespace(plane=plane)))

    async def ask(path):
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get(path)

    with start_blocking_portal() as portal:
        yield lambda path: portal.call(ask, path)
    engine.dispose()


def test_a_service_whose_database_is_away_lives_and_is_not_ready(get):
    alive, ready = get("/healthz"), get("/readyz")
    assert (alive.status_code, alive.json()["status"]) == (200, "ok")
    assert ready.status_code == 503
    assert "database does not answer" in ready.json()["detail"]
