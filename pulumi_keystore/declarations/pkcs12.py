"""Opening PKCS#12 files from strangers (RFC 7292).

Two defences stand before the parser of `cryptography`: `inspect` walks the ASN.1 in the clear and refuses what is
malformed, unprotected or absurdly expensive, and `open_file` lets a helper process do the decryption, which is
killed at a deadline (a key bag inside an encrypted part can hide an iteration count that no inspection sees).
The file, the password and the key travel through pipes: nothing touches a disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import LifoQueue
from typing import IO, Any, Final

from pulumi_keystore import rules

MAX_SIZE: Final = 1 << 20
MAX_ITERATIONS: Final = 2_000_000
DEADLINE_S: Final = 2.0
_START_ALLOWANCE_S: Final = 20.0
_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 20_000

_DATA = "1.2.840.113549.1.7.1"
_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
_KEY_BAG = "1.2.840.113549.1.12.10.1.1"
_SHROUDED_KEY_BAG = "1.2.840.113549.1.12.10.1.2"
_SAFE_CONTENTS_BAG = "1.2.840.113549.1.12.10.1.6"
_PBES2 = "1.2.840.113549.1.5.13"
_PBMAC1 = "1.2.840.113549.1.5.14"
_PBKDF2 = "1.2.840.113549.1.5.12"
_AES_CBC = {"2.16.840.1.101.3.4.1.2", "2.16.840.1.101.3.4.1.22", "2.16.840.1.101.3.4.1.42"}
_OLD_CIPHERS = {
    "1.2.840.113549.1.12.1.3": "3DES",
    "1.2.840.113549.1.12.1.4": "3DES",
    "1.2.840.113549.1.12.1.5": "RC2",
    "1.2.840.113549.1.12.1.6": "RC2",
    "1.2.840.113549.3.7": "3DES",
    "1.2.840.113549.3.2": "RC2",
}
_BROKEN_CIPHERS = {
    "1.2.840.113549.1.12.1.1": "RC4",
    "1.2.840.113549.1.12.1.2": "RC4",
    "1.2.840.113549.1.5.1": "MD2 and DES",
    "1.2.840.113549.1.5.3": "MD5 and DES",
    "1.2.840.113549.1.5.4": "MD2 and RC2",
    "1.2.840.113549.1.5.6": "MD5 and RC2",
    "1.2.840.113549.1.5.10": "DES",
    "1.2.840.113549.1.5.11": "SHA-1 and RC2",
    "1.3.14.3.2.7": "DES",
}
_MAC_DIGESTS = {
    "1.3.14.3.2.26",
    "2.16.840.1.101.3.4.2.4",
    "2.16.840.1.101.3.4.2.1",
    "2.16.840.1.101.3.4.2.2",
    "2.16.840.1.101.3.4.2.3",
}


class _Malformed(Exception):  # noqa: N818 - never leaves this module
    pass


@dataclass(frozen=True, slots=True)
class _Node:
    """One ASN.1 element: its tag octet, its contents, and its children where it is constructed."""

    tag: int
    content: bytes = field(repr=False)
    children: tuple[_Node, ...] = field(default=(), repr=False)

    def child(self, index: int, tag: int) -> _Node:
        if index >= len(self.children) or self.children[index].tag != tag:
            raise _Malformed
        return self.children[index]

    def oid(self) -> str:
        if self.tag != _OID or not self.content:
            raise _Malformed
        arcs, value = [], 0
        for octet in self.content:
            value = value << 7 | octet & 0x7F
            if not octet & 0x80:
                arcs.append(value)
                value = 0
        if not arcs:
            raise _Malformed
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))

    def integer(self) -> int:
        if self.tag != _INTEGER or not self.content:
            raise _Malformed
        return int.from_bytes(self.content, "big", signed=True)

    def octets(self) -> bytes:
        """Return the bytes of an OCTET STRING; BER allows it to come in pieces."""
        if self.children:
            return b"".join(piece.octets() for piece in self.children)
        return self.content


_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET, _EXPLICIT = 0x02, 0x04, 0x06, 0x30, 0x31, 0xA0
_CONSTRUCTED = 0x20


@dataclass(slots=True)
class _Reader:
    """A BER reader that is bounded in depth and in the number of elements."""

    nodes: int = 0

    def whole(self, data: bytes) -> _Node:
        node, end = self.element(data, 0, len(data), 0)
        if end != len(data):
            raise _Malformed
        return node

    def element(self, data: bytes, at: int, limit: int, depth: int) -> tuple[_Node, int]:
        self.nodes += 1
        if depth > _MAX_DEPTH or self.nodes > _MAX_NODES or at + 2 > limit:
            raise _Malformed
        tag, length, at = data[at], data[at + 1], at + 2
        if tag & 0x1F == 0x1F:  # noqa: PLR2004 - multi-octet tags do not occur in PKCS#12
            raise _Malformed
        if length == 0x80:  # noqa: PLR2004 - indefinite form, ended by two zero octets
            return self._indefinite(data, at, limit, depth, tag)
        if length & 0x80:
            size = length & 0x7F
            if size > 4 or at + size > limit:  # noqa: PLR2004 - 4 octets of length are 4 GiB
                raise _Malformed
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        end = at + length
        if end > limit:
            raise _Malformed
        return _Node(tag, data[at:end], tuple(self._children(data, at, end, depth, tag))), end

    def _children(self, data: bytes, at: int, end: int, depth: int, tag: int) -> Iterator[_Node]:
        while tag & _CONSTRUCTED and at < end:
            node, at = self.element(data, at, end, depth + 1)
            yield node

    def _indefinite(self, data: bytes, at: int, limit: int, depth: int, tag: int) -> tuple[_Node, int]:
        if not tag & _CONSTRUCTED:
            raise _Malformed
        start, children = at, []
        while data[at : at + 2] != b"\0\0":
            node, at = self.element(data, at, limit, depth + 1)
            children.append(node)
        return _Node(tag, data[start:at], tuple(children)), at + 2


@dataclass(slots=True)
class Inspection:
    """What can be known of a PKCS#12 file without its password."""

    keys: int = 0
    """Private keys in sight; one may still hide in an encrypted part."""
    plain_keys: int = 0
    encrypted_parts: int = 0
    old_ciphers: set[str] = field(default_factory=set)

    @property
    def encrypted(self) -> bool:
        """Whether any part of the file needs a password to be read."""
        return self.encrypted_parts > 0 or self.keys > self.plain_keys


