"""The address of a keystore: `https://HOST:PORT`, nothing else (contract: Address)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import idna

from pulumi_keystore import rules

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_MAX_PORT: Final = 65535
_MAX_NAME: Final = 253
_QUOTE: Final = 100
_LONGEST_SCHEME: Final = 20
_AT = re.compile("@|%40")
_HEXADECIMAL = re.compile(r"[0-9a-f:.]+", re.IGNORECASE | re.ASCII)
_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# A host whose last label is a number in any base is an IPv4 address to inet_aton and to browsers (WHATWG URL §3.5).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# RFC 6761 and its registry, RFC 6762, 7686, 8375, 9476, and names ICANN keeps for private use.
SPECIAL_USE: Final = frozenset({
    "alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid",
    "lan", "local", "localdomain", "localhost", "mail", "onion", "private", "test",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeystoreAddress:
    """A validated address: `host` is a lower-case A-label name, `port` is 1 to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> KeystoreAddress:
        """Parse an address as a person wrote it; nothing is looked up.

        Raises:
            RuleViolation: KS001 to KS007; the message quotes scheme, host and port, but never what somebody put
                beside them: a user name, a password, a token.

        """
        if any(_is_invisible(text, at) for at in range(len(text))):
            raise rules.ADDRESS_CHARACTERS.violation("the address holds white space or an invisible character")
        # However the sign is written: in full width, small, or encoded.
        if _AT.search(unicodedata.normalize("NFKC", text)) or "\\" in text:
            raise rules.ADDRESS_EXTRA.violation("the address holds a user name or a backslash")
        if text[:8].lower() != "https://":
            raise rules.ADDRESS_SCHEME.violation(f"{_quoted(text)} does not begin with https://")
        authority = text[8:].removesuffix("/")
        if extra := re.search(r"[/?#;&]", unicodedata.normalize("NFKC", authority)):
            what = {"/": "a path", "?": "a query", "#": "a fragment"}.get(extra.group(), "parameters")
            raise rules.ADDRESS_EXTRA.violation(f"{_quoted(text)} has {what}")
        if "[" in authority or (authority.count(":") > 1 and _HEXADECIMAL.fullmatch(authority)):
            raise rules.ADDRESS_IP.violation(f"{_quoted(text)} names an IPv6 address")
        host, colon, port = authority.partition(":")
        if not colon:
            raise rules.ADDRESS_PORT.violation(f"{_quoted(text)} has no port")
        if not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
            raise rules.ADDRESS_PORT.violation(f"{_quoted(text)} has no number up to {_MAX_PORT} for a port")
        return cls(_public_name(host, text), int(port))

    @property
    def display(self) -> str:
        """The address with its host in Unicode, as people in its country write it."""
        return f"https://{idna.decode(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"https://{self.host}:{self.port}"


def _quoted(text: str) -> str:
    """Return what may be shown of an address, or a part of one: nothing that comes after host and port."""
    scheme, slashes, rest = text.partition("//") if text.find("//") in range(_LONGEST_SCHEME) else ("", "", text)
    # In whatever width it is written; of a port the digits alone.
    host = re.split(r"[/?#;%&]", unicodedata.normalize("NFKC", rest), maxsplit=1)[0]
    kept = re.match(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)*", host)
    shown = scheme + slashes + (kept[0] if kept else "")
    return repr(shown if shown == text and len(text) <= _QUOTE else shown[:_QUOTE] + "…")


def _is_invisible(text: str, at: int) -> bool:
    """Tell whether a character cannot be seen; joiners belong to some scripts (RFC 5892 appendix A.1 and A.2)."""
    if unicodedata.category(text[at]) not in {"Cc", "Cf", "Zs", "Zl", "Zp"}:
        return False
    if text[at] not in _JOINERS:
        return True
    begin = max(text.rfind(sign, 0, at) for sign in "/.") + 1
    try:
        return not idna.valid_contextj(text[begin:], at - begin)
    except ValueError:
        return True


def _public_name(host: str, text: str) -> str:
    """Return the A-label form of a host that is a public DNS name, judged after IDNA mapping (UTS #46)."""
    if not host:
        raise rules.ADDRESS_NAME.violation(f"{_quoted(text)} has no host")
    if "%" in host:
        raise rules.ADDRESS_NAME.violation(f"{_quoted(text)} has a percent sign in its host")
    try:
        mapped = idna.uts46_remap(host, std3_rules=False, transitional=False).lower()
    except idna.IDNAError:
        raise rules.ADDRESS_NAME.violation(f"{_quoted(text)} has characters that no DNS name has") from None
    labels = mapped.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise rules.ADDRESS_IP.violation(f"{_quoted(text)} names an IPv4 address")
    if mapped.endswith("."):
        raise rules.ADDRESS_NAME.violation(f"{_quoted(text)} ends its host with a dot")
    if labels[-1] in SPECIAL_USE:
        raise rules.ADDRESS_PUBLIC.violation(f"{_quoted(text)} uses the special-use name {labels[-1]!r}")
    if len(labels) == 1:
        raise rules.ADDRESS_PUBLIC.violation(f"{_quoted(text)} has a host of one label")
    try:
        name = idna.encode(mapped, uts46=True, std3_rules=True).decode("ascii")
        idna.decode(name)
    except (idna.IDNAError, UnicodeError):
        raise rules.ADDRESS_NAME.violation(f"{_quoted(text)} has a host that is not a valid DNS name") from None
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise rules.ADDRESS_NAME.violation(f"{_quoted(text)} has a host that is not a valid DNS name")
    return name
