"""Starting and running the service."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, NoReturn

from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.escrow.quota import Quota
from pulumi_keystore.control_plane.identity import sessions
from pulumi_keystore.control_plane.keystores.checkpoints import Checkpoints
from pulumi_keystore.control_plane.keystores.clean_ups import CleanUps
from pulumi_keystore.control_plane.keystores.connections import Connections
from pulumi_keystore.control_plane.keystores.verification import Audits
from pulumi_keystore.control_plane.migration import resuming, shards, workflow
from pulumi_keystore.control_plane.migration.resuming import Unfinished
from pulumi_keystore.control_plane.migration.worker import Workers
from pulumi_keystore.control_plane.monitoring import expiry, results, schedule
from pulumi_keystore.control_plane.monitoring.runner import HealthChecks
from pulumi_keystore.control_plane.notifications import outbox
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.notifications.webhooks import WebhookSender
from pulumi_keystore.control_plane.runtime import background, leadership, listener, logs, workflows
from pulumi_keystore.control_plane.runtime.background import Work
from pulumi_keystore.control_plane.runtime.database import url_of
from pulumi_keystore.control_plane.runtime.leadership import Leadership
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import KeystoreError

_LEADER_TIMEOUT_S: Final = 20
_M_ARENA_MAX: Final = -8


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
        port = stack.enter_context(listener.listen(settings.host, settings.port))
        lead = Leadership()
        stack.callback(lead.release)
        database = stack.enter_context(opened(settings, lambda engine: lead.acquire(engine, _LEADER_TIMEOUT_S, say)))
        plane = database.plane
        mail_sender = MailSender.of(plane.settings, plane.sessions)
        previous = leadership.lead(plane)
        clean_ups, workers = CleanUps(plane), Workers(plane, settings.slots)
        clean_ups.release_all()
        if previous is not None:
            _release(plane, previous)
        workflow.configure(plane, clean_ups, workers)
        workers.start()
        workflows.launch(url_of(plane.engine))
        resuming.resume(plane)
        connections, checkpoints = Connections(plane), Checkpoints(plane)
        webhook_sender = WebhookSender(plane.sessions, plane.master_key, plane.resolver, settings.webhook_ca)
        health_checks = HealthChecks(plane)
        if settings.health_checks:
            health_checks.start()
        background.start(
            [
                Work("leadership", 2.0, lambda: background.stop_unless(lead.held(), "is lost")),
                Work("leadership that hangs", 1.0, lambda: background.stop_unless(lead.answered(), "is silent")),
                Work("outbox", 1.0, mail_sender.send_due),
                Work("webhooks", 1.0, webhook_sender.send_due),
                Work("clean-ups", 2.0, clean_ups.work),
                Work("checkpoints", 2.0, checkpoints.work),
                Work("connections", 5.0, connections.close_idle),
                Work("unfinished migrations", 5.0, Unfinished(plane).work),
                Work("verification", 30.0, Audits(plane).work),
                Work("certificates that expire", 600.0, lambda: _tell_of_expiry(plane)),
                Work("old data", 600.0, lambda: _forget_old(plane)),
            ]
        )
        services = ServicesOfApp(
            plane,
            clean_ups,
            connections,
            checkpoints,
            Quota(settings.keys_per_organization),
            workflow.begin,
            mail_sender,
            webhook_sender,
            health_checks,
        )
        listener.answer(settings, app.create(services), port, say)
        background.end()
        connections.close_all()
        if database.embedded is not None:
            # That it goes away is no news, though whoever is at work just now would say so.
            logging.disable()
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
    if settings.database_url is None:
        raise KeystoreError(
            "no database is named", hint="give --database-url, or KEYSTORE_DATABASE_URL, of the service's database"
        )
    with opened(settings) as database:
        plane, stop = database.plane, threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        if not settings.slots:
            raise KeystoreError("slots is 0, so there is nothing to do", hint="set --slots or KEYSTORE_SLOTS")
        Workers(plane, settings.slots).start()
        if settings.health_checks:
            HealthChecks(plane).start()
        say(f"keystore worker {plane.instance} is ready, for {settings.slots} organizations at a time")
        stop.wait()
        # Others need not find out by themselves.
        with suppress(SQLAlchemyError):
            _release(plane, plane.instance)
        os._exit(0)


def _share_arenas() -> None:
    """Have all threads share two arenas of memory: from one for each little that is freed comes back (mallopt(3))."""
    with suppress(AttributeError, OSError):  # only glibc has them
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _release(plane: ControlPlane, instance: str) -> None:
    """Let others have what a process held that has ended, or was replaced."""
    with plane.transaction() as session:
        shards.take_from_process(session, instance)
        schedule.release(session, instance)


def _tell_of_expiry(plane: ControlPlane) -> None:
    with plane.transaction() as session:
        expiry.tell(session, now_utc())


def _forget_old(plane: ControlPlane) -> None:
    with plane.transaction() as session:
        results.forget_old(session, now_utc())
        sessions.forget_expired(session, now_utc())
        outbox.forget_old(session, now_utc())
    workflows.forget_old(now_utc())