def inspect(data: bytes) -> Inspection:
    """Look at the structure of a PKCS#12 file without decrypting anything.

    Raises:
        RuleViolation: KS010 (format), KS012 (more than one key), KS016 (size), KS017 (iteration count),
            KS018 (no MAC), KS019 (cipher).

    """
    if len(data) > MAX_SIZE:
        raise rules.CERTIFICATE_SIZE.violation(f"the file has {len(data):,} bytes")
    if not data:
        raise rules.CERTIFICATE_FORMAT.violation("the file is empty")
    if other := _other_format(data):
        raise rules.CERTIFICATE_FORMAT.violation(f"this is {other}, not a PKCS#12 file")
    try:
        return _inspect(data)
    except (_Malformed, IndexError, RecursionError):
        raise rules.CERTIFICATE_FORMAT.violation("this is no PKCS#12 file, or it is damaged") from None


def _other_format(data: bytes) -> str | None:
    for magic, name in (
        (b"-----BEGIN", "a PEM file"),
        (b"\xfe\xed\xfe\xed", "a Java keystore (JKS)"),
        (b"PK\x03\x04", "a ZIP archive"),
    ):
        if data.lstrip().startswith(magic):
            return name
    return None


def _inspect(data: bytes) -> Inspection:  # noqa: C901 - the order of RFC 7292 §4, top to bottom
    read = _Reader()
    pfx = read.whole(data)
    if pfx.tag != _SEQUENCE or not pfx.children:
        raise _Malformed
    if pfx.children[0].tag == _SEQUENCE:
        raise rules.CERTIFICATE_FORMAT.violation("this is a DER certificate or key, not a PKCS#12 file")
    if pfx.child(0, _INTEGER).integer() != 3:  # noqa: PLR2004 - the only version (RFC 7292 §4)
        raise _Malformed
    authenticated_safe = pfx.child(1, _SEQUENCE)
    if authenticated_safe.child(0, _OID).oid() != _DATA:
        raise rules.CERTIFICATE_FORMAT.violation("the file is signed instead of password-protected")
    if len(pfx.children) < 3:  # noqa: PLR2004 - version, safe, MAC
        raise rules.CERTIFICATE_INTEGRITY.violation("the file has no integrity code")
    found = Inspection()
    _inspect_mac(pfx.child(2, _SEQUENCE))
    for part in _sequence(read, authenticated_safe.child(1, _EXPLICIT)).children:
        kind = part.child(0, _OID).oid()
        if kind == _DATA:
            _inspect_bags(_sequence(read, part.child(1, _EXPLICIT)), found)
        elif kind == _ENCRYPTED_DATA:
            found.encrypted_parts += 1
            content = part.child(1, _EXPLICIT).child(0, _SEQUENCE).child(1, _SEQUENCE)
            _inspect_cipher(content.child(1, _SEQUENCE), found)
        else:
            raise rules.CERTIFICATE_FORMAT.violation("the file is encrypted for a certificate, not with a password")
    if found.keys > 1:
        raise rules.CERTIFICATE_PAIR.violation(f"the file holds {found.keys} private keys")
    if not found.keys and not found.encrypted_parts:
        raise rules.CERTIFICATE_PAIR.violation("the file holds no private key")
    return found


