"""IL412: a constant of the size of a prior that was written into an output layer's weight instead of its bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good
from initlint.signal import Nominal
from initlint.signal.verdict import intent

# A focal or class prior of 0.1 is a bias of -2.2 (CenterNet), 0.01 is -4.6 (RetinaNet): beyond 1.5 in size a constant
# is a prior and not a small offset (Lin et al. 2017, 4.1).
_PRIOR = 1.5


class PriorInWeight(Rule):
    """The weight of an output layer holds one large constant, and its bias keeps PyTorch's default.

    ## What it does
    Reports output layers whose whole weight was set to one constant of the size of a prior's logit (beyond 1.5), while
    nobody wrote the bias, which such a constant is meant for.

    ## Why is this bad?
    All outputs start as the same function, the constant times the sum of the features, with logits far outside of the
    range where sigmoid and softmax have a gradient; the prior that was meant is missing.

    ## Example
    ```python
    nn.init.constant_(self.cls.weight, -math.log((1 - prior) / prior))
    ```

    ## Use instead
    ```python
    nn.init.constant_(self.cls.bias, -math.log((1 - prior) / prior))
    ```

    ## Known problems
    None known.

    ## References
    - Lin et al. 2017 (focal loss), section 4.1
    """

    code = "IL412"
    name = "prior-in-weight"
    family = "intent"
    severity = Severity.ERROR
    sources = ("Lin et al. 2017, section 4.1, arXiv:1708.02002",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        for layer in context.facts.layers:
            weight = context.parameter(layer.weight)
            bias = context.parameter(layer.bias) if layer.bias else None
            stats = weight.stats if weight is not None else None
            if weight is None or stats is None or bias is None or weight.last is None or len(weight.shape) < 2:
                continue
            written = weight.last.origin == "user" and not weight.last.random and weight.requires_grad
            left = bias.last is None or bias.last.origin == "torch"
            if not written or not left or stats.distinct != 1 or abs(stats.mean) <= _PRIOR:
                continue
            if not _last(context.facts, layer):
                continue
            gain = abs(stats.mean) * (layer.fan_in or 1.0) ** 0.5
            effect = context.effect({weight.name: Nominal(0.0, 1.0 / (layer.fan_in or 1.0))})
            level = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype, matters=True)
            yield self.finding(
                context,
                f"all of `{weight.name}` is {stats.mean:.4g}, the size of a prior, and `{bias.name}` keeps PyTorch's"
                " default: the prior belongs in the bias",
                parameters=[weight.name],
                severity=level or Severity.WARNING,
                site=weight.last.site,
                related=[Related(weight.created.file, weight.created.line, "the layer")] if weight.created else [],
                expected={"weight": "random", "bias": stats.mean},
                actual={"weight": stats.mean, "bias": "PyTorch's default"},
                effect=f"all outputs start as one function of the features, {gain:.3g} times too large",
                fix=f"nn.init.constant_({bias.name}, {stats.mean:.4g})",
                topic="head",
            )

    @bad
    def written_into_the_weight() -> Any:
        from torch import nn

        head = nn.Linear(32, 5)
        nn.init.constant_(head.weight, -4.6)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), head, nn.Sigmoid())

    @good
    def written_into_the_bias() -> Any:
        from torch import nn

        head = nn.Linear(32, 5)
        nn.init.constant_(head.bias, -4.6)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), head, nn.Sigmoid())


def _last(facts: ModelFacts, layer: Layer) -> bool:
    """Whether no other layer with weights reads what this one gives."""
    behind = set(layer.nodes)
    for node in facts.nodes:
        if node.index not in behind and behind.intersection(node.inputs):
            if node.parameters:
                return False
            behind.add(node.index)
    return bool(behind.intersection(facts.outputs)) or layer.head
