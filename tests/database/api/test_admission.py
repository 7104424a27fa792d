"""Who may not ask is refused before a body is read; one organization's requests leave room for those of others."""

import asyncio
import json
import threading
import time

import pytest
from anyio import to_thread
from sqlalchemy.exc import OperationalError

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.api.admission import Admission
from pulumi_keystore.control_plane.api.pacing import Pace
from pulumi_keystore.control_plane.api.queues import Turnstile
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.identity.tables import Token
from pulumi_keystore.control_plane.organizations import history, registry
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.errors import KeystoreFault, TooManyRequests
from tests.database.served import CHANGES, SHARE


@pytest.fixture
def cookie(served):
    """The cookie of a browser that is signed in."""

    async def run():
        form = f"token={served[1]}".encode()
        caller = Caller(served, "POST", "/console/sign-in", **{"content-type": "application/x-www-form-urlencoded"})
        caller.content = form
        caller.body.set()
        assert await caller.end() == 303
        return caller.head["set-cookie"].partition(";")[0]

    return asyncio.run(run())


class Caller:
    """Sends the head of a request, and its body when it is told to."""

    content = json.dumps({"keys": {}}).encode()

    def __init__(self, served, method, path, token=None, **headers):
        application, mine = served
        self.body, self.asked, self.status, self.answer = asyncio.Event(), False, None, b""
        headers = {"authorization": f"Bearer {mine if token is None else token}", **headers}
        headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers, "client": ("::1", 1),
            "server": ("::1", 2), "root_path": "",
        }  # fmt: skip
        self.task = asyncio.create_task(application(scope, self.receive, self.send))

    async def receive(self):
        self.asked = True
        await self.body.wait()
        return {"type": "http.request", "body": self.content, "more_body": False}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.head = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.answer += message.get("body", b"")

    async def end(self):
        await asyncio.wait_for(self.task, 60)
        return self.status


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come about")


KEYS = "/v1/organizations/acme/archive-keys/release"


def test_a_request_without_a_valid_token_is_refused_before_its_body_is_read(served):
    async def run():
        for token in ("", "ks_0000_x", "x"):
            caller = Caller(served, "POST", KEYS, token)
            assert await caller.end() == 401
            assert not caller.asked

    asyncio.run(run())


def test_what_is_announced_as_too_large_is_refused_before_anybody_is_looked_up(served, monkeypatch):
    """To find out who asks takes a question to the database, and who sends a thousand such heads shall cost none."""
    looked_up = []
    known = tokens.authenticate
    monkeypatch.setattr(tokens, "authenticate", lambda *given: looked_up.append(given) or known(*given))

    async def run():
        for length in ("8000000", "9" * 30, "-1", "x"):
            caller = Caller(served, "POST", KEYS, **{"content-length": length})
            assert await caller.end() == 413
            assert not caller.asked
        assert looked_up == []
        honest = Caller(served, "POST", KEYS)
        honest.body.set()
        assert await honest.end() == 422  # it names no user
        assert len(looked_up) == 1

    asyncio.run(run())


