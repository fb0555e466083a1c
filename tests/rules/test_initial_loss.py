"""IL209: what makes logits large, lines that mend it and leave a signal, and a severity that grows with the fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding, Severity
from initlint.rule import Context
from initlint.signal.loss import init_loss

RULE = next(rule for rule in packs.load() if rule.code == "IL209")

STACK = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(96, 96) for _ in range({depth})])
        self.head = nn.Linear(96, 10)
        for layer in self.layers:
            {init}
        {more}
    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)
def example_inputs():
    return (torch.randn(16, 96),)
"""
HE = "nn.init.kaiming_normal_(layer.weight); nn.init.zeros_(layer.bias)"


def stack(init: str = HE, more: str = "pass", depth: int = 8) -> str:
    return STACK.format(init=init, more=more, depth=depth)


def found(facts: Any) -> list[Finding]:
    return [o for o in RULE.check(Context(facts)) if isinstance(o, Finding)]


def test_layers_in_series_share_what_is_to_be_mended(analyse: Callable[..., Any]) -> None:
    loud = "nn.init.normal_(layer.weight, std=0.35); nn.init.zeros_(layer.bias)"
    (finding,) = found(analyse(stack(loud)))
    assert finding.fix is not None
    (std,) = re.findall(r"std=([\d.e-]+)\)  # for each of these 8 layers", finding.fix.snippet)
    mended = Context(analyse(stack(loud.replace("0.35", std))))
    loss = mended.signal.init_loss
    assert loss is not None
    assert 0.3 < loss.logit_std < 3.0, "the line mends the loss and leaves a signal"
    assert mended.signal.dependent_span < 4.0
    assert not found(mended.facts)


def test_where_no_std_mends_the_layers_the_head_is_named(analyse: Callable[..., Any]) -> None:
    residual = stack(depth=10).replace("x = F.relu(", "x = x + F.relu(")
    (finding,) = found(analyse(residual))
    assert "head.weight" not in finding.parameters
    assert finding.fix is not None
    assert finding.fix.snippet.startswith("nn.init.normal_(self.head.weight, std=")


def test_a_head_whose_line_draws_other_layers_is_named(analyse: Callable[..., Any]) -> None:
    both = "[nn.init.normal_(m.weight, std=3.0) for m in (self.head, *self.layers)]"
    normed = stack(more=both, depth=1).replace("x = F.relu(layer(x))", "x = F.layer_norm(layer(x), (96,))")
    (finding,) = found(analyse(normed))
    assert finding.parameters == ("head.weight",)
    assert finding.fix is not None
    assert finding.fix.snippet.startswith("nn.init.normal_(self.head.weight, std=")


def test_a_bias_that_makes_the_logits_is_blamed(analyse: Callable[..., Any]) -> None:
    (finding,) = found(analyse(stack(more="nn.init.normal_(self.head.bias, std=20.0)")))
    assert finding.parameters == ("head.bias",)
    assert finding.severity is Severity.WARNING
    assert finding.fix is not None
    assert finding.fix.snippet == "nn.init.zeros_(self.head.bias)"
    assert "100% of their variance is that of the bias" in finding.message


def test_a_bias_that_was_chosen_is_a_note(analyse: Callable[..., Any]) -> None:
    chosen = "self.head.bias.data.copy_(torch.linspace(-40.0, 40.0, 10))"
    (finding,) = found(analyse(stack(more=chosen)))
    assert (finding.parameters, finding.severity) == (("head.bias",), Severity.NOTE)
    assert finding.fix is not None
    assert not finding.fix.snippet, "the logarithms of frequencies are advice, no line to write"


def test_biases_of_the_body_are_blamed_where_zeros_mend_it(analyse: Callable[..., Any]) -> None:
    (finding,) = found(analyse(stack("nn.init.orthogonal_(layer.weight); nn.init.constant_(layer.bias, 20.0)")))
    assert set(finding.parameters) == {f"layers.{i}.bias" for i in range(8)}
    assert finding.fix is not None
    assert finding.fix.snippet.startswith("nn.init.zeros_(bias)")


@pytest.mark.parametrize("factor", [1e2, 1e3, 2e3, 1e4])
def test_severity_does_not_fall_as_a_fault_grows(analyse: Callable[..., Any], factor: float) -> None:
    facts = analyse(stack(more=f"self.layers[3].weight.data.mul_({factor})", depth=6))
    (finding,) = found(facts)
    assert finding.severity == (Severity.WARNING if factor < 1e3 else Severity.ERROR)
    assert finding.parameters == ("layers.3.weight",)


def test_growth_over_depth_is_left_to_the_rule_that_says_as_much(analyse: Callable[..., Any]) -> None:
    facts = analyse(stack(more="self.layers[3].weight.data.mul_(1e6)", depth=6))
    depth = next(rule for rule in packs.load() if rule.code == "IL202")
    assert [o.severity for o in depth.check(Context(facts)) if isinstance(o, Finding)] == [Severity.ERROR]
    assert not found(facts)


@pytest.mark.parametrize("std", [1e3, 1e8, 1e15])
def test_the_loss_of_large_logits_grows_with_them(analyse: Callable[..., Any], std: float) -> None:
    signal = Context(analyse(stack(more=f"nn.init.normal_(self.head.weight, std={std})"))).signal
    loss = signal.init_loss
    assert loss is not None
    assert signal.scene is not None
    assert signal.sweeps is not None
    assert loss == init_loss(signal.scene, signal.scene.facts.outputs, signal.sweeps[0].states)
    # the greatest of ten normal logits lies 1.54 standard deviations above the true one
    assert loss.predicted == pytest.approx(1.54 * loss.logit_std, rel=0.02)


def test_a_change_of_type_is_no_place_to_mend_values(analyse: Callable[..., Any]) -> None:
    facts = analyse(stack("nn.init.normal_(layer.weight, std=0.35); nn.init.zeros_(layer.bias)", "self.double()"))
    (finding,) = found(facts)
    assert finding.site is not None
    assert "normal_" in finding.site.text
