"""IL109: a weight is drawn around a mean that is not zero."""

from __future__ import annotations

from typing import Any

from initlint.findings import Severity
from initlint.rule import bad, good
from initlint.suspect_rule import SuspectRule


class NonzeroWeightMean(SuspectRule):
    """A weight is drawn around a mean that is not zero.

    ## What it does
    Finds weights whose init call has a mean of at least half its standard deviation: `uniform_(w, 0, bound)`,
    `rand` without centring, or std and mean in each other's places.

    ## Why is this bad?
    A common mean in all weights adds up over the inputs: after a rectifier the mean part grows with fan_in while
    the random part grows with its root, and all units say the same.

    ## Example
    ```python
    nn.init.uniform_(w, 0, 0.1)
    ```

    ## Use instead
    ```python
    nn.init.uniform_(w, -0.1, 0.1)
    ```

    ## Known problems
    Non-negative weights on purpose (monotone networks, mixing weights) are reported too; ignore them on their line.

    ## References
    - LeCun et al. 1998, Efficient BackProp, section 4.6
    """

    code = "IL109"
    name = "nonzero-weight-mean"
    family = "variance"
    severity = Severity.ERROR
    sources = ("LeCun et al. 1998, Efficient BackProp, section 4.6",)
    reason = "nonzero_mean"
    kind = "mistake"

    @bad
    def uniform_from_zero() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.uniform_(linear.weight, 0.0, 0.2)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)

    @good
    def centred_uniform() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.uniform_(linear.weight, -0.3, 0.3)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)
