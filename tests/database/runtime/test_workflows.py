"""What the workflow library has recorded is forgotten when it is old, and only then."""

import pytest
import sqlalchemy as sa
from dbos import DBOS

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.runtime import workflows

DAY_MS = 24 * 3600 * 1000


@DBOS.workflow(name="test-of-forgetting")
def work(fails):
    if fails:
        raise ValueError("it fails")


@pytest.fixture
def launched(database_url, monkeypatch):
    monkeypatch.setattr(workflows.logs, "configure", lambda: None)  # the logs of this process are other tests'
    workflows.launch(database_url)
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()
    DBOS.destroy()


def test_workflows_that_ended_long_ago_are_forgotten_and_no_others(launched):
    ids = {}
    for name, fails in (("old", False), ("old and failed", True), ("young", False), ("unfinished", False)):
        handle = DBOS.start_workflow(work, fails)
        ids[handle.workflow_id] = name
        if fails:
            with pytest.raises(ValueError, match="it fails"):
                handle.get_result()
        else:
            handle.get_result()
    age = sa.text(
        "UPDATE dbos.workflow_status SET created_at = created_at - :by, updated_at = updated_at - :by,"
        " completed_at = completed_at - :by WHERE workflow_uuid = ANY(:ids)"
    )
    resume = sa.text(
        "UPDATE dbos.workflow_status SET status = 'PENDING', completed_at = NULL WHERE workflow_uuid = ANY(:ids)"
    )
    with launched.begin() as connection:
        old = [key for key, name in ids.items() if name != "young"]
        connection.execute(age, {"by": 31 * DAY_MS, "ids": old})
        connection.execute(age, {"by": 29 * DAY_MS, "ids": [key for key, name in ids.items() if name == "young"]})
        connection.execute(resume, {"ids": [key for key, name in ids.items() if name == "unfinished"]})
    workflows.forget_old(now_utc())
    kept = {ids[each.workflow_id] for each in DBOS.list_workflows() if each.workflow_id in ids}
    assert kept == {"young", "unfinished"}
    workflows.forget_old(now_utc())  # where there is nothing to forget
