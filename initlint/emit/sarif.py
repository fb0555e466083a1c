"""SARIF 2.1.0, the part that GitHub code scanning and editors read, within GitHub's limits.

``security-severity`` is left out on purpose: it would put findings on security dashboards.
"""

from __future__ import annotations

import inspect
import json
from typing import Any
from urllib.parse import quote

from initlint.emit.common import Options, clean, relative, unique_fingerprints
from initlint.facts import NotAnalysed
from initlint.findings import Finding, Fix, Related, Run, Severity

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: GitHub takes this many results of a run (docs.github.com, "results exceed limits").
MOST_RESULTS = 25_000
#: GitHub shows this many locations of a result.
MOST_LOCATIONS = 100

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}


def render(run: Run, options: Options) -> str:
    """The log, compact: GitHub's limit is 10 MB zipped."""
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(run, options)]}
    return json.dumps(log, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"


def _run(run: Run, options: Options) -> dict[str, Any]:
    # worst first, so that a cut loses the least
    findings = sorted(run.findings, key=lambda finding: -finding.severity)[:MOST_RESULTS]
    prints = unique_fingerprints(findings)
    rules = _rules(findings, options)
    index = {rule["id"]: position for position, rule in enumerate(rules)}
    results = [_result(f, key, index) for f, key in zip(findings, prints, strict=True)]
    driver = {"name": "initlint", "version": run.version or "0", "rules": rules}
    return {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": "initlint/"},
        "invocations": [_invocation(run)],
        "results": results,
    }


def _rules(findings: list[Finding], options: Options) -> list[dict[str, Any]]:
    """One descriptor for each code that occurs, richer where the rule object is at hand."""
    objects = {getattr(rule, "code", None): rule for rule in options.rules}
    found: dict[str, dict[str, Any]] = {}
    for finding in findings:
        if finding.code not in found:
            found[finding.code] = _descriptor(finding, objects.get(finding.code))
    return [found[code] for code in sorted(found)]


def _descriptor(finding: Finding, rule: object | None) -> dict[str, Any]:
    doc = inspect.getdoc(rule) if rule is not None else None
    sources = [str(source) for source in getattr(rule, "sources", finding.sources)]
    title = doc.partition("\n")[0] if doc else finding.name.replace("-", " ")
    text = doc or finding.why or finding.name.replace("-", " ")
    listed = "".join(f"\n- {source}" for source in sources)
    severity = getattr(rule, "severity", finding.severity)
    descriptor: dict[str, Any] = {
        "id": finding.code,
        "name": "".join(word.capitalize() for word in finding.name.split("-")),
        "shortDescription": {"text": clean(title)},
        "fullDescription": {"text": text[:1024]},
        "help": {"text": f"{text}\n\nSources:{listed}" if listed else text, "markdown": f"{text}\n{listed}"},
        "defaultConfiguration": {"level": _LEVELS[severity]},
        "properties": {"tags": ["initialisation", str(getattr(rule, "family", finding.topic))], "precision": "high"},
    }
    address = next((source for source in sources if source.startswith("https://")), None)
    if address:
        descriptor["helpUri"] = address.split()[0]
    return descriptor


def _result(finding: Finding, key: str, index: dict[str, int]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": index[finding.code],
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "locations": [_location(finding)],
        "partialFingerprints": {"primaryLocationLineHash": key, "initlint/v1": key},
    }
    if finding.related:
        related = finding.related[:MOST_LOCATIONS]
        result["relatedLocations"] = [_related(i, place) for i, place in enumerate(related, 1)]
    if finding.fix is not None and finding.fix.edits:
        result["fixes"] = [_fix(finding.fix)]
    return result


def _message(finding: Finding) -> str:
    parts = [finding.message.rstrip(".")]
    if finding.effect:
        parts.append(_sentence(finding.effect.rstrip(".")))
    if finding.fix is not None:
        parts.append(_sentence(finding.fix.title))
    return clean(". ".join(parts))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _location(finding: Finding) -> dict[str, Any]:
    site = finding.site
    location: dict[str, Any] = {}
    if site is not None and site.file:
        region: dict[str, Any] = {"startLine": site.line}
        if site.column is not None:
            region["startColumn"] = site.column
        if site.end_line is not None and site.end_line > site.line:
            region["endLine"] = site.end_line
        location["physicalLocation"] = {"artifactLocation": _artifact(site.file), "region": region}
    elif finding.model.partition("::")[0].endswith(".py"):
        # GitHub drops results without a place: the model's file is at least true
        file = finding.model.partition("::")[0]
        location["physicalLocation"] = {"artifactLocation": _artifact(file), "region": {"startLine": 1}}
    names = (finding.parameters or finding.layers)[:MOST_LOCATIONS]
    if names:
        location["logicalLocations"] = [
            {"fullyQualifiedName": clean(f"{finding.model}::{name}"), "kind": "member"} for name in names
        ]
    return location


def _artifact(file: str) -> dict[str, str]:
    return {"uri": quote(relative(file).encode("utf-8", "replace"), safe="/~@:+,=()")}


def _related(number: int, place: Related) -> dict[str, Any]:
    return {
        "id": number,
        "message": {"text": clean(place.role)},
        "physicalLocation": {"artifactLocation": _artifact(place.file), "region": {"startLine": place.line}},
    }


def _fix(fix: Fix) -> dict[str, Any]:
    changes: dict[str, list[dict[str, Any]]] = {}
    for edit in fix.edits:
        # the lines from start up to the beginning of the one after end
        region = {"startLine": edit.start, "startColumn": 1, "endLine": edit.end + 1, "endColumn": 1}
        text = edit.text if edit.text.endswith("\n") or not edit.text else f"{edit.text}\n"
        replacement = {"deletedRegion": region, "insertedContent": {"text": text.encode("utf-8", "replace").decode()}}
        changes.setdefault(edit.file, []).append(replacement)
    return {
        "description": {"text": clean(_sentence(fix.title))},
        "artifactChanges": [
            {"artifactLocation": _artifact(file), "replacements": found} for file, found in changes.items()
        ],
    }


def _invocation(run: Run) -> dict[str, Any]:
    shown = [entry for entry in run.not_analysed if not entry.harmless]
    notifications = [_notification(entry) for entry in shown]
    for report in run.models:
        for entry in report.undetermined:
            text = clean(f"{report.facts.target}: {entry.code} undetermined: {entry.reason}")
            notifications.append({"level": "note", "message": {"text": text}})
    invocation: dict[str, Any] = {"executionSuccessful": not any(entry.named for entry in shown)}
    if notifications:
        invocation["toolExecutionNotifications"] = notifications
    return invocation


def _notification(entry: NotAnalysed) -> dict[str, Any]:
    text = f"{entry.target}: not analysed: {entry.reason}" + (f" ({entry.hint})" if entry.hint else "")
    found: dict[str, Any] = {"level": "error" if entry.named else "warning", "message": {"text": clean(text)}}
    if entry.file:
        place: dict[str, Any] = {"artifactLocation": _artifact(entry.file)}
        if entry.line is not None:
            place["region"] = {"startLine": entry.line}
        found["locations"] = [{"physicalLocation": place}]
    return found