def test_half_sent_requests_of_one_organization_leave_room_for_others(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues.APART_S", 0.01)

    async def run():
        half = [Caller(served, "POST", KEYS) for _ in range(SHARE)]
        await until(lambda: all(caller.asked for caller in half))
        # One more than may wait.
        waiting = [Caller(served, "POST", KEYS) for _ in range(4 * SHARE + 1)]
        await until(lambda: any(caller.status for caller in waiting))
        refused = [caller for caller in waiting if caller.status]
        assert [caller.status for caller in refused] == [429]
        assert b"too-many-requests" in refused[0].answer
        waiting.remove(refused[0])
        # Nobody is looked up in vain while it is so.
        assert await Caller(served, "POST", KEYS, "x").end() == 429
        assert await Caller(served, "GET", "/v1/organizations/other").end() == 200
        assert await Caller(served, "GET", "/v1/organizations/other/history").end() == 200
        assert await Caller(served, "GET", "/healthz").end() == 200
        assert not any(caller.asked for caller in [*waiting, *refused])
        for caller in [*half, *waiting]:
            caller.body.set()
        for caller in [*half, *waiting]:
            assert await caller.end() == 422
        assert await Caller(served, "GET", "/v1/organizations/acme/history").end() == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/tokens"),
        ("POST", "/v1/test-mail"),
        ("PUT", "/v1/organizations/acme"),
        ("POST", "/v1/organizations/other/archive-keys"),
    ],
)
def test_who_belongs_to_an_organization_takes_of_its_share_whatever_they_ask_for(served, monkeypatch, method, path):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)
    with served[0].state.services.plane.transaction() as session:
        _, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")

    async def run():
        half = [Caller(served, method, path, theirs) for _ in range(SHARE)]
        await until(lambda: all(caller.asked for caller in half))
        further = [Caller(served, method, path, theirs) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert not any(caller.asked for caller in further)
        assert await Caller(served, "GET", "/v1/organizations/other/history").end() == 200
        for caller in [*half, *further]:
            caller.body.set()
        for caller in [*half, *further]:
            await caller.end()

    asyncio.run(run())


FORM = "/console/organizations/acme/keystores/first/edit"


def test_a_form_of_who_is_not_signed_in_or_of_another_site_is_refused_before_it_is_read(served, cookie):
    async def run():
        stranger = Caller(served, "POST", FORM)
        assert await stranger.end() == 303
        assert stranger.head["location"].startswith("/console/sign-in")
        foreign = Caller(served, "POST", FORM, cookie=cookie, **{"sec-fetch-site": "cross-site"})
        assert await foreign.end() == 403
        assert not stranger.asked
        assert not foreign.asked

    asyncio.run(run())


def asks_for_key(served, organization="acme"):
    """Return a client that asks for the key of a user."""
    caller = Caller(served, "POST", KEYS.replace("acme", organization), **{"content-type": "application/json"})
    caller.content = json.dumps({"user": "x", "public_key": "A" * 43 + "="}).encode()
    caller.body.set()
    return caller


@pytest.mark.parametrize("fault", [KeystoreFault("the keystore hangs"), TooManyRequests("its files cost too much")])
@pytest.mark.parametrize(("rests_s", "waits_s", "admitted"), [(600, 0.2, False), (0.1, 600, True)])
def test_requests_that_fail_are_few_in_a_second(served, monkeypatch, rests_s, waits_s, admitted, fault):
    """A keystore that does not work makes work, and that of others is not held up by it."""

    def fail(*_):
        asked.append(None)
        raise fault

    asked = []
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues.APART_S", rests_s)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", waits_s)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.archive_keys.release_to_user", fail)

    async def ask(organization):
        return await asks_for_key(served, organization).end()

    async def run():
        last = fault.status if admitted else 429
        assert [await ask("acme") for _ in range(SHARE + 1)] == [fault.status] * SHARE + [last]
        assert len(asked) == SHARE + admitted
        assert await ask("other") == fault.status
        assert await Caller(served, "GET", "/v1/organizations/other/history").end() == 200

    asyncio.run(run())


def test_people_do_not_wait_behind_clients_whose_keystore_is_down(served, monkeypatch):
    def fail(*_):
        raise KeystoreFault("the keystore hangs")

    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._KEPT", 1 / SHARE)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues.APART_S", 600)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.archive_keys.release_to_user", fail)
    with served[0].state.services.plane.transaction() as session:
        _, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")

    async def run():
        clients = [asks_for_key(served) for _ in range(2 * SHARE)]
        await until(lambda: sum(caller.status is not None for caller in clients) == SHARE - 1)
        for _ in range(3 * SHARE):
            assert await Caller(served, "GET", "/v1/organizations/acme/history", theirs).end() == 200
        assert sum(caller.status is not None for caller in clients) == SHARE - 1
        for caller in clients:
            caller.task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/v1/whoami", "/v1/organizations/other/history", "/v1/nothing"])
