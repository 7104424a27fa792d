"""The page of metrics, alert rules and dashboard: from the code, and from the files in docs/prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import yaml

from pulumi_keystore.control_plane.metrics import METRICS

FOLDER: Final = Path(__file__).resolve().parent / "prometheus"
HEAD: Final = """\
# Metrics and dashboard

`/metrics` of the service is for Prometheus; alert rules and a Grafana dashboard for it are in this folder:
[alerts.yaml](prometheus/alerts.yaml), [dashboard.json](prometheus/dashboard.json).

## Prometheus

`/metrics` needs a token, like the rest of the API. A viewer is enough:

```console
keystore token create prometheus --role viewer
```

Write it to a file that Prometheus can read, put `alerts.yaml` next to `prometheus.yml`, and add

```yaml
rule_files:
  - alerts.yaml
scrape_configs:
  - job_name: keystore
    authorization:
      credentials_file: /etc/prometheus/keystore-token
    params:
      per: [organization]  # leave it out for thousands of organizations
    static_configs:
      - targets: ["keystore.example.com:8700"]
```

The job has to be called `keystore`: one of the rules names it. If the service itself serves HTTPS, add `scheme: https`.

Without `per`, the metrics show the service as a whole, with how many organizations have which problem, so they stay small however many
there are. `per: [organization]` adds the metrics of each organization; `organization: [acme]`, or a token for one organization, shows only
that organization.

## Alert rules

They need no metrics of single organizations. Tests load them into Prometheus's own checker and try when each one fires.

"""
DASHBOARD: Final = """\

## Dashboard

In Grafana, choose **Dashboards > New > Import**, upload `dashboard.json`, and choose your Prometheus as **Data source** at the top of the
dashboard. Where Grafana is set up by files, put `dashboard.json` into a folder and name the folder in
`/etc/grafana/provisioning/dashboards/keystore.yaml`:

```yaml
apiVersion: 1
providers:
  - name: keystore
    type: file
    options:
      path: /var/lib/grafana/dashboards/keystore
```

The panels, from top to bottom; the last ones are empty without `per: [organization]`:

"""


def page() -> str:
    """Return the page."""
    return f"{HEAD}{_alerts()}{DASHBOARD}{_panels()}\n## Metrics\n\n{_metrics()}"


def _alerts() -> str:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return _table(
        ("alert", "severity", "fires when this is true", "for"),
        (
            (f"`{rule['alert']}`", rule["labels"]["severity"], f"`{rule['expr']}`", rule.get("for", ""))
            for group in groups
            for rule in group["rules"]
        ),
    )


def _panels() -> str:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return _table(
        ("panel", "as", "shows"),
        (
            (
                panel["title"],
                {"stat": "number", "timeseries": "graph"}[panel["type"]],
                ", ".join(f"`{target['expr']}`" for target in panel["targets"]),
            )
            for panel in sorted(panels, key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
        ),
    )


def _metrics() -> str:
    return _table(
        ("metric", "labels", "meaning"),
        ((f"`{name}`", ", ".join(f"`{label}`" for label in labels), text) for name, (text, labels) in METRICS.items()),
    )


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table; what is in the cells holds no `|`."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
