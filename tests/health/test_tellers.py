"""Who else is told: webhooks, Prometheus, the command; and what a cluster's servers are like, one by one."""

import json
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
from keystore_harness import Testbed, VaultCluster, free_port, wait_until
from keystore_harness.impostor import SecureServer

from pulumi_keystore.client import Client
from pulumi_keystore.control_plane.metrics import METRICS
from pulumi_keystore.errors import Conflict, NotAllowed, NotFound, RuleViolation, TooManyRequests
from tests.conftest import SETTINGS
from tests.health.conftest import MINUTE_S


class Hooks:
    """A real HTTPS server that keeps what it is sent; its name is hooks.example.com."""

    def __init__(self, authority):
        self.calls, self.statuses = [], []
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hooks.calls.append(
                    (self.path, self.headers["Host"], self.headers["X-Keystore-Event"], json.loads(body))
                )
                self.send_response(hooks.statuses.pop(0) if hooks.statuses else 204)
                self.send_header("Location", "https://elsewhere.example.com/")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.port = free_port()
        self.server = SecureServer(("127.0.0.1", self.port), Handler, authority.issue_server("hooks.example.com"))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def hooked(tmp_path_factory):
    """A service of its own that knows where hooks.example.com is."""
    testbed = Testbed("a", {**SETTINGS, "health_check_interval_s": str(MINUTE_S), "health_check_s": "4"})
    hooks = Hooks(testbed.ca)
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_text(testbed.ca.pem)
    settings = testbed.service.settings
    hosts = json.loads(settings["host_map"]) | {"hooks.example.com:443": f"127.0.0.1:{hooks.port}"}
    settings |= {"host_map": json.dumps(hosts), "webhook_ca": str(ca)}
    with testbed, Client(testbed.service.url, testbed.service.make_token("ops", "provider-admin")) as admin:
        admin.put_organization("acme")
        testbed.admit("a", "acme")
        admin.put_keystore("acme", "first", testbed.declaration("a", "acme", "pw"))
        yield testbed, admin, hooks
    hooks.server.shutdown()
    hooks.server.server_close()


def test_a_webhook_is_called_until_it_answers_and_follows_no_redirect(hooked):
    testbed, admin, hooks = hooked
    admin.put_monitor("acme", "first", {"webhook": "https://hooks.example.com/in/CANARY?x=y"})
    wait_until(lambda: admin.health("acme", "first")["status"] == "Online", "it to be online")
    hooks.statuses += [500, 302]
    with testbed.servers["a"].sealed_for_a_while():
        wait_until(lambda: len(hooks.calls) == 3, "the webhook to be called three times")
    wait_until(lambda: len(hooks.calls) == 4, "the second event")
    time.sleep(2)
    assert len(hooks.calls) == 4
    path, host, event, body = hooks.calls[0]
    assert (path, host, body["id"]) == ("/in/CANARY?x=y", "hooks.example.com", event)
    assert (body["event"], body["organization"], body["detail"]) == (
        "keystore.offline", "acme", "sealed: unseal the server: it needs 3 of 5 unseal shares",
    )  # fmt: skip
    assert [call[2] for call in hooks.calls[:3]] == [event] * 3
    assert hooks.calls[3][3]["event"] == "keystore.online"
    assert "CANARY" not in testbed.service.log.read_text()
    shown = admin.monitor("acme", "first")
    assert shown["webhook_host"] == "hooks.example.com"
    assert "CANARY" not in json.dumps(shown)
    admin.delete_monitor("acme", "first")


