"""Connections on which no request comes."""

import socket
import threading

import pytest
import uvicorn

from pulumi_keystore.control_plane.runtime import listener


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(listener, "_HEAD_S", 0.3)

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    ready = threading.Event()
    config = uvicorn.Config(application, http=listener._Connection, lifespan="off", log_config=None)
    server = listener._Server(config, ready.set)
    taken = listener.listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    assert ready.wait(60)
    yield taken.getsockname()[1]
    server.should_exit = True
    thread.join(60)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"G"], ids=["nothing", "half a head", "a letter"]
)
def test_a_connection_on_which_no_whole_head_comes_is_ended(port, sent):
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_half_a_head_after_a_request_is_ended(port):
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 204")
        connection.sendall(b"GET / HT")
        assert connection.recv(1) == b""
