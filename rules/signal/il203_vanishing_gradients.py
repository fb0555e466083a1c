"""IL203: gradients vanish on their way back to the first layers."""

from __future__ import annotations

from typing import Any

from initlint.depth_rule import DepthRule
from initlint.findings import Severity
from initlint.rule import bad, good


class VanishingGradients(DepthRule):
    """Gradients vanish on their way back to the first layers.

    ## What it does
    Predicts the gradient's energy per sample at every node of the trunk for a unit-variance gradient at the
    output, from the actual weights. Reports a loss of 1e6 (Adam) or 1e4 (SGD) towards the input, with a factor
    common to all layers divided out.

    ## Why is this bad?
    The first layers do not move. SGD stops at a ratio of 1e6, Adam somewhere beyond 1e9, since its steps do not
    scale with the gradient.

    ## Example
    ```python
    self.body = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(12)])
    ```

    ## Use instead
    ```python
    nn.init.xavier_normal_(w, gain=4.0)  # sigmoid's slope is 1/4
    ```

    ## Known problems
    The prediction assumes standard normal inputs; parts of the graph that are not modelled are left out of the
    profile.

    ## References
    - Glorot and Bengio 2010
    - Hochreiter 1991
    """

    code = "IL203"
    name = "vanishing-gradients"
    family = "signal"
    severity = Severity.ERROR
    sources = ("Glorot and Bengio 2010, section 4.2",)
    span = "gradient"
    shrinks = True
    what = "gradients"

    @bad
    def sigmoid_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            linear = nn.Linear(64, 64)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Sigmoid()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    @good
    def tanh_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            linear = nn.Linear(64, 64)
            nn.init.xavier_normal_(linear.weight, gain=4.0)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Sigmoid()]
        return nn.Sequential(*layers, nn.Linear(64, 10))
