"""GitLab's Code Quality report: a JSON array of issues (docs.gitlab.com, "Code Quality report format")."""

from __future__ import annotations

import json
from typing import Any

from initlint.emit.common import Options, clean, relative, unique_fingerprints
from initlint.findings import Finding, Run, Severity

_LEVELS = {Severity.ERROR: "critical", Severity.WARNING: "major", Severity.NOTE: "info"}


def render(run: Run, options: Options) -> str:
    """The issues. GitLab shows one issue for each fingerprint, so these are unique."""
    prints = unique_fingerprints(run.findings)
    issues = [_issue(finding, key) for finding, key in zip(run.findings, prints, strict=True)]
    return json.dumps(issues, indent=2, ensure_ascii=True) + "\n"


def _issue(finding: Finding, key: str) -> dict[str, Any]:
    site = finding.site
    # GitLab drops an issue without a path; a finding without a place has at least its model's file
    path = relative(site.file) if site and site.file else relative(finding.model.partition("::")[0])
    return {
        "description": f"{finding.code} {finding.name}: {clean(finding.message)}",
        "check_name": f"{finding.code} {finding.name}",
        "fingerprint": key,
        "severity": _LEVELS[finding.severity],
        "location": {"path": path or ".", "lines": {"begin": site.line if site and site.file else 1}},
    }
