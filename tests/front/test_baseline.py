"""Fingerprints and baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initlint import baseline
from initlint.errors import ConfigError, UsageError
from initlint.facts import Site
from initlint.findings import Finding, Severity

BASE = Finding(
    "IL101",
    "scale",
    Severity.WARNING,
    "std 0.0123, expected 0.0884",
    "pkg/m.py::Net",
    Site("pkg/m.py", 12, 5, "Net.__init__"),
    ("layers.0.weight", "layers.1.weight"),
    ("layers.0", "layers.1"),
)


@given(st.integers(1, 999), st.text(), st.sampled_from(list(Severity)), st.floats(-9, 9))
def test_neither_lines_nor_measured_numbers_matter(line: int, message: str, severity: Severity, effect: float) -> None:
    site = Site("pkg/m.py", line, line % 7, "other")
    other = replace(BASE, site=site, message=message, severity=severity, effect_log10=effect, actual={"std": effect})
    assert baseline.fingerprint(other) == baseline.fingerprint(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"code": "IL102"},
        {"model": "pkg/m.py::Other"},
        {"site": Site("pkg/n.py", 12)},
        {"parameters": ("layers.0.bias",)},
        {"parameters": ("head.weight",)},
    ],
)
def test_what_is_wrong_and_where_matters(change: dict[str, object]) -> None:
    assert baseline.fingerprint(replace(BASE, **change)) != baseline.fingerprint(BASE)  # type: ignore[arg-type]


def test_depth_and_order_do_not_matter() -> None:
    deeper = replace(BASE, parameters=("layers.7.weight", "layers.0.weight", "layers.1.weight"))
    assert baseline.fingerprint(deeper) == baseline.fingerprint(BASE)
    assert baseline.pattern("a.0.b.12.weight") == "a.*.b.*.weight"


def test_the_folder_that_initlint_starts_in_does_not_matter() -> None:
    inside = replace(BASE, site=Site("m.py", 12), model="m.py::Net")
    assert baseline.fingerprint(inside, "pkg") == baseline.fingerprint(BASE, ".")


def test_equal_fingerprints_are_told_apart() -> None:
    marked = baseline.with_fingerprints([BASE, BASE, replace(BASE, code="IL9")])
    assert len({finding.fingerprint for finding in marked}) == 3
    assert marked[0].fingerprint == baseline.fingerprint(BASE)


def test_write_read_apply_and_stale(tmp_path: Path) -> None:
    old, gone = baseline.with_fingerprints([BASE, replace(BASE, code="IL105")])
    path = tmp_path / "b.json"
    baseline.write(path, [gone, old])
    entries = baseline.read(path)
    assert [entry.code for entry in entries] == ["IL101", "IL105"]
    (fresh,) = baseline.with_fingerprints([replace(BASE, code="IL201")])
    new, accepted = baseline.apply([old, fresh], entries)
    assert new == [fresh]
    assert accepted == [replace(old, suppressed="baseline")]
    assert [e.code for e in baseline.stale([old, fresh], entries, ["pkg/m.py::Net"])] == ["IL105"]
    assert not baseline.stale([old], entries, ["another.py::Net"]), "models that did not run say nothing"
    baseline.write(path, [old])  # a baseline may be written over
    assert len(baseline.read(path)) == 1
    assert "0.0123" not in path.read_text(), "no measured numbers"
    assert not list(tmp_path.glob(".*")), "no temporary files are left"


def test_other_files_are_neither_read_nor_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("precious = 1\n")
    with pytest.raises(UsageError, match="no baseline"):
        baseline.write(path, [])
    assert path.read_text() == "precious = 1\n"
    with pytest.raises(ConfigError, match="not a baseline"):
        baseline.read(path)
    with pytest.raises(ConfigError) as caught:
        baseline.read(tmp_path / "absent.json")
    assert "--write-baseline" in caught.value.hint
    for text in ('{"version": 1}', "[]", '{"version": 9, "findings": []}', '{"version": 1, "findings": [{}]}'):
        path.write_text(text)
        with pytest.raises(ConfigError):
            baseline.read(path)
