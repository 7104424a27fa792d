"""The service and its command: tokens, roles, bad input, errors without secrets."""

import json
import secrets
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from keystore_harness import CertificateAuthority, free_port, wait_until

from pulumi_keystore.client import Client
from pulumi_keystore.errors import (
    InvalidInput,
    KeystoreError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RuleViolation,
    ServiceUnavailable,
)


@pytest.fixture
def raw(testbed, admin_token):
    """A bare HTTP client with the administrator's token."""
    with httpx.Client(
        base_url=testbed.service.url, headers={"Authorization": f"Bearer {admin_token}"}, timeout=60
    ) as client:
        yield client


@pytest.mark.parametrize("token", [None, "", "x", "ks_", "ks_0123456789abcdef_x", "ks_../../x_y", "ks_' or 1=1 --_x"])
def test_no_or_a_wrong_token_is_refused(testbed, token):
    with Client(testbed.service.url, token) as client, pytest.raises(NotAuthenticated):
        client.request("GET", "organizations")


def test_a_revoked_or_expired_token_is_refused(testbed, admin):
    made = admin.request("POST", "tokens", body={"name": "short", "role": "viewer", "days": 1})
    with Client(testbed.service.url, made["token"]) as client:
        assert client.request("GET", "whoami")["role"] == "viewer"
        admin.request("DELETE", "tokens", made["id"])
        with pytest.raises(NotAuthenticated):
            client.request("GET", "whoami")
    listed = admin.request("GET", "tokens")
    assert made["token"].split("_", 2)[2] not in json.dumps(listed)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("viewer", {"read"}),
        ("authority", {"read", "escrow"}),
        ("customer-cloud-admin", {"read", "change"}),
        ("provider-admin", {"read", "change", "administer"}),
    ],
)
def test_each_role_may_do_its_own(customer, testbed, role, allowed):
    acme = customer(keys=1)
    organization = ("organizations", acme.name)
    requests = {
        "read": ("GET", (*organization, "status"), None),
        "escrow": ("POST", (*organization, "archive-keys"), {"keys": {"new": b64encode(bytes(32)).decode()}}),
        "change": ("POST", (*organization, "migrations"), {"destination": "first", "notify_email": None}),
        "administer": ("GET", ("tokens",), None),
    }
    with Client(testbed.service.url, testbed.service.make_token("someone", role)) as client:
        for right, (method, path, body) in requests.items():
            if right in allowed:
                client.request(method, *path, body=body)
            else:
                with pytest.raises(NotAllowed, match=f"the role {role} may not"):
                    client.request(method, *path, body=body)


def test_only_who_administers_the_service_makes_and_removes_organizations(admin, testbed, customer):
    """Else an administrator of customers could make a cloud organization of a federal one."""
    name = f"fed-{secrets.token_hex(4)}"
    admin.put_organization(name, "federal")
    acme = customer(keystores=())
    for organization in (None, acme.name):
        with Client(testbed.service.url, testbed.service.make_token("it", "customer-cloud-admin", organization)) as one:
            assert one.put_organization(acme.name)["name"] == acme.name  # as `pulumi up` does
            with pytest.raises(NotAllowed):
                one.delete_organization(acme.name)
            with pytest.raises((NotAllowed, NotFound)):
                one.put_organization("new")
            with pytest.raises((NotAllowed, NotFound)):
                one.delete_organization(name)
    admin.delete_organization(name)
    told = [(row["action"], row["detail"]) for row in admin.request("GET", "history")]
    assert ("Organization created", f"{name}, federal") in told
    assert ("Organization deleted", f"{name}, federal") in told


