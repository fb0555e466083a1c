"""IL104: a scheme derived for another activation than the one that follows."""

from __future__ import annotations

import math
from typing import Any

from initlint.diagnosis import Suspect
from initlint.findings import Severity
from initlint.rule import Context, bad, good
from initlint.signal import Effect
from initlint.suspect_rule import SuspectRule

# Values near what suits do no harm that these would not: Kaiming's gain of sqrt(2) against 5/3 before tanh is
# a ratio of 1.4 of the variances. Xavier before ReLU is one of 2.
_CLOSE = math.log10(1.5)


class SchemeForAnotherActivation(SuspectRule):
    """A scheme derived for another activation than the one that follows.

    ## What it does
    Pairs each layer with its downstream activation and compares the scheme that the code chose: Xavier before a
    rectifier, Kaiming before tanh or sigmoid, anything but LeCun before SELU, a SIREN's bound for another frequency
    than the sine has. The severity follows from what the
    whole net makes of it: nothing in three layers or before a norm, much in twenty.

    ## Why is this bad?
    A rectifier passes half of the second moment, so weights of Xavier's variance halve the signal at every layer:
    2^-20 after twenty. Kaiming's gain before tanh makes the net chaotic instead.

    ## Example
    ```python
    nn.init.xavier_normal_(conv.weight)  # a ReLU follows
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    ```

    ## Known problems
    Layers whose consumer is a norm, a residual sum or the output are not judged here.

    ## References
    - He et al. 2015, section 2.2 (Xavier stalls at 30 layers)
    - Glorot and Bengio 2010, eq. 12 and 16
    - Klambauer et al. 2017 (SELU)
    - Sitzmann et al. 2020, section 3.2 (SIREN)
    """

    code = "IL104"
    name = "scheme-for-another-activation"
    family = "variance"
    severity = Severity.ERROR
    sources = (
        "He et al. 2015, section 2.2, arXiv:1502.01852",
        "Glorot and Bengio 2010, eq. 16",
    )
    reason = "other_activation"
    kind = "mismatch"

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        found = super().level(context, group, effect)
        close = all(abs(math.log10(s.actual / s.expected)) < _CLOSE for s in group)
        return min(found, Severity.NOTE) if close else found

    @bad
    def xavier_before_relu() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(20):
            linear = nn.Linear(64, 64)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)

    @bad
    def sines_of_another_frequency() -> Any:
        return _sines(written=30.0, used=1.0)

    @good
    def sines_of_their_frequency() -> Any:
        return _sines(written=30.0, used=30.0)

    @good
    def kaiming_before_relu() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(20):
            linear = nn.Linear(64, 64)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)


def _sines(written: float, used: float) -> Any:
    import torch
    from torch import nn

    class Sine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.omega = nn.Parameter(torch.tensor(used))  # learned, as in several published variants

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(self.omega * x)

    layers: list[nn.Module] = []
    for i, width in enumerate((2, 64, 64)):
        linear = nn.Linear(width, 64)
        bound = 1 / width if i == 0 else (6 / width) ** 0.5 / written
        nn.init.uniform_(linear.weight, -bound, bound)
        layers += [linear, Sine()]
    return nn.Sequential(*layers, nn.Linear(64, 1))
