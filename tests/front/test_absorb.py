"""One finding per cause: which of several findings on the same parameters stands."""

from __future__ import annotations

from initlint.absorb import FAMILY_ORDER, absorb
from initlint.facts import Site
from initlint.findings import Finding, Related, Severity
from initlint.rule import FAMILIES, Rule

NOTE, WARNING, ERROR = Severity


class _Fake(Rule):
    abstract = True
    severity = Severity.ERROR

    def __init__(self, code: str, generic: bool = False) -> None:
        self.code = code  # type: ignore[misc]
        self.family = next(family for family, digit in FAMILIES.items() if digit == code[2])  # type: ignore[misc]
        self.generic = generic  # type: ignore[misc]


RULES = {
    code: _Fake(code, generic)
    for code, generic in (
        ("IL003", False),
        ("IL101", True),
        ("IL105", False),
        ("IL301", False),
        ("IL401", False),
        ("IL201", True),
        ("IL207", False),
        ("IL208", False),
    )
}


def finding(
    code: str,
    parameters: str,
    severity: Severity = WARNING,
    *,
    topic: str = "scale",
    effect: float | None = None,
    line: int = 1,
    model: str = "m.py::A",
    layers: str = "",
) -> Finding:
    return Finding(
        code,
        code.lower(),
        severity,
        code,
        model,
        Site("m.py", line),
        tuple(parameters.split()),
        layers=tuple(layers.split()),
        effect=f"effect of {code}" if effect is not None else "",
        effect_log10=effect,
        topic=topic,
    )


def codes(*findings: Finding) -> list[str]:
    return sorted(f.code for f in absorb(findings, RULES))


def test_the_order_names_every_family() -> None:
    assert set(FAMILY_ORDER) == set(FAMILIES)


def test_the_more_specific_family_stands_with_all_evidence() -> None:
    general = finding("IL105", "a b c", ERROR, effect=-3.0, line=7)
    specific = finding("IL401", "a b c", WARNING, effect=-1.0, line=4)
    (left,) = absorb([general, specific], RULES)
    assert left.code == "IL401"
    assert left.severity is ERROR
    assert (left.effect, left.effect_log10) == ("effect of IL105", -3.0)
    assert left.related == (Related("m.py", 7, "IL105 il105"),)
    assert left.message == "IL401"


def test_the_larger_effect_of_the_host_is_kept() -> None:
    (left,) = absorb([finding("IL201", "a", effect=1.0), finding("IL105", "a", effect=2.0)], RULES)
    assert (left.code, left.effect_log10) == ("IL105", 2.0)
    assert left.related == (), "the same place is not repeated"


def test_other_topics_other_parameters_and_other_models_stay_apart() -> None:
    assert codes(finding("IL401", "a", topic="reach"), finding("IL105", "a", topic="norm")) == ["IL105", "IL401"]
    assert codes(finding("IL401", "a"), finding("IL105", "b")) == ["IL105", "IL401"]
    assert codes(finding("IL401", "a"), finding("IL105", "a", model="m.py::B")) == ["IL105", "IL401"]
    assert codes(finding("IL105", "a"), finding("IL105", "a")) == ["IL105", "IL105"], "a rule tells its causes apart"
    assert codes(finding("IL401", ""), finding("IL105", "")) == ["IL105", "IL401"], "without parameters nothing agrees"


def test_four_fifths_must_be_covered() -> None:
    assert codes(finding("IL401", "a b c d"), finding("IL105", "a b c d e")) == ["IL401"]
    assert codes(finding("IL401", "a b c"), finding("IL105", "a b c d e")) == ["IL105", "IL401"]
    assert codes(finding("IL401", "a b c d e"), finding("IL105", "a")) == ["IL401"], "a part of a whole is covered"


def test_several_causes_together_explain_a_whole() -> None:
    first = finding("IL105", "a b", WARNING, effect=0.5)
    second = finding("IL401", "c d", WARNING, effect=4.0)
    left = {f.code: f for f in absorb([first, second, finding("IL201", "a b c d", ERROR, effect=6.0)], RULES)}
    assert set(left) == {"IL105", "IL401"}
    assert left["IL401"].severity is ERROR, "the strongest cause takes over what the whole amounts to"
    assert left["IL105"].severity is WARNING


def test_a_generic_rule_yields_within_its_family() -> None:
    assert codes(finding("IL101", "a b", ERROR), finding("IL105", "a b", NOTE)) == ["IL105"]
    (left,) = absorb([finding("IL101", "a b", ERROR), finding("IL105", "a b", NOTE)], RULES)
    assert left.severity is ERROR


def test_signals_are_explained_by_causes_on_other_topics() -> None:
    signal = finding("IL201", "a b", ERROR, effect=-9.0)
    assert codes(signal, finding("IL003", "a b", ERROR, topic="value")) == ["IL003"]
    assert codes(signal, finding("IL003", "a b", NOTE, topic="value")) == ["IL003", "IL201"], "a note explains no error"
    assert codes(signal, finding("IL301", "a b", WARNING, topic="convention")) == ["IL201", "IL301"]
    assert codes(signal, finding("IL301", "a b", NOTE, topic="scale")) == ["IL301"], "on the same topic a note does"


def test_a_symptom_that_is_a_note_explains_no_louder_one() -> None:
    assert codes(finding("IL201", "a", ERROR), finding("IL207", "a", NOTE)) == ["IL201", "IL207"]
    assert codes(finding("IL201", "a", ERROR), finding("IL207", "a", WARNING)) == ["IL207"]
    assert codes(finding("IL201", "a", NOTE), finding("IL207", "a", NOTE)) == ["IL207"]


def test_biases_that_switch_units_off_account_for_the_weights_beside_them() -> None:
    signal = finding("IL201", "0.w 1.w", ERROR, layers="0 1")
    assert codes(signal, finding("IL208", "0.b 1.b", ERROR, topic="bias", layers="0 1")) == ["IL208"]
    assert codes(signal, finding("IL208", "5.b", ERROR, topic="bias", layers="5")) == ["IL201", "IL208"]
    assert codes(signal, finding("IL208", "0.b 1.b", ERROR, topic="scale", layers="0 1")) == ["IL201", "IL208"]


def test_tool_findings_are_left_alone() -> None:
    tool = finding("IL902", "a", topic="tool")
    assert codes(tool, finding("IL105", "a")) == ["IL105", "IL902"]


def test_a_cause_that_shares_nothing_takes_nothing() -> None:
    note = finding("IL101", "z", NOTE, effect=5.0)
    left = absorb([finding("IL003", "a b", ERROR, topic="norm"), note, finding("IL201", "a b")], RULES)
    assert [(f.code, f.severity) for f in left] == [("IL003", ERROR), ("IL101", NOTE)]


def test_half_of_the_layers_explain_a_verdict_on_depth_that_is_no_worse() -> None:
    assert codes(finding("IL101", "a b", WARNING), finding("IL201", "a b c d", WARNING)) == ["IL101"]
    assert codes(finding("IL101", "a b", WARNING), finding("IL201", "a b c d", ERROR)) == ["IL101", "IL201"]
    assert codes(finding("IL101", "a", WARNING), finding("IL201", "a b c d", WARNING)) == ["IL101", "IL201"]
    assert codes(finding("IL101", "a b", NOTE), finding("IL201", "a b c d", NOTE)) == ["IL101", "IL201"]
