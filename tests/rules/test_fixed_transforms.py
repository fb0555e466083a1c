"""A fixed transform of the data (buffers) is no layer: gradients before the first trained weight train nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding, Severity
from initlint.rule import Context

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        basis = 1e-7 * torch.randn(32, 32) / 32**0.5
        {register}
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    def forward(self, x):
        return self.body(1e7 * nn.functional.linear(x, self.basis))
def example_inputs():
    return (torch.randn(8, 32),)
"""


@pytest.mark.parametrize(
    ("register", "loud"),
    [("self.register_buffer('basis', basis)", False), ("self.basis = nn.Parameter(basis)", True)],
)
def test_gradients_are_judged_from_the_first_trained_layer(
    analyse: Callable[..., Any], register: str, loud: bool
) -> None:
    context = Context(analyse(NET.format(register=register)), None)
    rules = [rule for rule in packs.load() if rule.code in ("IL203", "IL204")]
    found = [o for rule in rules for o in rule.check(context) if isinstance(o, Finding)]
    assert any(f.severity > Severity.NOTE for f in found) == loud
