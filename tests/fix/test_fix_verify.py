"""Which edits count as verified, and what is written: with a stand-in for the analysis."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from initlint.errors import ProbeError
from initlint.facts import ModelFacts, Site
from initlint.findings import Edit, Finding, Fix, ModelReport, Run, Severity
from initlint.fix import apply_fixes

SOURCE = "a = 1\nb = 1\n"


def finding(code: str, name: str, *, target: str = "m.py::Net", severity: Severity = Severity.WARNING) -> Finding:
    """A finding on one line of SOURCE, mended by writing 2."""
    line = 1 if name == "a" else 2
    fix = Fix(f"write: {name} = 2", "unsafe", (Edit("m.py", line, line, f"{name} = 2", f"{name} = 1"),))
    return Finding(code, "rule", severity, "m", target, site=Site("m.py", line), parameters=(name,), fix=fix)


def run_of(*findings: Finding, status: str = "analysed", target: str = "m.py::Net") -> Run:
    facts = ModelFacts("Net", target, target.partition("::")[0], status=status)
    return Run(models=(ModelReport(facts),), findings=findings)


class Analysis:
    """Reports a finding for each of the names that a file still sets to 1, and what else it is told to."""

    def __init__(self, names: str = "ab", extra: Callable[[str], Sequence[tuple[str, str]]] = lambda text: ()) -> None:
        self.names = names
        self.extra = extra
        self.texts: list[Sequence[str]] = []

    def __call__(self, texts: Sequence[str]) -> Run:
        self.texts.append(texts)
        found, models = [], []
        for text in dict.fromkeys(t if "::" in t else f"{t}::Net" for t in texts):
            source = Path(text.partition("::")[0]).read_text()
            codes = [("IL104", name) for name in self.names if f"{name} = 1" in source]
            found += [finding(code, name, target=text) for code, name in [*codes, *self.extra(source)]]
            models += run_of(target=text).models
        return Run(models=tuple(models), findings=tuple(found))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(SOURCE)
    return tmp_path


def verified(run: Run) -> list[bool]:
    return [f.fix.verified for f in run.findings if f.fix is not None]


def test_verified_together_in_one_analysis_and_nothing_is_left_behind(folder: Path) -> None:
    check = Analysis()
    run = run_of(finding("IL104", "a"), finding("IL104", "b"))
    after = apply_fixes(run, write=False, unsafe=True, diff=None, recheck=check)
    assert verified(after) == [True, True]
    assert len(check.texts) == 1
    assert [path.name for path in folder.iterdir()] == ["m.py"]
    assert (folder / "m.py").read_text() == SOURCE


def test_an_edit_that_brings_something_worse_is_refused_alone() -> None:
    check = Analysis(extra=lambda text: [("IL201", "x")] if "b = 2" in text else [])
    run = run_of(finding("IL104", "a"), finding("IL104", "b"))
    stream = io.StringIO()
    after = apply_fixes(run, write=False, unsafe=True, diff=stream, recheck=check)
    assert verified(after) == [True, False]
    lines = stream.getvalue().splitlines()
    assert "-a = 1" in lines
    assert "# -b = 1" in lines, "the edit that does not hold is shown as a comment"
    assert any("not applied: it brings a new finding: IL201" in line for line in lines)


def test_a_finding_that_stays_is_not_mended() -> None:
    check = Analysis("", lambda text: [("IL104", "a")])
    after = apply_fixes(run_of(finding("IL104", "a")), write=True, unsafe=True, diff=None, recheck=check)
    assert verified(after) == [False]
    assert after.notes == ("not fixed: IL104 m.py:1 write: a = 2 (IL104 stays with it)",)


def test_a_finding_that_was_there_before_is_no_objection() -> None:
    check = Analysis("a", lambda text: [("IL201", "x")])
    run = run_of(finding("IL104", "a"), finding("IL201", "x", severity=Severity.ERROR))
    after = apply_fixes(run, write=False, unsafe=True, diff=None, recheck=check)
    assert verified(after)[0]


def test_a_model_that_cannot_be_analysed_any_more_is_an_objection() -> None:
    def broken(texts: Sequence[str]) -> Run:
        return run_of(target=texts[0], status="partial")

    after = apply_fixes(run_of(finding("IL104", "a")), write=False, unsafe=True, diff=None, recheck=broken)
    assert verified(after) == [False]

    def dead(texts: Sequence[str]) -> Run:
        raise ProbeError("the worker died")

    stream = io.StringIO()
    after = apply_fixes(run_of(finding("IL104", "a")), write=False, unsafe=True, diff=stream, recheck=dead)
    assert verified(after) == [False]
    assert "the worker died" in stream.getvalue()


def test_unsafe_edits_are_written_only_when_asked_for(folder: Path) -> None:
    run = run_of(finding("IL104", "a"), finding("IL104", "b"))
    kept = apply_fixes(run, write=True, unsafe=False, diff=None, recheck=Analysis(), targets=["m.py"])
    assert (folder / "m.py").read_text() == SOURCE
    assert len(kept.findings) == 2
    assert kept.notes == ("2 more verified, but changing training: apply with --unsafe-fixes",)
    fixed = apply_fixes(run, write=True, unsafe=True, diff=None, recheck=Analysis(), targets=["m.py"])
    assert (folder / "m.py").read_text() == "a = 2\nb = 2\n"
    assert fixed.findings == (), "what remains decides the exit code"
    assert fixed.notes[0] == "fixed IL104 m.py:1 write: a = 2"


def test_one_edit_for_several_models_is_made_once(folder: Path) -> None:
    other = "m.py::Other"
    run = run_of(finding("IL104", "a"), finding("IL104", "a", target=other))
    run = Run(models=(*run.models, *run_of(target=other).models), findings=run.findings)
    after = apply_fixes(run, write=True, unsafe=True, diff=None, recheck=Analysis("a"), targets=["m.py"])
    assert (folder / "m.py").read_text() == "a = 2\nb = 1\n"
    assert [note for note in after.notes if note.startswith("fixed")] == ["fixed IL104 m.py:1 write: a = 2"] * 2


def test_a_file_that_changes_meanwhile_is_left_alone(folder: Path) -> None:
    def meddling(texts: Sequence[str]) -> Run:
        (folder / "m.py").write_text("a = 1\nb = 1\nc = 1\n")
        return Analysis("a")(texts)

    after = apply_fixes(run_of(finding("IL104", "a")), write=True, unsafe=True, diff=None, recheck=meddling)
    assert (folder / "m.py").read_text() == "a = 1\nb = 1\nc = 1\n"
    assert "changed while it was checked" in after.notes[-1]


def test_a_file_that_changed_before_is_refused(folder: Path) -> None:
    (folder / "m.py").write_text("a = 7\n")
    after = apply_fixes(run_of(finding("IL104", "a")), write=True, unsafe=True, diff=None, recheck=Analysis())
    assert verified(after) == [False]
    assert "has changed since it was analysed" in after.notes[-1]


def test_without_analysis_nothing_is_verified_and_nothing_written(folder: Path) -> None:
    after = apply_fixes(run_of(finding("IL104", "a")), write=True, unsafe=True, diff=None)
    assert verified(after) == [False]
    assert (folder / "m.py").read_text() == SOURCE
