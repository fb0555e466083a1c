"""A std that goes by depth, for matrices chosen by a name that the model may not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding, Severity
from initlint.rule import Context

IL402 = next(rule for rule in packs.load() if rule.code == "IL402")

MODEL = """
import math

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.fc_in, self.fc_out = nn.LayerNorm(width), nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x):
        return x + self.fc_out(F.gelu(self.fc_in(self.norm(x))))

class Net(nn.Module):
    def __init__(self, layers=8, base=0.02):
        super().__init__()
        self.layers, self.base = layers, base
        self.tokens = nn.Embedding(50, 32)
        self.blocks = nn.Sequential(*(Block(32) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 50, bias=False)
        self.init_weights()

    def init_weights(self):
        small = self.base / math.sqrt({count} * self.layers)
        for name, p in self.named_parameters():
            if p.dim() < 2:
                continue
{choose}

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.tokens(x))))

def example_inputs():
    return (torch.randint(0, 50, (2, 6)),)
"""
BRANCH = """
            if {test}:
                nn.init.normal_(p, mean=0.0, std=small)
            else:
                nn.init.normal_(p, mean=0.0, std=self.base)
"""
ARGUMENT = """
            nn.init.normal_(p, mean=0.0, std=small if {test} else self.base)
"""
NAMED = """
            writes = {test}
            std = small if writes else self.base
            nn.init.normal_(p, mean=0.0, std=std)
"""
AFTERWARDS = """
            nn.init.normal_(p, mean=0.0, std=self.base)
        for name, p in self.named_parameters():
            if {test}:
                nn.init.normal_(p, mean=0.0, std=small)
"""


def found(analyse: Callable[..., Any], choose: str, name: str, count: int = 2) -> list[Finding]:
    test = f'name.endswith("{name}.weight")'
    facts = analyse(MODEL.format(count=count, choose=choose.format(test=test)), inputs=None)
    return [o for o in IL402.check(Context(facts)) if isinstance(o, Finding)]


@pytest.mark.parametrize("choose", [BRANCH, ARGUMENT, NAMED, AFTERWARDS])
@pytest.mark.parametrize("count", [1, 2])
def test_a_name_that_no_writer_has(analyse: Callable[..., Any], choose: str, count: int) -> None:
    (finding,) = found(analyse, choose, "c_proj", count)
    assert finding.severity is Severity.WARNING
    assert finding.parameters == tuple(f"blocks.{i}.fc_out.weight" for i in range(8))
    assert finding.expected["std"] == pytest.approx(0.02 / (count * 8) ** 0.5)


@pytest.mark.parametrize("choose", [BRANCH, ARGUMENT, NAMED, AFTERWARDS])
def test_the_name_of_the_writers(analyse: Callable[..., Any], choose: str) -> None:
    assert not found(analyse, choose, "fc_out")


@pytest.mark.parametrize("choose", [BRANCH, ARGUMENT])
def test_a_std_that_goes_by_nothing_in_the_model_is_for_other_models(analyse: Callable[..., Any], choose: str) -> None:
    assert not found(analyse, choose, "c_proj", 5)
