"""IL316: a prior was written into the weight instead of the bias."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ParameterFacts
from initlint.findings import Severity
from initlint.odds import PRIOR, form, prior_of, sigmoid
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.verdict import LOGITS, intent
from initlint.wiring import reached


class PriorOnWeight(Rule):
    """All weights of a layer are the log-odds that its bias should have.

    ## What it does
    Finds weight matrices filled with one number that is the log-odds of a round probability, or that the code computes
    as log-odds; and output layers whose weight is one constant of that size (beyond 1.5) while nobody wrote the bias.

    ## Why is this bad?
    All outputs become the same multiple of the sum of the features: for 48 features of unit size and log-odds of -3.9
    outputs of some -50. The outputs are saturated and equal, and the bias still has no prior.

    ## Example
    ```python
    nn.init.constant_(self.score.weight, -math.log((1 - p) / p))
    ```

    ## Use instead
    ```python
    nn.init.constant_(self.score.bias, -math.log((1 - p) / p))
    ```

    ## Known problems
    None known.

    ## References
    - Lin et al. 2017, Focal Loss for Dense Object Detection, section 4.1
    """

    code = "IL316"
    name = "prior-on-weight"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("Lin et al. 2017, section 4.1, arXiv:1708.02002",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        suspects = [p for p in context.facts.parameters if _is_prior(context, p)]
        for group in by_cause(suspects).values():
            first = group[0]
            assert first.stats is not None
            value = first.stats.mean
            sizes = [s for p in group if (s := self._size(context, p)) is not None]
            prior = prior_of(value) or sigmoid(-abs(value))
            bias = next((x.bias for x in context.layers_of(first.name) if x.bias), None)
            yield self.finding(
                context,
                f"every weight of `{first.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f" is {value:.4g}, the log-odds of {sigmoid(value):.3g}: a prior belongs into the bias",
                parameters=[p.name for p in group],
                severity=self._level(context, group, max(sizes, default=0.0)),
                site=site_of(first),
                expected={"bias": -abs(value), "weight": "random"},
                actual={"weight": value, "output_rms": max(sizes, default=None)},
                effect="all outputs are one multiple of the sum of the features"
                + (f", of size {max(sizes):.3g}" if sizes else ""),
                fix=f"nn.init.constant_({bias or 'bias'}, -math.log((1 - {prior:g}) / {prior:g}))",
                topic="symmetry",
            )

    def _level(self, context: Context, group: list[ParameterFacts], size: float) -> Severity:
        """By the size of the outputs, or by what random weights in place of the constant make of the whole net."""
        if size > LOGITS:
            return Severity.ERROR
        fans = {p.name: x.fan_in or 1.0 for p in group for x in context.layers_of(p.name) if x.weight == p.name}
        effect = context.effect({name: Nominal(0.0, 1.0 / fan) for name, fan in fans.items()})
        level = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype, matters=True)
        return level or Severity.WARNING

    def _size(self, context: Context, parameter: ParameterFacts) -> float | None:
        """Root mean square of the layer's outputs."""
        layers = context.layers_of(parameter.name)
        if not layers or not layers[0].nodes:
            return None
        moments = context.signal.built[layers[0].nodes[-1]]
        return None if moments.undetermined else math.sqrt(moments.q)

    @bad
    def log_odds_as_weight() -> Any:
        return _tagger("weight")

    @bad
    def odd_constant_beside_an_untouched_bias() -> Any:
        from torch import nn

        head = nn.Linear(32, 5)
        nn.init.constant_(head.weight, -4.63)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), head, nn.Sigmoid())

    @good
    def log_odds_as_bias() -> Any:
        return _tagger("bias")


def _is_prior(context: Context, parameter: ParameterFacts) -> bool:
    stats, write = parameter.stats, parameter.last
    if parameter.kind != "parameter" or not parameter.requires_grad or stats is None or write is None:
        return False
    if len(parameter.shape) < 2 or stats.count < 2 or stats.minimum != stats.maximum or not stats.mean:
        return False
    layers = [x for x in context.layers_of(parameter.name) if x.weight == parameter.name]
    if not any(x.kind in ("linear", "conv", "matmul") for x in layers):
        return False
    return _log_odds(context, parameter) or any(_left_out(context, x) for x in layers)


def _log_odds(context: Context, parameter: ParameterFacts) -> bool:
    """Whether the constant is the log-odds of a round probability, or computed as log-odds."""
    asked = parameter.last.args.get("val") if parameter.last else None
    mean = parameter.stats.mean if parameter.stats else 0.0
    exact = float(asked) if isinstance(asked, (int, float)) and not isinstance(asked, bool) else mean
    site = site_of(parameter)
    computed = context.computed_at(site)
    return prior_of(exact) is not None or any(form(s.text) for s in (site, computed) if s is not None)


def _left_out(context: Context, layer: Layer) -> bool:
    """Whether an output layer holds a constant of a prior's size, written by the model, and its bias nobody wrote."""
    weight, bias = context.parameter(layer.weight), context.parameter(layer.bias or "")
    if weight is None or weight.stats is None or weight.last is None or bias is None:
        return False
    written = weight.last.origin == "user" and not weight.last.random and abs(weight.stats.mean) > PRIOR
    left = bias.last is None or bias.last.origin == "torch"
    return written and left and _is_output(context, layer)


def _is_output(context: Context, layer: Layer) -> bool:
    """Whether no other layer with weights reads what this one gives."""
    behind = [n for start in layer.nodes for n in reached(context.facts, start, lambda node: not node.parameters)]
    outputs = {*layer.nodes, *(node.index for node in behind)}.intersection(context.facts.outputs)
    return not any(node.parameters for node in behind) and (bool(outputs) or layer.head)


def _tagger(local: str) -> Any:
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
            self.score = nn.Linear(32, 8)
            nn.init.constant_(self.score.get_parameter(local), -math.log((1 - 0.02) / 0.02))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.score(self.body(x)))

    return Tagger(), (torch.randn(8, 16),)
