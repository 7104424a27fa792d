"""Opening PKCS#12 files from strangers (RFC 7292).

Two defences stand before the parser of `cryptography`: `inspect` walks the ASN.1 in the clear and refuses what is
malformed, unprotected or absurdly expensive, and `open_file` lets a helper process do the decryption, whose processor
time is bounded (a key bag inside an encrypted part can hide an iteration count that no inspection sees).
The file, the password and the key travel through pipes: nothing touches a disk.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

from pulumi_keystore import rules
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.pkcs12_decryption import fits, keys_in
from pulumi_keystore.errors import TooManyRequests

PROCESSOR_S: Final = 2
"""Seconds of processor time that a file may take beside what it says that it takes."""
_ITERATIONS_A_SECOND: Final = 250_000
"""What a slow machine hashes."""
_PATIENCE_S: Final = 60.0
"""How long a helper is waited for, however busy the machine is."""
_TURN_S: Final = 20.0
"""How long one waits for a helper that opens another file."""
_BUDGET_S: Final = 6.0
"""Processor time that an organization's files may take at once: two of the costliest, or a hundred usual ones."""
_REFILL: Final = 0.01
"""How much of the time the files of one organization may keep a processor busy in the long run."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a PKCS#12 file holds, in PEM (the key as unencrypted PKCS#8)."""

    key: bytes = field(repr=False)
    certificate: bytes
    others: tuple[bytes, ...] = ()


_REFUSALS: Final = {
    "password": (rules.CERTIFICATE_PASSWORD, "the file cannot be opened with this password, or it is damaged"),
    "pair": (rules.CERTIFICATE_PAIR, "the file has no private key with a certificate that belongs to it"),
    "keys": (rules.CERTIFICATE_PAIR, "the file holds more than one private key"),
    "kind": (rules.CERTIFICATE_ALGORITHM, "the private key or a certificate is of a kind that is not supported"),
    "damaged": (rules.CERTIFICATE_FORMAT, "the key or a certificate in the file cannot be read"),
}


def open_file(data: bytes, password: str | None, iterations: int = 0, owner: str = "") -> Contents:
    """Decrypt a PKCS#12 file that `inspect` let pass.

    Args:
        data: The file.
        password: Its password; None and an empty one are the same.
        iterations: How often the file says that passwords are hashed to open it.
        owner: The organization whose file it is; one's files are opened one after another.

    Raises:
        RuleViolation: KS010 where a part cannot be read, KS011 where the password does not open it, KS012 where key or
            certificate is missing, KS014 where the key is of an unknown kind, KS017 where it takes longer than it says.
        TooManyRequests: Other files take too long.

    """
    if password and ("\0" in password or not _is_utf8(password)):
        raise rules.CERTIFICATE_PASSWORD.violation("the password holds a character that no password can hold")
    processor_s = PROCESSOR_S + iterations // _ITERATIONS_A_SECOND
    with _HELPERS.turn(owner) as helper:
        answer = helper.ask({"file": b64encode(data).decode(), "password": password, "processor_s": processor_s})
        _HELPERS.spend(owner, processor_s if answer is None else answer["spent_s"])
    if answer is None:
        raise rules.CERTIFICATE_COST.violation(f"the file takes more than {processor_s} seconds to open")
    if answer["error"]:
        rule, reason = _REFUSALS[answer["error"]]
        raise rule.violation(reason)
    key, certificate, *others = (b64decode(part) for part in answer["parts"])
    return Contents(key, certificate, tuple(others))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Helper:
    """A process that decrypts, one file at a time, and is killed when it is late."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: dict[str, str | int | None]) -> dict[str, Any] | None:
        """Return the helper's answer, or None where it took too long (it is dead then)."""
        process = self._running()
        assert process.stdin is not None  # noqa: S101 - both pipes were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process.stdout, _PATIENCE_S)
        except BrokenPipeError:
            line = None
        if line is None:
            self._stop()
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        # A fork has its parent's pipes: it starts a helper of its own.
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            self._process = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
                [sys.executable, "-I", "-c", _HELPER_START, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
            assert self._process.stdout is not None  # noqa: S101
            _read_line(self._process.stdout, _PATIENCE_S)
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None

    _owner = 0


_HELPER_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from pulumi_keystore.declarations.pkcs12 import _serve; _serve()"
)


