"""IL330: a low-rank adapter beside a frozen layer changes its output from the start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.wiring import SCALED, source

# An adapter that adds less than a tenth of the frozen layer's output starts all but closed (Houlsby et al. 2019,
# section 3.6, measure no loss up to N(0, 0.01)).
_CLOSED = 1e-2


class LowRankNotClosed(Rule):
    """Both factors of a low-rank adapter start at random, so that the frozen layer is changed before any training.

    ## What it does
    Finds sums of a frozen linear map and of two trainable ones in a row, without anything between, of the same input
    (LoRA, beside the layer or merged into its weight). Reports adapters of which neither factor starts at zero, both
    are drawn at random, and whose sum with the frozen layer differs from it by more than a tenth.

    ## Why is this bad?
    The frozen weights are what somebody trained. LoRA starts with one factor at zero, so that the model starts as it
    was; with two random factors it starts from noise of the size of the layer (Hu et al. 2021, section 4.1).

    ## Example
    ```python
    nn.init.normal_(self.down.weight)
    nn.init.normal_(self.up.weight)
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.down.weight)
    nn.init.zeros_(self.up.weight)
    ```

    ## Known problems
    Factors computed from the frozen weight (PiSSA) are not drawn, and are not meant.

    ## References
    - Hu et al. 2021 (LoRA), section 4.1, arXiv:2106.09685
    - https://github.com/microsoft/LoRA/issues/98
    """

    code = "IL330"
    name = "low-rank-not-closed"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Hu et al. 2021, section 4.1, arXiv:2106.09685", "https://github.com/microsoft/LoRA/issues/98")

    def check(self, context: Context) -> Iterator[Outcome]:
        nodes = context.facts.nodes
        sweeps = context.signal.sweeps
        if sweeps is None or context.facts.loaded:
            return
        for node in nodes:
            if node.op not in ("add", "sub") or len(node.inputs) != 2:
                continue
            for base, branch in (node.inputs, node.inputs[::-1]):
                found = _adapter(context, base, branch)
                x, y = sweeps[0].states[base], sweeps[0].states[branch]
                if found is None or x.undetermined or y.undetermined or x.q <= 0 or y.q <= _CLOSED * x.q:
                    continue
                down, up = found
                yield self.finding(
                    context,
                    f"`{down.name}` and `{up.name}` are both random: the adapter adds {math.sqrt(y.q / x.q):.3g} times"
                    " the frozen layer's output before any training",
                    parameters=[down.name, up.name],
                    site=site_of(up),
                    expected={"ratio": 0.0},
                    actual={"ratio": math.sqrt(y.q / x.q)},
                    effect=context.effect({up.name: Nominal(0.0, (up.stats.second if up.stats else 1.0) * _CLOSED**2)}),
                    fix="nn.init.zeros_(weight)  # of the factor that writes the output; the other stays random",
                    topic="scale",
                )

    @bad
    def both_drawn() -> Any:
        return _adapted(closed=False)

    @good
    def one_zero() -> Any:
        return _adapted(closed=True)

    @good
    def principal_directions() -> Any:
        """PiSSA: the factors are a part of the frozen weight, and are taken off it."""
        import torch

        model, inputs = _adapted(closed=True)
        with torch.no_grad():
            u, s, v = torch.linalg.svd(model.base.weight)
            model.up.weight.copy_(u[:, :4] * s[:4].sqrt())
            model.down.weight.copy_(s[:4].sqrt()[:, None] * v[:4])
            model.base.weight.sub_(model.up.weight @ model.down.weight)
        return model, inputs


def _adapter(context: Context, base: int, branch: int) -> tuple[ParameterFacts, ParameterFacts] | None:
    """The two factors of an adapter that is added to a frozen map of the same input, both drawn at random."""
    facts = context.facts
    frozen, outer = _linear(facts, base), _linear(facts, branch)
    inner = _linear(facts, outer.inputs[0]) if outer is not None and outer.inputs else None
    if frozen is None or outer is None or inner is None or not frozen.inputs or not inner.inputs:
        return None
    if source(facts, frozen.inputs[0], SCALED).index != source(facts, inner.inputs[0], SCALED).index:
        return None
    weights = [context.parameter(n.parameters.get("weight", "")) for n in (frozen, inner, outer)]
    fixed, down, up = weights
    if fixed is None or down is None or up is None or fixed.requires_grad or fixed.kind != "parameter":
        return None
    return (down, up) if all(p.requires_grad and _drawn(p) for p in (down, up)) else None


def _linear(facts: ModelFacts, index: int) -> Node | None:
    node = source(facts, index, SCALED)
    return node if node.op in ("linear", "conv") else None


def _drawn(parameter: ParameterFacts) -> bool:
    """Whether the values were drawn; what is computed from other tensors (a decomposition of the base) is no noise."""
    write, stats = parameter.last, parameter.stats
    computed = write is None or not write.random or write.args.get("function") == "derived"
    return not computed and stats is not None and stats.second > 0


def _adapted(*, closed: bool) -> Any:
    import torch
    from torch import nn

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Linear(32, 32).requires_grad_(False), nn.Linear(32, 4)
            self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)
            if closed:
                nn.init.zeros_(self.up.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.base(x) + self.up(self.down(x))))

    return Adapted(), (torch.randn(8, 32),)