def _sequence(read: _Reader, explicit: _Node) -> _Node:
    """Return the SEQUENCE inside the OCTET STRING inside an explicit tag."""
    if not explicit.children or explicit.children[0].tag & ~_CONSTRUCTED != _OCTETS:
        raise _Malformed
    node = read.whole(explicit.children[0].octets())
    if node.tag != _SEQUENCE:
        raise _Malformed
    return node


def _inspect_mac(mac: _Node) -> None:
    algorithm = mac.child(0, _SEQUENCE).child(0, _SEQUENCE)
    name = algorithm.child(0, _OID).oid()
    if name == _PBMAC1:
        _inspect_pbkdf2(algorithm.child(1, _SEQUENCE).child(0, _SEQUENCE))
        return
    if name not in _MAC_DIGESTS:
        raise rules.CERTIFICATE_CIPHER.violation("the file's integrity code uses MD5 or an unknown digest")
    _check_iterations(mac.children[2].integer() if len(mac.children) > 2 else 1)  # noqa: PLR2004 - DEFAULT 1


def _inspect_bags(contents: _Node, found: Inspection) -> None:
    for bag in contents.children:
        kind = bag.child(0, _OID).oid()
        if kind == _KEY_BAG:
            found.keys += 1
            found.plain_keys += 1
        elif kind == _SHROUDED_KEY_BAG:
            found.keys += 1
            _inspect_cipher(bag.child(1, _EXPLICIT).child(0, _SEQUENCE).child(0, _SEQUENCE), found)
        elif kind == _SAFE_CONTENTS_BAG:
            _inspect_bags(bag.child(1, _EXPLICIT).child(0, _SEQUENCE), found)


