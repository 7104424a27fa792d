"""Starting and running the service."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, NoReturn

import structlog
import uvicorn
from dbos import DBOS, SetWorkflowID
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.identity import sessions
from pulumi_keystore.control_plane.keystores import fencing
from pulumi_keystore.control_plane.keystores.checkpoints import Checkpoints
from pulumi_keystore.control_plane.keystores.clean_ups import CleanUps
from pulumi_keystore.control_plane.keystores.connections import Connections
from pulumi_keystore.control_plane.keystores.verification import Audits
from pulumi_keystore.control_plane.migration import lifecycle, shards, workflow
from pulumi_keystore.control_plane.migration.worker import Workers
from pulumi_keystore.control_plane.monitoring import results
from pulumi_keystore.control_plane.monitoring.runner import MinuteTests
from pulumi_keystore.control_plane.notifications.outbox import Postman
from pulumi_keystore.control_plane.notifications.webhooks import Caller
from pulumi_keystore.control_plane.runtime import logs
from pulumi_keystore.control_plane.runtime.database import Leadership, url_of
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import KeystoreError

WORKFLOW_VERSION: Final = "1"
"""Changes only when running migrations could not be continued: an upgrade of the service goes on with them."""
_LEADER_TIMEOUT_S: Final = 20
_UNDER_WAY: Final = ("PENDING", "ENQUEUED")
_M_ARENA_MAX: Final = -8
_log = structlog.get_logger(__name__)


def serve(settings: Settings, say: Callable[[str], None]) -> NoReturn:
    """Run the service until it is told to stop (SIGINT or SIGTERM); then end the process.

    It ends as it would if it were killed: a migration that is under way is dropped where it is and goes on at the next
    start. There is one way to stop, and the tests kill it.

    Raises:
        KeystoreError: It cannot start.

    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise KeystoreError("one of tls_certificate and tls_key is missing", hint="give both, or none")
    _share_arenas()
    logs.configure()
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        database = stack.enter_context(opened(settings))
        plane = database.plane
        postman = Postman(plane.sessions, settings.smtp_url, settings.mail_from, settings.mail_sender_name)
        postman.check()
        engine = plane.sessions.kw["bind"]
        leadership = Leadership(engine)
        leadership.acquire(_LEADER_TIMEOUT_S, say)
        stack.callback(leadership.release)
        previous = fencing.lead(plane)
        clean_ups, workers = CleanUps(plane), Workers(plane, settings.slots)
        clean_ups.release_all()
        with plane.transaction() as session:
            if previous is not None:
                shards.take_from_process(session, previous)
                results.release(session, previous)
        workflow.configure(plane, clean_ups, workers)
        workers.start()
        _launch_workflows(url_of(engine))
        _resume(plane)
        connections, checkpoints = Connections(plane), Checkpoints(plane)
        caller = Caller(plane.sessions, plane.master_key, plane.resolver, settings.webhook_ca)
        if settings.tests:
            MinuteTests(plane).start()
        _every(1.0, postman.send_due, "outbox")
        _every(1.0, caller.send_due, "webhooks")
        _every(600.0, lambda: _forget_old(plane), "old data")
        _every(2.0, clean_ups.work, "clean-ups")
        _every(2.0, checkpoints.work, "checkpoints")
        _every(30.0, Audits(plane).work, "verification")
        _every(5.0, connections.close_idle, "connections")
        _every(2.0, lambda: _stop_unless(leadership.held(), "is lost"), "leadership")
        _every(1.0, lambda: _stop_unless(leadership.answered(), "is silent"), "leadership that hangs")
        _every(5.0, lambda: _settle(plane), "unsettled migrations")
        services = ServicesOfApp(plane, clean_ups, connections, checkpoints, workflow.begin)
        _run(settings, app.create(services), listener, say)
        connections.close_idle(everything=True)
        if database.embedded is not None:
            database.embedded.stop()
        os._exit(0)


