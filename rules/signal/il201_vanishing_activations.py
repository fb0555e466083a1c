"""IL201: activations shrink towards zero over the depth of the net."""

from __future__ import annotations

from typing import Any

from initlint.depth_rule import DepthRule
from initlint.findings import Severity
from initlint.rule import bad, good


class VanishingActivations(DepthRule):
    """Activations shrink towards zero over the depth of the net.

    ## What it does
    Predicts the second moment of every node from the actual weights and follows it along the trunk, the nodes
    that every path from input to output crosses. Reports a loss of 1e6 (Adam) or 1e4 (SGD), beyond what the
    chance of finite width explains.

    ## Why is this bad?
    A layer that keeps half of the second moment leaves 1e-6 after twenty. The output no longer depends on the
    input to the precision of the type, and gradients shrink with it.

    ## Example
    ```python
    nn.init.xavier_normal_(w)  # twenty ReLU layers
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
    - Glorot and Bengio 2010, section 4
    """

    code = "IL201"
    name = "vanishing-activations"
    family = "signal"
    severity = Severity.ERROR
    sources = ("He et al. 2015, section 2.2, arXiv:1502.01852",)
    span = "forward"
    shrinks = True
    what = "activations"

    @bad
    def shrinking_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight, std=0.05)
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
