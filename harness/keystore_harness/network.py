"""The network between clients and a server, by Toxiproxy, and everything that can go wrong with it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keystore_harness import workspace
from keystore_harness.binary import find_toxiproxy
from keystore_harness.errors import HarnessError
from keystore_harness.ports import free_port, wait_until
from keystore_harness.timeline import Timeline

Attributes = Mapping[str, float]


class Toxiproxy:
    """A Toxiproxy server as a process. Use it as a context manager.

    Raises:
        HarnessError: The program is not there.

    """

    def __init__(self, binary: Path | None = None) -> None:
        self._binary = binary or find_toxiproxy()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Toxiproxy:
        self._process = subprocess.Popen(  # noqa: S603 - the program found above
            [str(self._binary), "-host", "127.0.0.1", "-port", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=workspace.current().environment,
        )
        try:
            wait_until(self._answers, "Toxiproxy to answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise HarnessError(f"Toxiproxy ended with exit status {self._process.returncode}; is {self._binary} it?")
        try:
            self.call("GET", "version")
        except OSError:
            return False
        return True

    def proxy(
        self, name: str, target: int, *, host: str = "127.0.0.1", port: int = 0, timeline: Timeline | None = None
    ) -> Proxy:
        """Make a proxy to a port on 127.0.0.1.

        Args:
            name: What the timeline calls it.
            target: The port it leads to.
            host: The loopback address it listens on.
            port: The port it listens on, a free one by default.
            timeline: Where its faults are recorded.

        """
        return Proxy(self, name, (host, port or free_port()), target, timeline or Timeline())

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """Call Toxiproxy's API.

        Raises:
            HarnessError: It refuses.

        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            # Not by the proxies that the environment may name.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
                pass
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace").strip()
            raise HarnessError(f"Toxiproxy refuses {method} {path}: {text}") from None


class Proxy:
    """One proxy. Every fault is a context manager, strikes connections there are and new ones, and always heals."""

    def __init__(self, server: Toxiproxy, name: str, listen: tuple[str, int], target: int, timeline: Timeline) -> None:
        self._server = server
        self.name = name
        self.host, self.port = listen
        self._target = target
        self._timeline = timeline
        self._key = f"{self.host}-{self.port}"
        self._toxics = 0
        self._server.call(
            "POST",
            "proxies",
            {"name": self._key, "listen": f"{self.host}:{self.port}", "upstream": _local(target), "enabled": True},
        )

    def close(self) -> None:
        """Remove the proxy."""
        self._server.call("DELETE", f"proxies/{self._key}")

    def _change(self, **values: Any) -> None:
        self._server.call("POST", f"proxies/{self._key}", values)

    @contextlib.contextmanager
    def _toxic(self, what: str, kind: str, attributes: Attributes, *streams: str) -> Iterator[None]:
        names = []
        with self._timeline.fault(self.name, what):
            try:
                for stream in streams or ("downstream",):
                    self._toxics += 1
                    names.append(f"{kind}-{self._toxics}")
                    toxic = {"name": names[-1], "type": kind, "stream": stream, "attributes": attributes}
                    self._server.call("POST", f"proxies/{self._key}/toxics", toxic)
                yield
            finally:
                for name in names:
                    self._server.call("DELETE", f"proxies/{self._key}/toxics/{name}")

    def latency(self, milliseconds: int, jitter: int = 0) -> contextlib.AbstractContextManager[None]:
        """Let every answer take so much longer, more or less."""
        return self._toxic(f"{milliseconds} ms slower", "latency", {"latency": milliseconds, "jitter": jitter})

    def slow_requests(self, milliseconds: int) -> contextlib.AbstractContextManager[None]:
        """Let everything clients send take so much longer to arrive, though they may be gone by then."""
        return self._toxic(f"requests {milliseconds} ms late", "latency", {"latency": milliseconds}, "upstream")

    def bandwidth(self, kilobytes_per_s: int) -> contextlib.AbstractContextManager[None]:
        """Let so much through a second and connection, each way."""
        rate = {"rate": kilobytes_per_s}
        return self._toxic(f"{kilobytes_per_s} kB/s", "bandwidth", rate, "upstream", "downstream")

    def drip(self) -> contextlib.AbstractContextManager[None]:
        """Let one byte of every answer through a second."""
        slices: Attributes = {"average_size": 1, "size_variation": 0, "delay": 1_000_000}
        return self._toxic("one byte a second", "slicer", slices)

    def hang(self) -> contextlib.AbstractContextManager[None]:
        """Accept connections and let nothing through; those connections are closed at the end."""
        return self._toxic("never answers", "timeout", {"timeout": 0}, "upstream", "downstream")

    def losing_answers(self) -> contextlib.AbstractContextManager[None]:
        """Let requests through and no answer; those connections are closed at the end."""
        return self._toxic("answers lost", "timeout", {"timeout": 0}, "downstream")

    def resetting(self) -> contextlib.AbstractContextManager[None]:
        """Reset every connection as soon as it says something."""
        return self._toxic("connections reset", "reset_peer", {"timeout": 0})

    def reset(self) -> None:
        """Reset every connection there is now; new ones are let through."""
        with self.resetting():
            # Those that are idle are found by their next request: refuse them all, too.
            self._change(enabled=False)
            self._change(enabled=True)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections, and cut those there are: nothing listens any more."""
        with self._timeline.fault(self.name, "unreachable"):
            self._change(enabled=False)
            try:
                yield
            finally:
                self._change(enabled=True)

    @contextlib.contextmanager
    def leading_to(self, port: int) -> Iterator[None]:
        """Lead to another port on 127.0.0.1; every connection there is is cut."""
        self._lead(port)
        try:
            yield
        finally:
            self._lead(self._target)

    def _lead(self, port: int) -> None:
        # Toxiproxy only cuts connections whose proxy it stops.
        self._change(enabled=False)
        self._change(upstream=_local(port), enabled=True)


def _local(port: int) -> str:
    return f"127.0.0.1:{port}"