def test_to_recognise_who_was_here_before_takes_of_the_share_of_their_organization(served, monkeypatch, path):
    """What is refused, or costs nothing but to find out who asks, is not free: it is asked for without end, too."""
    known, looked_up, paid = tokens.authenticate, [], []

    def authenticate(*given):
        looked_up.append(given)
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        return known(*given)

    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)
    monkeypatch.setattr(tokens, "authenticate", authenticate)
    monkeypatch.setattr(Pace, "pay", lambda _, now, spent_s, **__: paid.append(spent_s) or now)
    with served[0].state.services.plane.transaction() as session:
        _, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")

    async def run():
        first = await Caller(served, "GET", path, theirs).end()
        assert await Caller(served, "GET", path, theirs).end() == first
        assert min(paid) >= 0.05  # also where nobody knew yet whose token it is
        half = [Caller(served, "POST", "/v1/test-mail", theirs) for _ in range(SHARE)]
        await until(lambda: all(caller.asked for caller in half))
        before = len(looked_up)
        more = [Caller(served, "GET", path, theirs) for _ in range(SHARE)]
        assert await Caller(served, "GET", "/v1/organizations/other/history").end() == 200
        assert len(looked_up) == before + 1
        for caller in half:
            caller.body.set()
        assert [await caller.end() for caller in more] == [first] * SHARE

    asyncio.run(run())


def test_a_token_that_has_ended_is_refused_though_it_was_known(served):
    plane = served[0].state.services.plane
    with plane.transaction() as session:
        made, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")

    async def run():
        for expected in (200, 401, 401):
            assert await Caller(served, "GET", "/v1/whoami", theirs).end() == expected
            with plane.transaction() as session:
                session.get_one(Token, made["id"]).revoked_at = now_utc()

    asyncio.run(run())


