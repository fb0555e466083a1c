"""IL110: a gain or scale is passed as kaiming's negative slope `a`."""

from __future__ import annotations

from typing import Any

from initlint.findings import Severity
from initlint.rule import bad, good
from initlint.suspect_rule import SuspectRule


class GainAsSlope(SuspectRule):
    """A gain or scale is passed as kaiming's negative slope `a`.

    ## What it does
    Looks at `kaiming_*_(w, a=...)`: a value above 1, or one that equals a gain of calculate_gain, is no slope of
    the leaky ReLU that `a` stands for. `a=sqrt(5)`, PyTorch's own idiom, is exempt.

    ## Why is this bad?
    Kaiming's gain is sqrt(2 / (1 + a^2)). A gain of 1.4 in the place of a slope of 0.2 makes every layer 1.7 times
    too small, and a larger scale shrinks the weights instead of enlarging them.

    ## Example
    ```python
    kaiming_normal_(w, a=calculate_gain("leaky_relu", 0.2))
    ```

    ## Use instead
    ```python
    kaiming_normal_(w, a=0.2)
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/gapeng000/PyTorch-progressive_growing_of_gans/issues/29
    - https://github.com/Blealtan/efficient-kan/issues/72
    """

    code = "IL110"
    name = "gain-as-slope"
    family = "variance"
    severity = Severity.ERROR
    sources = (
        "https://github.com/gapeng000/PyTorch-progressive_growing_of_gans/issues/29",
        "https://github.com/Blealtan/efficient-kan/issues/72",
    )
    reason = "gain_as_slope"
    kind = "mistake"

    @bad
    def gain_for_slope() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.kaiming_normal_(linear.weight, a=nn.init.calculate_gain("leaky_relu", 0.2))
            layers += [linear, nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers)

    @good
    def slope() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.kaiming_normal_(linear.weight, a=0.2)
            layers += [linear, nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers)
