"""HTTPS requests to Vault servers: many in flight on one thread, each with a hard deadline (libcurl's multi interface).

A piece of work is a *flow*: a generator that yields `Request` (or `Pause`) and is sent the `Response`. The transport
runs any number of flows with a bound on how many are under way, and hands out results as they come.

Ambient settings do not reach it: no proxy, no .netrc, no redirects, no VAULT_* variables, no TLS key log, and the
address that was vetted is the one that is dialled.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final, Generic

# libcurl and OpenSSL would write TLS secrets to the file this names; they read it when they are loaded.
os.environ.pop("SSLKEYLOGFILE", None)

import certifi
import pycurl

from pulumi_keystore.errors import HostUnavailable
from pulumi_keystore.vault.faults import fault_of
from pulumi_keystore.vault.listing import MAX_LIST_BYTES
from pulumi_keystore.vault.requests import (
    MAX_ANSWER_BYTES,
    Endpoint,
    Flow,
    Pause,
    Request,
    Response,
    T,
    Validity,
)
from pulumi_keystore.vault.resolver import Target
from pulumi_keystore.vault.window import Window

CONNECT_TIMEOUT_S: Final = 5.0
rest: ContextVar[Callable[[], None] | None] = ContextVar("rest", default=None)
"""Called before flows go on: it may wait a moment, in favour of others that work in this process."""
_HEAD_BYTES: Final = 1 << 16
_PIECES: Final = 1000
_BYTES_A_PIECE: Final = 64
"""An answer may come in so many pieces, and in more where each holds so much: no server sends it byte by byte, and each
piece costs the time of the flows beside it."""
_IDLE_HANDLES: Final = 128

# It is sent back as it came: base64 of a short JSON object, and nothing that could end a header.
_INDEX: Final = re.compile(r"[A-Za-z0-9+/=_-]{1,500}")


@contextmanager
def without_rest() -> Iterator[None]:
    """Begin requests at once: others of the same organization wait for the end of what is done here."""
    before = rest.set(None)
    try:
        yield
    finally:
        rest.reset(before)


@dataclass(slots=True, eq=False)
class _Handle:
    """A libcurl handle for requests of one method to one endpoint: only what differs is set anew."""

    curl: Any
    buffer: bytearray = field(default_factory=bytearray)
    index: list[str] = field(default_factory=list)
    token: str | None = None
    required_index: str = ""
    timeout_s: float = 0.0
    sink: Callable[[bytes], None] | None = None
    taken: int = 0
    """Bytes of the answer so far."""
    pieces: int = 0
    """In how many pieces they came."""


@dataclass(slots=True, eq=False)
class _Running(Generic[T]):
    flow: Flow[T]
    handle: _Handle | None = None
    request: Request | None = None


class Transport:
    """Runs flows on the calling thread. Not thread-safe: one transport, one thread."""

    def __init__(self) -> None:
        self._multi = pycurl.CurlMulti()
        self._idle: dict[Endpoint, dict[tuple[str, bool], list[_Handle]]] = {}
        self._targets: dict[Endpoint, Target] = {}

    def close(self) -> None:
        """Close every connection."""
        for endpoint in list(self._idle):
            self._drop_idle(endpoint)
        self._multi.close()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run_one(self, flow: Flow[T]) -> T:
        """Run one flow to its end and return what it returns, or raise what it raises."""
        for result in self.run([flow], in_flight=1):
            return result
        raise AssertionError("a flow ended without a result")

    def run(  # noqa: C901, PLR0912, PLR0915 - one loop, read from top to bottom
        self,
        flows: Iterable[Flow[T]],
        in_flight: int,
        watch: Callable[[], None] | None = None,
        *,
        adaptive: bool = True,
    ) -> Iterator[T]:
        """Run flows, at most `in_flight` of them at a time, and yield their results as they end.

        There are fewer while servers ask for fewer requests (see `Window`), unless it is not `adaptive`: what one
        server asks for is nothing to requests of another. Flows are taken from `flows` only as there is room. The
        first exception of a flow ends the run: requests under way are dropped and the exception is raised.
        `watch` is called at least once a second; what it raises ends the run too.
        """
        source, window = iter(flows), Window(in_flight)
        active: dict[Any, _Running[T]] = {}
        paused: list[tuple[float, int, _Running[T]]] = []
        ready: deque[tuple[_Running[T], Response | HostUnavailable | None]] = deque()
        exhausted, serial, pause = False, 0, rest.get()
        try:
            while True:
                while not exhausted and len(active) + len(paused) + len(ready) < window.size:
                    try:
                        ready.append((_Running(next(source)), None))
                    except StopIteration:
                        exhausted = True
                while paused and paused[0][0] <= time.monotonic():
                    ready.append((heapq.heappop(paused)[2], None))
                begun = False
                if pause and ready:
                    pause()
                while ready:
                    running, answer = ready.popleft()
                    try:
                        if isinstance(answer, HostUnavailable):
                            wish = running.flow.throw(answer)
                        else:
                            wish = running.flow.send(answer)
                    except StopIteration as end:
                        yield end.value
                        continue
                    if isinstance(wish, Pause):
                        serial += 1
                        heapq.heappush(paused, (time.monotonic() + wish.seconds, serial, running))
                    else:
                        fault = self._begin(running, wish)
                        if fault is None and running.handle is not None:
                            active[running.handle.curl] = running
                            begun = True
                        else:
                            ready.append((running, fault))
                if exhausted and not active and not paused:
                    return
                if watch:
                    watch()
                # A request that has just been begun opens its connection when libcurl is asked to go on. To wait for
                # the others before that would let one that hangs hold it up.
                if (active or paused) and not begun:
                    self._wait(paused[0][0] - time.monotonic() if paused else 1.0, bool(active))
                for running, outcome in self._finished(active):
                    if adaptive and isinstance(outcome, Response):
                        window.answered(outcome.status)
                    ready.append((running, outcome))
        finally:
            for running in active.values():
                if running.handle is not None:
                    self._multi.remove_handle(running.handle.curl)
                    running.handle.curl.close()
            for running in [*active.values(), *(entry[2] for entry in paused), *(entry[0] for entry in ready)]:
                running.flow.close()

    def _wait(self, seconds: float, busy: bool) -> None:
        seconds = max(0.0, min(seconds, 1.0))
        if busy:
            if self._multi.select(seconds) == -1:
                # No socket to wait for yet: libcurl asks for a short sleep instead of a busy loop.
                time.sleep(0.005)
        elif seconds:
            time.sleep(seconds)

    def _finished(self, active: dict[Any, _Running[T]]) -> Iterator[tuple[_Running[T], Response | HostUnavailable]]:
        while self._multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        remaining = 1
        while remaining:
            remaining, good, bad = self._multi.info_read()
            for handle in good:
                running = active.pop(handle)
                assert running.handle is not None  # noqa: S101 - it was active
                found = running.handle
                fresh = handle.getinfo(pycurl.NUM_CONNECTS) > 0
                response = Response(
                    handle.getinfo(pycurl.RESPONSE_CODE),
                    bytes(found.buffer),
                    found.index[-1] if found.index else "",
                    handle.getinfo(pycurl.CONN_ID),
                    fresh,
                    validity_of(handle.getinfo_raw(pycurl.INFO_CERTINFO)) if fresh else None,
                )
                self._give_back(running)
                yield running, response
            for handle, code, _ in bad:
                running = active.pop(handle)
                assert running.request is not None  # noqa: S101 - it was active
                endpoint = running.request.endpoint
                # Where the name leads may have changed: the next connection looks again.
                self._targets.pop(endpoint, None)
                fault = fault_of(handle, code, endpoint)
                self._multi.remove_handle(handle)
                handle.close()
                self._drop_idle(endpoint)
                yield running, fault

    def _drop_idle(self, endpoint: Endpoint) -> None:
        for handles in self._idle.pop(endpoint, {}).values():
            for handle in handles:
                handle.curl.close()

    def _begin(self, running: _Running[T], request: Request) -> HostUnavailable | None:
        try:
            handle = self._handle(request)
        except HostUnavailable as fault:
            return fault
        running.handle, running.request = handle, request
        handle.buffer.clear()
        handle.index.clear()
        handle.sink, handle.taken, handle.pieces = request.sink, 0, 0
        curl = handle.curl
        curl.setopt(pycurl.URL, f"{request.endpoint.address}{request.path}")
        if request.body is not None:
            curl.setopt(pycurl.POSTFIELDS, json.dumps(request.body))
        if request.token != handle.token or request.index != handle.required_index:
            handle.token, handle.required_index = request.token, request.index
            curl.setopt(pycurl.HTTPHEADER, _headers(request))
        if request.timeout_s != handle.timeout_s:
            handle.timeout_s = request.timeout_s
            # 0 would be no deadline at all.
            curl.setopt(pycurl.TIMEOUT_MS, max(1, ceil(request.timeout_s * 1000)))
        self._multi.add_handle(curl)
        return None

    def _give_back(self, running: _Running[T]) -> None:
        assert running.request is not None  # noqa: S101 - it was active
        assert running.handle is not None  # noqa: S101
        self._multi.remove_handle(running.handle.curl)
        idle = self._idle.setdefault(running.request.endpoint, {}).setdefault(_kind(running.request), [])
        if len(idle) < _IDLE_HANDLES:
            idle.append(running.handle)
        else:
            running.handle.curl.close()

    def _handle(self, request: Request) -> _Handle:
        """Return an idle handle for a request, or a new one with everything set that stays the same."""
        endpoint = request.endpoint
        idle = self._idle.get(endpoint, {}).get(_kind(request))
        if idle:
            return idle.pop()
        target = self._targets.get(endpoint)
        if target is None:
            target = self._targets[endpoint] = endpoint.resolver.resolve(endpoint.address)
        address, certificate = endpoint.address, endpoint.certificate
        curl = pycurl.Curl()
        handle = _Handle(curl)
        if request.body is None:
            curl.setopt(pycurl.HTTPGET, 1)
        else:
            curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.CUSTOMREQUEST, request.method)
        curl.setopt(pycurl.HTTPHEADER, _headers(request))
        curl.setopt(pycurl.WRITEFUNCTION, _collector(handle))
        if request.wants_index:
            curl.setopt(pycurl.HEADERFUNCTION, _index_collector(handle.index))
        handle.token, handle.required_index = request.token, request.index
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_TIMEOUT_S * 1000))
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.OPT_CERTINFO, 1)
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        if endpoint.server_ca:
            curl.setopt(pycurl.CAINFO_BLOB, endpoint.server_ca)
        else:
            # By its name: a file is parsed once for all connections, a blob for each (CURLOPT_CA_CACHE_TIMEOUT).
            curl.setopt(pycurl.CAINFO, certifi.where())
        curl.setopt(pycurl.SSLCERTTYPE, "PEM")
        curl.setopt(pycurl.SSLCERT_BLOB, certificate.certificate_pem)
        curl.setopt(pycurl.SSLKEYTYPE, "PEM")
        curl.setopt(pycurl.SSLKEY_BLOB, certificate.key_pem)
        ips = [_bracketed(ip) for ip in target.ips]
        # A connection to one server is never used for another of the same name.
        dialled = ips[0] if len(ips) == 1 else address.host
        curl.setopt(pycurl.CONNECT_TO, [f"{address.host}:{address.port}:{dialled}:{target.port}"])
        if len(ips) > 1:
            # Where one vetted address does not answer, the next one is dialled; nothing is looked up.
            curl.setopt(pycurl.RESOLVE, [f"{address.host}:{target.port}:{','.join(ips)}"])
        return handle


def validity_of(chain: Sequence[Sequence[object]]) -> Validity | None:
    """Return the validity of a server's own certificate, from what libcurl says of its chain (CURLINFO_CERTINFO).

    None where it says nothing that can be read: whatever a server puts into its certificate, it is no fault.
    """
    said: dict[bytes, bytes] = dict(entry for entry in (chain[0] if chain else ()) if isinstance(entry, tuple))
    try:
        begin, end = (
            datetime.strptime(said[name].decode("ascii"), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
            for name in (b"Start date", b"Expire date")
        )
    except (KeyError, ValueError):
        return None
    return Validity(begin, end)


def _headers(request: Request) -> list[str]:
    headers = ["X-Vault-Request: true", "Accept: application/json", "Expect:"]
    if request.token:
        headers.append(f"X-Vault-Token: {request.token}")
    if request.body is not None:
        headers.append("Content-Type: application/json")
    if request.index:
        # A standby that has not come to this state yet must not answer from its own, older, copy.
        headers += [f"X-Vault-Index: {request.index}", "X-Vault-Inconsistent: forward-active-node"]
    return headers


def _kind(request: Request) -> tuple[str, bool]:
    return request.method, request.wants_index


def _index_collector(found: list[str]) -> Callable[[bytes], None]:
    def collect(line: bytes) -> None:
        name, _, value = line.partition(b":")
        text = value.strip().decode("ascii", "replace")
        if name.lower() == b"x-vault-index" and _INDEX.fullmatch(text):
            found.append(text)

    return collect


def _collector(handle: _Handle) -> Callable[[bytes], int]:
    buffer = handle.buffer

    def collect(piece: bytes) -> int:
        handle.taken += len(piece)
        handle.pieces += 1
        if handle.pieces > _PIECES + handle.taken // _BYTES_A_PIECE:
            return 0
        if handle.taken > (MAX_ANSWER_BYTES if handle.sink is None else MAX_LIST_BYTES):
            return 0
        if handle.sink is not None:
            # The status is not known in here: what it begins with is kept, for it may be an error.
            handle.sink(piece)
            buffer.extend(piece[: max(0, _HEAD_BYTES - len(buffer))])
            return len(piece)
        buffer.extend(piece)
        return len(piece)

    return collect


def _bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
