"""Service, worker, source or destination is killed at every named moment of a migration, and once more on the way back."""

import contextlib
import itertools
import secrets
import threading
import time
from base64 import b64encode

import pytest
from keystore_harness import wait_until
from keystore_harness.service import WorkerProcess

from pulumi_keystore import failpoints
from pulumi_keystore.errors import Conflict, KeystoreError
from tests.conftest import WHOLE
from tests.torture.stage import stage

BACK = sorted(point for point in failpoints.MIGRATION if point.startswith("roll-back."))
FORTH = sorted(failpoints.MIGRATION - set(BACK))
OF_A_WORKER = sorted(point for point in FORTH if point.startswith("shard."))
# A short run kills the service at every fourth moment or so, and a server at these; the whole kills both at every one.
OFTEN = FORTH if WHOLE else sorted({*FORTH[::4], "shard.copying"})
SOME = ["shard.copying", "decide.undecided", "clean-up.removing"]
DIRECTIONS = (1, 2) if WHOLE else (1,)
SUCCEEDED = "Migration succeeded"
CANCELED = "Migration canceled: migration process stalled"


def ask(scene):
    """Ask for a migration, once; the service may die before it answers."""
    with contextlib.suppress(KeystoreError):
        return scene.admin.start_migration("acme", scene.there)
    return None


def cancel(scene, row):
    wait_until(lambda: scene.struck, "the first moment", interval_s=0.01)
    scene.admin.cancel_migration("acme", row["id"])
    scene.go()


def await_death(scene, point):
    wait_until(
        lambda: scene.struck and scene.testbed.service._process.poll() is not None,
        f"the service to die at {point}",
        30,
        0.01,
    )
    assert scene.struck.split()[0] == point


def revived(scene):
    """Start the killed service; what was asked for is asked for again, as `pulumi up` does."""
    scene.revive()
    return scene.start()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("point", OFTEN)
def test_the_service_is_killed(scene, point, direction):
    there = scene.there
    scene.plan_moments(f"{point} kill")
    ask(scene)
    await_death(scene, point)
    scene.settle(revived(scene))
    assert scene.here == there


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("point", BACK)
def test_the_service_is_killed_on_the_way_back(scene, point, direction):
    here = scene.here
    scene.plan_moments("copy.planned wait", f"{point} kill")
    row = ask(scene)
    cancel(scene, row)
    await_death(scene, point)
    scene.revive()
    assert scene.settle(row) == CANCELED
    assert scene.here == here


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("point", FORTH if WHOLE else SOME)
def test_the_service_is_killed_and_killed_again_while_it_recovers(scene, point, direction):
    there = scene.there
    scene.plan_moments(f"{point} kill", "* kill")
    ask(scene)
    wait_until(
        lambda: scene.struck and scene.testbed.service._process.poll() is not None, "the first death", interval_s=0.01
    )
    with contextlib.suppress(RuntimeError):  # it may die before it answers at all
        scene.testbed.service.start()
    # Where little was left to be recovered, the second death comes with the next request, or not at all: a migration
    # whose last step was recorded, and whose mail was sent, leaves nothing to do.
    answer = ask(scene)
    if answer is not None and answer["id"] is None:
        scene.clear_moments()
    else:
        wait_until(lambda: not (scene.control / "plan").exists(), f"the second death after {point}", interval_s=0.01)
        wait_until(lambda: scene.testbed.service._process.poll() is not None, "its end", interval_s=0.01)
    scene.settle(revived(scene))
    assert scene.here == there


@pytest.mark.parametrize(
    ("victim", "point"), list(itertools.product(("source", "destination"), FORTH if WHOLE else SOME))
)
def test_a_server_is_killed(scene, victim, point):
    letters = {"first": "a", "second": "b"}
    server = scene.testbed.servers[letters[scene.here if victim == "source" else scene.there]]
    scene.plan_moments(f"{point} wait")
    answer = {}
    asking = threading.Thread(target=lambda: answer.update(row=scene.start()))
    asking.start()
    wait_until(lambda: scene.struck, f"the moment {point}", interval_s=0.01)
    server.kill()
    scene.go()
    time.sleep(0.3)
    server.restart()
    asking.join(60)
    assert not asking.is_alive()
    scene.settle(answer["row"])


