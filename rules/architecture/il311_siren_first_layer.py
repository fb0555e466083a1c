"""IL311: the first layer of a sine network has the bound of a hidden layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.asked import nominal_second
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal

# The frequencies of the first layer spread with its bound. Half of 1/fan_in still covers the published range of
# omega_0 (15 to 60); below that the coordinates are blurred.
_TOO_SMALL = 0.5


class SirenFirstLayer(Rule):
    """The first sine layer uses the hidden layers' bound, so its input frequencies are far too low.

    ## What it does
    Finds layers that read the model's input, are followed by sin(omega * x) with omega well above 1, and whose bound
    is sqrt(6 / fan_in) / omega rather than 1 / fan_in.

    ## Why is this bad?
    The first layer of a SIREN sets the frequencies of the representation: omega * W x is meant to span several
    periods over the coordinates. With the hidden layers' bound it spans a fraction of one, and the network fits
    slowly and blurred.

    ## Example
    ```python
    bound = math.sqrt(6 / dim_in) / w0  # for every layer
    ```

    ## Use instead
    ```python
    bound = 1 / dim_in if is_first else math.sqrt(6 / dim_in) / w0
    ```

    ## Known problems
    Inputs that are encoded into many features first need no large bound and are not judged.

    ## References
    - Sitzmann et al. 2020, section 3.2
    - https://github.com/lucidrains/siren-pytorch/issues/1
    """

    code = "IL311"
    name = "siren-first-layer"
    family = "architecture"
    severity = Severity.WARNING
    sources = (
        "Sitzmann et al. 2020, section 3.2, arXiv:2006.09661",
        "https://github.com/lucidrains/siren-pytorch/issues/1",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        for layer in context.facts.layers:
            if layer.activation != "sin" or layer.before != "input" or layer.pre_scale < 2 or not layer.fan_in:
                continue
            parameter = context.parameter(layer.weight)
            # coordinates are few; a long feature vector is no coordinate
            if (
                parameter is None
                or parameter.stats is None
                or layer.fan_in > 16
                or parameter.stats.distinct is not None
            ):
                continue
            second = nominal_second(parameter)[0]
            expected = 1 / (3 * layer.fan_in**2)
            if second >= _TOO_SMALL**2 * expected:
                continue
            yield self.finding(
                context,
                f"`{parameter.name}` feeds the first sine with bound {math.sqrt(3 * second):.3g}:"
                f" 1/fan_in = {1 / layer.fan_in:.3g} sets the intended frequencies",
                parameters=[parameter.name],
                site=context.computed_at(site_of(parameter)),
                expected={"std": math.sqrt(expected), "bound": 1 / layer.fan_in},
                actual={"std": math.sqrt(second), "bound": math.sqrt(3 * second)},
                effect=context.effect({parameter.name: Nominal(0.0, expected)}),
                fix=f"nn.init.uniform_(weight, -1 / {layer.fan_in:g}, 1 / {layer.fan_in:g})",
                topic="scale",
            )

    @bad
    def hidden_bound_first() -> Any:
        return _siren(first=False)

    @good
    def own_bound_first() -> Any:
        return _siren(first=True)


def _siren(first: bool) -> Any:
    import torch
    from torch import nn

    class Sine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(30.0 * x)

    layers: list[nn.Module] = []
    for i, width in enumerate((2, 64)):
        linear = nn.Linear(width, 64)
        bound = 1 / width if first and i == 0 else (6 / width) ** 0.5 / 30
        nn.init.uniform_(linear.weight, -bound, bound)
        layers += [linear, Sine()]
    return nn.Sequential(*layers, nn.Linear(64, 3))
