"""What IL501 takes for scores of classes, how sure it says it is, and the name of the head that it mends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding
from initlint.rule import Context

RULE = next(rule for rule in packs.load() if rule.code == "IL501")

DEEP = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(24):
            linear = nn.Linear(96, 96)
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.stages = nn.ModuleList([nn.Sequential(*layers), nn.Linear(96, 6)])
    def forward(self, x):
        y = self.stages[1](self.stages[0](x))
        return {returned}
def example_inputs():
    return (torch.randn(4, 96),)
"""
AGAIN = DEEP.replace("nn.Linear(96, 6)", "nn.Linear(96 + {size}, 6)").replace(
    "self.stages[1](self.stages[0](x))", "self.stages[1](torch.cat([x[:, :{size}], self.stages[0](x)], -1))"
)


def found(facts: Any) -> list[Finding]:
    return [o for o in RULE.check(Context(facts)) if isinstance(o, Finding)]


@pytest.mark.parametrize(("returned", "sure"), [("y", False), ("F.log_softmax(y, -1)", True)])
def test_scores_are_certain_where_something_compares_them(
    analyse: Callable[..., Any], returned: str, sure: bool
) -> None:
    (finding,) = found(analyse(DEEP.format(returned=returned)))
    assert ("if its 6 outputs are scores" in finding.message) != sure
    assert finding.fix is not None
    assert finding.fix.snippet.startswith("nn.init.zeros_(self.stages[1].weight)")


def test_a_net_that_reads_a_point_again_is_a_function_of_places(analyse: Callable[..., Any]) -> None:
    assert not found(analyse(AGAIN.format(size=3, returned="y")))


def test_a_net_that_reads_its_features_again_is_not(analyse: Callable[..., Any]) -> None:
    facts = analyse(AGAIN.format(size=30, returned="y"))
    of_places = vars(sys.modules[type(RULE).__module__])["_of_places"]
    assert not of_places(facts.nodes, len(facts.nodes))


HEAD = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(96, 96), nn.Tanh()), nn.Linear(96, 6)
        nn.init.zeros_(self.head.weight)
        {bias}
    def forward(self, x):
        return self.head(self.body(x))
def example_inputs():
    return (torch.randn(4, 96),)
"""
PRIORS = "self.head.bias.data.copy_(torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]).log())"


def test_a_bias_that_would_be_left_alone_is_mended_with_the_weights(analyse: Callable[..., Any]) -> None:
    both = "nn.init.zeros_(self.stages[1].weight); nn.init.zeros_(self.stages[1].bias)"
    (finding,) = found(analyse(DEEP.format(returned="y")))
    assert finding.fix is not None
    assert finding.fix.snippet.startswith(both)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.Linear(96, 6)", "nn.Linear(96, 6, bias=False)"),
        ("    def forward", "        nn.init.zeros_(self.stages[1].bias)\n    def forward"),
    ],
)
def test_without_a_bias_that_differs_the_weights_are_enough(analyse: Callable[..., Any], old: str, new: str) -> None:
    (finding,) = found(analyse(DEEP.replace(old, new).format(returned="y")))
    assert finding.fix is not None
    assert "bias" not in finding.fix.snippet


def test_the_default_bias_of_a_head_of_zeros_chooses_the_class(analyse: Callable[..., Any]) -> None:
    (finding,) = found(analyse(HEAD.format(bias="pass")))
    assert finding.parameters == ("head.bias",)
    assert finding.actual["largest_share"] == 1.0
    assert finding.fix is not None
    assert finding.fix.snippet == "nn.init.zeros_(self.head.bias)"


@pytest.mark.parametrize("bias", ["nn.init.zeros_(self.head.bias)", "nn.init.constant_(self.head.bias, -4.6)", PRIORS])
def test_a_bias_that_is_the_same_for_all_or_was_chosen_is_right(analyse: Callable[..., Any], bias: str) -> None:
    assert not found(analyse(HEAD.format(bias=bias)))


@pytest.mark.parametrize(("bias", "said"), [(PRIORS.replace("0.5, 0.1", "0.999, 0.001"), False), ("pass", True)])
def test_priors_beside_weights_are_left_alone(analyse: Callable[..., Any], bias: str, said: bool) -> None:
    small = HEAD.replace("nn.init.zeros_(self.head.weight)", "nn.init.normal_(self.head.weight, std=1e-3)")
    assert [f.parameters for f in found(analyse(small.format(bias=bias)))] == ([("head.bias",)] if said else [])
