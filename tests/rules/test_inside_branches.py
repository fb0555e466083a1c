"""A mistake inside a residual branch only makes the branch smaller; the same on the trunk shrinks the signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding, Severity
from initlint.rule import Context

NET = """
def conv(wide, high, groups=1, size=1):
    layer = nn.Conv2d(wide, high, size, padding=size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = {norm}
        self.a, self.b, self.c = conv(32, 64), conv(64, 64, 8, 3), conv(64, 32)
    def forward(self, x):
        y = self.c(torch.relu(self.b(torch.relu(self.a(self.norm(x))))))
        return {result}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 32, 3), nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(32, 5)
    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
def example_inputs():
    return (torch.randn(4, 3, 16, 16),)
"""


@pytest.mark.parametrize(
    ("norm", "result", "loud"),
    [("nn.BatchNorm2d(32)", "x + y", False), ("nn.Identity()", "y", True), ("nn.Identity()", "x + y", False)],
)
def test_only_the_trunk_is_warned_about(analyse: Callable[..., Any], norm: str, result: str, loud: bool) -> None:
    facts = analyse(NET.format(norm=norm, result=result))
    rule = next(rule for rule in packs.load() if rule.code == "IL105")
    found = [o for o in rule.check(Context(facts, None)) if isinstance(o, Finding)]
    assert [p for f in found for p in f.parameters] == [f"blocks.{i}.b.weight" for i in range(3)]
    assert [f.severity > Severity.NOTE for f in found] == [loud]
