"""Why a keystore cannot be used, and what to do about it: told by the console, the command and the documentation."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """Why a keystore cannot be used."""

    DNS = "dns"
    PRIVATE_ADDRESS = "private-address"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    BROKEN_CONNECTION = "broken-connection"
    WRONG_NAME = "wrong-name"
    EXPIRED = "expired"
    UNKNOWN_CA = "unknown-ca"
    TLS = "tls"
    SEALED = "sealed"
    UNINITIALIZED = "uninitialized"
    NO_ACTIVE_NODE = "no-active-node"
    OVERLOADED = "overloaded"
    NOT_VAULT = "not-vault"
    ANOTHER_CLUSTER = "another-cluster"
    FAILING = "failing"
    CLIENT_EXPIRED = "client-expired"
    NAME_REFUSED = "name-refused"
    LOGIN_REFUSED = "login-refused"
    LOGIN_DISABLED = "login-disabled"
    POLICY = "policy"
    MOUNT = "mount"


STEPS: Final[dict[Cause, tuple[str, ...]]] = {
    Cause.DNS: (
        "Look the name up from outside your network, for example with `dig`, and correct its DNS record.",
        "If the server has another name now, edit the keystore and give its new URL.",
    ),
    Cause.PRIVATE_ADDRESS: (
        "The name has to lead to public addresses only: correct its DNS record.",
        "Check that no internal view of your DNS answers queries from outside.",
    ),
    Cause.REFUSED: (
        "See on the server whether Vault runs (`systemctl status vault`), and start it.",
        "Check that it listens on the port in the URL, and that the firewall lets the service in.",
    ),
    Cause.TIMED_OUT: (
        "Check the firewall and the load balancer in front of the server: connections get no answer.",
        "See on the server whether it is overloaded, or its storage is slow or full.",
    ),
    Cause.BROKEN_CONNECTION: (
        "The server, or something in front of it, closes connections before it answers: check whether Vault restarts.",
        "Check the load balancer or proxy: it has to forward to a running server and allow enough connections.",
        "Check that no firewall on the way resets or inspects TLS connections.",
    ),
    Cause.WRONG_NAME: (
        "Issue a server certificate that names the host in the URL (subjectAltName), and reload the listener.",
        "If the URL should use another name, edit the keystore and give the new URL.",
    ),
    Cause.EXPIRED: (
        "Renew the server's TLS certificate, and reload the listener (SIGHUP).",
        "Set up its automatic renewal.",
    ),
    Cause.UNKNOWN_CA: (
        "If the server's CA has changed on purpose, edit the keystore and give the new server CA.",
        "Otherwise find out why the server shows another certificate: something may be answering in its place.",
        "Check that the server sends its intermediate certificates.",
    ),
    Cause.TLS: (
        "Check the TLS settings of the listener: it has to allow TLS 1.2 or 1.3.",
        "See the server's log for the handshake that failed.",
    ),
    Cause.SEALED: (
        "Have enough share holders run `bao operator unseal` on the server; the detail says how many are needed.",
        "With an auto-unseal, check that the server reaches its key management service, and restart it.",
        "Find out why it was sealed: a restart, its storage, or a person.",
    ),
    Cause.UNINITIALIZED: (
        "The server is empty. If it should hold your keys, stop it, and bring back its storage or a snapshot.",
        "Do not reinitialize it until you know where the keys are.",
    ),
    Cause.NO_ACTIVE_NODE: (
        "The cluster has no active node: start further nodes and unseal them until a majority runs.",
        "See with `bao operator raft list-peers` which nodes are missing.",
    ),
    Cause.OVERLOADED: ("The server works and asks for fewer requests. See its rate-limit quotas and its load.",),
    Cause.NOT_VAULT: (
        "Something other than Vault answers at this address: check the URL, its port, and the proxy in front.",
        "A page of a proxy or a load balancer often means that the server behind it is down.",
    ),
    Cause.ANOTHER_CLUSTER: (
        "Point the DNS name back to the cluster that holds the keys.",
        "If the server was rebuilt on purpose, an administrator accepts it with `keystore accept-cluster`.",
    ),
    Cause.FAILING: (
        "The server answers with an error of its own: its log says which.",
        "Check its storage: a full disk is a frequent reason.",
    ),
    Cause.CLIENT_EXPIRED: ("Issue a new client certificate, edit the keystore and upload it.",),
    Cause.NAME_REFUSED: (
        "Compare the names that the role allows (`bao read auth/cert/certs/ROLE`) with those of the certificate.",
        "If the client certificate was revoked, issue a new one, edit the keystore and upload it.",
    ),
    Cause.LOGIN_REFUSED: (
        "See on the server whether the certificate role exists (`bao read auth/cert/certs/ROLE`).",
        "See whether its CA is the one that the client certificate was issued by.",
    ),
    Cause.LOGIN_DISABLED: ("Enable the certificate login on the server (`bao auth enable cert`) and set up the role.",),
    Cause.POLICY: (
        "The login works, and the role's policy does not allow what is needed: compare it with the documentation.",
        "See who has changed the policy: the server's audit log names it.",
    ),
    Cause.MOUNT: (
        "The login works, and the KV mount is missing or not fit for archive keys: the detail above says how.",
        "If the mount was disabled by mistake, bring its contents back from a snapshot.",
    ),
}
"""What to do, step by step: the first is what helps most often."""
