"""Every example on the page for QA runs, and the page names every verb, fixture, option and scenario."""

import contextlib
import re
from pathlib import Path

import pytest
from keystore_harness import cluster as cluster_module
from keystore_harness import line, network, plugin, scenarios, tenant
from keystore_harness import server as server_module

from tests.harness.test_plugin import PAGE

TEXT = PAGE.read_text()


def examples(kind: str) -> list[str]:
    blocks = re.findall(rf"```python {kind}\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    return blocks


def test_every_example_of_a_server_runs(server):
    names = {"server": server, "organization": server.admit("documented")}
    for block in examples("verbs"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert server.active
    assert [fault.what for fault in server.timeline.faults if fault.end is None] == []


@pytest.mark.timeout(600)
def test_every_example_of_a_cluster_runs(cluster):
    for block in examples("cluster"):
        exec(compile(block, str(PAGE), "exec"), {"cluster": cluster})
    cluster.wait_until_whole()


def verbs(cls: type) -> set[str]:
    """The public methods that are context managers."""
    return {
        name
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and callable(value)
        and (hasattr(value, "__wrapped__") or "AbstractContextManager" in str(value.__annotations__.get("return")))
    }


@pytest.mark.parametrize(
    "cls",
    [server_module.VaultServer, cluster_module.VaultCluster, network.Proxy, tenant.Tenant, line.Line],
)
def test_the_page_names_every_verb(cls):
    inside = {"showing", "partial"}
    assert {name for name in verbs(cls) - inside if f"{name}(" not in TEXT} == set()
    assert len(verbs(cls)) > 1


def test_the_page_names_every_fixture_and_option():
    fixtures = re.findall(r"@pytest.fixture.*\ndef (\w+)", Path(plugin.__file__).read_text())
    assert {name for name in fixtures if f"`{name}`" not in TEXT} == {"keystore_run"}
    options = re.findall(r'"(--keystore-[a-z]+)"', Path(plugin.__file__).read_text())
    assert {name for name in options if name not in TEXT} == set()


def test_scenarios_are_named_as_the_page_says():
    for name in re.findall(r"keystore-harness run ([a-z-]+)", TEXT):
        assert name == "all" or name in scenarios.SCENARIOS
    with contextlib.suppress(KeyError):
        assert scenarios.SCENARIOS["outage"].fault
