"""Baselines: findings that are known and accepted, so that only new ones fail a build.

An entry is a fingerprint: a hash of the rule, the file, the model and the layers at fault, with the indices of
repeated layers taken out. It holds no line and no measured number, so that neither an edit elsewhere in the
file nor another seed brings an accepted finding back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from initlint.errors import ConfigError, UsageError
from initlint.files import write_atomically
from initlint.findings import Finding
from initlint.records import dataclass

VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted finding; all but the fingerprint is there for people."""

    fingerprint: str
    code: str
    name: str
    file: str
    model: str
    parameters: tuple[str, ...]


def pattern(parameter: str) -> str:
    """A parameter's name with the indices of repeated layers taken out: ``layers.*.weight``."""
    return ".".join("*" if part.isdigit() else part for part in parameter.split("."))


def fingerprint(finding: Finding, base: str = "") -> str:
    """The finding's fingerprint, the same for any seed and at any line.

    Args:
        finding: what was found.
        base: prefix of the working directory as seen from the project's root, so that the fingerprint does
            not depend on where initlint is started.
    """
    file = finding.site.file if finding.site else ""
    qualname = finding.model.rpartition("::")[2] if "::" in finding.model else finding.model
    patterns = sorted({pattern(name) for name in finding.parameters or finding.layers})
    function = finding.site.function if finding.site and not patterns else ""
    place = os.path.normpath(os.path.join(base, file)).replace(os.sep, "/")
    parts = (finding.code, place, qualname, function, *patterns)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def with_fingerprints(findings: Iterable[Finding], base: str = "") -> list[Finding]:
    """The findings with their fingerprints; those that would share one are told apart by their order."""
    seen: dict[str, int] = {}
    result = []
    for finding in findings:
        key = fingerprint(finding, base)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            key = hashlib.sha256(f"{key}#{seen[key]}".encode()).hexdigest()[:32]
        result.append(replace(finding, fingerprint=key))
    return result


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a baseline file.

    Raises:
        ConfigError: it cannot be read or is no baseline.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["version"] != VERSION:
            raise ConfigError(
                f"{path}: baseline of version {document['version']}", "Write it anew with --write-baseline."
            )
        return tuple(
            Entry(e["fingerprint"], e["code"], e["name"], e["file"], e["model"], tuple(e["parameters"]))
            for e in document["findings"]
        )
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", "Create it with --write-baseline.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a baseline", "Write it anew with --write-baseline.") from error


def write(path: Path, findings: Sequence[Finding]) -> None:
    """Write the baseline of these findings, in an order that makes differences easy to read.

    Raises:
        UsageError: the file exists and is no baseline, or cannot be written.
    """
    if path.exists():
        try:
            read(path)
        except ConfigError as error:
            if "of version" not in error.message:
                raise UsageError(f"{path} exists and is no baseline", "Name another file.") from error
    entries: list[dict[str, Any]] = [
        {
            "fingerprint": finding.fingerprint,
            "code": finding.code,
            "name": finding.name,
            "file": finding.site.file if finding.site else "",
            "model": finding.model,
            "parameters": sorted({pattern(name) for name in finding.parameters}),
        }
        for finding in findings
    ]
    entries.sort(key=lambda entry: (entry["file"], entry["model"], entry["code"], entry["fingerprint"]))
    write_atomically(path, json.dumps({"version": VERSION, "findings": entries}, indent=2) + "\n")


def apply(findings: Sequence[Finding], entries: Sequence[Entry]) -> tuple[list[Finding], list[Finding]]:
    """Split into findings that are new and findings that the baseline knows (marked as suppressed by it)."""
    known = {entry.fingerprint for entry in entries}
    new = [finding for finding in findings if finding.fingerprint not in known]
    old = [replace(finding, suppressed="baseline") for finding in findings if finding.fingerprint in known]
    return new, old


def stale(findings: Sequence[Finding], entries: Sequence[Entry], models: Iterable[str]) -> tuple[Entry, ...]:
    """The entries for these models that no longer occur; entries for models that did not run say nothing."""
    present = {finding.fingerprint for finding in findings}
    ran = set(models)
    return tuple(entry for entry in entries if entry.model in ran and entry.fingerprint not in present)
