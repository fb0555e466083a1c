"""The engine: rules on facts, then policy, with rules and models made of literals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from initlint import engine
from initlint.config import Config
from initlint.engine import Analysis, exit_code
from initlint.facts import ModelFacts, NotAnalysed, ParameterFacts, Site
from initlint.findings import Run, Severity, Undetermined
from initlint.rule import FAMILIES, Context, Outcome, Rule

NOTE, WARNING, ERROR = Severity
Check = Callable[["_Fake", Context], Iterable[Outcome]]


class _Fake(Rule):
    abstract = True
    sources = ("s",)

    def __init__(self, code: str, check: Check | None = None, ceiling: Severity = ERROR) -> None:
        self.code, self.name = code, f"rule-{code.lower()}"  # type: ignore[misc]
        self.family = next((f for f, digit in FAMILIES.items() if digit == code[2]), "variance")  # type: ignore[misc]
        self.severity = ceiling  # type: ignore[misc]
        self.by_engine = check is None  # type: ignore[misc]
        self._check = check

    def check(self, context: Context) -> Iterable[Outcome]:
        return self._check(self, context) if self._check else ()


def reports(severity: Severity = WARNING, *parameters: str, line: int = 5, topic: str = "scale") -> Check:
    def check(rule: _Fake, context: Context) -> Iterable[Outcome]:
        names = parameters or ("fc.weight",)
        yield rule.finding(context, "wrong", parameters=names, severity=severity, site=Site("m.py", line), topic=topic)

    return check


def model(name: str = "Net", file: str = "m.py") -> ModelFacts:
    names = ("fc.weight", "fc.bias", "head.weight")
    parameters = tuple(
        ParameterFacts(n, "parameter", (2, 2), "float32", n.split(".")[0], n.split(".")[1], created=Site(file, 3 + i))
        for i, n in enumerate(names)
    )
    return ModelFacts(name, f"{file}::{name}", file, 1, parameters=parameters, torch="2.13.0")


TOOL = (_Fake("IL901"), _Fake("IL903"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*rules: Rule, config: Config | None = None, known: tuple[Rule, ...] | None = None, **analysis: object) -> Run:
    result = Analysis("m.py", (model(),), whole_file=True)
    return engine.run([replace(result, **analysis)], config or Config(), rules, known=known)  # type: ignore[arg-type]


def test_severities_are_capped_then_overridden() -> None:
    capped = run(_Fake("IL101", reports(ERROR), ceiling=WARNING))
    assert [f.severity for f in capped.findings] == [WARNING]
    assert capped.severities == {"error": 0, "warning": 1, "note": 0}
    lowered = run(
        _Fake("IL101", reports(ERROR)),
        config=Config(severity={"IL1": NOTE, "IL2": ERROR}),
        known=(
            _Fake("IL101"),
            _Fake("IL201"),
        ),
    )
    assert [f.severity for f in lowered.findings] == [NOTE]


def test_findings_are_sorted_and_carry_fingerprints() -> None:
    found = run(
        _Fake("IL201", reports(WARNING, "head.weight", line=9)),
        _Fake("IL105", reports(WARNING, "fc.weight", line=9)),
        _Fake("IL101", reports(WARNING, "fc.bias", line=2)),
    )
    assert [(f.site.line, f.code) for f in found.findings if f.site] == [(2, "IL101"), (9, "IL105"), (9, "IL201")]
    assert len({f.fingerprint for f in found.findings}) == 3


def test_a_finding_without_place_gets_the_models() -> None:
    def check(rule: _Fake, context: Context) -> Iterable[Outcome]:
        yield rule.finding(context, "wrong")

    assert run(_Fake("IL101", check)).findings[0].site == Site("m.py", 1)


def test_a_rule_that_fails_is_a_finding_and_trouble() -> None:
    def fails(rule: _Fake, context: Context) -> Iterable[Outcome]:
        raise ZeroDivisionError("division by zero")

    def confused(rule: _Fake, context: Context) -> Iterable[Outcome]:
        yield "not an outcome"  # type: ignore[misc]

    found = run(_Fake("IL101", fails), _Fake("IL102", fails), _Fake("IL103", confused), _Fake("IL104", reports()))
    assert [f.code for f in found.findings] == ["IL902", "IL902", "IL104"]
    message = found.findings[0].message
    assert "IL101, IL102" in message, "one finding for one failure"
    assert "ZeroDivisionError: division by zero (test_engine.py:" in message
    assert "IL103" in found.findings[1].message
    assert exit_code(found) == 2


def test_undetermined_outcomes_are_kept_once() -> None:
    def unsure(rule: _Fake, context: Context) -> Iterable[Outcome]:
        yield rule.undetermined(context, "op not modelled", ["fc.weight"])
        yield rule.undetermined(context, "op not modelled", ["fc.weight"])

    found = run(_Fake("IL101", unsure))
    assert found.models[0].undetermined == (Undetermined("IL101", "op not modelled", "m.py::Net", ("fc.weight",)),)
    assert exit_code(found) == 0
    assert exit_code(found, strict=True) == 1


def test_duplicates_are_absorbed() -> None:
    found = run(_Fake("IL201", reports(ERROR, line=1)), _Fake("IL105", reports(WARNING, line=5)))
    assert [(f.code, f.severity) for f in found.findings] == [("IL105", ERROR)]


def test_comments_silence_and_idle_comments_are_findings(folder: Path) -> None:
    (folder / "m.py").write_text(
        "class Net:\n"
        "    # comment\n"
        "    fc = 1  # initlint: ignore[IL999]\n"
        "    b = 1  # initlint: ignore[IL101]\n"
        "    init()  # initlint: ignore[IL105, IL202]\n"
        "    y = 1  # initlint: ignore\n"
    )
    rules = (_Fake("IL105", reports(line=5)), _Fake("IL101", reports(WARNING, "head.weight", line=9)), *TOOL)
    found = run(*rules, known=(*rules, _Fake("IL202")))
    assert [(f.site.line, f.code) for f in found.findings if f.site] == [
        (3, "IL903"),  # no such rule
        (4, "IL901"),  # silences nothing
        (6, "IL903"),  # names none
        (9, "IL101"),
    ]
    assert [(f.code, f.suppressed) for f in found.suppressed] == [("IL105", "comment")]
    assert "IL999" in found.findings[0].message


def test_comments_on_rules_that_are_off_are_not_idle(folder: Path) -> None:
    (folder / "m.py").write_text("x = 1  # initlint: ignore[IL202]\n")
    assert not run(*TOOL, known=(*TOOL, _Fake("IL202"))).findings
    assert [f.code for f in run(*TOOL, _Fake("IL202", reports())).findings] == ["IL901", "IL202"]


def test_idle_comments_of_unanalysed_models_are_left_alone(folder: Path) -> None:
    (folder / "m.py").write_text("x = 1  # initlint: ignore[IL101]\n")
    rules = (*TOOL, _Fake("IL101", lambda rule, context: ()))
    assert [f.code for f in run(*rules).findings] == ["IL901"]
    failed = NotAnalysed("m.py::Other", "needs arguments", file="m.py", line=9)
    assert not run(*rules, not_analysed=(failed,)).findings
    assert not run(*rules, whole_file=False).findings


def test_rules_about_comments_can_be_switched_off(folder: Path) -> None:
    (folder / "m.py").write_text("x = 1  # initlint: ignore\n")
    assert [f.code for f in run(*TOOL).findings] == ["IL903"]
    assert not run(TOOL[0]).findings
    assert [f.severity for f in run(*TOOL, config=Config(severity={"IL903": ERROR})).findings] == [ERROR]


def test_layers_can_be_exempt() -> None:
    rule = _Fake("IL101", reports(WARNING, "fc.weight", "head.weight"))
    exempt = Config(per_layer_ignores={"fc*": ("IL1",), "head*": ("IL101",)})
    found = run(rule, config=exempt)
    assert not found.findings
    assert found.suppressed[0].suppressed == "configuration"
    assert run(rule, config=Config(per_layer_ignores={"fc*": ("IL1",)})).findings, "one of two layers is not enough"


def test_the_baseline_hides_known_findings_and_knows_stale_ones() -> None:
    from initlint import baseline

    rule = _Fake("IL101", reports())
    first = run(rule)
    path = Path("b.json")
    baseline.write(path, first.findings)
    entries = baseline.read(path)
    again = engine.run([Analysis("m.py", (model(),))], Config(), [rule], entries=entries)
    assert not again.findings
    assert again.suppressed[0].suppressed == "baseline"
    assert (again.baseline_stale, exit_code(again)) == (0, 0)
    gone = engine.run([Analysis("m.py", (model(),))], Config(), [], entries=entries)
    assert gone.baseline_stale == 1


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        (WARNING, WARNING, 1),
        (NOTE, WARNING, 0),
        (NOTE, NOTE, 1),
        (WARNING, ERROR, 0),
        (ERROR, ERROR, 1),
        (ERROR, None, 0),
    ],
)
def test_exit_code_of_findings(severity: Severity, fail_on: Severity | None, code: int) -> None:
    found = run(_Fake("IL101", reports(severity)), config=Config(fail_on=fail_on))
    assert exit_code(found) == code
    assert exit_code(found, exit_zero=True) == 0


FAILED = NotAnalysed("m.py::Net", "needs arguments", file="m.py")


@pytest.mark.parametrize(
    ("analysis", "code"),
    [
        ({"models": (), "not_analysed": (FAILED,)}, 2),  # candidates, none of which could be analysed
        ({"models": (), "not_analysed": (replace(FAILED, harmless=True),)}, 0),  # nothing but parts of others
        ({"models": (), "not_analysed": ()}, 0),  # no candidates at all
        ({"not_analysed": (FAILED,)}, 0),  # some could
        ({"not_analysed": (replace(FAILED, named=True),)}, 2),  # the one that was named could not
        ({"models": (replace(model(), status="failed"),)}, 2),
    ],
)
def test_exit_code_of_what_could_not_be_analysed(analysis: dict[str, object], code: int) -> None:
    found = run(**analysis)  # type: ignore[arg-type]
    assert exit_code(found) == code
    assert exit_code(found, exit_zero=True) == code, "--exit-zero is about findings"
    assert exit_code(found, allow_unanalysed=True) == 0
    if not analysis.get("models", True) and not analysis["not_analysed"]:
        assert found.notes == ("no models found",)


def test_a_folder_counts_as_one_target() -> None:
    good = Analysis("models", (model(),), whole_file=True)
    bad = Analysis("models", (), (FAILED,), whole_file=True)
    assert exit_code(engine.run([good, bad], Config(), [])) == 0
    assert exit_code(engine.run([good, bad], Config(), []), strict=True) == 1
    assert exit_code(engine.run([bad, bad], Config(), [])) == 2
    assert engine.run([bad, bad], Config(), []).unanalysed == ("models",)
