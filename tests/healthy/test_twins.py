"""Small models of many kinds, each healthy and broken in one way: what is said, how loudly, and what is not said."""

from __future__ import annotations

import functools

import pytest

torch = pytest.importorskip("torch")

from twins import TWINS  # noqa: E402  (benchmarks/, put on the path by the conftest beside this file)

import initlint  # noqa: E402
from initlint.findings import Finding, Severity  # noqa: E402

LEVELS = {level.label: level for level in Severity}


def findings(name: str, *, broken: bool) -> tuple[Finding, ...]:
    case = TWINS[name]
    torch.manual_seed(0)
    run = initlint.check(functools.partial(case.model, broken), inputs=case.inputs(), seed=0, name=name)
    assert run.models, run.not_analysed
    return run.findings


@pytest.mark.parametrize("name", TWINS)
def test_healthy_twin_is_silent(name: str) -> None:
    loud = [(f.code, f.message) for f in findings(name, broken=False) if f.severity >= Severity.WARNING]
    assert not loud


@pytest.mark.parametrize("name", TWINS)
def test_broken_twin_is_found_at_its_severity(name: str) -> None:
    case = TWINS[name]
    found = findings(name, broken=True)
    said = {f.code: f.severity for f in found}
    right = [code for code in case.codes if LEVELS[case.lowest] <= said.get(code, -1) <= LEVELS[case.highest]]
    assert right, said
    assert max(said.values()) <= LEVELS[case.highest]
