"""The JSON document, ``schema_version`` 1: the contract with other programs.

Numbers are rounded to 6 significant digits; NaN and infinity are null. Keys keep the order of the contract.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from initlint.emit.common import Options, fingerprint, relative
from initlint.emit.view import Point, profile_of, traced, weights_of
from initlint.facts import Histogram, InputFacts, ModelFacts, NotAnalysed, Site
from initlint.findings import Finding, Fix, LayerRow, ModelReport, Run, Severity, Undetermined

SCHEMA_VERSION = 1
_ENCODER = json.JSONEncoder(allow_nan=False)


def render(run: Run, options: Options) -> str:
    """The document as text, one scalar list or flat object a line."""
    return f"{dump(document(run))}\n"


def document(run: Run) -> dict[str, Any]:
    """The run as plain data that JSON can hold."""
    plain: dict[str, Any] = _plain(
        {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "initlint", "version": run.version, "torch": run.torch or None, "python": run.python},
            "seed": run.seed,
            "summary": summary(run),
            "models": [_model(report) for report in run.models],
            "findings": [_finding(finding) for finding in run.findings],
            "not_analysed": [_not_analysed(entry) for entry in run.not_analysed],
        }
    )
    return plain


def summary(run: Run) -> dict[str, Any]:
    """Counts of models by status and of findings by severity, and the seconds taken."""
    statuses = [report.facts.status for report in run.models]
    severities = [finding.severity for finding in run.findings]
    return {
        "models": len(statuses),
        "analysed": statuses.count("analysed"),
        "partial": statuses.count("partial"),
        "failed": statuses.count("failed"),
        "errors": severities.count(Severity.ERROR),
        "warnings": severities.count(Severity.WARNING),
        "notes": severities.count(Severity.NOTE),
        "seconds": run.seconds,
    }


def _model(report: ModelReport) -> dict[str, Any]:
    facts = report.facts
    known = traced(facts)
    weights = weights_of(report)
    return {
        "name": facts.name,
        "target": facts.target,
        "file": relative(facts.file) or None,
        "line": facts.line,
        "status": facts.status,
        "reason": facts.reason or None,
        "parameters": parameter_count(facts),
        "arguments": [{"name": a.name, "value": a.value, "origin": a.origin} for a in facts.arguments],
        "trace": {
            "method": facts.trace.method if known else None,
            "coverage": facts.trace.coverage,
            "unsupported": list(facts.trace.unsupported),
            "notes": list(facts.trace.notes),
            "parts": list(facts.trace.parts),
        },
        "inputs": [_input(entry) for entry in facts.inputs],
        "init_loss": None if report.init_loss is None else dict(report.init_loss),
        "measured_loss": facts.measured_loss,
        "layers": [_layer(row, weights.get(row.name)) for row in report.rows],
        "profile": [_point(point) for point in profile_of(report)] if report.profile else [],
        "undetermined": [_undetermined(entry) for entry in report.undetermined],
        "notes": list(facts.notes),
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "label": point.label,
        "forward_std": point.forward_std,
        "gradient_std": point.gradient_std,
        "dependent": point.dependent,
        "forward_band": point.forward_band,
        "gradient_band": point.gradient_band,
        "measured_forward_std": point.measured_forward_std,
        "measured_gradient_std": point.measured_gradient_std,
    }


def parameter_count(facts: ModelFacts) -> int:
    """Number of elements of all parameters; tied ones count once, weights computed from others not at all."""
    total, storages = 0, set()
    for parameter in facts.parameters:
        if parameter.kind != "parameter" or parameter.generated:
            continue
        key = (parameter.storage, parameter.shape)
        if parameter.storage and key in storages:
            continue
        storages.add(key)
        total += math.prod(parameter.shape)
    return total


def _input(entry: InputFacts) -> dict[str, Any]:
    return {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "origin": entry.origin,
        "high": entry.high,
    }


def _layer(row: LayerRow, histogram: Histogram | None) -> dict[str, Any]:
    signal = row.signal
    return {
        "name": row.name,
        "kind": row.kind,
        "parameters": list(row.parameters),
        **_site(row.site),
        "fan_in": row.fan_in,
        "fan_out": row.fan_out,
        "histogram": histogram and {"edges": list(histogram.edges), "counts": list(histogram.counts)},
        "activation": row.activation,
        "path": list(row.path),
        "scheme": row.scheme,
        "init": _init(row.init),
        "std": row.std,
        "expected_std": row.expected_std,
        "ratio": row.ratio,
        "undetermined": row.undetermined,
        "signal": {
            "forward_std": signal.forward_std,
            "gradient_std": signal.gradient_std,
            "measured_forward_std": signal.measured_forward_std,
            "measured_gradient_std": signal.measured_gradient_std,
            "forward_band": signal.forward_band,
            "gradient_band": signal.gradient_band,
            "dependent": signal.dependent,
        },
    }


def _init(init: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if init is None:
        return None
    file = init.get("file")
    return {
        "function": init.get("function"),
        "file": relative(file) if isinstance(file, str) and file else None,
        "line": init.get("line"),
    }


def _site(site: Site | None) -> dict[str, Any]:
    if site is None or not site.file:
        return {"file": None, "line": None}
    return {"file": relative(site.file), "line": site.line}


def _undetermined(entry: Undetermined) -> dict[str, Any]:
    return {"code": entry.code, "reason": entry.reason, "parameters": list(entry.parameters)}


def _finding(finding: Finding) -> dict[str, Any]:
    site = finding.site
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.label,
        "message": finding.message,
        "model": finding.model,
        **_site(site),
        "column": site.column if site else None,
        "parameters": list(finding.parameters),
        "layers": list(finding.layers),
        "related": [{"file": relative(r.file), "line": r.line, "role": r.role} for r in finding.related],
        "expected": dict(finding.expected),
        "actual": dict(finding.actual),
        "effect": finding.effect,
        "effect_log10": finding.effect_log10,
        "why": finding.why,
        "sources": list(finding.sources),
        "fix": _fix(finding.fix),
        "fingerprint": fingerprint(finding),
    }


def _fix(fix: Fix | None) -> dict[str, Any] | None:
    if fix is None:
        return None
    return {
        "title": fix.title,
        "applicability": fix.applicability,
        "verified": fix.verified,
        "snippet": fix.snippet,
        "edits": [
            {"file": relative(edit.file), "start": edit.start, "end": edit.end, "text": edit.text} for edit in fix.edits
        ],
    }


def _not_analysed(entry: NotAnalysed) -> dict[str, Any]:
    return {
        "target": entry.target,
        "file": relative(entry.file) or None,
        "line": entry.line,
        "reason": entry.reason,
        "hint": entry.hint,
    }


def _plain(value: Any) -> Any:
    """Round floats to 6 significant digits and turn what JSON lacks into null; lone surrogates are replaced."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def dump(value: Any, indent: str = "") -> str:
    """JSON with two blanks of indent, but lists and objects without nested ones on a single line."""
    if isinstance(value, dict) and any(map(_nested, value.values())):
        entries = [f"{_flat(key)}: {dump(entry, indent + '  ')}" for key, entry in value.items()]
        return _block("{}", entries, indent)
    if isinstance(value, list) and any(map(_nested, value)):
        return _block("[]", [dump(entry, indent + "  ") for entry in value], indent)
    return _flat(value)


def _flat(value: Any) -> str:
    # ASCII only, without DEL: the document must not act on a terminal either, and any stream can take it
    return _ENCODER.encode(value).replace("\x7f", "\\u007f")


def _nested(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _block(brackets: str, entries: Sequence[str], indent: str) -> str:
    inner = f",\n{indent}  ".join(entries)
    return f"{brackets[0]}\n{indent}  {inner}\n{indent}{brackets[1]}"
