"""What the policies found, as CI servers and code scanning read it."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pulumi_keystore.policy import report
from pulumi_keystore.policy.declared import Declared
from pulumi_keystore.policy.policies import check
from tests.unit.policy.test_policies import FILE, file, keystore, run, state

__all__ = ["file"]


def is_accepted_by_code_scanning(log):
    """The rules of Microsoft's SARIF validator that GitHub names (GH1001 to GH1006), spelled out."""
    assert "originalUriBaseIds" not in log["runs"][0]
    for each in log["runs"]:
        # GH1004: arrays that are cut off beyond these sizes; GH1006: one checkout.
        assert len(each["results"]) <= 5000
        assert len(each["tool"]["driver"]["rules"]) <= 1000
        for rule in each["tool"]["driver"]["rules"]:
            assert rule["id"]
            assert rule["shortDescription"]["text"]
            assert rule["fullDescription"]["text"]
            assert rule["help"]["text"]
        for result in each["results"]:
            assert result["message"]["text"]
            assert result["partialFingerprints"]
            # GH1002: there are no thread flows, so none is outside of a result.
            assert "codeFlows" not in result
            # GH1001 and GH1003: exactly one place, with a line; GH1005: seen from the repository, not a URL.
            (location,) = result["locations"]
            place = location["physicalLocation"]
            assert place["region"]["startLine"] >= 1
            assert not place["artifactLocation"]["uri"].startswith(("/", "file:", "http"))


def test_the_sarif_log_is_one_that_code_scanning_accepts(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    file.write_text(FILE.replace("https://first.example.com:8200", "https://10.0.0.1:1"))
    for named in (file.name, str(file)):
        log = json.loads(run(named, "--format", "sarif").stdout)
        is_accepted_by_code_scanning(log)
        assert log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == file.name
        assert log["runs"][0]["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]
    again = json.loads(run(file.name, "--format", "sarif").stdout)
    assert again == log


def test_the_sarif_log_keeps_the_gravest_of_more_than_code_scanning_shows():
    silent = [Declared("migration", f"m{n}", {"organization": f"o{n}", "destination": "a"}) for n in range(5000)]
    wrong = Declared("organization", "zz", {"name": "Zz"})
    log = json.loads(report.to_sarif(check([*silent, wrong]), Path("declared.yaml")))
    is_accepted_by_code_scanning(log)
    [run] = log["runs"]
    assert len(run["results"]) == 5000
    assert [result["ruleId"] for result in run["results"][:2]] == ["KS031", "KS105"]
    [invocation] = run["invocations"]
    [notified] = invocation["toolExecutionNotifications"]
    assert "5,000 of 5,001 findings" in notified["message"]["text"]


@pytest.mark.parametrize(("project", "uri"), [(".", "__main__.py"), ("infra/keys", "infra/keys/__main__.py")])
def test_a_place_in_a_program_is_one_in_the_repository(tmp_path, monkeypatch, project, uri):
    monkeypatch.chdir(tmp_path)
    place = {"sourcePosition": "project:///__main__.py#12"}
    one = {**state("keystore", "pulumi-python:dynamic/keystore:Keystore", address="https://10.0.0.1:1"), **place}
    content = json.dumps({"deployment": {"resources": [one]}})
    Path("export.json").write_text(content)
    for named, given in (("export.json", None), ("-", content)):
        log = json.loads(run(named, "--format", "sarif", "--project", project, text=given).stdout)
        found = [result["locations"][0]["physicalLocation"] for result in log["runs"][0]["results"]]
        assert {"artifactLocation": {"uri": uri}, "region": {"startLine": 12}} in found
        assert not any("standard" in each["artifactLocation"]["uri"] for each in found)


def test_reports_hold_any_text():
    declared = [keystore("<a>\x00&\"'\u202e", address="https://10.0.0.1:1")]
    findings = check(declared)
    names = [f"{one.kind} {one.name}" for one in declared]
    ET.fromstring(report.to_junit(findings, names).replace("\x00", ""))
