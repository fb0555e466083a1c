"""IL316: a prior's log-odds were written into the weight instead of the bias."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.odds import form, prior_of, sigmoid
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

# THEORY 6.2: outputs of this size cost several times ln C.
_ERROR = 10.0


class PriorOnWeight(Rule):
    """All weights of a layer are the log-odds that its bias should have.

    ## What it does
    Finds weight matrices filled with one number that is the log-odds of a round probability, or that the code computes
    as log-odds.

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
                severity=Severity.ERROR if max(sizes, default=0.0) > _ERROR else Severity.WARNING,
                site=site_of(first),
                expected={"bias": -abs(value), "weight": "random"},
                actual={"weight": value, "output_rms": max(sizes, default=None)},
                effect="all outputs are one multiple of the sum of the features"
                + (f", of size {max(sizes):.3g}" if sizes else ""),
                fix=f"nn.init.constant_({bias or 'bias'}, -math.log((1 - {prior:g}) / {prior:g}))",
                topic="symmetry",
            )

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
    asked = write.args.get("val")
    exact = float(asked) if isinstance(asked, (int, float)) and not isinstance(asked, bool) else stats.mean
    site = site_of(parameter)
    computed = context.computed_at(site)
    return prior_of(exact) is not None or any(form(s.text) for s in (site, computed) if s is not None)


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
