"""IL103: PyTorch's default variance, compounded over the depth of the net."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.carry import shut_by_gates
from initlint.diagnosis import suspects
from initlint.findings import Severity
from initlint.rule import Context, Outcome, bad, good
from initlint.signal import Nominal
from initlint.signal.verdict import distance
from initlint.suspect_rule import SuspectRule


class DefaultOverDepth(SuspectRule):
    """PyTorch's default initialisation is left in place in a net too deep for it.

    ## What it does
    Sums up what the default of `nn.Linear` and `nn.Conv*d`, variance 1 / (3 fan_in), does over the whole depth. One
    finding for each model, never one for each layer, and only where signals, gradients or the part that depends on
    the input shrink beyond what training survives.

    ## Why is this bad?
    The default keeps a sixth of the second moment at each ReLU layer. Biases keep the activations from vanishing, so
    the net does not go silent: it goes constant. After twenty layers 1e-16 of the signal depends on the input.

    ## Example
    ```python
    self.layers = nn.ModuleList([nn.Linear(128, 128) for _ in range(20)])  # plain ReLU net
    ```

    ## Use instead
    ```python
    for layer in self.layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    ```

    ## Known problems
    Normalisation and residual connections hide the default; such nets are silent.

    ## References
    - https://github.com/pytorch/pytorch/issues/15314
    - Schoenholz et al. 2017 (information is lost beyond six correlation lengths)
    """

    code = "IL103"
    name = "default-over-depth"
    family = "variance"
    severity = Severity.ERROR
    sources = ("https://github.com/pytorch/pytorch/issues/15314", "Schoenholz et al. 2017, arXiv:1611.01232")
    reason = "default"

    def check(self, context: Context) -> Iterator[Outcome]:
        group = [s for s in suspects(context.facts) if s.reason == self.reason]
        if not group or context.facts.unrun:  # the code initialises it later: these are not the values that it trains
            return
        changes = {s.parameter.name: Nominal(0.0, s.expected) for s in group}
        # the default biases are part of the scheme; what is put in its place has none
        for suspect in group:
            bias = context.parameter(suspect.layer.bias) if suspect.layer.bias else None
            if bias is not None and bias.last is not None and bias.last.origin == "torch":
                changes[bias.name] = Nominal(0.0, 0.0)
        effect = context.effect(changes)
        level = distance(effect, context.signal, context.settings.optimizer, context.facts.dtype)
        if level is not None and level > Severity.NOTE and not shut_by_gates(context):
            yield self.report(context, group, effect, level)

    @bad
    def deep_default() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(20):
            layers += [nn.Linear(64, 64), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    @good
    def shallow_default() -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
