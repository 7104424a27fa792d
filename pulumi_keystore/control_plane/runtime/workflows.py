"""The workflow library (DBOS): it goes on with what an earlier process of the service had under way."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from dbos import DBOS

from pulumi_keystore.control_plane.runtime import logs

WORKFLOW_VERSION: Final = "1"
"""Changes only when running migrations could not be continued: an upgrade of the service goes on with them."""
_KEPT: Final = timedelta(days=30)
_AT_A_TIME: Final = 500


def launch(url: str) -> None:
    """Begin to run workflows, those of the last process first; `url` is that of the database."""
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


def forget_old(now: datetime) -> None:
    """Remove what the library has recorded of workflows that ended long ago; what they did is in our own tables."""
    latest = (now - _KEPT).isoformat()
    ended = DBOS.list_workflows(completed_before=latest, limit=_AT_A_TIME, load_input=False, load_output=False)
    if ended:
        DBOS.delete_workflows([each.workflow_id for each in ended])
