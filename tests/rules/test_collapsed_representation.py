"""IL505: what it proposes mends what it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from initlint import packs
from initlint.findings import Finding
from initlint.rule import Context

RULE = next(rule for rule in packs.load() if rule.code == "IL505")

CHAIN = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(96, 96) for _ in range({depth})])
        self.head = nn.Linear(96, 10)
        for layer in self.layers:
            {init}
    def forward(self, x):
        for layer in self.layers:
            x = {step}
        return self.head(x)
def example_inputs():
    return (torch.randn(16, 96),)
"""
BURIED = "nn.init.kaiming_normal_(layer.weight); nn.init.constant_(layer.bias, 10.0)"
PLAIN = "nn.init.xavier_uniform_(layer.weight); nn.init.zeros_(layer.bias)"


def found(facts: Any) -> list[Finding]:
    return [o for o in RULE.check(Context(facts)) if isinstance(o, Finding)]


def test_biases_that_bury_the_signal_are_set_to_zero(analyse: Callable[..., Any]) -> None:
    (finding,) = found(analyse(CHAIN.format(init=BURIED, depth=10, step="F.relu(layer(x))")))
    assert finding.fix is not None
    assert finding.fix.snippet.startswith("nn.init.zeros_(bias)")
    assert not found(analyse(CHAIN.format(init=BURIED.replace("10.0", "0.0"), depth=10, step="F.relu(layer(x))")))


def test_biases_that_are_zero_are_not_set_to_zero(analyse: Callable[..., Any]) -> None:
    (finding,) = found(analyse(CHAIN.format(init=PLAIN, depth=4, step="torch.sigmoid(layer(x))")))
    assert finding.fix is not None
    assert not finding.fix.snippet
    assert finding.fix.title.startswith("a BatchNorm between the layers")
