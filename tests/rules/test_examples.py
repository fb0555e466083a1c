"""Every rule reports its own bad examples, at warning or above unless it is a note by nature, and no good one."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

import pytest

import initlint
from initlint import packs
from initlint.findings import Severity
from initlint.rule import Rule

RULES = packs.load()
EXAMPLES = [(rule, kind, f) for rule in RULES for kind in ("bad", "good") for f in type(rule).examples(kind)]


def findings(rule: Rule, example: Callable[[], Any]) -> list[initlint.findings.Finding]:
    """What the rule alone says of the model that the example makes (or of the model and its inputs)."""
    linecache.checkcache()
    made = example()
    inputs = made[1] if isinstance(made, tuple) else None
    build = (lambda: example()[0]) if isinstance(made, tuple) else example
    run = initlint.check(build, inputs=inputs, select=[rule.code])
    failed = [f for f in run.findings if f.code == "IL902"]
    assert not failed, failed[0].message
    return [f for f in run.findings if f.code == rule.code]


@pytest.mark.parametrize(
    ("rule", "kind", "example"), EXAMPLES, ids=[f"{r.code}-{k}-{f.__name__}" for r, k, f in EXAMPLES]
)
def test_example(rule: Rule, kind: str, example: Callable[[], Any]) -> None:
    found = findings(rule, example)
    if kind == "good":
        loud = [f.message for f in found if f.severity >= min(Severity.WARNING, rule.severity)]
        assert not loud
    else:
        assert found, f"{rule.code} does not report its own bad example"
        assert all(f.message and f.site is not None for f in found)


@pytest.mark.parametrize("rule", RULES, ids=[rule.code for rule in RULES])
def test_explains_itself(rule: Rule) -> None:
    assert rule.sources
    assert type(rule).__doc__
    assert rule.severity in Severity
