"""IL202: activations grow without bound over the depth of the net."""

from __future__ import annotations

from typing import Any

from initlint.depth_rule import DepthRule
from initlint.findings import Severity
from initlint.rule import bad, good


class ExplodingActivations(DepthRule):
    """Activations grow without bound over the depth of the net.

    ## What it does
    Predicts the second moment of every node from the actual weights and follows it along the trunk. Reports a
    growth of 1e6 (Adam) or 1e4 (SGD), beyond what the chance of finite width explains.

    ## Why is this bad?
    Activations that grow at every layer give logits and losses of astronomic size; half types overflow after a
    few layers and the first step destroys the weights.

    ## Example
    ```python
    nn.init.normal_(w)
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(w, nonlinearity="relu")
    ```

    ## Known problems
    The prediction assumes standard normal inputs; parts of the graph that are not modelled are left out of the
    profile.

    ## References
    - He et al. 2015, section 2.2
    """

    code = "IL202"
    name = "exploding-activations"
    family = "signal"
    severity = Severity.ERROR
    sources = ("He et al. 2015, section 2.2, arXiv:1502.01852",)
    span = "forward"
    shrinks = False
    what = "activations"

    @bad
    def growing_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    @good
    def steady_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            linear = nn.Linear(64, 64)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10))
