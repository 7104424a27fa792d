"""What the policies found, for people, for CI servers (JUnit), and for code scanning (SARIF 2.1.0, OASIS)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pulumi_keystore import rules
from pulumi_keystore.policy.policies import Finding
from pulumi_keystore.rules import Severity

_MOST_RESULTS: Final = 5000
"""What GitHub shows of one run (GH1004); the gravest come first."""


def to_json(findings: Sequence[Finding], file: str) -> str:
    """Return findings as a JSON array: `id`, `level`, `resource`, `message`, `remedy`, and where it is written.

    That is `file`, `line` and `column`, each null where it is not known; the file that was read is called `file`.
    """
    rows = [
        {
            "id": finding.rule.id,
            "level": finding.rule.severity,
            "resource": finding.resource,
            "message": finding.message,
            "remedy": finding.remedy,
            "file": finding.at.file or file if finding.at else None,
            "line": finding.at.line if finding.at else None,
            "column": finding.at.column if finding.at else None,
        }
        for finding in findings
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def to_junit(findings: Sequence[Finding], resources: Sequence[str]) -> str:
    """Return findings as JUnit XML: a test case for each resource, failed by what is an error."""
    suite = Element("testsuite", name="keystore check")
    failed = 0
    for resource in resources:
        case = SubElement(suite, "testcase", classname="keystore check", name=resource)
        mine = [finding for finding in findings if finding.resource == resource]
        errors = [finding for finding in mine if finding.rule.severity is Severity.ERROR]
        if errors:
            failed += 1
            first = errors[0]
            failure = SubElement(case, "failure", type=first.rule.id, message=_printable(first.message))
            failure.text = _printable("\n".join(map(_line, errors)))
        others = [finding for finding in mine if finding.rule.severity is not Severity.ERROR]
        if others:
            SubElement(case, "system-out").text = _printable("\n".join(map(_line, others)))
    suite.set("tests", str(len(resources)))
    suite.set("failures", str(failed))
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def to_sarif(findings: Sequence[Finding], file: Path | None, project: Path = Path()) -> str:
    """Return findings as a SARIF log, as code scanning wants it: each points into the file and names its resource.

    Args:
        findings: What was found.
        file: The path of the file, which is shown from the working directory, as a repository has it; None for standard
            input.
        project: The folder of the program, from the same directory: the engine names its files from there.

    """
    used = sorted({finding.rule for finding in findings}, key=lambda rule: rule.id)
    driver = {
        "name": "keystore check",
        "version": version("pulumi-keystore"),
        "informationUri": rules.PAGES,
        "rules": [
            {
                "id": rule.id,
                "name": rule.name,
                "shortDescription": {"text": f"Expected: {rule.expects}."},
                "fullDescription": {"text": f"Declarations of keystores are expected to have {rule.expects}."},
                "help": {"text": f"{rule.remedy}\n\nSee {rules.page(rule.id)}."},
                "helpUri": rules.page(rule.id),
                "defaultConfiguration": {"level": rule.severity},
            }
            for rule in used
        ],
    }
    results: list[dict[str, Any]] = [
        {
            "ruleId": finding.rule.id,
            "level": finding.rule.severity,
            "message": {"text": f"{finding.resource}: {finding.message}; {finding.remedy}"},
            # What makes it the same finding in the next run, wherever it is written then.
            "partialFingerprints": {"declaration/v1": _digest(finding)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(finding, file, project)},
                        "region": _region(finding),
                    },
                    "logicalLocations": [{"name": finding.resource}],
                }
            ],
        }
        for finding in findings[:_MOST_RESULTS]
    ]
    missing = left_out(findings)
    notifications = [{"level": "warning", "message": {"text": missing}}] if missing else []
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notifications}],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def left_out(findings: Sequence[Finding]) -> str | None:
    """Return that a SARIF log does not hold all findings; None where it does."""
    if len(findings) <= _MOST_RESULTS:
        return None
    return (
        f"the log holds {_MOST_RESULTS:,} of {len(findings):,} findings, the gravest first, because code scanning "
        "shows no more; --format json has all of them"
    )


def _uri(finding: Finding, file: Path | None, project: Path) -> str:
    # Standard input has no place in a repository; its program has.
    found = project / finding.at.file if finding.at and finding.at.file else file or project / "Pulumi.yaml"
    return quote(Path(os.path.relpath(found)).as_posix())


def _region(finding: Finding) -> dict[str, int]:
    if finding.at is None:
        return {"startLine": 1}  # a whole file begins there
    column = {"startColumn": finding.at.column} if finding.at.column else {}
    return {"startLine": finding.at.line, **column}


def _digest(finding: Finding) -> str:
    return sha256(f"{finding.rule.id}\n{finding.resource}\n{finding.message}".encode()).hexdigest()[:32]


def _line(finding: Finding) -> str:
    return f"{finding.rule.severity} {finding.rule.id}: {finding.message}; {finding.remedy}"


def _printable(text: str) -> str:
    """Return text without what XML 1.0 cannot hold."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )
