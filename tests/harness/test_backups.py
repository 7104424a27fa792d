"""Backups of a service's database, and where a name leads."""

import socket
import threading

import pytest
from keystore_harness import HarnessError, Line, Testbed, backup, wait_until


@pytest.fixture(scope="module")
def testbed():
    with Testbed("a", lines=True) as made:
        yield made


def cluster_id(server):
    return server.client().sys.read_health_status(method="GET")["cluster_id"]


def test_a_database_comes_back_as_it_was_dumped(testbed, tmp_path):
    service = testbed.service
    before = service.make_token("before", "viewer")
    service.dump_database(tmp_path / "d.dump")
    after = service.make_token("after", "viewer")
    service.restore_database(tmp_path / "d.dump")
    assert service.run("organization", "list", token=before, check=False).returncode == 0
    assert "not valid" in service.run("organization", "list", token=after, check=False).stderr
    assert "older database restored" in str(service.timeline.events)
    with pytest.raises(HarnessError, match="pg_restore fails"):
        backup.restore(service.database_url, tmp_path / "nothing.dump")
    # Nothing was dropped for it.
    assert service.run("organization", "list", token=before, check=False).returncode == 0


def test_a_rebuilt_server_is_another_cluster_and_a_clone_is_the_same(testbed):
    first = testbed.servers["a"]
    snapshot = first.snapshot()
    assert cluster_id(testbed.rebuilt("a")) != cluster_id(first)
    clone = testbed.clone("a", snapshot)
    assert cluster_id(clone) == cluster_id(first)
    assert clone.port != first.port
    assert clone.shown_certificate != first.shown_certificate


class Echo:
    """Keeps what it gets, and answers each piece with "ok"."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.got = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(one,), daemon=True).start()

    def answer(self, one):
        with one:
            while piece := one.recv(1000):
                self.got.append(piece)
                one.sendall(b"ok")


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.listener.close()


def say(line, text):
    with socket.create_connection(("127.0.0.1", line.port), 5) as one:
        one.sendall(text)
        return one.recv(10)


def test_what_is_sent_in_an_outage_comes_late_though_its_sender_is_gone(echo):
    line = Line("somewhere", echo.port)
    assert say(line, b"first") == b"ok"
    with line.outage(late_s=1):
        sender = socket.create_connection(("127.0.0.1", line.port), 5)
        sender.sendall(b"held")
        wait_until(lambda: line.held, "it to be held")
        sender.close()
    assert say(line, b"new") == b"ok"
    assert b"held" not in echo.got
    line.await_quiet()
    wait_until(lambda: b"held" in echo.got, "the late packet")
    line.close()


def test_a_line_leads_elsewhere_and_back(echo):
    other = Echo()
    line = Line("somewhere", echo.port)
    before = socket.create_connection(("127.0.0.1", line.port), 5)
    before.sendall(b"a")
    assert before.recv(10) == b"ok"
    with line.leading_to(other.port):
        assert before.recv(10) == b""  # cut
        assert say(line, b"there") == b"ok"
    assert say(line, b"back") == b"ok"
    assert (other.got, echo.got) == ([b"there"], [b"a", b"back"])
    line.close()
    other.listener.close()
