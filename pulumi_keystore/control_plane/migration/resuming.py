"""Every migration that was written down comes to an end, whichever process began it."""

from __future__ import annotations

from typing import Final

import structlog
from dbos import DBOS, SetWorkflowID

from pulumi_keystore.control_plane.migration import lifecycle, workflow
from pulumi_keystore.control_plane.runtime.plane import ControlPlane

_TAKEN: Final = "PENDING"
_UNDER_WAY: Final = (_TAKEN, "ENQUEUED")
_log = structlog.get_logger(__name__)


def resume(plane: ControlPlane) -> None:
    """See to it that every migration that has not ended goes on; DBOS itself recovers those it has under way."""
    with plane.transaction() as session:
        left = lifecycle.unfinished(session)
    for migration_id in left:
        status = DBOS.get_workflow_status(migration_id)
        _log.info("migration goes on", migration=migration_id, workflow=status.status if status else None)
        if status is None:
            workflow.begin(migration_id)


class Unfinished:
    """Brings those migrations to an end whose workflow is run by nobody."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._suspects: set[str] = set()

    def work(self) -> None:
        """Look at each once: it ends, goes on, or is looked at again."""
        with self._plane.transaction() as session:
            left = lifecycle.unfinished(session)
        stranded: set[str] = set()
        for migration_id in left:
            attempts = DBOS.list_workflows(workflow_id_prefix=migration_id)
            if not attempts:
                # Asked for and written down, and not begun: the answer to the request that did so was lost.
                workflow.begin(migration_id)
            elif all(attempt.status not in _UNDER_WAY for attempt in attempts):
                _log.error("a migration's workflow ended before the migration did", migration=migration_id)
                with SetWorkflowID(f"{migration_id}.{len(attempts)}"):
                    DBOS.start_workflow(workflow.finalize, migration_id)
            else:
                stranded |= {attempt.workflow_id for attempt in attempts if attempt.status == _TAKEN} - workflow.running
        # A service that was replaced may take a workflow before it finds out, and ends with it; and the library gives
        # up where the database fails at the moment of recovery. One that was taken a moment ago may not run yet.
        for workflow_id in stranded & self._suspects:
            _log.warning("a migration's workflow is run by no process; it goes on here", workflow=workflow_id)
            DBOS.resume_workflow(workflow_id)
        self._suspects = stranded - self._suspects