def _inspect_cipher(algorithm: _Node, found: Inspection) -> None:
    name = algorithm.child(0, _OID).oid()
    if name == _PBES2:
        parameters = algorithm.child(1, _SEQUENCE)
        _inspect_pbkdf2(parameters.child(0, _SEQUENCE))
        name = parameters.child(1, _SEQUENCE).child(0, _OID).oid()
        if name in _AES_CBC:
            return
    else:
        _check_iterations(algorithm.child(1, _SEQUENCE).child(1, _INTEGER).integer())
    if name in _BROKEN_CIPHERS:
        raise rules.CERTIFICATE_CIPHER.violation(f"the file is encrypted with {_BROKEN_CIPHERS[name]}")
    if name not in _OLD_CIPHERS:
        raise rules.CERTIFICATE_CIPHER.violation("the file is encrypted with a cipher that is not supported")
    found.old_ciphers.add(_OLD_CIPHERS[name])


def _inspect_pbkdf2(kdf: _Node) -> None:
    if kdf.child(0, _OID).oid() != _PBKDF2:
        raise rules.CERTIFICATE_CIPHER.violation("the file derives its keys with something else than PBKDF2")
    _check_iterations(kdf.child(1, _SEQUENCE).child(1, _INTEGER).integer())


def _check_iterations(count: int) -> None:
    if not 1 <= count <= MAX_ITERATIONS:
        raise rules.CERTIFICATE_COST.violation(f"the file asks for {count:,} iterations")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a PKCS#12 file holds, in PEM (the key as unencrypted PKCS#8)."""

    key: bytes = field(repr=False)
    certificate: bytes
    others: tuple[bytes, ...] = ()


def open_file(data: bytes, password: str | None) -> Contents:
    """Decrypt a PKCS#12 file that `inspect` let pass.

    Raises:
        RuleViolation: KS011 where the password does not open it, KS012 where key or certificate is missing,
            KS017 where it takes more than 2 seconds.

    """
    helper = _HELPERS.get()
    try:
        answer = helper.ask({"file": b64encode(data).decode(), "password": password})
    finally:
        _HELPERS.put(helper)
    if answer is None:
        raise rules.CERTIFICATE_COST.violation(f"the file cannot be opened within {DEADLINE_S:.0f} seconds")
    if answer["error"] == "password":
        raise rules.CERTIFICATE_PASSWORD.violation("the file cannot be opened with this password, or it is damaged")
    if answer["error"] == "pair":
        raise rules.CERTIFICATE_PAIR.violation("the file has no private key with a certificate that belongs to it")
    key, certificate, *others = (b64decode(part) for part in answer["parts"])
    return Contents(key, certificate, tuple(others))


class _Helper:
    """A process that decrypts, one file at a time, and is killed when it is late."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: dict[str, str | None]) -> dict[str, Any] | None:
        """Return the helper's answer, or None where it took too long (it is dead then)."""
        process = self._running()
        assert process.stdin is not None  # noqa: S101 - both pipes were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = _read_line(process.stdout, DEADLINE_S)
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
            _read_line(self._process.stdout, _START_ALLOWANCE_S)
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
# The one that was used last is taken first, so that the second is only started where two files come at once.
_HELPERS: Final[LifoQueue[_Helper]] = LifoQueue()
for _ in range(2):
    _HELPERS.put(_Helper())


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
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        question = json.loads(line)
        sys.stdout.write(json.dumps(_decrypt(b64decode(question["file"]), question["password"])) + "\n")
        sys.stdout.flush()


def _decrypt(data: bytes, password: str | None) -> dict[str, object]:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - only the helper pays for it
        Encoding,
        NoEncryption,
        PrivateFormat,
        pkcs12,
    )

    # An export "without password" carries a MAC over no password or over an empty one: try both.
    for candidate in [password.encode()] if password else [None, b""]:
        try:
            bundle = pkcs12.load_pkcs12(data, candidate)
        except Exception:  # noqa: BLE001, S112 - damaged files raise whatever the parser meets
            continue
        if bundle.key is None or bundle.cert is None:
            return {"error": "pair"}
        key = bundle.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificates = [bundle.cert, *bundle.additional_certs]
        parts = [key, *(c.certificate.public_bytes(Encoding.PEM) for c in certificates)]
        return {"error": None, "parts": [b64encode(part).decode() for part in parts]}
    return {"error": "password"}
