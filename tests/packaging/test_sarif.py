"""`keystore check --format sarif` keeps the schema of SARIF 2.1.0, which Microsoft publishes in its matchers for Jest."""

import json
import os
import subprocess
import tarfile

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from pulumi_keystore import cli
from pulumi_keystore.policy import report
from tests import debian

PACKAGE, SCHEMA = "@microsoft/jest-sarif@1.0.0-beta.0", "package/lib/schemas/sarif-2.1.0-rtm.5.json"
# A bracket too many in a pattern of the schema, which no language would match.
MISTAKE, MENDED = "[a-zA-Z]{2}]?$", "[a-zA-Z]{2}$"
DECLARED = """\
organizations: [{name: Acme_Inc}]
keystores:
  - {organization: acme, name: ours, kind: self-administered, address: "https://10.0.0.1:8200/v1", certificate: no.p12}
  - {organization: acme, name: theirs, kind: other, unknown: 5}
monitors: [{organization: acme, keystore: ours, recipients: 5, webhook: "http://x"}]
"""


@pytest.fixture
def schema(tmp_path):
    debian.require("npm", "npm")
    if subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=tmp_path, check=False).returncode:
        # What code scanning wants beyond the schema is spelled out in tests/unit/policy, which needs nothing.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the npm registry, which has the schema, is not reached")
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        text = packed.extractfile(SCHEMA).read().decode()
    return json.loads(text.replace(MISTAKE, MENDED))


def test_the_log_keeps_the_schema(schema, tmp_path, monkeypatch):
    (tmp_path / "declared.yaml").write_text(DECLARED)
    validator = jsonschema_rs.validator_for(schema)

    def checked():
        told = CliRunner().invoke(cli.app, ["check", str(tmp_path / "declared.yaml"), "--format", "sarif"])
        log = json.loads(told.stdout)
        assert [error.message for error in validator.iter_errors(log)] == []
        return log, told.stderr

    log, said = checked()
    assert len(log["runs"][0]["results"]) > 5
    assert said == ""
    # A log that does not hold everything says so, in itself and beside it.
    monkeypatch.setattr(report, "_MOST_RESULTS", 5)
    log, said = checked()
    [notified] = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert (len(log["runs"][0]["results"]), said) == (5, notified["message"]["text"] + "\n")
    log["runs"][0]["results"][0]["ruleIndex"] = "first"
    assert not validator.is_valid(log)