def work(settings: Settings, say: Callable[[str], None]) -> NoReturn:
    """Copy and verify keys, and test keystores, for a service on another machine until told to stop.

    It ends on SIGINT or SIGTERM.

    Raises:
        KeystoreError: It cannot start.

    """
    _share_arenas()
    logs.configure()
    with opened(settings, as_guest=True) as database:
        plane, stop = database.plane, threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        if not settings.slots:
            raise KeystoreError("slots is 0, so there is nothing to do", hint="set --slots or KEYSTORE_SLOTS")
        Workers(plane, settings.slots).start()
        if settings.tests:
            MinuteTests(plane).start()
        say(f"keystore worker {plane.instance} is ready, for {settings.slots} organizations at a time")
        stop.wait()
        # Others need not find out by themselves.
        with suppress(SQLAlchemyError), plane.transaction() as session:
            shards.take_from_process(session, plane.instance)
            results.release(session, plane.instance)
        os._exit(0)


def _share_arenas() -> None:
    """Have all threads share two arenas of memory: from one for each little that is freed comes back (mallopt(3))."""
    with suppress(AttributeError, OSError):  # only glibc has them
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


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
        left = lifecycle.unsettled(session)
    for migration_id in left:
        status = DBOS.get_workflow_status(migration_id)
        _log.info("migration goes on", migration=migration_id, workflow=status.status if status else None)
        if status is None:
            workflow.begin(migration_id)


def _settle(plane: ControlPlane) -> None:
    """Bring those migrations to an end whose workflow has ended without, or was never begun."""
    with plane.transaction() as session:
        left = lifecycle.unsettled(session)
    for migration_id in left:
        attempts = DBOS.list_workflows(workflow_id_prefix=migration_id)
        if not attempts:
            # Asked for and written down, and not begun: the answer to the request that did so was lost.
            workflow.begin(migration_id)
        elif all(attempt.status not in _UNDER_WAY for attempt in attempts):
            _log.error("a migration's workflow ended before the migration did", migration=migration_id)
            with SetWorkflowID(f"{migration_id}.{len(attempts)}"):
                DBOS.start_workflow(workflow.settle, migration_id)


def _forget_old(plane: ControlPlane) -> None:
    with plane.transaction() as session:
        results.forget_old(session, now_utc())
        sessions.forget_expired(session, now_utc())


def _stop_unless(leads: bool, otherwise: str) -> None:
    if not leads:
        # Another service may lead now. What we have under way is safe to drop: it is resumed from the database.
        _log.error(f"the database connection that makes this service the leader {otherwise}; stopping")
        os._exit(workflow.SUPERSEDED_STATUS)


def _every(seconds: float, work: Callable[[], object], name: str) -> None:
    def loop() -> None:
        while True:
            time.sleep(seconds)
            try:
                work()
            except fencing.Superseded:
                _log.error("another service leads; stopping", work=name)
                os._exit(workflow.SUPERSEDED_STATUS)
            except (SQLAlchemyError, KeystoreError) as error:
                _log.warning("background work failed; tried again", work=name, error=type(error).__name__)

    threading.Thread(target=loop, name=name, daemon=True).start()


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is begun that would have to be dropped."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # The protocol has to be named: asyncio sets TCP_NODELAY only then, and each answer is 40 ms late without.
        listener = socket.socket(*found[:3])
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
        listener.listen(128)
    except OSError as error:
        raise KeystoreError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="is a service running there? choose --port",
        ) from None
    return listener


def _run(settings: Settings, app: FastAPI, listener: socket.socket, say: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        app,
        ssl_certfile=str(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    # Uvicorn raises the signal that stopped it once more when it has stopped: what comes after shall still happen.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    host, port = listener.getsockname()[:2]
    scheme, shown = "https" if config.is_ssl else "http", f"[{host}]" if ":" in host else host
    _Server(config, lambda: say(f"keystore control plane is ready on {scheme}://{shown}:{port}")).run(
        sockets=[listener]
    )


class _Server(uvicorn.Server):
    """Uvicorn that tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
