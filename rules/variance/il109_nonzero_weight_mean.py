"""IL109: a weight is drawn around a mean that is not zero."""

from __future__ import annotations

from typing import Any

from initlint.diagnosis import Suspect
from initlint.findings import Severity
from initlint.rule import Context, bad, good
from initlint.signal import Effect
from initlint.suspect_rule import SuspectRule

# THEORY 6.1: a ratio of second moments of 10 is harmless.
_HARMLESS = 10.0
# Norms that subtract the mean over channels, and with it what all units have in common.
_CENTRE_UNITS = ("layer", "group")


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

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        found = super().level(context, group, effect)
        if found is Severity.NOTE and sum(_alike(context, s) for s in group) >= 2:
            return Severity.WARNING
        return found

    @bad
    def uniform_from_zero() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.uniform_(linear.weight, 0.0, 0.2)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)

    @bad
    def uniform_from_zero_before_norms() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(4):
            conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
            nn.init.uniform_(conv.weight, 0.0, 0.2)
            layers += [conv, nn.BatchNorm2d(16), nn.ReLU()]
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


def _alike(context: Context, suspect: Suspect) -> bool:
    """Whether a norm that follows keeps what the mean does: units that say the same, layer after layer.

    With t = mean^2 / std^2 the units of one layer correlate by t / (1 + t); the next layer sums their common part
    coherently, with F t times the variance of its random part. A norm for each channel rescales both alike.
    """
    at = suspect.layer.consumer_node
    if suspect.layer.consumer != "norm" or at is None or context.facts.nodes[at].attrs.get("kind") in _CENTRE_UNITS:
        return False
    t = suspect.actual / suspect.expected - 1.0
    return (suspect.layer.fan_in or 1.0) * t * t / (1.0 + t) > _HARMLESS
