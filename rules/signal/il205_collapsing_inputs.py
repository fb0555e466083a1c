"""IL205: different inputs become the same on their way through the net."""

from __future__ import annotations

from typing import Any

from initlint.depth_rule import DepthRule
from initlint.findings import Severity
from initlint.rule import bad, good


class CollapsingInputs(DepthRule):
    """Different inputs become the same on their way through the net.

    ## What it does
    Follows the part of the signal that depends on the input, q(1 - c) with c the correlation between two samples,
    along the trunk. Reports when it shrinks by 1e6 (Adam) or 1e4 (SGD), also where biases keep the activations
    themselves alive.

    ## Why is this bad?
    A net in the ordered phase maps all inputs to one point. Its activations look healthy, but nothing about the
    input reaches the loss: beyond six correlation lengths it does not train.

    ## Example
    ```python
    layers = [nn.Linear(128, 128) for _ in range(20)]  # default, ReLU
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu"); nn.init.zeros_(layer.bias)
    ```

    ## Known problems
    The prediction assumes standard normal inputs; parts of the graph that are not modelled are left out of the
    profile.

    ## References
    - Schoenholz et al. 2017, figure 5
    - Poole et al. 2016
    """

    code = "IL205"
    name = "collapsing-inputs"
    family = "signal"
    severity = Severity.ERROR
    sources = ("Schoenholz et al. 2017, arXiv:1611.01232",)
    span = "dependent"
    shrinks = True
    what = "the differences between inputs"

    @bad
    def ordered_phase() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(16):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight, std=0.04)
            nn.init.normal_(linear.bias, std=0.5)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    @good
    def critical_line() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(16):
            linear = nn.Linear(64, 64)
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(64, 10))
