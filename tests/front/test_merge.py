"""Joining the JSON reports of shards."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from initlint import merge
from initlint.emit import emit
from initlint.errors import UsageError
from initlint.facts import ModelFacts, NotAnalysed, Site
from initlint.findings import Finding, ModelReport, Run, Severity


def report(name: str, severity: Severity = Severity.WARNING, seconds: float = 1.0) -> Run:
    target = f"{name}.py::Net"
    finding = Finding(
        "IL101", "scale", severity, "m", target, Site(f"{name}.py", 3), ("fc.weight",), fingerprint=f"f{name}"
    )
    model = ModelReport(ModelFacts("Net", target, f"{name}.py", 1))
    missing = NotAnalysed(f"{name}.py::Other", "needs arguments", file=f"{name}.py")
    return Run((model,), (finding,), (), (missing,), seconds=seconds, version="0.1.0", python="3.11.7")


def document(run: Run) -> dict[str, Any]:
    text = io.StringIO()
    emit("json", run, text)
    loaded: dict[str, Any] = json.loads(text.getvalue())
    return loaded


def test_the_whole_is_what_one_run_would_have_said() -> None:
    a, b = report("a", seconds=3.0), report("b", Severity.ERROR)
    joined = merge.merge([document(b), document(a)])
    both = replace(
        a,
        models=a.models + b.models,
        findings=a.findings + b.findings,
        not_analysed=a.not_analysed + b.not_analysed,
    )
    assert joined == document(both)
    assert list(joined) == list(document(both)), "the order of keys is part of the form"
    assert json.loads(merge.dump(joined)) == joined


def test_what_occurs_twice_is_kept_once() -> None:
    one = document(report("a"))
    assert merge.merge([one, one])["models"] == one["models"]
    assert merge.merge([one, one])["summary"] == one["summary"]


@pytest.mark.parametrize(
    ("fail_on", "code"), [(Severity.ERROR, 0), (Severity.WARNING, 1), (Severity.NOTE, 1), (None, 0)]
)
def test_exit_code(fail_on: Severity | None, code: int) -> None:
    assert merge.exit_code(document(report("a")), fail_on) == code


def test_different_runs_are_not_mixed() -> None:
    one = document(report("a"))
    with pytest.raises(UsageError, match="seeds"):
        merge.merge([one, one | {"seed": 1}])
    with pytest.raises(UsageError, match="versions of initlint"):
        merge.merge([one, one | {"tool": one["tool"] | {"version": "0.2"}}])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}'])
def test_other_files_are_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"r\.json"):
        merge.read(path)


def test_other_schema_versions_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document(report("a")) | {"schema_version": 2}))
    with pytest.raises(UsageError, match="schema version 2"):
        merge.read(path)
