"""PKCS#12 files made by hand (RFC 7292), to be wrong in one chosen way."""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

DATA, ENCRYPTED = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.6"
KEY_BAG, SHROUDED, CERT_BAG = (f"1.2.840.113549.1.12.10.1.{n}" for n in (1, 2, 3))
SHA256, SHA1, MD5 = "2.16.840.1.101.3.4.2.1", "1.3.14.3.2.26", "1.2.840.113549.2.5"
AES256, DES = "2.16.840.1.101.3.4.1.42", "1.3.14.3.2.7"
PBES2, PBKDF2, HMAC_SHA256 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12", "1.2.840.113549.2.9"
HUGE = 2**31 - 1


def tlv(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + len(body).to_bytes(size, "big") + body


def seq(*contents: bytes) -> bytes:
    return tlv(0x30, *contents)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: bytes) -> bytes:
    return tlv(0x04, value)


def oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    out = b""
    for arc in (first * 40 + second, *rest):
        piece = bytes([arc & 0x7F])
        while arc := arc >> 7:
            piece = bytes([0x80 | arc & 0x7F]) + piece
        out += piece
    return tlv(0x06, out)


def explicit(*contents: bytes) -> bytes:
    return tlv(0xA0, *contents)


def pbes2(salt: bytes, iv: bytes, iterations: int, cipher: str = AES256) -> bytes:
    kdf = seq(oid(PBKDF2), seq(octets(salt), integer(iterations), seq(oid(HMAC_SHA256), tlv(0x05))))
    return seq(oid(PBES2), seq(kdf, seq(oid(cipher), octets(iv))))


def pbe(name: str, iterations: int) -> bytes:
    return seq(oid(name), seq(octets(os.urandom(8)), integer(iterations)))


def encrypt(plain: bytes, password: str, iterations: int) -> tuple[bytes, bytes]:
    """Return the algorithm and the ciphertext (PBES2, AES-256)."""
    salt, iv = os.urandom(8), os.urandom(16)
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations, 32)
    padder, encryptor = PKCS7(128).padder(), Cipher(AES(key), CBC(iv)).encryptor()
    text = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    return pbes2(salt, iv, iterations), text


def bag(kind: str, value: bytes) -> bytes:
    return seq(oid(kind), explicit(value))


def shrouded(algorithm: bytes, ciphertext: bytes = b"x" * 32) -> bytes:
    return bag(SHROUDED, seq(algorithm, octets(ciphertext)))


def plain_part(*bags: bytes) -> bytes:
    return seq(oid(DATA), explicit(octets(seq(*bags))))


def encrypted_part(algorithm: bytes, ciphertext: bytes = b"x" * 32) -> bytes:
    content = seq(oid(DATA), algorithm, tlv(0x80, ciphertext))
    return seq(oid(ENCRYPTED), explicit(seq(integer(0), content)))


def mac(safe: bytes, password: str, iterations: int = 1, digest: str = SHA256) -> bytes:
    salt = os.urandom(8)
    if digest == SHA256 and iterations < 10_000:
        value = hmac.digest(_pkcs12_kdf(password, salt, iterations), safe, "sha256")
    else:
        value = bytes(32)
    return seq(seq(seq(oid(digest), tlv(0x05)), octets(value)), octets(salt), integer(iterations))


def pfx(
    *parts: bytes, password: str = "pw", mac_iterations: int = 1, digest: str = SHA256, with_mac: bool = True
) -> bytes:
    safe = seq(*parts)
    end = mac(safe, password, mac_iterations, digest) if with_mac else b""
    return seq(integer(3), seq(oid(DATA), explicit(octets(safe))), end)


def _pkcs12_kdf(password: str, salt: bytes, iterations: int) -> bytes:
    """RFC 7292 appendix B with SHA-256, for a MAC key of 32 bytes: one round suffices."""
    block = 64
    secret = password.encode("utf-16-be") + b"\0\0"
    stretched = b"".join((part * (block // len(part) + 1))[: block * -(-len(part) // block)] for part in (salt, secret))
    value = hashlib.sha256(bytes([3]) * block + stretched).digest()
    for _ in range(iterations - 1):
        value = hashlib.sha256(value).digest()
    return value
