"""What went wrong on the way to a server, from what libcurl knows of it.

Sources: libcurl's pages "libcurl-errors", `CURLINFO_SSL_VERIFYRESULT`, `CURLINFO_OS_ERRNO`; OpenSSL's x509_vfy.h.
"""

from __future__ import annotations

import errno
from typing import Any, Final

import pycurl

from pulumi_keystore.causes import Cause
from pulumi_keystore.errors import HostUnavailable
from pulumi_keystore.vault.requests import Endpoint

LATE: Final = "no whole answer within the deadline"
SEE_LOAD: Final = "check the server's load, its storage, and the network between"
_SEE_LOG: Final = "look into the server's log, and at what lies between"
_SEE_BETWEEN: Final = "check whether the server keeps restarting, and the load balancer or firewall in front of it"
_SEE_ADDRESS: Final = "check that the address is that of a Vault server"
_SEE_SERVER: Final = "check that the server runs, and that its firewall lets the service in"
_NAME: Final = (0, 1, 62, 64)
"""X509_V_OK, X509_V_ERR_UNSPECIFIED (libcurl 8 compares names by itself), and OpenSSL's own of names and addresses."""
_EXPIRED: Final = 10
"""X509_V_ERR_CERT_HAS_EXPIRED"""
_NOT_YET: Final = 9
"""X509_V_ERR_CERT_NOT_YET_VALID"""
_BROKEN: Final = ("the connection breaks", _SEE_BETWEEN, Cause.BROKEN_CONNECTION)
_BREAKS: Final = (errno.ECONNRESET, errno.EPIPE)
_ENDS: Final = "unexpected eof"
"""What OpenSSL says where the other side closes the connection in the middle of the handshake."""
_NOT_HTTP: Final = ("the answer is not HTTP", _SEE_ADDRESS, Cause.NOT_VAULT)
_FAULTS: Final = {
    pycurl.E_COULDNT_CONNECT: ("the connection is refused or times out", _SEE_SERVER, Cause.REFUSED),
    pycurl.E_OPERATION_TIMEDOUT: (LATE, SEE_LOAD, Cause.TIMED_OUT),
    pycurl.E_SSL_CONNECT_ERROR: (
        "the TLS handshake fails", "check the listener's TLS settings on the server", Cause.TLS
    ),
    pycurl.E_SSL_CERTPROBLEM: (
        "the client certificate cannot be used", "edit the keystore and give another one", Cause.LOGIN_REFUSED
    ),
    pycurl.E_SEND_ERROR: _BROKEN,
    pycurl.E_RECV_ERROR: _BROKEN,
    pycurl.E_GOT_NOTHING: ("the connection is closed without an answer", _SEE_BETWEEN, Cause.BROKEN_CONNECTION),
    pycurl.E_PARTIAL_FILE: ("the answer ends early", _SEE_BETWEEN, Cause.BROKEN_CONNECTION),
    pycurl.E_WRITE_ERROR: ("the answer is too large, or comes in too small pieces", _SEE_LOG, Cause.NOT_VAULT),
    8: _NOT_HTTP,  # CURLE_WEIRD_SERVER_REPLY
    pycurl.E_UNSUPPORTED_PROTOCOL: _NOT_HTTP,
}  # fmt: skip


def fault_of(handle: Any, code: int, endpoint: Endpoint) -> HostUnavailable:
    """Return the fault of a request that failed; nothing of what a server sent is in it."""
    what, hint, cause = _FAULTS.get(code, (f"curl error {code}", _SEE_LOG, Cause.FAILING))
    if handle.getinfo(pycurl.OS_ERRNO) in _BREAKS or (code == pycurl.E_SSL_CONNECT_ERROR and _ENDS in handle.errstr()):
        # Also while it is being opened, or in the middle of the handshake.
        what, hint, cause = _BROKEN
    elif code == pycurl.E_PEER_FAILED_VERIFICATION:
        what, hint, cause = _untrusted(handle.getinfo(pycurl.SSL_VERIFYRESULT))
    elif code == pycurl.E_COULDNT_CONNECT and handle.getinfo(pycurl.OS_ERRNO) == errno.ECONNREFUSED:
        what = "the connection is refused"
    elif code in (pycurl.E_COULDNT_CONNECT, pycurl.E_OPERATION_TIMEDOUT) and not handle.getinfo(pycurl.CONNECT_TIME):
        what, hint, cause = "no connection within the deadline", _SEE_SERVER, Cause.TIMED_OUT
    return HostUnavailable(f"{endpoint.address}: {what}", hint=hint, cause=cause)


def _untrusted(verified: int) -> tuple[str, str, Cause]:
    """Return what is wrong with a server's certificate, by what OpenSSL has found."""
    if verified in _NAME:
        return (
            "the server's TLS certificate is for another name",
            "issue one for the host in the URL, or edit the keystore's URL",
            Cause.WRONG_NAME,
        )
    if verified == _EXPIRED:
        return "the server's TLS certificate has expired", "renew it", Cause.EXPIRED
    if verified == _NOT_YET:
        return (
            "the server's TLS certificate is not valid yet",
            "set the clocks of the server and of this machine right, or issue one that is valid now",
            Cause.TLS,
        )
    return (
        "the server's TLS certificate is of an unknown CA",
        "edit the keystore's server CA where the CA has changed",
        Cause.UNKNOWN_CA,
    )
