"""Connections on which no request comes, or more of one than anybody reads."""

import select
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
    config = uvicorn.Config(
        application, http=listener._Connection, lifespan="off", log_config=None, timeout_keep_alive=600
    )
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


def unread(length):
    return f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()


def test_the_rest_of_an_answered_request_may_come_and_a_further_request(port):
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        for _ in range(2):
            connection.sendall(unread(3 << 20) + bytes(3 << 20))
            assert connection.recv(1000).startswith(b"HTTP/1.1 204")


def test_the_rest_of_an_answered_request_that_does_not_come_is_not_waited_for(port, monkeypatch):
    monkeypatch.setattr(listener, "_UNREAD_S", 0.3)
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(unread(1000))
        assert connection.recv(1000).startswith(b"HTTP/1.1 204")
        assert connection.recv(1) == b""


def test_the_rest_of_answered_requests_is_read_slowly_on_however_many_connections(port, monkeypatch):
    """What is refused by its head alone would cost as much as what is read otherwise."""
    monkeypatch.setattr(listener, "_UNREAD_BYTES_A_S", 1)
    monkeypatch.setattr(listener._Connection, "_read_until", 0.0)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(unread(100 << 20))
            connection.settimeout(0)
            sent = 0
            while sent < 100 << 20 and select.select([], [connection], [], 0.5)[1]:
                sent += connection.send(bytes(1 << 20))
            assert sent < 50 << 20
