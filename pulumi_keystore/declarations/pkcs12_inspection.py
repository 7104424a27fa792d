"""What a PKCS#12 file is made of, seen before anything in it is decrypted: bounded in size, depth and cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pulumi_keystore import rules

MAX_SIZE: Final = 1 << 20
MAX_ITERATIONS: Final = 2_000_000
_MOST_TOGETHER: Final = 4 * MAX_ITERATIONS
"""Of a key, its certificates, and the MAC; a file of many parts would keep a helper busy for a minute."""
_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 20_000
_DATA = "1.2.840.113549.1.7.1"
_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
_KEY_BAG = "1.2.840.113549.1.12.10.1.1"
_SHROUDED_KEY_BAG = "1.2.840.113549.1.12.10.1.2"
_SAFE_CONTENTS_BAG = "1.2.840.113549.1.12.10.1.6"
PBES2: Final = "1.2.840.113549.1.5.13"
_PBMAC1 = "1.2.840.113549.1.5.14"
_PBKDF2 = "1.2.840.113549.1.5.12"
AES_CBC: Final = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
"""Octets of the key of each."""
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
_PBKDF2_DIGESTS = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
    "1.2.840.113549.2.12": "sha512_224",
    "1.2.840.113549.2.13": "sha512_256",
}
"""HMACs that PBKDF2 may use (RFC 8018 appendix B.1.2); the first is the default."""
_MAC_DIGESTS = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
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


_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET, _IMPLICIT, _EXPLICIT = 0x02, 0x04, 0x06, 0x30, 0x31, 0x80, 0xA0
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


@dataclass(frozen=True, slots=True)
class EncryptedPart:
    """A part whose contents need the password.

    Attributes:
        scheme: OID of what it is encrypted with: PBES2, or a scheme of PKCS#12 itself.
        salt: For the key that is made of the password.
        iterations: How often the password is hashed for it.
        digest: Name of the digest of PBKDF2, with PBES2.
        cipher: OID of the cipher, with PBES2.
        iv: Its initialisation vector, with PBES2.
        content: What is encrypted.

    """

    scheme: str
    salt: bytes
    iterations: int
    digest: str
    cipher: str
    iv: bytes
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mac:
    """The integrity code (MacData, RFC 7292 §4): an HMAC of what it covers, whose key is made of the password."""

    digest: str
    salt: bytes
    iterations: int
    value: bytes = field(repr=False)
    covered: bytes = field(repr=False)


@dataclass(slots=True)
class Inspection:
    """What can be known of a PKCS#12 file without its password."""

    keys: int = 0
    """Private keys in sight; one may still hide in an encrypted part."""
    plain_keys: int = 0
    encrypted_parts: list[EncryptedPart] = field(default_factory=list)
    mac: Mac | None = None
    """None where it is of another form (PBMAC1)."""
    iterations: int = 0
    """How often passwords are hashed to open it, in all."""
    old_ciphers: set[str] = field(default_factory=set)

    @property
    def encrypted(self) -> bool:
        """Whether any part of the file needs a password to be read."""
        return bool(self.encrypted_parts) or self.keys > self.plain_keys


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
        raise rules.CERTIFICATE_FORMAT.violation("not a PKCS#12 file, or damaged") from None


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
    _inspect_mac(pfx.child(2, _SEQUENCE), authenticated_safe.child(1, _EXPLICIT), found)
    for part in _sequence(read, authenticated_safe.child(1, _EXPLICIT)).children:
        kind = part.child(0, _OID).oid()
        if kind == _DATA:
            _inspect_bags(_sequence(read, part.child(1, _EXPLICIT)), found)
        elif kind == _ENCRYPTED_DATA:
            content = part.child(1, _EXPLICIT).child(0, _SEQUENCE).child(1, _SEQUENCE)
            _inspect_cipher(content.child(1, _SEQUENCE), found)
            found.encrypted_parts.append(_encrypted(content))
        else:
            raise rules.CERTIFICATE_FORMAT.violation("the file is encrypted for a certificate, not with a password")
    if found.keys > 1:
        raise rules.CERTIFICATE_PAIR.violation(f"the file holds {found.keys} private keys")
    if not found.keys and not found.encrypted_parts:
        raise rules.CERTIFICATE_PAIR.violation("the file holds no private key")
    return found


