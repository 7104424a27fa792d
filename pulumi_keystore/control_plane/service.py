"""Starting and running the service."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import structlog
import uvicorn
from dbos import DBOS
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore.control_plane import api, logs, migrations
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.clean_ups import CleanUps
from pulumi_keystore.control_plane.connections import Connections
from pulumi_keystore.control_plane.database import (
    EmbeddedPostgres,
    Leadership,
    check_master_key,
    connect,
    sessions,
    upgrade_schema,
)
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.control_plane.sealing import MasterKey
from pulumi_keystore.control_plane.settings import Settings
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.migration import workflow
from pulumi_keystore.network import HostMap, Resolver
from pulumi_keystore.notify.outbox import Postman

WORKFLOW_VERSION: Final = "1"
"""Changes only when running migrations could not be continued: an upgrade of the service goes on with them."""
_LEADER_TIMEOUT_S: Final = 20
_LOST_DATABASE_STATUS: Final = 75
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open control plane and the URL of its database."""

    plane: ControlPlane
    database_url: str


@contextmanager
def opened(settings: Settings) -> Iterator[Opened]:
    """Open database and master key, without serving anything.

    Raises:
        KeystoreError: A setting is unusable, or the database cannot be reached.

    """
    with ExitStack() as stack:
        url = settings.database_url
        if url is None:
            embedded = EmbeddedPostgres(settings.data)
            stack.callback(embedded.stop)
            url = embedded.url
        engine = connect(url)
        stack.callback(engine.dispose)
        upgrade_schema(engine)
        key = MasterKey.load_or_create(settings.master_key_file or settings.data / "master.key")
        factory = sessions(engine)
        check_master_key(factory, key)
        yield Opened(ControlPlane(settings, factory, key, Resolver(HostMap.parse(settings.host_map))), url)


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Run the service until it is told to stop (SIGINT or SIGTERM).

    Raises:
        KeystoreError: It cannot start.

    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise KeystoreError("one of tls_certificate and tls_key is missing", hint="give both, or none")
    logs.configure()
    with ExitStack() as stack:
        database = stack.enter_context(opened(settings))
        plane = database.plane
        postman = Postman(plane.sessions, settings.smtp_url, settings.mail_from, settings.mail_sender_name)
        postman.check()
        engine = plane.sessions.kw["bind"]
        leadership = Leadership(engine)
        leadership.acquire(_LEADER_TIMEOUT_S, say)
        stack.callback(leadership.release)
        clean_ups = CleanUps(plane)
        workflow.configure(plane, clean_ups)
        _launch_workflows(database.database_url)
        stack.callback(lambda: DBOS.destroy(workflow_completion_timeout_sec=0))
        _resume(plane)
        connections = Connections(plane)
        stack.callback(lambda: connections.close_idle(everything=True))
        stop = threading.Event()
        stack.callback(stop.set)
        _every(1.0, postman.send_due, "outbox", stop)
        _every(2.0, clean_ups.work, "clean-ups", stop)
        _every(5.0, connections.close_idle, "connections", stop)
        _every(2.0, lambda: _stop_if_lost(leadership), "leadership", stop)
        _run(settings, api.create(ServicesOfApp(plane, clean_ups, connections, workflow.begin)), say)


def _launch_workflows(url: str) -> None:
    DBOS(
        config={
            "name": "pulumi-keystore",
            "system_database_url": url,
            "application_version": WORKFLOW_VERSION,
            # One service at a time leads (see Leadership), so a restarted one recovers what the last one left.
            "executor_id": "control-plane",
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    # DBOS puts a handler of its own on its logger: everything goes through ours.
    logs.configure()


def _resume(plane: ControlPlane) -> None:
    """See to it that every migration that has not ended goes on; DBOS itself recovers those it has under way."""
    with plane.transaction() as session:
        left = migrations.running(session)
    for migration_id in left:
        status = DBOS.get_workflow_status(migration_id)
        _log.info("migration goes on", migration=migration_id, workflow=status.status if status else None)
        if status is None:
            workflow.begin(migration_id)
        elif status.status not in ("PENDING", "ENQUEUED"):
            DBOS.resume_workflow(migration_id)


def _stop_if_lost(leadership: Leadership) -> None:
    if not leadership.held():
        # Another service may lead now. What we have under way is safe to drop: it is resumed from the database.
        _log.error("the database connection that makes this service the leader is lost; stopping")
        os._exit(_LOST_DATABASE_STATUS)


def _every(seconds: float, work: Callable[[], object], name: str, stop: threading.Event) -> None:
    def loop() -> None:
        while not stop.wait(seconds):
            try:
                work()
            except (SQLAlchemyError, KeystoreError) as error:
                _log.warning("background work failed; tried again", work=name, error=type(error).__name__)

    threading.Thread(target=loop, name=name, daemon=True).start()


def _run(settings: Settings, app: FastAPI, say: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=str(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, say)
    server.run()
    if not server.started:
        raise KeystoreError(
            f"cannot listen on {settings.host}:{settings.port}", hint="is another service running there? choose --port"
        )


class _Server(uvicorn.Server):
    """Uvicorn that says when it is ready."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            shown = f"[{host}]" if ":" in host else host
            self._say(f"keystore control plane is ready on {scheme}://{shown}:{port}")
