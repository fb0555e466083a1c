"""IL204: gradients grow on their way back to the first layers."""

from __future__ import annotations

from typing import Any

from initlint.depth_rule import DepthRule
from initlint.findings import Severity
from initlint.rule import bad, good


class ExplodingGradients(DepthRule):
    """Gradients grow on their way back to the first layers.

    ## What it does
    Predicts the gradient's energy per sample at every node of the trunk for a unit-variance gradient at the
    output, from the actual weights. Reports a growth of 1e6 (Adam) or 1e4 (SGD) towards the input.

    ## Why is this bad?
    The first layers take steps that are orders of magnitude larger than the last ones': training diverges, or
    clipping leaves nothing for the others. In a tanh net it is the sign of chaos.

    ## Example
    ```python
    nn.init.normal_(linear.weight, std=1.0)
    ```

    ## Use instead
    ```python
    nn.init.orthogonal_(linear.weight)
    ```

    ## Known problems
    The prediction assumes standard normal inputs; parts of the graph that are not modelled are left out of the
    profile. Where norms follow the weights and no residual stream passes by, gradients grow at each activation whatever
    the weights are (Yang et al. 2019): no initialisation mends that, and it is a note, from 1e9 on.

    ## References
    - Yang et al. 2019, A Mean Field Theory of Batch Normalization, arXiv:1902.08129
    - Poole et al. 2016
    - Schoenholz et al. 2017
    """

    code = "IL204"
    name = "exploding-gradients"
    family = "signal"
    severity = Severity.ERROR
    sources = ("Schoenholz et al. 2017, arXiv:1611.01232",)
    span = "gradient"
    shrinks = False
    what = "gradients"

    @bad
    def chaotic_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(24):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight, std=0.6)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    @good
    def critical_chain() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(24):
            linear = nn.Linear(64, 64)
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(64, 10))
