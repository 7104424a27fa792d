"""The alert rules and the dashboard in docs/prometheus: for Prometheus itself, and about metrics that there are."""

import json
import re
import shutil
import subprocess
from copy import deepcopy
from importlib.util import find_spec

import httpx
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from pulumi_keystore.control_plane.metrics import METRICS
from pulumi_keystore.declarations.problems import Problem
from tests import debian
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "prometheus"
RULES = FOLDER / "alerts.yaml"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
EXPRESSIONS = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def promtool():
    """Return what runs Prometheus's own check."""
    debian.require("promtool", "prometheus")

    def run(*arguments, **options):
        command = ["promtool", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)

    return run


def test_the_rules_are_rules(promtool):
    done = promtool("check", "rules", RULES)
    assert (done.returncode, "SUCCESS: 10 rules found" in done.stdout) == (0, True), done.stdout + done.stderr


def test_prometheus_reads_each_expression_of_the_dashboard(promtool, tmp_path):
    queries = [re.sub(r"\$\w+", "5m", target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = [{"record": f"panel:{number}:query", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "panels.yaml")
    assert (done.returncode, f"SUCCESS: {len(queries)} rules found" in done.stdout) == (0, True), (
        done.stdout + done.stderr
    )


def test_the_configuration_in_the_docs_is_one(promtool, tmp_path):
    (configuration,) = re.findall(
        r"```yaml\n(rule_files:.*?)```", (ROOT / "docs" / "metrics.md").read_text(), re.DOTALL
    )
    (tmp_path / "prometheus.yml").write_text(configuration)
    shutil.copy(RULES, tmp_path)
    done = promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load(configuration)["scrape_configs"][0]["job_name"] in RULES.read_text()


def test_each_alert_fires_when_it_should_and_not_before(promtool, tmp_path):
    shutil.copy(RULES, tmp_path)
    shutil.copy(ROOT / "tests" / "packaging" / "alert_rules_test.yaml", tmp_path)
    done = promtool("test", "rules", "alert_rules_test.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_about_metrics_labels_and_problems_that_there_are(expression):
    names = set(re.findall(r"\bkeystore_\w+", expression)) | set(re.findall(r"\bup\b", expression))
    assert names <= {*METRICS, "up"}
    assert set(re.findall(r'problem="([^"]+)"', expression)) <= set(Problem)


def test_the_panels_have_places_of_their_own_and_one_source():
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len({place[:2] for place in places}) == len(places)
    assert all(x + width <= 24 for x, _, width, _ in places)
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}


def missing(sent, kept, place="dashboard"):
    """Yield the places in JSON of which another one does not have the same."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for name, value in sent.items():
            yield from missing(value, kept.get(name), f"{place}.{name}")
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for number, pair in enumerate(zip(sent, kept, strict=True)):
            yield from missing(*pair, f"{place}[{number}]")
    elif sent != kept:
        yield place


def read_by_grafana(dashboard):
    """Return a dashboard as Grafana's own types hold it: what they do not know is gone."""
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafana_knows_each_panel_and_field_of_the_dashboard():
    register_default_plugins()
    assert list(missing(DASHBOARD, read_by_grafana(DASHBOARD))) == []
    for kind in {panel["type"] for panel in DASHBOARD["panels"]}:
        assert find_spec(f"grafana_foundation_sdk.models.{kind}"), kind
    wrong = deepcopy(DASHBOARD)
    wrong["panels"][0]["options"]["colorMod"] = wrong["panels"][1]["targets"][0]["legend"] = "x"
    assert list(missing(wrong, read_by_grafana(wrong))) == [
        "dashboard.panels[0].options.colorMod", "dashboard.panels[1].targets[0].legend",
    ]  # fmt: skip


def test_what_the_service_exposes_is_what_prometheus_reads(promtool, testbed, admin_token):
    headers = {"Authorization": f"Bearer {admin_token}"}
    text = httpx.get(f"{testbed.service.url}/metrics?per=organization", headers=headers, timeout=60).text
    done = promtool("check", "metrics", input=text)
    # 0 for nothing, 3 for matters of style: a gauge called "..._total", say.
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
