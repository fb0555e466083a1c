"""IL334: a learned slope that starts at one, so that the activation does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of


class LinearActivation(Rule):
    """The slopes of a PReLU were written as one, so that the activation is the identity.

    ## What it does
    Finds PReLUs whose slopes are all one at the start because code of the model wrote them, as a pass over all scales
    of norms does when the slope is called as they are. `nn.PReLU(init=1.0)` says what it means, and is left alone.

    ## Why is this bad?
    With slope one the layers on both sides are a single linear map. Training has to move the slopes before depth is
    worth anything, and the weights, scaled for a rectifier, are too large by the root of 2 / (1 + 0.25^2) at each
    layer.

    ## Example
    ```python
    for name, p in model.named_parameters():
        if name.endswith("gamma"):  # the norms' scales, and the slope of the activation
            nn.init.ones_(p)
    ```

    ## Use instead
    ```python
    nn.init.constant_(activation.gamma, 0.25)
    ```

    ## Known problems
    None known.

    ## References
    - He et al. 2015, section 2.1 (slopes start at 0.25), arXiv:1502.01852
    """

    code = "IL334"
    name = "linear-activation"
    family = "architecture"
    severity = Severity.NOTE
    sources = ("He et al. 2015, section 2.1, arXiv:1502.01852",)

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        if facts.loaded:
            return
        nodes = [n for n in facts.nodes if n.op == "activation"]
        read = dict.fromkeys(n.parameters.get("weight", "") for n in nodes if n.attrs.get("fn") == "prelu")
        slopes = [p for name in read if (p := context.parameter(name)) is not None and _written_as_one(p)]
        for group in by_cause(slopes).values():
            names = {p.name for p in group}
            linear = sum(n.parameters.get("weight") in names for n in nodes)
            yield self.finding(
                context,
                f"`{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + ", slopes of PReLU, are written as 1: the activation returns its input",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"slope": 0.25},
                actual={"slope": 1.0},
                effect=f"{linear} of {len(nodes)} activations do nothing until the slopes have moved",
                fix="nn.init.constant_(slope, 0.25)",
                topic="value",
            )

    @bad
    def slopes_with_the_scales() -> Any:
        return _mlp(1.0)

    @good
    def slopes_of_he() -> Any:
        return _mlp(0.25)


def _written_as_one(parameter: ParameterFacts) -> bool:
    values, last = parameter.stats, parameter.last
    written = last is not None and last.origin != "torch"
    return bool(written and parameter.requires_grad and values and values.minimum == values.maximum == 1.0)


def _mlp(slope: float) -> Any:
    from torch import nn

    net = nn.Sequential(nn.Linear(16, 32), nn.PReLU(32), nn.Linear(32, 32), nn.PReLU(32), nn.Linear(32, 4))
    for module in net:
        if isinstance(module, nn.PReLU):
            nn.init.constant_(module.weight, slope)
    return net
