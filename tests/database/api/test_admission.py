"""Who may not ask is refused before a body is read; one organization's requests leave room for those of others."""

import asyncio
import json

import pytest

from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.runtime.database import upgrade_schema
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings

SHARE = 3


@pytest.fixture
def served(database_url, tmp_path):
    """The application, and a token of the authority."""
    settings = Settings(database_url=database_url, data=tmp_path, master_key_file=None, requests_per_organization=SHARE)
    with opened(settings, upgrade_schema) as database:
        plane = database.plane
        with plane.transaction() as session:
            _, token = tokens.create(session, "test", "authority", "authority")
            registry.put(session, "test", "acme")
            registry.put(session, "test", "other")
        yield app.create(ServicesOfApp(plane, None, None, None, lambda _: None, None)), token


class Caller:
    """Sends the head of a request, and its body when it is told to."""

    def __init__(self, served, method, path, token=None):
        application, mine = served
        self.body, self.asked, self.status, self.answer = asyncio.Event(), False, None, b""
        headers = [(b"authorization", f"Bearer {mine if token is None else token}".encode())]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers, "client": ("::1", 1),
            "server": ("::1", 2), "root_path": "",
        }  # fmt: skip
        self.task = asyncio.create_task(application(scope, self.receive, self.send))

    async def receive(self):
        self.asked = True
        await self.body.wait()
        return {"type": "http.request", "body": json.dumps({"keys": {}}).encode(), "more_body": False}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
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


def test_half_sent_requests_of_one_organization_leave_room_for_others(served):
    async def run():
        half = [Caller(served, "POST", KEYS) for _ in range(SHARE)]
        await until(lambda: all(caller.asked for caller in half))
        more = Caller(served, "POST", KEYS)
        assert await more.end() == 429
        assert not more.asked
        assert b"too-many-requests" in more.answer
        assert await Caller(served, "GET", "/v1/organizations/other").end() == 200
        assert await Caller(served, "GET", "/v1/organizations/other/history").end() == 200
        assert await Caller(served, "GET", "/healthz").end() == 200
        for caller in half:
            caller.body.set()
            assert await caller.end() == 422
        assert await Caller(served, "GET", "/v1/organizations/acme/history").end() == 200

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