def test_a_test_is_sent_to_everyone_who_would_be_alerted(hooked):
    testbed, admin, hooks = hooked
    url = "https://hooks.example.com/enqueue?routing_key=CANARY"
    admin.put_monitor("acme", "first", {"recipients": ["a@example.com"], "webhook": url, "webhook_format": "pagerduty"})
    hooks.calls.clear()
    token = testbed.service.make_token("tester", "provider-admin")
    answered = testbed.service.run("monitor", "test", "acme", "first", token=token).stdout.splitlines()
    assert [line.split("  ", 1)[0] for line in answered[1:]] == ["a@example.com", "webhook at hooks.example.com"]
    assert all(line.endswith(" accepted") for line in answered[1:])
    assert [(call[0], call[3]["event_action"]) for call in hooks.calls] == [
        ("/enqueue", "trigger"), ("/enqueue", "resolve"),
    ]  # fmt: skip
    with pytest.raises(TooManyRequests):
        admin.test_monitor("acme", "first")
    assert admin.monitor("acme", "first")["webhook_format"] == "pagerduty"
    admin.delete_monitor("acme", "first")
    with pytest.raises(NotFound):
        admin.test_monitor("acme", "first")


def test_monitors_are_refused_where_they_make_no_sense(customer):
    acme = customer(keystores=("first",))
    for body, rule in (
        ({}, "KS039"),
        ({"recipients": ["x"]}, "KS033"),
        ({"recipients": ["a@example.com"], "offline_minutes": 0}, "KS040"),
        ({"webhook": "https://169.254.169.254/latest"}, "KS041"),
        ({"webhook": "https://hooks.example.com/x", "webhook_format": "pagerduty"}, "KS046"),
    ):
        with pytest.raises(RuleViolation) as raised:
            acme.admin.put_monitor(acme.name, "first", body)
        assert raised.value.rule == rule
    with pytest.raises(NotFound):
        acme.admin.monitor(acme.name, "first")
    with pytest.raises(NotFound):
        acme.admin.delete_monitor(acme.name, "first")
    acme.register("second", kind="provider")
    for ask in (
        lambda: acme.admin.put_monitor(acme.name, "second", {"recipients": ["a@example.com"]}),
        lambda: acme.admin.health(acme.name, "second"),
    ):
        with pytest.raises(Conflict, match="only self-administered"):
            ask()
    viewer = acme.testbed.service.make_token("viewer", "viewer")
    with Client(acme.testbed.service.url, viewer) as client, pytest.raises(NotAllowed):
        client.put_monitor(acme.name, "first", {"recipients": ["a@example.com"]})


def test_the_metrics_are_those_that_are_documented(watch, testbed, admin_token):
    acme = watch(keys=3)
    with httpx.Client(base_url=testbed.service.url, timeout=60) as bare:
        assert bare.get("/metrics").status_code == 401
        bare.headers["Authorization"] = f"Bearer {admin_token}"
        bare.params = {"per": "organization"}
        text = bare.get("/metrics").text
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
        assert names == set(METRICS)
        label = f'{{keystore="first",organization="{acme.customer.name}"}}'
        assert f"keystore_online{label} 1.0" in text
        assert f'keystore_archive_keys{{organization="{acme.customer.name}"}} 3.0' in text
        with testbed.servers["a"].sealed_for_a_while():
            acme.await_status("Offline", "Host unavailable")
            assert f"keystore_online{label} 0.0" in bare.get("/metrics").text
        own = testbed.service.make_token("team", "viewer", acme.customer.name)
        seen = bare.get("/metrics", headers={"Authorization": f"Bearer {own}"}).text
        names = set(re.findall('organization="([^"]+)"', seen))
        assert names == {acme.customer.name}