def _encrypted(content: _Node) -> EncryptedPart:
    """Return what is needed to decrypt an EncryptedContentInfo (RFC 5652 §6.1) whose cipher was judged."""
    algorithm = content.child(1, _SEQUENCE)
    scheme, parameters = algorithm.child(0, _OID).oid(), algorithm.child(1, _SEQUENCE)
    if len(content.children) < 3 or content.children[2].tag & ~_CONSTRUCTED != _IMPLICIT:  # noqa: PLR2004
        raise _Malformed
    data = content.children[2].octets()
    if scheme != PBES2:
        salt, count = parameters.children[0].octets(), parameters.child(1, _INTEGER).integer()
        return EncryptedPart(scheme, salt, count, "", "", b"", data)
    kdf = parameters.child(0, _SEQUENCE).child(1, _SEQUENCE)
    cipher = parameters.child(1, _SEQUENCE)
    return EncryptedPart(
        scheme,
        kdf.children[0].octets(),
        kdf.child(1, _INTEGER).integer(),
        _pbkdf2_digest(kdf) or "",
        cipher.child(0, _OID).oid(),
        cipher.children[1].octets() if len(cipher.children) > 1 else b"",
        data,
    )


def count_keys(contents: bytes) -> int:
    """Return how many private keys the decrypted contents of a part hold (SafeContents, RFC 7292 §4.2)."""
    found = Inspection()
    try:
        _inspect_bags(_Reader().whole(contents), found)
    except (_Malformed, IndexError, RecursionError):
        return 0
    return found.keys


def _sequence(read: _Reader, explicit: _Node) -> _Node:
    """Return the SEQUENCE inside the OCTET STRING inside an explicit tag."""
    if not explicit.children or explicit.children[0].tag & ~_CONSTRUCTED != _OCTETS:
        raise _Malformed
    node = read.whole(explicit.children[0].octets())
    if node.tag != _SEQUENCE:
        raise _Malformed
    return node


def _inspect_mac(mac: _Node, safe: _Node, found: Inspection) -> None:
    algorithm = mac.child(0, _SEQUENCE).child(0, _SEQUENCE)
    name = algorithm.child(0, _OID).oid()
    if name == _PBMAC1:
        _inspect_pbkdf2(algorithm.child(1, _SEQUENCE).child(0, _SEQUENCE), found)
        return
    if name not in _MAC_DIGESTS:
        raise rules.CERTIFICATE_CIPHER.violation("the file's integrity code uses MD5 or an unknown digest")
    count = mac.children[2].integer() if len(mac.children) > 2 else 1  # noqa: PLR2004 - DEFAULT 1
    _check_iterations(count, found)
    value, salt = mac.children[0].child(1, _OCTETS).octets(), mac.child(1, _OCTETS).octets()
    found.mac = Mac(_MAC_DIGESTS[name], salt, count, value, safe.children[0].octets() if safe.children else b"")


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
    if name == PBES2:
        parameters = algorithm.child(1, _SEQUENCE)
        _inspect_pbkdf2(parameters.child(0, _SEQUENCE), found)
        name = parameters.child(1, _SEQUENCE).child(0, _OID).oid()
        if name in AES_CBC:
            return
    else:
        _check_iterations(algorithm.child(1, _SEQUENCE).child(1, _INTEGER).integer(), found)
    if name in _BROKEN_CIPHERS:
        raise rules.CERTIFICATE_CIPHER.violation(f"the file is encrypted with {_BROKEN_CIPHERS[name]}")
    if name not in _OLD_CIPHERS:
        raise rules.CERTIFICATE_CIPHER.violation("the file is encrypted with a cipher that is not supported")
    found.old_ciphers.add(_OLD_CIPHERS[name])


def _inspect_pbkdf2(kdf: _Node, found: Inspection) -> None:
    if kdf.child(0, _OID).oid() != _PBKDF2:
        raise rules.CERTIFICATE_CIPHER.violation("the file derives its keys with something else than PBKDF2")
    parameters = kdf.child(1, _SEQUENCE)
    _check_iterations(parameters.child(1, _INTEGER).integer(), found)
    if _pbkdf2_digest(parameters) is None:
        raise rules.CERTIFICATE_CIPHER.violation("the file derives its keys with MD5 or an unknown digest")


def _pbkdf2_digest(parameters: _Node) -> str | None:
    """Return the name of the digest in PBKDF2-params (RFC 8018 appendix A.2): after salt, count and perhaps length."""
    named = [node for node in parameters.children[2:] if node.tag == _SEQUENCE]
    return _PBKDF2_DIGESTS.get(named[0].child(0, _OID).oid()) if named else "sha1"


def _check_iterations(count: int, found: Inspection) -> None:
    found.iterations += max(count, 0)
    if not 1 <= count <= MAX_ITERATIONS:
        raise rules.CERTIFICATE_COST.violation(f"the file asks for {count:,} iterations")
    if found.iterations > _MOST_TOGETHER:
        raise rules.CERTIFICATE_COST.violation(f"the file asks for {found.iterations:,} iterations in all")
