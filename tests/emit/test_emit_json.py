"""The JSON document against its contract."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from emit_sample import sample, sources

from initlint.emit import Options, render
from initlint.facts import Site
from initlint.findings import LayerRow, Run

TEXT = {"type": "string"}
MAYBE_TEXT = {"type": ["string", "null"]}
MAYBE_NUMBER = {"type": ["number", "null"]}
MAYBE_LINE = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
TEXTS = {"type": "array", "items": TEXT}
PATH = {"type": ["string", "null"], "pattern": r"^(?![A-Za-z]:|/)[^\\]+$"}
VALUES = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}


def thing(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


SIGNAL = thing(
    forward_std=MAYBE_NUMBER,
    gradient_std=MAYBE_NUMBER,
    measured_forward_std=MAYBE_NUMBER,
    measured_gradient_std=MAYBE_NUMBER,
)
LAYER = thing(
    name=TEXT,
    kind=TEXT,
    parameters=TEXTS,
    file=PATH,
    line=MAYBE_LINE,
    fan_in=MAYBE_NUMBER,
    fan_out=MAYBE_NUMBER,
    histogram=maybe(thing(edges=listed({"type": "number"}), counts=listed({"type": "integer"}))),
    activation=MAYBE_TEXT,
    path=TEXTS,
    scheme=MAYBE_TEXT,
    init=maybe(thing(function=MAYBE_TEXT, file=PATH, line=MAYBE_LINE)),
    std=MAYBE_NUMBER,
    expected_std=MAYBE_NUMBER,
    ratio=MAYBE_NUMBER,
    undetermined=MAYBE_TEXT,
    signal=SIGNAL,
)
MODEL = thing(
    name=TEXT,
    target=TEXT,
    file=PATH,
    line=MAYBE_LINE,
    status={"enum": ["analysed", "partial", "failed"]},
    reason=MAYBE_TEXT,
    parameters={"type": "integer"},
    trace=thing(
        method={"enum": ["symbolic", "recorded", "mixed", None]},
        coverage={"type": "number", "minimum": 0, "maximum": 1},
        unsupported=TEXTS,
    ),
    inputs=listed(thing(name=TEXT, dtype=TEXT, shape=listed({"type": "integer"}))),
    init_loss=maybe(VALUES),
    layers=listed(LAYER),
)
FIX = thing(
    title=TEXT,
    applicability={"enum": ["safe", "unsafe", "manual"]},
    verified={"type": "boolean"},
    edits=listed(thing(file=PATH, start={"type": "integer"}, end={"type": "integer"}, text=TEXT)),
)
FINDING = thing(
    code={"type": "string", "pattern": r"^[A-Z]+\d{3}$"},
    name=TEXT,
    severity={"enum": ["error", "warning", "note"]},
    message=TEXT,
    model=TEXT,
    file=PATH,
    line=MAYBE_LINE,
    column=MAYBE_LINE,
    parameters=TEXTS,
    layers=TEXTS,
    related=listed(thing(file=PATH, line={"type": "integer"}, role=TEXT)),
    expected=VALUES,
    actual=VALUES,
    effect=TEXT,
    effect_log10=MAYBE_NUMBER,
    sources=TEXTS,
    fix=maybe(FIX),
    fingerprint={"type": "string", "minLength": 8},
)
COUNTS = ("models", "analysed", "partial", "failed", "errors", "warnings", "notes")
SCHEMA = thing(
    schema_version={"const": 1},
    tool=thing(name={"const": "initlint"}, version=TEXT, torch=MAYBE_TEXT, python=TEXT),
    seed={"type": "integer"},
    summary=thing(**{key: {"type": "integer"} for key in COUNTS}, seconds={"type": "number"}),
    models=listed(MODEL),
    findings=listed(FINDING),
    not_analysed=listed(thing(target=TEXT, file=PATH, line=MAYBE_LINE, reason=TEXT, hint=TEXT)),
)


def document(run: Run) -> Any:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(render("json", run, Options(sources=sources)), parse_constant=refuse)


def test_the_sample_fulfils_the_contract() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document(sample()))


def test_the_documentation_names_every_key() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text("utf-8")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", page))))
    free = ("expected", "actual", "init_loss")  # objects of named numbers and strings

    def keys(value: Any) -> set[str]:
        if isinstance(value, list):
            return {key for item in value for key in keys(item)}
        if not isinstance(value, dict):
            return set()
        return set(value) | {key for name, item in value.items() if name not in free for key in keys(item)}

    assert keys(document(sample())) - named == set()


def test_an_empty_run_fulfils_the_contract() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document(Run(version="0.1.0", python="3.12.0")))


def test_the_summary_counts_models_by_status_and_findings_by_severity() -> None:
    summary = document(sample())["summary"]
    assert summary == {
        "models": 4,
        "analysed": 3,
        "partial": 1,
        "failed": 0,
        "errors": 2,
        "warnings": 1,
        "notes": 1,
        "seconds": 3.21,
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [(1 / 3, 0.333333), (1234567.0, 1234570.0), (1e-300, 1e-300), (math.nan, None), (math.inf, None), (0.0, 0.0)],
)
def test_numbers_have_six_digits_and_no_nan(value: float, written: float | None) -> None:
    run = sample()
    report = run.models[1]
    row: LayerRow = dataclasses.replace(report.rows[0], std=value)
    changed = dataclasses.replace(report, rows=(row,))
    assert document(dataclasses.replace(run, models=(changed,)))["models"][0]["layers"][0]["std"] == written


def test_paths_are_relative_to_the_working_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = sample()
    inside = dataclasses.replace(run.findings[0], site=Site(str(tmp_path / "a" / "b.py"), 3))
    outside = dataclasses.replace(run.findings[0], site=Site(str(tmp_path.parent / "c.py"), 3))
    found = document(dataclasses.replace(run, findings=(inside, outside)))["findings"]
    assert [finding["file"] for finding in found] == ["a/b.py", "../c.py"]


def test_tied_parameters_count_once() -> None:
    model = document(sample())["models"][0]
    assert model["parameters"] == 50257 * 768 + 12 * (2304 + 3072 + 768 + 3072) * 768 + 768


def test_the_histogram_is_the_weights() -> None:
    layer = document(sample())["models"][1]["layers"][0]
    assert len(layer["histogram"]["edges"]) == len(layer["histogram"]["counts"]) + 1
    assert layer["histogram"]["edges"][-1] == pytest.approx(3.5 * 0.0625, rel=1e-5)