def test_the_command_tells_the_same(watch, testbed, admin_token, tmp_path):
    acme = watch()
    name, run = acme.customer.name, lambda *words, **more: testbed.service.run(*words, token=admin_token, **more)
    shown = wait_until(
        lambda: (said := run("status", name, check=False).stdout) and "Online since" in said and said, "it to be online"
    )
    assert "each minute" in shown
    bars = run("reliability", name)
    assert "█" in bars.stdout
    assert "not tested" in bars.stdout
    assert json.loads(run("reliability", name, "first", "--format", "json").stdout)["reliability"]["ratio"] == 1.0
    with testbed.servers["a"].sealed_for_a_while():
        acme.await_status("Offline", "Host unavailable")
        down = run("status", name, check=False)
        assert down.returncode == 2
        assert "sealed" in down.stdout
        assert "▁" in run("reliability", name).stdout
        asked = json.loads(run("status", name, "--format", "json", check=False).stdout)
        assert (asked["health"]["status"], asked["health"]["reason"]) == ("Offline", "Host unavailable")
    assert run("status", "nobody", check=False).returncode == 1
    rows = run("history", name, "--format", "csv").stdout.splitlines()
    assert rows[0] == "Date & Time,User,Action,Action Details"
    assert any("Health monitor set" in row for row in rows)
    other = acme.customer
    run("monitor", "set", name, "first", "--recipient", "c@example.com", "--offline-minutes", "7")
    assert other.admin.monitor(name, "first")["offline_minutes"] == 7
    assert "c@example.com" in run("monitor", "show", name, "first").stdout
    refused = run("monitor", "set", name, "first", "--recipient", "c", check=False)
    assert (refused.returncode, "KS033" in refused.stderr) == (1, True)
    (tmp_path / "webhook").write_text("https://hooks.example.com/CANARY\n")
    told = run("monitor", "set", name, "first", "--webhook-file", str(tmp_path / "webhook")).stdout
    assert "hooks.example.com" in told
    assert "CANARY" not in told
    run("monitor", "remove", name, "first")
    run("monitor", "set", name, "first", "--recipient", acme.recipients[0])


def test_status_is_watched_until_somebody_stops(watch, testbed, admin_token):
    acme = watch()
    environment = {**testbed.service.environment, "KEYSTORE_URL": testbed.service.url, "KEYSTORE_TOKEN": admin_token}
    command = [*testbed.service.command, "status", acme.customer.name, "--watch", "--every", "0.2"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert "Online" in process.stdout.readline()
        with testbed.servers["a"].sealed_for_a_while():
            assert "sealed" in process.stdout.readline()
        process.terminate()


def test_a_sealed_standby_behind_a_healthy_leader_is_a_warning(toxiproxy):
    """The name leads to all three servers, each on a loopback address of its own."""
    testbed = Testbed("", {**SETTINGS, "health_check_interval_s": str(MINUTE_S), "health_check_s": "4"})
    with VaultCluster("vault-k.example.com", testbed.ca) as cluster:
        ports = [node.port for node in cluster.nodes]
        port = free_port()
        proxies = [
            toxiproxy.proxy(f"node-{n}", target, host=f"127.0.0.{n + 2}", port=port) for n, target in enumerate(ports)
        ]
        ips = ",".join(proxy.host for proxy in proxies)
        testbed.service.settings["host_map"] = json.dumps({f"vault-k.example.com:{port}": f"{ips}:{port}"})
        with testbed, Client(testbed.service.url, testbed.service.make_token("ops", "provider-admin")) as admin:
            admin.put_organization("acme")
            cluster.admit("acme")
            testbed.vaults["k"] = cluster
            declared = testbed.declaration("k", "acme", "pw", address=f"https://vault-k.example.com:{port}")
            admin.put_keystore("acme", "first", declared)

            def well():
                shown = admin.health("acme", "first")
                return shown["status"] == "Online" and not shown["warning"]

            def warning():
                shown = admin.health("acme", "first")
                return shown["warning"] if shown["status"] == "Online" else None

            wait_until(well, "all three to be well")
            standby = cluster.standbys[0]
            standby.kill()
            standby.start()
            try:
                sealed = wait_until(lambda: "sealed" in (warning() or "") and warning(), "the warning")
                assert "1 of 3 servers behind this name cannot be used" in sealed
                assert "sealed: unseal the server" in sealed
            except TimeoutError:
                raise AssertionError((standby.sealed, admin.health("acme", "first"))) from None
            finally:
                standby.submit_shares()
            wait_until(well, "all three to be well again")
        for proxy in proxies:
            proxy.close()
