"""Join the JSON reports of several runs (the shards of one repository) into one of the same form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from initlint.errors import UsageError
from initlint.findings import Severity

SCHEMA_VERSION = 1
_HINT = "Name files that --output json=FILE has written."

Document = dict[str, Any]


def read(path: Path) -> Document:
    """A JSON report.

    Raises:
        UsageError: it cannot be read, or is no report of this schema version.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or error}", "Name files that --output json=FILE has written."
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})", _HINT) from error
    keys = {"schema_version", "summary", "models", "findings", "not_analysed"}
    if not isinstance(document, dict) or not keys <= document.keys():
        raise UsageError(f"{path}: not a JSON report of initlint", _HINT)
    if document["schema_version"] != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema version {document['schema_version']}, expected {SCHEMA_VERSION}",
            "Use the initlint that wrote it.",
        )
    return document


def merge(documents: Sequence[Document]) -> Document:
    """One report of all models, findings and targets; what occurs in several is kept once.

    Raises:
        UsageError: the reports come from different versions of initlint or different seeds.
    """
    first = documents[0]
    versions = {document.get("tool", {}).get("version") for document in documents}
    seeds = {document.get("seed") for document in documents}
    if len(versions) > 1 or len(seeds) > 1:
        what = "versions of initlint" if len(versions) > 1 else "seeds"
        raise UsageError(f"the reports come from different {what}", "Merge reports of one run only.")
    merged: Document = dict(first)
    merged["models"] = _unique(documents, "models", ("target",))
    merged["findings"] = sorted(_unique(documents, "findings", ("fingerprint", "model")), key=_order)
    merged["not_analysed"] = _unique(documents, "not_analysed", ("target", "reason"))
    merged["models"].sort(key=lambda model: (model.get("file") or "", model.get("line") or 0, model["target"]))
    merged["not_analysed"].sort(key=lambda entry: (entry.get("file") or "", entry.get("line") or 0, entry["target"]))
    merged["summary"] = _summary(merged, documents)
    for key in first:
        if key not in merged or (isinstance(first[key], list) and key not in ("models", "findings", "not_analysed")):
            merged[key] = _joined([document.get(key, []) for document in documents])
    return merged


def dump(document: Document) -> str:
    """The report as text, ending in a newline."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def exit_code(document: Document, fail_on: Severity | None) -> int:
    """1 with findings at or above ``fail_on``, else 0. What failed to be analysed has failed its own shard."""
    if fail_on is None:
        return 0
    return int(any(Severity.parse(finding["severity"]) >= fail_on for finding in document["findings"]))


def _unique(documents: Sequence[Document], key: str, identity: tuple[str, ...]) -> list[Document]:
    entries = {tuple(entry.get(k) for k in identity): entry for d in reversed(documents) for entry in reversed(d[key])}
    return list(reversed(entries.values()))


def _joined(lists: Sequence[list[Any]]) -> list[Any]:
    joined: list[Any] = []
    for items in lists:
        joined += [item for item in items if item not in joined]
    return joined


def _order(finding: Document) -> tuple[str, int, int, str, str]:
    return (
        finding.get("file") or "",
        finding.get("line") or 0,
        finding.get("column") or 0,
        finding["code"],
        finding.get("model") or "",
    )


def _summary(merged: Document, documents: Sequence[Document]) -> Document:
    """The counts anew; seconds are those of the longest shard, since shards run side by side."""
    models = merged["models"]
    severities = [finding["severity"] for finding in merged["findings"]]
    statuses = [model["status"] for model in models]
    counts = {
        "models": len(models),
        "analysed": statuses.count("analysed"),
        "partial": statuses.count("partial"),
        "failed": statuses.count("failed"),
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "notes": severities.count("note"),
        "seconds": max(document["summary"].get("seconds") or 0 for document in documents),
    }
    # The order of keys is part of the form.
    return {key: counts.get(key, value) for key, value in documents[0]["summary"].items()}