def test_a_refusal_for_want_of_room_is_not_asked_for_again_at_once(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.admission._HELD_S", 600)

    async def run():
        half = [Caller(served, "POST", KEYS) for _ in range(5 * SHARE)]
        await until(lambda: sum(caller.asked for caller in half) == SHARE)
        more = Caller(served, "POST", KEYS)
        assert await Caller(served, "GET", "/v1/organizations/other/history").end() == 200
        assert more.status is None
        for caller in [*half, more]:
            caller.task.cancel()

    asyncio.run(run())


def test_those_who_come_at_once_with_a_token_that_nobody_knows_yet_are_looked_up_one_at_a_time(served, monkeypatch):
    known, at_a_time, most = tokens.authenticate, [], []

    def authenticate(*given):
        at_a_time.append(given)
        most.append(len(at_a_time))
        time.sleep(0.05)
        at_a_time.remove(given)
        return known(*given)

    monkeypatch.setattr(tokens, "authenticate", authenticate)
    with served[0].state.services.plane.transaction() as session:
        _, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")

    async def run():
        wrong = [Caller(served, "GET", "/v1/whoami", "ks_0000_x") for _ in range(SHARE)]
        assert [await caller.end() for caller in wrong] == [401] * SHARE
        assert max(most) == 1
        right = [Caller(served, "GET", "/v1/whoami", theirs) for _ in range(2 * SHARE)]
        assert [await caller.end() for caller in right] == [200] * 2 * SHARE
        assert max(most) <= SHARE

    asyncio.run(run())


def test_a_form_of_another_site_makes_nobody_unknown(served, cookie):
    """Else whoever sends one between two requests would be recognised at nobody's expense each time."""
    seen = []

    async def run():
        for headers in ({}, {"sec-fetch-site": "cross-site"}):
            caller = Caller(served, "POST" if headers else "GET", FORM, cookie=cookie, **headers)
            caller.body.set()
            await caller.end()
        layer = served[0].middleware_stack
        while not isinstance(layer, Admission):
            layer = layer.app if hasattr(layer, "app") else layer._app
        seen.append(layer._known.who_had(cookie.partition("=")[2]))

    asyncio.run(run())
    assert seen[0] is not None


def test_what_is_refused_for_want_of_room_is_paid_for(served, monkeypatch):
    paid = []
    monkeypatch.setattr(Pace, "pay", lambda _, now, spent_s, **__: paid.append(spent_s) or now)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.admission._HELD_S", 0.01)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)

    async def run():
        assert await Caller(served, "GET", "/v1/organizations/acme/history").end() == 200
        half = [Caller(served, "POST", KEYS) for _ in range(5 * SHARE)]
        await until(lambda: sum(caller.asked for caller in half) == SHARE)
        before = len(paid)
        assert await Caller(served, "POST", KEYS).end() == 429
        assert len(paid) == before + 1
        for caller in half:
            caller.task.cancel()

    asyncio.run(run())


def test_so_many_may_sign_in_with_one_token_at_a_time(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.console.pages._turnstile", Turnstile(600, 3))

    async def run():
        callers = []
        for _ in range(4):
            caller = Caller(served, "POST", "/console/sign-in", **{"content-type": "application/x-www-form-urlencoded"})
            caller.content = f"token={served[1]}".encode()
            caller.body.set()
            callers.append(caller)
        await until(lambda: sorted(caller.status or 0 for caller in callers) == [0, 0, 303, 429])
        for caller in callers:
            caller.task.cancel()

    asyncio.run(run())


def test_one_token_signs_in_once_at_a_time_and_others_beside_it(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.console.pages._turnstile", Turnstile(600, 8))
    with served[0].state.services.plane.transaction() as session:
        _, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")

    def signing_in(token):
        caller = Caller(served, "POST", "/console/sign-in", **{"content-type": "application/x-www-form-urlencoded"})
        caller.content = f"token={token}".encode()
        caller.body.set()
        return caller

    async def run():
        assert await signing_in(theirs).end() == 303
        again = signing_in(theirs)
        assert await signing_in(served[1]).end() == 303
        assert await signing_in("wrong").end() == 401
        assert again.status is None
        again.task.cancel()

    asyncio.run(run())


def test_who_waits_too_long_is_told_so(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 0.2)

    async def run():
        half = [Caller(served, "POST", KEYS) for _ in range(SHARE)]
        await until(lambda: all(caller.asked for caller in half))
        assert await Caller(served, "POST", KEYS).end() == 429
        for caller in half:
            caller.body.set()
            assert await caller.end() == 422

    asyncio.run(run())


def test_half_sent_forms_of_one_organization_leave_room_for_others(served, cookie, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 0.2)

    async def run():
        as_form = {"cookie": cookie, "content-type": "multipart/form-data; boundary=x"}
        half = [Caller(served, "POST", FORM, **as_form) for _ in range(SHARE)]
        await until(lambda: all(caller.asked for caller in half))
        more = Caller(served, "POST", FORM, **as_form)
        assert await more.end() == 429
        assert not more.asked
        assert await Caller(served, "GET", "/console/organizations/other", cookie=cookie).end() == 200
        for caller in half:
            caller.body.set()
            await caller.end()

    asyncio.run(run())


@pytest.mark.parametrize("path", [KEYS, FORM, "/console/sign-in", "/metrics"])
def test_a_database_that_is_down_is_told_where_people_are_recognised_too(served, path, monkeypatch):
    def transaction(_):
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(ControlPlane, "transaction", transaction)

    async def run():
        form = {"content-type": "application/x-www-form-urlencoded"}
        method = "GET" if path == "/metrics" else "POST"
        caller = Caller(served, method, path, **form)
        caller.body.set()
        assert await caller.end() == 503
        assert b"database does not answer" in caller.answer.replace(b"&#39;", b"'")

    asyncio.run(run())


def test_signing_in_and_liveness_wait_for_no_thread_that_others_are_busy_with(served):
    async def run():
        # As if every thread waited for somebody's keystore.
        to_thread.current_default_thread_limiter().total_tokens = 1
        busy = threading.Event()
        task = asyncio.create_task(to_thread.run_sync(busy.wait))
        await asyncio.sleep(0)
        form = {"content-type": "application/x-www-form-urlencoded"}
        caller = Caller(served, "POST", "/console/sign-in", **form)
        caller.content = f"token={served[1]}".encode()
        caller.body.set()
        try:
            assert await caller.end() == 303
            assert await Caller(served, "GET", "/healthz").end() == 200
        finally:
            busy.set()
            await task

    asyncio.run(run())


def test_who_is_not_known_yet_sends_little(served):
    async def run():
        caller = Caller(served, "POST", "/console/sign-in", **{"content-length": "70000"})
        assert await caller.end() == 413
        assert not caller.asked
        silent = Caller(served, "POST", "/console/sign-in", **{"content-type": "application/x-www-form-urlencoded"})
        silent.content = b"token=" + b"x" * 70_000
        silent.body.set()
        assert await silent.end() == 413

    asyncio.run(run())


def test_what_turns_out_to_be_too_large_is_refused_as_what_is_announced_as_such(served):
    async def run():
        told = Caller(served, "POST", KEYS, **{"content-length": "8000000"})
        silent = Caller(served, "POST", KEYS)
        silent.content = b"x" * 8_000_000
        silent.body.set()
        assert await told.end() == await silent.end() == 413
        assert json.loads(told.answer) == json.loads(silent.answer)
        assert json.loads(told.answer)["type"] == "urn:pulumi-keystore:error:too-large"

    asyncio.run(run())


def test_a_plain_error_has_the_phrase_of_its_status_as_title_and_what_happened_as_detail(served):
    async def run():
        method = Caller(served, "DELETE", "/healthz")
        assert await method.end() == 405
        assert json.loads(method.answer) == {"type": "about:blank", "title": "Method Not Allowed", "status": 405}
        form = Caller(served, "POST", "/console/sign-in", **{"content-type": "multipart/form-data"})
        form.body.set()
        assert await form.end() == 400
        problem = json.loads(form.answer)
        assert problem.pop("detail").startswith("Missing boundary")
        assert problem == {"type": "about:blank", "title": "Bad Request", "status": 400}

    asyncio.run(run())


def test_an_organization_changes_so_much_in_a_day_and_its_provider_more(served):
    application, plane = served[0], served[0].state.services.plane
    with plane.transaction() as session:
        owner = registry.find(session, "acme")
        for actor in [*["ops"] * (CHANGES - 1), history.SYSTEM]:
            history.append(session, owner.id, actor, "Keystore edited")
        _, theirs = tokens.create(session, "test", "ops", "customer-cloud-admin", "acme")
        _, providers = tokens.create(session, "test", "provider", "customer-cloud-admin")

    async def change(token, method="POST"):
        caller = Caller((application, token), method, "/v1/organizations/acme/migrations")
        caller.body.set()
        return await caller.end()

    async def run():
        assert await change(theirs) == 422
        with plane.transaction() as session:
            history.append(session, owner.id, "ops", "Keystore edited")
        assert await change(theirs) == 429
        assert await change(providers) == 422
        assert await change(theirs, "GET") == 200

    asyncio.run(run())


def test_a_request_that_does_not_come_is_given_up(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.problems._SENDING_S", 0.2)

    async def run():
        caller = Caller(served, "POST", KEYS)
        assert await caller.end() == 408

    asyncio.run(run())


def test_the_description_needs_no_token(served):
    async def run():
        assert await Caller(served, "GET", "/v1/openapi.json", "").end() == 200

    asyncio.run(run())


def test_an_organization_that_uses_more_than_its_share_of_the_processor_waits_where_others_ask_too(served, monkeypatch):
    """Many cheap requests, sixteen at a time and without a pause, would take all of it."""
    monkeypatch.setattr("pulumi_keystore.control_plane.api.pacing._EACH_S", 60.0)
    monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 0.2)

    async def ask(organization):
        return await Caller(served, "GET", f"/v1/organizations/{organization}/history").end()

    async def run():
        # Nobody else wants it.
        assert [await ask("acme") for _ in range(3 * SHARE)] == [200] * 3 * SHARE
        assert await ask("other") == 200
        assert [await ask("acme") for _ in range(SHARE + 1)] == [200] * SHARE + [429]
        assert await ask("other") == 200
        monkeypatch.setattr("pulumi_keystore.control_plane.api.queues._WAIT_S", 600)
        assert await ask("acme") == 200

    asyncio.run(run())


def test_an_organization_is_forgotten_when_it_owes_nothing(served, monkeypatch):
    monkeypatch.setattr("pulumi_keystore.control_plane.api.pacing._BURST_S", 0.01)
    seen = []
    known = Admission._forget

    def forget(self, *given):
        seen.append(self)
        known(self, *given)

    monkeypatch.setattr(Admission, "_forget", forget)

    async def run():
        for organization in ("acme", "other", "acme"):
            assert await Caller(served, "GET", f"/v1/organizations/{organization}/history").end() == 200
        await until(lambda: not seen[0]._queues)

    asyncio.run(run())


@pytest.mark.parametrize(
    "path",
    ["/v1/organizations/acme/history", "/v1/organizations/acme/history/export", "/console/organizations/acme/history"],
)
def test_what_a_request_costs_is_what_its_threads_use_and_the_making_of_its_answer(served, cookie, monkeypatch, path):
    paid = []

    def burn(*_, **__):
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
        return []

    def pages(*_):
        yield burn()

    monkeypatch.setattr(history, "entries", burn)
    monkeypatch.setattr(history, "pages", pages)
    monkeypatch.setattr(Pace, "pay", lambda _, now, spent_s, **__: paid.append(spent_s) or now)

    async def run():
        assert await Caller(served, "GET", "/v1/organizations/other/keystores").end() == 200
        assert await Caller(served, "GET", path, cookie=cookie).end() == 200

    asyncio.run(run())
    assert paid[-1] >= 0.3


def test_a_cheap_request_costs_little(served, monkeypatch):
    paid = []
    monkeypatch.setattr(Pace, "pay", lambda _, now, spent_s, **__: paid.append(spent_s) or now)

    async def run():
        for organization in ("other", "acme"):
            assert await Caller(served, "GET", f"/v1/organizations/{organization}/keystores").end() == 200

    asyncio.run(run())
    assert len(paid) == 2
    assert max(paid) < 0.3


@pytest.mark.parametrize(
    "sent",
    [
        {"recipients": [1] * 100_000},
        {"recipients": {str(n): n for n in range(50_000)}},
        {str(n): 1 for n in range(50_000)},
    ],
)
def test_what_holds_too_much_is_refused_before_each_part_is_looked_at(served, sent):
    """Each part that is wrong makes an error, and all others wait: it is looked at where all requests are."""
    with served[0].state.services.plane.transaction() as session:
        _, viewer = tokens.create(session, "test", "v", "viewer", "acme")

    async def run():
        headers = {"content-type": "application/json"}
        caller = Caller((served[0], viewer), "PUT", "/v1/organizations/acme/keystores/x/monitor", **headers)
        caller.content = json.dumps(sent).encode()
        caller.body.set()
        assert await caller.end() == 422
        assert b"more than" in caller.answer
        assert len(caller.answer) < 1000

    asyncio.run(run())
