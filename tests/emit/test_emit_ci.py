"""The formats that CI systems read: SARIF, GitHub, GitLab, JUnit; each against that system's limits."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from emit_sample import MEMORY, XAVIER, sample, sources

from initlint.emit import Options, emit, render
from initlint.emit.github import command
from initlint.findings import Finding, Run, Severity

# The part of the OASIS schema (sarif-schema-2.1.0.json) that the emitter uses; unknown keys are refused, so that
# a misspelt property is found.
_TEXT = {"type": "string"}
_MESSAGE: dict[str, Any] = {"type": "object", "required": ["text"], "additionalProperties": False}
_MESSAGE["properties"] = {"text": {"type": "string", "minLength": 1}, "markdown": _TEXT}
_POSITIVE = {"type": "integer", "minimum": 1}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_ARTIFACT = closed(("uri",), uri={"type": "string", "pattern": r"^[^\s\\]+$"})
_REGION = closed(startLine=_POSITIVE, startColumn=_POSITIVE, endLine=_POSITIVE, endColumn=_POSITIVE)
_PHYSICAL = closed(("artifactLocation",), artifactLocation=_ARTIFACT, region=_REGION)
_LOGICAL = closed(fullyQualifiedName=_TEXT, kind=_TEXT)
_LOCATION = closed(
    id={"type": "integer"},
    message=_MESSAGE,
    physicalLocation=_PHYSICAL,
    logicalLocations={"type": "array", "items": _LOGICAL},
)
_LOCATIONS = {"type": "array", "items": _LOCATION, "maxItems": 100}
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_REPLACEMENT = closed(("deletedRegion",), deletedRegion=_REGION, insertedContent=closed(text=_TEXT))
_CHANGE = closed(
    ("artifactLocation", "replacements"),
    artifactLocation=_ARTIFACT,
    replacements={"type": "array", "items": _REPLACEMENT, "minItems": 1},
)
_CHANGES = {"type": "array", "items": _CHANGE, "minItems": 1}
_FIX = closed(("artifactChanges",), description=_MESSAGE, artifactChanges=_CHANGES)
_RESULT = closed(
    ("ruleId", "message", "locations", "partialFingerprints"),
    ruleId=_TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=_LEVEL,
    message=_MESSAGE,
    locations={**_LOCATIONS, "minItems": 1, "maxItems": 1},
    relatedLocations=_LOCATIONS,
    partialFingerprints={"type": "object", "additionalProperties": _TEXT, "required": ["primaryLocationLineHash"]},
    fixes={"type": "array", "items": _FIX},
)
_RULE = closed(
    ("id", "shortDescription"),
    id=_TEXT,
    name={"type": "string", "pattern": r"^[A-Z]\w*$"},
    shortDescription=_MESSAGE,
    fullDescription=_MESSAGE,
    help=_MESSAGE,
    helpUri={"type": "string", "pattern": "^https://"},
    defaultConfiguration=closed(level=_LEVEL),
    properties={"type": "object", "properties": {"tags": {"type": "array", "maxItems": 20}}},
)
_NOTIFICATION = closed(("message",), level=_LEVEL, message=_MESSAGE, locations=_LOCATIONS)
_INVOCATION = closed(
    ("executionSuccessful",),
    executionSuccessful={"type": "boolean"},
    toolExecutionNotifications={"type": "array", "items": _NOTIFICATION},
)
_DRIVER = closed(("name",), name=_TEXT, version=_TEXT, rules={"type": "array", "items": _RULE})
_RUN = closed(
    ("tool", "results"),
    tool=closed(("driver",), driver=_DRIVER),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    automationDetails=closed(id=_TEXT),
    invocations={"type": "array", "items": _INVOCATION},
    results={"type": "array", "items": _RESULT, "maxItems": 25_000},
)
SARIF = closed(
    ("version", "runs"), **{"$schema": _TEXT}, version={"const": "2.1.0"}, runs={"type": "array", "items": _RUN}
)


def many(count: int, severity: Severity = Severity.WARNING) -> Run:
    """Findings that differ in message only: one fingerprint for all."""
    found = tuple(dataclasses.replace(XAVIER, message=f"finding {i}", severity=severity) for i in range(count))
    return dataclasses.replace(sample(), findings=found, not_analysed=())


def load(format: str, run: Run, **options: Any) -> Any:
    return json.loads(render(format, run, Options(sources=sources, **options)))


def test_sarif_fulfils_the_schema() -> None:
    jsonschema.Draft202012Validator(SARIF).validate(load("sarif", sample()))
    jsonschema.Draft202012Validator(SARIF).validate(load("sarif", Run()))


def test_sarif_rules_are_indexed_and_described_once() -> None:
    run = load("sarif", sample())["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["IL001", "IL105", "IL321", "IL902"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])


def test_sarif_takes_descriptions_from_rule_objects() -> None:
    class Rule:
        """Scheme meant for another activation.

        ## What it does
        Compares the scheme with the activation.
        """

        code = "IL105"
        family = "variance"
        severity = Severity.ERROR
        sources = ("https://arxiv.org/abs/1502.01852",)

    rules = load("sarif", sample(), rules=(Rule(),))["runs"][0]["tool"]["driver"]["rules"]
    rule = next(rule for rule in rules if rule["id"] == "IL105")
    assert rule["shortDescription"]["text"] == "Scheme meant for another activation."
    assert "## What it does" in rule["help"]["markdown"]
    assert rule["helpUri"] == "https://arxiv.org/abs/1502.01852"
    assert rule["defaultConfiguration"]["level"] == "error"


def test_sarif_tells_what_was_not_analysed() -> None:
    invocation = load("sarif", sample())["runs"][0]["invocations"][0]
    assert invocation["executionSuccessful"] is False
    texts = [entry["message"]["text"] for entry in invocation["toolExecutionNotifications"]]
    assert any("models/vit.py::ViT: not analysed" in text for text in texts)
    assert not any("Block" in text for text in texts)  # a mere part of an analysed model


def test_sarif_has_no_security_severity() -> None:
    assert "security-severity" not in render("sarif", sample(), Options(sources=sources))


def test_sarif_puts_the_worst_first_and_fingerprints_are_unique() -> None:
    run = many(30)
    worst = dataclasses.replace(MEMORY, message="worst")
    results = load("sarif", dataclasses.replace(run, findings=(*run.findings, worst)))["runs"][0]["results"]
    assert results[0]["message"]["text"].startswith("worst")
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]
    assert len(set(prints)) == 31


def test_a_sarif_fix_replaces_whole_lines() -> None:
    results = load("sarif", sample())["runs"][0]["results"]
    change = next(r for r in results if "fixes" in r)["fixes"][0]["artifactChanges"][0]["replacements"][0]
    assert change["deletedRegion"] == {"startLine": 15, "startColumn": 1, "endLine": 16, "endColumn": 1}
    assert change["insertedContent"]["text"].endswith("\n")


@pytest.mark.parametrize(
    ("severity", "level"), [(Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.NOTE, "notice")]
)
def test_github_gets_at_most_ten_of_each_level_and_says_so(severity: Severity, level: str) -> None:
    lines = render("github", many(25, severity), Options()).splitlines()
    annotations = [line for line in lines if line.startswith(f"::{level} ")]
    assert len(annotations) == 10
    assert annotations[-1].endswith("(+15 more, see the summary of this step)")
    assert "more" not in annotations[-2].split("::")[-1]


def test_github_escapes_data_and_properties_differently() -> None:
    assert command("error", {"file": "a,b:c%.py", "line": 3}, "50% : a,b\nnext") == (
        "::error file=a%2Cb%3Ac%25.py,line=3::50%25 : a,b%0Anext"
    )


def test_github_appends_the_summary_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    emit("github", sample(), io.StringIO(), sources=sources)
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## ")
    assert "**IL105**" in text


def test_an_unwritable_step_summary_does_not_fail_the_check(tmp_path: Path) -> None:
    import io

    out = io.StringIO()
    emit("github", sample(), out, sources=sources, summary=str(tmp_path / "none" / "summary.md"))
    assert "::error" in out.getvalue()


def test_gitlab_issues_have_all_that_gitlab_needs() -> None:
    issues = load("gitlab", many(3))
    assert len({issue["fingerprint"] for issue in issues}) == 3
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert issue["location"]["lines"]["begin"] >= 1
        assert not issue["location"]["path"].startswith("/")


def test_a_finding_without_a_place_points_at_its_model() -> None:
    loose: Finding = dataclasses.replace(XAVIER, site=None)
    run = dataclasses.replace(sample(), findings=(loose,))
    assert load("gitlab", run)[0]["location"]["path"] == "models/mlp.py"
    location = load("sarif", run)["runs"][0]["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "models/mlp.py"


def junit(run: Run) -> ET.Element:
    return ET.fromstring(render("junit", run, Options(sources=sources)))


def test_junit_counts_what_it_holds() -> None:
    root = junit(sample())
    for element in (root, *root):
        assert int(element.get("tests", "")) == len(list(element.iter("testcase")))
        assert int(element.get("failures", "")) == len(list(element.iter("failure")))
        assert int(element.get("skipped", "")) == len(list(element.iter("skipped")))
    assert (root.get("failures"), root.get("errors")) == ("3", "1")


@pytest.mark.parametrize(
    ("fail_on", "failures"), [(Severity.ERROR, 2), (Severity.WARNING, 3), (Severity.NOTE, 4), (None, 0)]
)
def test_junit_fails_from_the_given_severity_on(fail_on: Severity | None, failures: int) -> None:
    root = junit(dataclasses.replace(sample(), fail_on=fail_on))
    assert len(list(root.iter("failure"))) == failures


def test_junit_has_a_case_for_each_sound_layer() -> None:
    suite = junit(sample())[2]
    assert [case.get("name") for case in suite][:2] == ["layer stage0.0.conv", "layer stage0.1.conv"]
    assert len(suite) == 12
