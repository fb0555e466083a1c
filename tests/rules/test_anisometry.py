"""IL504 on matrices that are too large for a singular value decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding
from initlint.rule import Context

RULE = next(rule for rule in packs.load() if rule.code == "IL504")

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear({size}, {size}), nn.Linear({size}, 10)
        with torch.no_grad():
            self.first.weight.copy_({weight})
    def forward(self, x):
        return self.head(torch.tanh(self.first(x)))
def example_inputs():
    return (torch.randn(8, {size}),)
"""
ONE = "torch.randn({size}, 1) @ torch.randn(1, {size}) / 12"
COPIES = "self.first.weight[:1].repeat({size}, 1)"


def found(facts: Any) -> list[Finding]:
    return [o for o in RULE.check(Context(facts)) if isinstance(o, Finding)]


@pytest.mark.parametrize("size", [80, 128, 320])
@pytest.mark.parametrize(
    "weight", [ONE + " + 0.01 * torch.randn({size}, {size})", COPIES + " + 1e-4 * torch.randn({size}, {size})"]
)
def test_one_direction_is_seen_where_the_mean_is_zero(analyse: Callable[..., Any], weight: str, size: int) -> None:
    (finding,) = found(analyse(NET.format(size=size, weight=weight.format(size=size))))
    assert finding.parameters == ("first.weight",)
    assert finding.actual["singular_ratio"] == pytest.approx(size**0.5 / 2, rel=0.1), "nearly of rank one"


@pytest.mark.parametrize("size", [80, 128, 320])
@pytest.mark.parametrize(
    "weight",
    [
        "torch.randn({size}, {size}) / 12",
        "nn.init.orthogonal_(self.first.weight)",
        "torch.randn({size}, {size}) * torch.linspace(0.1, 1.0, {size})[:, None] / 12",  # loud and quiet units
        "torch.randn({size}, {size}) / 12 + " + ONE + " / 8",  # a direction that is not much more than others
    ],
)
def test_many_directions_are_right(analyse: Callable[..., Any], weight: str, size: int) -> None:
    assert not found(analyse(NET.format(size=size, weight=weight.format(size=size))))
