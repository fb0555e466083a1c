"""IL111: biases drawn around a mean that is not zero, with the arguments of another function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.theory.schemes import requested

# normal_(b, -bound, bound): mean and std have the same size to rounding; no scheme draws biases so.
_EXACT = 1e-6


class ShiftedBias(Rule):
    """A bias is drawn with `normal_(bias, -bound, bound)`: the lower bound became the mean.

    ## What it does
    Finds biases whose normal distribution has a mean of the same size as its standard deviation, with opposite
    sign or equal: the two arguments are the bounds of a uniform distribution.

    ## Why is this bad?
    `normal_` takes mean and std. With (-bound, bound) every bias is shifted to the negative side, and rectifiers
    behind them start partly dead.

    ## Example
    ```python
    nn.init.normal_(m.bias, -bound, bound)
    ```

    ## Use instead
    ```python
    nn.init.uniform_(m.bias, -bound, bound)  # or nn.init.zeros_(m.bias)
    ```

    ## Known problems
    Constant biases and biases with any other mean are taken as meant.

    ## References
    - https://github.com/deep-learning-with-pytorch/dlwpt-code/issues/72
    """

    code = "IL111"
    name = "bounds-as-mean-and-std"
    family = "variance"
    severity = Severity.WARNING
    sources = ("https://github.com/deep-learning-with-pytorch/dlwpt-code/issues/72",)

    def check(self, context: Context) -> Iterator[Outcome]:
        suspects = [p for p in context.facts.parameters if _bounds(p) is not None]
        for group in by_cause(suspects).values():
            mean, std = _bounds(group[0]) or (0.0, 0.0)
            yield self.finding(
                context,
                f"`{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f": normal_ with mean {mean:.4g} and std {std:.4g}, the bounds of a uniform distribution",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"mean": 0.0},
                actual={"mean": mean, "std": std},
                effect=f"every value is shifted by {mean:.3g}",
                fix="nn.init.uniform_(bias, -bound, bound)  # or nn.init.zeros_(bias)",
                topic="bias",
            )

    @bad
    def normal_with_bounds() -> Any:
        from torch import nn

        layer = nn.Linear(64, 64)
        nn.init.normal_(layer.bias, -0.125, 0.125)
        return nn.Sequential(layer, nn.ReLU(), nn.Linear(64, 4))

    @good
    def uniform_with_bounds() -> Any:
        from torch import nn

        layer = nn.Linear(64, 64)
        nn.init.uniform_(layer.bias, -0.125, 0.125)
        return nn.Sequential(layer, nn.ReLU(), nn.Linear(64, 4))


def _bounds(parameter: ParameterFacts) -> tuple[float, float] | None:
    write = parameter.last
    if write is None or not write.random or write.region or parameter.kind != "parameter":
        return None
    asked = requested(write, parameter.shape)
    if asked is None or asked.family != "normal" or not asked.mean or not asked.std:
        return None
    # N(1, 1) on gains and the like is positive; the bounds of a uniform one start below zero
    return (asked.mean, asked.std) if asked.mean < 0 and abs(asked.mean + asked.std) <= _EXACT * asked.std else None