def test_tokens_are_in_the_history_of_the_service(admin, testbed):
    made = admin.request("POST", "tokens", body={"name": "short-lived", "role": "viewer"})
    admin.request("DELETE", "tokens", made["id"])
    admin.request("DELETE", "tokens", made["id"])
    told = [row for row in admin.request("GET", "history") if made["id"] in (row["detail"] or "")]
    assert [(row["actor"], row["action"]) for row in told] == [("ops", "Token created"), ("ops", "Token revoked")]
    assert made["token"] not in json.dumps(told)
    shown = testbed.service.run("history", token=testbed.service.make_token("ops", "provider-admin")).stdout
    assert "short-lived: viewer" in shown
    with Client(testbed.service.url, testbed.service.make_token("one", "viewer")) as client, pytest.raises(NotAllowed):
        client.request("GET", "history")


@pytest.mark.parametrize("name", ["system", "System", " system ", "ｓｙｓｔｅｍ"])
def test_nobody_is_called_as_the_service_calls_itself(admin, name):
    with pytest.raises(InvalidInput, match="the service itself"):
        admin.request("POST", "tokens", body={"name": name, "role": "viewer"})


def test_an_archive_key_leaves_only_encrypted_to_the_caller(customer, raw, testbed):
    acme = customer(keys=1)
    user, key = next(iter(acme.keys.items()))
    authority = testbed.service.make_token("authority", "authority")
    answer = raw.post(
        f"/v1/organizations/{acme.name}/archive-keys/release",
        json={"user": user, "public_key": b64encode(bytes(31) + b"\x09").decode()},
        headers={"Authorization": f"Bearer {authority}"},
    )
    assert answer.status_code == 200
    assert key not in answer.content
    assert b64encode(key) not in answer.content
    # Too short, and one of those of low order, with which everybody knows the shared secret.
    for public_key in ("", "x", b64encode(bytes(31)).decode(), b64encode(bytes(32)).decode()):
        with pytest.raises(InvalidInput, match="public_key"):
            acme.escrow_client.request(
                "POST", "organizations", acme.name, "archive-keys", "release",
                body={"user": user, "public_key": public_key},
            )  # fmt: skip
    with pytest.raises(NotFound):
        acme.escrow_client.request(
            "POST", "organizations", acme.name, "archive-keys", "release",
            body={"user": "nobody", "public_key": b64encode(bytes(31) + b"\x09").decode()},
        )  # fmt: skip


def test_a_hundred_parallel_enrolments_of_one_user_leave_one_key(customer, testbed):
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    acme = customer()
    token = testbed.service.make_token("authority", "authority")

    def enrol(number: int) -> bytes | None:
        key = number.to_bytes(32, "big")
        with Client(testbed.service.url, token) as client:
            try:
                body = {"keys": {"same": b64encode(key).decode()}}
                client.request("POST", "organizations", acme.name, "archive-keys", body=body)
            except KeystoreError:
                return None
        return key

    with ThreadPoolExecutor(20) as pool:
        won = [key for key in pool.map(enrol, range(1, 101)) if key]
    assert len(won) == 1
    acme.keys = {"same": won[0]}
    acme.assert_complete("first")


def test_a_key_of_the_wrong_length_enrols_nobody(customer):
    acme = customer()
    for bad in ("", "x", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode(), "CANARY" * 8):
        keys = {"good": b64encode(bytes(32)).decode(), "bad": bad}
        with pytest.raises(RuleViolation) as caught:
            acme.escrow_client.request("POST", "organizations", acme.name, "archive-keys", body={"keys": keys})
        assert caught.value.rule == "KS036"
        assert "CANARY" not in str(caught.value)
    assert acme.stored("first") == {}
    assert acme.admin.organization(acme.name)["archive_keys"] == 0


