"""IL212: gradients grow with every layer although activations keep their size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal.verdict import thresholds
from initlint.upstream import contributors, judged

# THEORY 6.2: chi_1^L above 1e3 costs; from where IL204 speaks on, this rule is silent.
_NOTE = 3.0
# "Bounded": the signal itself changes by less than half as many decades; where both grow alike it is an explosion.
_STEADY = 0.5
_FEWEST_LAYERS = 4


class ChaoticPhase(Rule):
    """The net is in the chaotic phase: nearby inputs are driven apart and gradients grow with depth.

    ## What it does
    In nets without normalisation, looks for gradients that grow from the output to the input by 1e3 or more in second
    moment while activations stay bounded, and reports the factor per layer. Growth past the threshold of IL204 is
    reported there.

    ## Why is this bad?
    With bounded activations (tanh, sin) too large a weight variance does not show in the forward pass: it makes
    the map fold. Such nets memorise instead of generalising, and train only to a depth of a few times
    1 / ln(chi) (Poole et al. 2016, Schoenholz et al. 2017).

    ## Example
    ```python
    nn.init.xavier_normal_(w, gain=2.5)  # deep tanh net
    ```

    ## Use instead
    ```python
    nn.init.xavier_normal_(w)
    ```

    ## Known problems
    The factor per layer is an average over the trunk.

    ## References
    - Poole et al. 2016, arXiv:1606.05340
    - Schoenholz et al. 2017, arXiv:1611.01232
    """

    code = "IL212"
    name = "chaotic-phase"
    family = "signal"
    severity = Severity.WARNING
    sources = ("Poole et al. 2016, arXiv:1606.05340", "Schoenholz et al. 2017, arXiv:1611.01232")

    def check(self, context: Context) -> Iterator[Outcome]:
        signal, facts = context.signal, context.facts
        span, forward = signal.spans.get("gradient"), signal.spans.get("forward")
        if span is None or forward is None or not judged(context) or span.shrinks or span.value < _NOTE:
            return
        if span.value >= thresholds(context.settings.optimizer)[0] or forward.raw > _STEADY * span.raw:
            return
        low, high = sorted((span.first, span.last))
        inside = [facts.nodes[i] for i in signal.trunk if low <= i <= high]
        layers = [n for n in inside if n.operator is not None]
        if len(layers) < _FEWEST_LAYERS or any(n.op in ("norm", "recurrent") for n in inside):
            return
        guilty = contributors(context, lambda point: point.energy or 0.0)
        if not guilty:
            return
        chi = 10 ** (span.raw / len(layers))
        yield self.finding(
            context,
            f"gradients grow {math.sqrt(chi):.3g}-fold (standard deviation) with each of {len(layers)} layers while"
            " activations stay bounded: the net is in the chaotic phase",
            parameters=[p.name for p in guilty],
            severity=Severity.NOTE,
            site=site_of(guilty[0]),
            expected={"chi": 1.0},
            actual={"chi": chi, "depth_scale": 1 / math.log(chi), "log10_ratio": span.raw},
            effect=f"the gradient's second moment grows 1e{span.raw:.1f}-fold towards the input",
            fix="nn.init.xavier_normal_(weight)  # a variance at which chi is 1",
            topic="scale",
        )

    @bad
    def wide_tanh() -> Any:
        return _tanh(3.0)

    @good
    def critical_tanh() -> Any:
        return _tanh(1.0)


def _tanh(gain: float) -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(14):
        linear = nn.Linear(128, 128)
        nn.init.xavier_normal_(linear.weight, gain=gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(128, 10))
