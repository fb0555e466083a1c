"""IL112: a formula of the field in the wrong place: a std for a bound, a bound for a std, a root or a fan missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from initlint.findings import Severity
from initlint.rule import bad, good
from initlint.suspect_rule import SuspectRule


class MisappliedFormula(SuspectRule):
    """A formula of the field in the wrong place: std and bound confused, a root taken twice, a gain alone.

    ## What it does
    Compares the recorded std of a normal and the recorded bound of a uniform distribution with the formulas of He,
    Glorot and LeCun for the layer's fans, with and without a gain in front. A std that equals a uniform bound to
    rounding, a bound that equals a std, a root of a root, a bare gain, or a formula whose brackets are missing is a
    formula in the wrong place. Numbers that stand in the call are left alone.

    ## Why is this bad?
    A uniform distribution of bound b has the std b / sqrt(3): std and bound confused change the variance by a factor 3
    at every layer. The root of the root of 2 / fan is far too large for any width.

    ## Example
    ```python
    std = math.sqrt(6 / fan_in)  # the bound of He's uniform scheme
    nn.init.normal_(w, std=std)
    ```

    ## Use instead
    ```python
    nn.init.normal_(w, std=math.sqrt(2 / fan_in))
    ```

    ## Known problems
    Numbers that come from a configuration and equal such a formula by chance are told apart by weights of other shapes
    that the same line writes.

    ## References
    - Glorot and Bengio 2010, eq. 12 and 16
    - He et al. 2015, section 2.2
    """

    code = "IL112"
    name = "misapplied-formula"
    family = "variance"
    severity = Severity.ERROR
    sources = ("Glorot and Bengio 2010, eq. 12 and 16", "He et al. 2015, section 2.2, arXiv:1502.01852")
    reason = "misapplied_formula"
    kind = "mistake"

    @bad
    def bound_as_std() -> Any:
        import math

        from torch import nn

        layers: list[nn.Module] = []
        for size in (48, 96, 48, 96):
            linear = nn.Linear(144 - size, size)
            nn.init.normal_(linear.weight, 0.0, math.sqrt(6 / linear.in_features))
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(96, 4))

    @bad
    def root_of_the_root() -> Any:
        import math

        from torch import nn

        layers: list[nn.Module] = []
        for size in (48, 96, 48, 96):
            linear = nn.Linear(144 - size, size)
            std = math.sqrt(2 / linear.in_features)
            nn.init.normal_(linear.weight, 0.0, math.sqrt(std))
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(96, 4))

    @bad
    def brackets_missing_behind_a_gain() -> Any:
        return _autoencoder(lambda fan_in, fan_out: 2 / fan_in + fan_out)

    @good
    def brackets_behind_a_gain() -> Any:
        return _autoencoder(lambda fan_in, fan_out: 2 / (fan_in + fan_out))

    @good
    def bound_as_bound() -> Any:
        import math

        from torch import nn

        layers: list[nn.Module] = []
        for size in (48, 96, 48, 96):
            linear = nn.Linear(144 - size, size)
            bound = math.sqrt(6 / linear.in_features)
            nn.init.uniform_(linear.weight, -bound, bound)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(96, 4))


def _autoencoder(variance: Callable[[int, int], float]) -> Any:
    """Tanh layers whose std is tanh's gain times the root of a variance."""
    from torch import nn

    layers: list[nn.Module] = []
    for fan_in, fan_out in ((80, 64), (64, 48), (48, 24), (24, 48), (48, 80)):
        linear = nn.Linear(fan_in, fan_out)
        std = nn.init.calculate_gain("tanh") * math.sqrt(variance(fan_in, fan_out))
        nn.init.normal_(linear.weight, 0.0, std)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])