def test_a_failed_enrolment_enrols_nobody_and_can_be_repeated(customer, testbed):
    acme = customer(keys=2)
    with testbed.vaults["a"].sealed_for_a_while(), pytest.raises(KeystoreError, match="sealed"):
        acme.enrol(3)
    acme.assert_complete("first")
    acme.enrol(3)
    acme.assert_complete("first")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/organizations/Bad_Name", {}),
        ("PUT", "/v1/organizations/" + "x" * 64, {}),
        ("PUT", "/v1/organizations/fine", {"environment": "moon"}),
        ("PUT", "/v1/organizations/fine", {"surprise": "CANARY"}),
        ("PUT", "/v1/organizations/fine/keystores/first", {"kind": 7}),
        ("PUT", "/v1/organizations/fine/keystores/first", {}),
        ("PUT", "/v1/organizations/fine/keystores/first", {"kind": "provider", "certificate": {"CANARY": 1}}),
        ("POST", "/v1/organizations/fine/archive-keys", {"keys": "CANARY"}),
        ("POST", "/v1/tokens", {"name": "x", "role": "god"}),
        # Who is notified is said, and not left out by accident; null and "none" say no one.
        ("POST", "/v1/organizations/nobody/migrations", {"destination": "x"}),
        ("POST", "/v1/tokens", {"name": "x\ny", "role": "viewer"}),
        ("POST", "/v1/tokens", {"name": "x", "role": "viewer", "days": -1}),
        ("POST", "/v1/organizations/fine/migrations", ["CANARY"]),
    ],
)
def test_malformed_input_gets_a_problem_document_that_repeats_no_secret(raw, method, path, body):
    answer = raw.request(method, path, json=body)
    assert answer.status_code in {403, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert "\n" not in answer.json()["detail"]
    assert "CANARY" not in answer.text


def test_what_is_no_json_or_too_large_is_refused(raw):
    path = "/v1/organizations/fine/keystores/first"
    assert raw.put(path, content=b"\xff\xfe{").status_code == 422
    assert raw.put(path, content=b"x" * (9 << 20)).status_code == 413
    assert raw.put(path, content=(b"x" * 65536 for _ in range(200))).status_code in {413, 422}
    assert raw.get("/v1/nothing").json()["type"] == "urn:pulumi-keystore:error:not-found"
    for path in ("organizations/%00", "organizations/acme/keystores/%00", "organizations/%0a/migrations/%00"):
        assert raw.get(f"/v1/{path}").status_code == 404
    assert raw.delete("/v1/tokens/%00").status_code == 404


def test_the_openapi_document_is_published_and_is_the_one_in_docs(raw):
    published = raw.get("/v1/openapi.json").json()
    documented = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
    assert published == documented, "run `make docs`"


def test_mail_waits_for_a_server_that_refuses_it_and_arrives_once(customer, testbed):
    acme = customer(keys=1)
    address = f"late@{acme.name}.example.com"
    testbed.mailbox.refuse_with = "421 try later"
    try:
        acme.migrate("second", address)
        wait_until(lambda: "mail not accepted" in testbed.service.log.read_text(), "a refused mail")
        testbed.service.restart()
    finally:
        testbed.mailbox.refuse_with = None
    wait_until(lambda: [m["To"] for m in testbed.mailbox.messages].count(address) >= 2, "the mails")
    subjects = [m["Subject"] for m in testbed.mailbox.messages if m["To"] == address]
    assert sorted(subjects) == ["Keystore Migration Starts", "Keystore Migration Succeeds"]


# The command.


def keystore(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command; a service that starts takes a free port: another test has the usual one."""
    command = [str(Path(sys.executable).parent / "keystore"), *arguments]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KEYSTORE_PORT": "0", **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_status_tells_online_from_offline_by_its_exit_status(customer, testbed, admin_token):
    acme = customer(keys=2)
    online = testbed.service.run("status", acme.name, token=admin_token)
    assert "Online" in online.stdout
    with testbed.vaults["a"].sealed_for_a_while():
        offline = testbed.service.run("status", acme.name, token=admin_token, check=False)
        assert offline.returncode == 2
        assert "Offline / Host unavailable" in offline.stdout
        assert "sealed" in offline.stdout
    with testbed.admit("a", acme.tenancy("first")).role_removed():
        shown = testbed.service.run("status", acme.name, "--format", "json", token=admin_token, check=False)
    assert json.loads(shown.stdout)["connection"]["reason"] == "Unable to authenticate"


def test_the_command_lists_and_shows(customer, testbed, admin_token):
    acme = customer(keys=2)
    run = testbed.service.run
    assert acme.name in run("organization", "list", token=admin_token).stdout
    assert "self-administered" in run("list", acme.name, token=admin_token).stdout
    assert "vault-a.example.com" in run("show", acme.name, "first", token=admin_token).stdout
    started = run("migration", "start", acme.name, "second", "--notify", "none", token=admin_token)
    assert started.stdout == "Migration succeeded\n"
    assert "2 of 2 keys" in started.stderr
    assert (
        "nothing to move"
        in run("migration", "start", acme.name, "second", "--notify", "none", token=admin_token).stderr
    )
    assert json.loads(run("migration", "list", acme.name, "--format", "json", token=admin_token).stdout)[0]["done"] == 2
    assert "Migration succeeded" in run("history", acme.name, token=admin_token).stdout
    assert run("migration", "watch", acme.name, token=admin_token).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("status", "acme"), {"KEYSTORE_URL": "http://127.0.0.1:9"}, "does not answer"),
        (("status", "acme"), {"KEYSTORE_URL": "http://keystore.example.com"}, "would send the token in clear"),
        (("status", "acme"), {"KEYSTORE_URL": "nonsense"}, "invalid service URL 'nonsense'"),
        (("serve",), {"KEYSTORE_DATABASE_URL": "mysql://u:CANARY@h/d"}, "not a PostgreSQL URL"),
        (("serve",), {"KEYSTORE_DATABASE_URL": "postgresql://u:CANARY@127.0.0.1:9/d"}, "cannot be reached"),
        (("serve", "--database-url", "postgresql://u:CANARY@h/d"), {}, "--database-url holds a password"),
        (("worker", "--database-url", "postgresql://h/d?password=CANARY"), {}, "--database-url holds a password"),
        (("serve", "--smtp-url", "smtp://u:CANARY@h:25"), {}, "--smtp-url holds a password"),
        (("serve", "--port", "0", "--data", "/tmp/" + "x" * 100), {}, "too long a path for a database socket"),
        (("serve", "--tls-certificate", "x.pem"), {}, "one of tls_certificate and tls_key is missing"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_status_1(arguments, environment, message, tmp_path):
    done = keystore(*arguments, **{"KEYSTORE_DATA": str(tmp_path), **environment})
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "CANARY" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(customer, testbed):
    acme = customer(keystores=("first",))
    run = testbed.service.run
    well = run("doctor", "--organization", acme.name)
    assert f"ok       keystore {acme.name}/first: Online" in well.stdout
    assert "ok       service: one is running on this database" in well.stdout
    assert "wrong" not in well.stdout
    with testbed.servers["a"].sealed_for_a_while():
        ill = run("doctor", "--organization", acme.name, "--format", "json", check=False)
    assert ill.returncode == 1
    wrong = [finding for finding in json.loads(ill.stdout) if finding["verdict"] == "wrong"]
    assert [finding["subject"] for finding in wrong] == [f"keystore {acme.name}/first"]
    assert "sealed" in wrong[0]["detail"]
    assert f"keystore status {acme.name}" in wrong[0]["hint"]
    badly = keystore("doctor", KEYSTORE_SMTP_URL="smtp://u:CANARY@h:port")
    assert (badly.returncode, "CANARY" in badly.stdout + badly.stderr) == (1, False)
    assert badly.stdout.startswith("wrong    settings: smtp_url")


def test_a_port_that_there_is_not_is_wrong_usage():
    done = keystore("serve", "--port", "70000")
    assert done.returncode == 64
    assert "Invalid value for '--port'" in done.stderr


def test_help_teaches_each_command():
    for command in ((), ("serve",), ("status",), ("migration", "start"), ("token", "create"), ("history",)):
        done = keystore(*command, "--help")
        assert done.returncode == 0
        assert len(done.stdout) > 200


def test_the_embedded_database_is_closed_to_other_users(testbed):
    home = testbed.service.data / "postgres"
    assert home.stat().st_mode & 0o077 == 0
    assert any(path.is_socket() for path in home.iterdir())
    assert '"-h" ""' in (home / "postmaster.opts").read_text()


def test_the_wrong_master_key_and_a_taken_port_are_refused(testbed, tmp_path):
    (tmp_path / "other.key").write_text(b64encode(bytes(32)).decode())
    (tmp_path / "other.key").chmod(0o600)
    url = testbed.service.database_url
    done = keystore("serve", KEYSTORE_DATABASE_URL=url, KEYSTORE_MASTER_KEY_FILE=str(tmp_path / "other.key"))
    assert done.returncode == 1
    assert "does not open with this master key" in done.stderr
    (tmp_path / "other.key").write_text("too short")
    done = keystore("serve", KEYSTORE_DATABASE_URL=url, KEYSTORE_MASTER_KEY_FILE=str(tmp_path / "other.key"))
    assert "does not hold base64 of 32 bytes" in done.stderr


def test_a_master_key_file_that_is_missing_is_not_made_anew_beside_a_database_that_has_one(testbed, tmp_path):
    file = tmp_path / "gone" / "master.key"
    done = keystore("serve", KEYSTORE_DATABASE_URL=testbed.service.database_url, KEYSTORE_MASTER_KEY_FILE=str(file))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"error: the master key file {file} is missing"
    assert not file.parent.exists()


@pytest.mark.parametrize("where", [("--port", "taken"), ("--host", "no-such-host.invalid")])
def test_where_it_cannot_listen_the_service_says_so_in_one_line(testbed, tmp_path, where):
    option, value = where
    done = keystore(
        "serve", option, str(testbed.service.port) if value == "taken" else value, KEYSTORE_DATA=str(tmp_path)
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot listen on")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_service_listens_on_loopback_alone_and_speaks_tls_when_told(tmp_path):
    authority, port = CertificateAuthority(), free_port()
    issued = authority.issue_server("localhost", "127.0.0.1")
    for name, text in (("tls.pem", issued.certificate_pem), ("tls.key", issued.key_pem), ("ca.pem", authority.pem)):
        (tmp_path / name).write_text(text)
    command = [
        str(Path(sys.executable).parent / "keystore"), "serve", "--port", str(port), "--data", str(tmp_path / "data"),
        "--tls-certificate", str(tmp_path / "tls.pem"), "--tls-key", str(tmp_path / "tls.key"),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            wait_until(lambda: "is ready on https://127.0.0.1" in process.stderr.readline(), "the service")
            trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            for probe in ("healthz", "readyz"):
                answer = httpx.get(f"https://127.0.0.1:{port}/{probe}", verify=trust, timeout=60)
                assert (answer.status_code, answer.json()["status"]) == (200, "ok")
            trusting = Client(f"https://127.0.0.1:{port}", "x", str(tmp_path / "ca.pem"))
            with trusting as client, pytest.raises(NotAuthenticated):
                client.request("GET", "whoami")
            with Client(f"https://127.0.0.1:{port}", "x") as client, pytest.raises(ServiceUnavailable):
                client.request("GET", "whoami")
            hosts = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
            for host in hosts - {"127.0.0.1", "127.0.1.1"}:
                with socket.socket() as probe:
                    assert probe.connect_ex((host, port)) != 0
            process.terminate()
            assert process.wait(60) == 0
            assert "abnormally" not in process.stderr.read()
            assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists(), "the database is still running"
        finally:
            process.kill()


def test_a_connection_that_nobody_uses_is_kept_for_longer_than_clients_keep_it(testbed):
    """Otherwise a request can meet the end of its connection, and a write would have come to nobody knows what."""
    connection = HTTPConnection("127.0.0.1", testbed.service.port, timeout=60)
    with closing(connection):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (200, "ok")
        connection.sock.settimeout(httpx.Limits().keepalive_expiry + 2)
        # The next that could come is the end of the connection.
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)
