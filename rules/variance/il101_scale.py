"""IL101: weights too small or too large, for no reason that shows."""

from __future__ import annotations

import math
from typing import Any

from initlint.diagnosis import Suspect
from initlint.findings import Severity
from initlint.rule import Context, Outcome, bad, good
from initlint.signal import Effect
from initlint.signal.profile import BAND
from initlint.signal.verdict import MISTAKE, distance, mismatch
from initlint.suspect_rule import SuspectRule, normalised_away

# Smaller than every scheme is a convention of its own; THEORY 6.1 measures a ratio of 10, beyond chance, as harmless.
_SMALL = 1.0
# What layers beside the trunk start at to be nearly closed (Girshick 2015, section 2.3: .01 and .001 for the outputs of
# Fast R-CNN; Houlsby et al. 2019: .01; Radford et al. 2019: .02), to the noise of 1000 weights.
_STARTS, _EXACT = (0.001, 0.01, 0.02), 0.1


class VarianceOutOfScale(SuspectRule):
    """Weights whose variance is far from every scheme that suits the layer.

    ## What it does
    Reports weights that the code initialised with a variance more than four times away from every scheme that suits
    the layer and its downstream activation, where no more specific mistake explains it. The severity is that of the
    whole net: the depth profile of signals and gradients, with the weights in question against what suits them.
    Weights larger than in every scheme are a warning from an effect of 100 on.

    ## Why is this bad?
    A variance that is off by a factor r multiplies the signal by r at every layer: r^20 after twenty.
    N(0, 1) weights of width 128 multiply it by 64 each time.

    ## Example
    ```python
    nn.init.normal_(layer.weight)  # N(0, 1)
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    ```

    ## Known problems
    Weights that are scaled when they are used (equalised learning rate) are judged as used.

    ## References
    - He et al. 2015, section 2.2; Glorot and Bengio 2010
    """

    code = "IL101"
    name = "variance-out-of-scale"
    family = "variance"
    severity = Severity.ERROR
    sources = ("He et al. 2015, section 2.2, arXiv:1502.01852", "Glorot and Bengio 2010, section 4.2.1")
    reason = "unexplained"
    generic = True

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        found = distance(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE
        # Smaller than every scheme is a convention of its own (0.01, 0.02, whatever the width); larger than every one
        # is nobody's, so that it counts like a scheme meant for another activation: from a factor 100.
        if found is Severity.NOTE and effect.local > 0 and all(_too_large(s) for s in group):
            return mismatch(effect, context.signal, context.settings.optimizer, context.facts.dtype) or found
        return found

    def judge(self, context: Context, group: list[Suspect]) -> Outcome | None:
        outcome = super().judge(context, group)
        if getattr(outcome, "severity", None) is not Severity.NOTE:
            return outcome
        if all(_beside_zero(context, s) for s in group):
            return None
        # a head that starts small starts with scores that favour nothing, as one of zeros does, which is fine; that of
        # a policy is made a hundred times smaller on purpose (Andrychowicz et al. 2021, section 3.2)
        if all(s.layer.head and s.actual < s.expected for s in group):
            return None
        # beside the trunk the layers themselves count: what they write is added to other signals, and not rescaled
        trunk, branches = set(context.signal.trunk), sum(layer.branch for layer in context.facts.layers)
        aside = [
            math.log10(s.actual / s.expected)
            for s in group
            if trunk.isdisjoint(s.layer.nodes) and not normalised_away(context, s.parameter.name)
        ]
        effect = getattr(outcome, "effect_log10", None) or 0.0
        chance = BAND * max((span.noise for span in context.signal.spans.values()), default=0.0)
        if max(effect, *aside, 0.0) >= MISTAKE or -effect - chance >= _SMALL:
            return outcome
        # branches are scaled down by up to their number (GPT-2, Fixup), or start at a number known to be small
        chosen = all(any(math.isclose(s.actual, std * std, rel_tol=_EXACT) for std in _STARTS) for s in group)
        smaller = -min(aside, default=0.0) >= max(_SMALL, math.log10(2.0 * max(branches, 1)))
        return outcome if smaller and not chosen else None

    @bad
    def unit_normal() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)

    @bad
    def one_huge_table() -> Any:
        import torch
        from torch import nn

        class Tagger(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(50, 32)
                nn.init.normal_(self.table.weight, std=40.0)
                self.body, self.head = nn.Linear(32, 32), nn.Linear(32, 5)

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                return self.head(torch.relu(self.body(self.table(tokens))).mean(1))

        return Tagger()

    @good
    def equalised_learning_rate() -> Any:
        import torch
        from torch import nn

        class Equalised(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weights = nn.ParameterList(torch.randn(64, 64) for _ in range(6))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for weight in self.weights:
                    x = torch.relu(nn.functional.linear(x, weight * (2 / 64) ** 0.5))
                return x

        return Equalised()

    @good
    def small_before_norm() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(12):
            conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
            nn.init.normal_(conv.weight, 0.0, 0.02)
            layers += [conv, nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*layers)


def _beside_zero(context: Context, suspect: Suspect) -> bool:
    """Whether a weight multiplies exact zeros (the other factor of a LoRA): their product has no scale yet."""
    sweeps, nodes = context.signal.sweeps, context.facts.nodes
    if sweeps is None or not suspect.layer.nodes:
        return False
    return all(nodes[i].inputs and sweeps[0].states[nodes[i].inputs[0]].q == 0.0 for i in suspect.layer.nodes)


def _too_large(suspect: Suspect) -> bool:
    """Beyond every scheme, but for the frequencies of Fourier features, which set a bandwidth (Tancik et al. 2020)."""
    frequencies = suspect.layer.activation in ("sin", "cos") and suspect.layer.before in (None, "input")
    return suspect.actual > suspect.expected and not frequencies