@pytest.mark.parametrize("point", sorted(failpoints.ENROLMENT))
def test_the_service_is_killed_while_keys_are_enrolled_and_the_same_keys_are_taken_again(scene, point):
    user, key = f"late-{point}", secrets.token_bytes(32)
    body = {"keys": {user: b64encode(key).decode()}}
    path = ("organizations", "acme", "archive-keys")
    enrol = scene.customer.escrow_client
    scene.plan_moments(f"{point} kill")
    with contextlib.suppress(KeystoreError):
        enrol.request("POST", *path, body=body)
    await_death(scene, point)
    scene.revive()
    # Nobody was told of it, so nothing may stand in the way of the same key; another one was never acknowledged.
    enrol.request("POST", *path, body=body)
    assert scene.customer.released(user) == key
    scene.customer.keys[user] = key
    with pytest.raises(Conflict):
        enrol.request("POST", *path, body={"keys": {user: b64encode(bytes(32)).decode()}})
    scene.settle(scene.start())


@pytest.mark.parametrize("point", sorted(failpoints.SWAP))
def test_the_service_is_killed_while_a_certificate_is_swapped(scene, point):
    changed = scene.customer.declaration(scene.here)
    before = scene.admin.keystore("acme", scene.here)["certificate_fingerprint"]
    scene.plan_moments(f"{point} kill")
    with contextlib.suppress(KeystoreError):
        scene.admin.swap_keystore("acme", scene.here, changed)
    await_death(scene, point)
    scene.revive()
    now = scene.admin.keystore("acme", scene.here)["certificate_fingerprint"]
    assert (now != before) == (point == "swap.bound")
    after = scene.admin.swap_keystore("acme", scene.here, changed)["certificate_fingerprint"]
    assert after != before
    assert now in (before, after)
    scene.settle(scene.start())


@pytest.fixture(scope="module")
def manned():
    """A stage whose service works on nothing itself, with two workers that do."""
    with stage(intercepted=False, failpoints=True, slots="0") as scene:
        workers = [WorkerProcess(scene.testbed.service) for _ in range(2)]
        with workers[0], workers[1]:
            yield scene, workers


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("point", OF_A_WORKER if WHOLE else OF_A_WORKER[::2])
def test_a_worker_is_killed(manned, point, direction):
    scene, workers = manned
    there = scene.there
    scene.plan_moments(f"{point} kill")
    row = ask(scene)
    wait_until(lambda: scene.struck, f"a worker to die at {point}", interval_s=0.01)
    assert wait_until(lambda: [worker for worker in workers if not worker.running], "its death")
    assert scene.settle(row) == SUCCEEDED
    assert scene.here == there
    for worker in workers:
        if not worker.running:
            worker.start()


def test_so_many_cells_are_run():
    service = len(DIRECTIONS) * (len(OFTEN) + len(BACK) + len(FORTH if WHOLE else SOME))
    servers = 2 * len(FORTH if WHOLE else SOME)
    workers = len(DIRECTIONS) * len(OF_A_WORKER if WHOLE else OF_A_WORKER[::2])
    service += len(failpoints.ENROLMENT | failpoints.SWAP)
    print(f"{service} cells kill the service, {servers} a server, {workers} a worker")
    assert (service, servers, workers) == ((136, 60, 14) if WHOLE else (23, 6, 4))


def test_every_moment_was_reached_and_no_other(scene):
    """The last test: what the tests before it have reached, they or the undisturbed migrations here."""
    scene.clear_moments()
    scene.settle(scene.start())
    scene.plan_moments("copy.planned wait")
    row = ask(scene)
    cancel(scene, row)
    scene.settle(row)
    assert scene.reached >= failpoints.MIGRATION