class _Helpers:
    """Two helpers. Files of one organization keep at most one of them busy, and not for long."""

    def __init__(self) -> None:
        # The one that was used last is taken first, so that the second is only started where two files come at once.
        self.free = [_Helper(), _Helper()]
        self._served: set[str] = set()
        self._budgets: dict[str, tuple[float, float]] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, owner: str) -> Iterator[_Helper]:
        """Wait for a helper, and have it for a while; no owner is one of many.

        Raises:
            TooManyRequests: It takes too long, or the owner's files have taken too much processor time.

        """
        with self._changed:
            if (left_s := self._left_s(owner)) <= 0:
                wait_s = math.ceil(-left_s / _REFILL) + 1
                raise TooManyRequests(
                    "the certificate files of this organization have taken too much processor time to open",
                    hint=f"try again in {count(wait_s, 'second')}, or export the file with fewer iterations",
                )
            if not self._changed.wait_for(lambda: self.free and owner not in self._served, _TURN_S):
                raise TooManyRequests("other certificates are being opened", hint="try again in a minute")
            helper = self.free.pop()
            if owner:
                self._served.add(owner)
        try:
            yield helper
        finally:
            with self._changed:
                self.free.append(helper)
                self._served.discard(owner)
                self._changed.notify_all()

    def spend(self, owner: str, seconds: float) -> None:
        """Take what a file has cost off its owner's budget; what is full again is forgotten."""
        with self._changed:
            if owner:
                self._budgets[owner] = self._left_s(owner) - seconds, time.monotonic()
            self._budgets = {each: kept for each, kept in self._budgets.items() if self._left_s(each) < _BUDGET_S}

    def _left_s(self, owner: str) -> float:
        """Return the processor time that an owner's files may take now; nobody's may take any."""
        left_s, at = self._budgets.get(owner, (_BUDGET_S, time.monotonic()))
        return min(_BUDGET_S, left_s + (time.monotonic() - at) * _REFILL)


_HELPERS: Final = _Helpers()


def _read_line(pipe: IO[bytes], timeout_s: float) -> bytes | None:
    """Read one line, or return None at the deadline or the end of the pipe."""
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return None
        piece = os.read(pipe.fileno(), 1 << 16)
        if not piece:
            return None
        line += piece
    return line


def _serve() -> None:
    """Answer questions on standard input until it closes (the body of the helper process)."""
    # It may be ended in the middle of its work: nothing of that goes to a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # It hashes as much as somebody else's file asks for, and the service beside it has customers who wait.
    os.nice(10)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        question = json.loads(line)
        # The kernel ends this process where it takes longer; it counts whole seconds.
        before_s = time.process_time()
        limit = math.ceil(before_s) + question["processor_s"]
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        answer = _decrypt(b64decode(question["file"]), question["password"])
        sys.stdout.write(json.dumps({**answer, "spent_s": time.process_time() - before_s}) + "\n")
        sys.stdout.flush()


def _decrypt(data: bytes, password: str | None) -> dict[str, object]:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - only the helper pays for it
        Encoding,
        NoEncryption,
        PrivateFormat,
        pkcs12,
    )

    # An export "without password" carries a MAC over no password or over an empty one: try both.
    reason = "password"
    for candidate in [password.encode()] if password else [None, b""]:
        try:
            bundle = pkcs12.load_pkcs12(data, candidate)
        except Exception as error:  # noqa: BLE001 - damaged files raise whatever the parser meets
            reason = _reason(error, data, candidate or b"")
            if reason == "password":
                continue
            break
        if keys_in(data, candidate or b"") > 1:
            return {"error": "keys"}
        if bundle.key is None or bundle.cert is None:
            return {"error": "pair"}
        key = bundle.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificates = [bundle.cert, *bundle.additional_certs]
        parts = [key, *(c.certificate.public_bytes(Encoding.PEM) for c in certificates)]
        return {"error": None, "parts": [b64encode(part).decode() for part in parts]}
    return {"error": reason}


def _reason(error: Exception, data: bytes, password: bytes) -> str:
    """Tell a wrong password from contents that cannot be read; the parser says the same of both."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above

    if isinstance(error, UnsupportedAlgorithm) or fits(data, password):
        return "kind"
    return "password" if "password" in str(error) else "damaged"
