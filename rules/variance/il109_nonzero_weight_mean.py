"""IL109: a weight is drawn around a mean that is not zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.diagnosis import Suspect
from initlint.facts import ParameterFacts
from initlint.findings import Finding, Severity
from initlint.rule import Context, Outcome, bad, by_cause, good, site_of
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import intent
from initlint.suspect_rule import SuspectRule

# THEORY 6.1: a ratio of second moments of 10 is harmless.
_HARMLESS = 10.0
# Norms that subtract the mean over channels, and with it what all units have in common.
_CENTRE_UNITS = ("layer", "group")


class NonzeroWeightMean(SuspectRule):
    """A weight is drawn around a mean that is not zero.

    ## What it does
    Finds weights whose init call has a mean of at least half its standard deviation: `uniform_(w, 0, bound)`,
    `rand` without centring, or std and mean in each other's places. And truncated normals, of any parameter, whose
    mean lies outside of their bounds.

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

    def check(self, context: Context) -> Iterator[Outcome]:
        said: set[str] = set()
        for outcome in super().check(context):
            said.update(outcome.parameters if isinstance(outcome, Finding) else ())
            yield outcome
        cut = [p for p in context.facts.parameters if p.name not in said and not context.facts.loaded and _cut_off(p)]
        for group in by_cause(cut).values():
            yield self._outside(context, group)

    def _outside(self, context: Context, group: list[ParameterFacts]) -> Outcome:
        """A mean that the bounds of the truncation keep out."""
        first = group[0]
        assert first.last is not None
        assert first.stats is not None
        args = first.last.args
        mean, std, low, high = (float(args[name]) for name in ("mean", "std", "a", "b"))  # type: ignore[arg-type]
        effect = context.effect({p.name: Nominal(mean, std * std) for p in group})
        settings = context.settings
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"`{first.name}`{more}: trunc_normal_ is to draw around {mean:g} and cuts at {low:g} and {high:g}: all"
            f" values lie at a bound, around {first.stats.mean:.4g}",
            parameters=[p.name for p in group],
            severity=intent(effect, context.signal, settings.optimizer, context.facts.dtype, matters=True),
            site=site_of(first),
            expected={"mean": mean, "std": std},
            actual={"mean": first.stats.mean, "std": first.stats.var**0.5},
            effect=effect,
            fix=f"nn.init.trunc_normal_(weight, {mean:g}, {std:g}, a={mean - 2 * std:g}, b={mean + 2 * std:g})",
            topic="scale",
        )

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

    @bad
    def mean_outside_the_bounds() -> Any:
        from torch import nn

        layer = nn.Linear(16, 16)
        nn.init.trunc_normal_(layer.bias, mean=4.0, std=0.5)
        return nn.Sequential(layer, nn.Tanh(), nn.Linear(16, 4))

    @good
    def bounds_around_the_mean() -> Any:
        from torch import nn

        layer = nn.Linear(16, 16)
        nn.init.trunc_normal_(layer.bias, mean=4.0, std=0.5, a=3.0, b=5.0)
        return nn.Sequential(layer, nn.Tanh(), nn.Linear(16, 4))

    @good
    def logarithm_of_the_weight() -> Any:
        """The weight is the exponential of what is drawn: its mean is a scale."""
        import torch
        from torch import nn

        class Positive(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.log, self.head = nn.Parameter(torch.empty(16, 32)), nn.Linear(32, 4)
                nn.init.normal_(self.log, -2.0, 0.3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.relu(x @ self.log.exp()))

        return Positive(), (torch.randn(8, 16),)

    @good
    def centred_uniform() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.uniform_(linear.weight, -0.3, 0.3)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)


def _cut_off(parameter: ParameterFacts) -> bool:
    """Whether a truncated normal's mean is kept out by its bounds.

    Beyond two standard deviations, where ``torch.nn.init.trunc_normal_`` warns that its values may be wrong.
    """
    write, stats = parameter.last, parameter.stats
    if write is None or write.op != "trunc_normal_" or write.args.get("derived") or stats is None:
        return False
    mean, std, low, high = (write.args.get(name) for name in ("mean", "std", "a", "b"))
    if not all(isinstance(value, (int, float)) for value in (mean, std, low, high)):
        return False
    return not low - 2 * std <= mean <= high + 2 * std  # type: ignore[operator]


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
