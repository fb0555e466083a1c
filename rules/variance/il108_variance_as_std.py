"""IL108: a variance is handed to a parameter that expects a standard deviation."""

from __future__ import annotations

from typing import Any

from initlint.findings import Severity
from initlint.rule import bad, good
from initlint.suspect_rule import SuspectRule


class VarianceAsStd(SuspectRule):
    """A variance is handed to a parameter that expects a standard deviation.

    ## What it does
    Compares the recorded std with the variance formulas of the field: 1 / fan, 2 / fan, 2 / (fan_in + fan_out). A
    std that equals one of them to rounding is a variance.

    ## Why is this bad?
    The weights come out sqrt(variance) too small: 16 times for 256 inputs, at every layer.

    ## Example
    ```python
    nn.init.normal_(w, 0.0, 2.0 / (fan_in + fan_out))
    ```

    ## Use instead
    ```python
    nn.init.normal_(w, 0.0, math.sqrt(2.0 / (fan_in + fan_out)))
    ```

    ## Known problems
    A std of 1 / fan_in is right for a SIREN's first layer and for some readouts; the effect decides.

    ## References
    - https://github.com/mlpack/mlpack/pull/3651
    - Glorot and Bengio 2010, eq. 16
    """

    code = "IL108"
    name = "variance-as-std"
    family = "variance"
    severity = Severity.ERROR
    sources = ("https://github.com/mlpack/mlpack/pull/3651",)
    reason = "variance_as_std"
    kind = "mistake"

    @bad
    def glorot_variance() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(4):
            linear = nn.Linear(128, 128)
            nn.init.normal_(linear.weight, 0.0, 2.0 / (128 + 128))
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers)

    @good
    def glorot_std() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(4):
            linear = nn.Linear(128, 128)
            nn.init.normal_(linear.weight, 0.0, (2.0 / (128 + 128)) ** 0.5)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers)
