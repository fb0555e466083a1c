"""Differences that are exactly zero have no scale: what the rules on depth say of them, and what they leave open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding, Undetermined
from initlint.rule import Context

RULES = {rule.code: rule for rule in packs.load()}

# Scores of an additive attention: tanh of query and keys, times a vector. The state is the input with most layers.
ATTENTION = """
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.keys, self.state = nn.Linear(48, 32), nn.Linear(24, 32)
        self.score = nn.Parameter({score})
        self.out = nn.Linear(48, 12)
    def forward(self, state, memory):
        seen = torch.tanh(self.keys(memory) + self.state(state)[:, None])
        weights = (seen @ self.score).softmax(1)
        return self.out(torch.bmm(weights[:, None], memory)[:, 0])
def example_inputs():
    return torch.randn(4, 24), torch.randn(4, 10, 48)
"""

STEP = """
class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > {level}).float()
    @staticmethod
    def backward(ctx, g):
        return g
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(20, 40), nn.Linear(40, 8)
    def forward(self, x):
        return self.b(Step.apply(self.a(x)))
def example_inputs():
    return (torch.randn(4, 20),)
"""


def outcomes(facts: Any, code: str) -> list[Any]:
    return list(RULES[code].check(Context(facts)))


@pytest.mark.parametrize("score", ["torch.zeros(32)", "torch.randn(32) / 32"])
def test_an_attention_that_starts_even_loses_nothing(analyse: Callable[..., Any], score: str) -> None:
    facts = analyse(ATTENTION.format(score=score))
    assert not outcomes(facts, "IL205")


def test_what_was_measured_the_same_is_left_open(analyse: Callable[..., Any]) -> None:
    facts = analyse(STEP.format(level=-50.0))  # every unit fires for every input
    (found,) = outcomes(facts, "IL205")
    assert isinstance(found, Undetermined)
    assert "measured the same for all inputs" in found.reason
    for code in ("IL501", "IL505"):
        assert not [o for o in outcomes(facts, code) if isinstance(o, Finding)]


def test_a_step_that_tells_inputs_apart_is_judged(analyse: Callable[..., Any]) -> None:
    assert not outcomes(analyse(STEP.format(level=0.0)), "IL205")
