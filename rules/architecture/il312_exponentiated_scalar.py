"""IL312: a scale that the forward exponentiates starts at 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of


class ExponentiatedScalar(Rule):
    """A parameter initialised to 1, the neutral factor, is used through exp, where 0 is neutral.

    ## What it does
    Finds scalar or per-channel parameters that are filled with exactly 1 and read only through `exp`.

    ## Why is this bad?
    exp(1) = 2.718 is neither neutral nor the temperature of any paper. CLIP's logit scale starts at
    log(1 / 0.07), so that the logits are multiplied by 14.3; with ones they are five times too flat.

    ## Example
    ```python
    self.logit_scale = nn.Parameter(torch.ones([]))  # used as logit_scale.exp()
    ```

    ## Use instead
    ```python
    self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    ```

    ## Known problems
    A scale that is meant to start at e is reported too.

    ## References
    - https://github.com/huggingface/transformers/pull/13436
    - Radford et al. 2021 (CLIP), section 2.5
    """

    code = "IL312"
    name = "exponentiated-scale-at-one"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/huggingface/transformers/pull/13436", "Radford et al. 2021 (CLIP), section 2.5")

    def check(self, context: Context) -> Iterator[Outcome]:
        for parameter in context.facts.parameters:
            if _all_ones(parameter) and _only_through_exp(context.facts, parameter.name):
                yield self.finding(
                    context,
                    f"`{parameter.name}` starts at 1 and is exponentiated in the forward: the factor is e = 2.718",
                    parameters=[parameter.name],
                    site=site_of(parameter),
                    expected={"value": math.log(1 / 0.07), "factor": 1 / 0.07},
                    actual={"value": 1.0, "factor": math.e},
                    effect="a factor of 2.718 where 1 (value 0) or a temperature such as 1/0.07 was meant",
                    fix="nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # or zeros for a neutral factor",
                    topic="value",
                )

    @bad
    def logit_scale_one() -> Any:
        return _matcher(1.0)

    @good
    def logit_scale_log() -> Any:
        return _matcher(math.log(1 / 0.07))


def _all_ones(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return (
        parameter.kind == "parameter"
        and len(parameter.shape) <= 1
        and stats is not None
        and stats.count > 0
        and stats.minimum == stats.maximum == 1.0
    )


def _only_through_exp(facts: ModelFacts, name: str) -> bool:
    """Whether every reader of the parameter is exp (possibly folded into an expression of parameters)."""
    readers = [node for node in facts.nodes if name in node.parameters.values()]
    if not readers:
        return False
    for node in readers:
        if node.op != "parameter":
            return False
        second = node.attrs.get("second")
        folded = "expr" in node.attrs and isinstance(second, (int, float)) and abs(second - math.e**2) < 1e-4
        users = [n for n in facts.nodes if node.index in n.inputs]
        direct = bool(users) and all(n.op == "activation" and n.attrs.get("fn") == "exp" for n in users)
        if not folded and not direct:
            return False
    return True


def _matcher(value: float) -> Any:
    import torch
    from torch import nn

    class Matcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 8)
            self.scale = nn.Parameter(torch.ones([]) if value == 1.0 else torch.tensor(value))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.scale.exp() * self.left(a) @ self.right(b).t()

    return Matcher()
