"""IL314: time steps of a state-space model outside the range that its literature uses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.wiring import reached, source, transparent

# Gu et al. 2022 (S4D) and Gu and Dao 2023: dt log-uniform in [0.001, 0.1]. Outside by half a decade is no rounding.
_LOW, _HIGH, _SLACK = 1e-3, 1e-1, 10**0.5


class DtRange(Rule):
    """The time step of a state-space layer starts outside [0.001, 0.1].

    ## What it does
    Where softplus of a layer's output becomes a decay, exp(dt A) with a parameter A or a sum along the sequence (a
    scan), computes softplus(bias), the time step at the start, and compares it with [0.001, 0.1]. It is a warning
    where the bias holds such time steps themselves instead of what softplus turns into them.

    ## Why is this bad?
    dt is the inverse of the memory in tokens. A zero bias gives dt = 0.69 everywhere: the state forgets within two
    tokens and all channels have the same memory.

    ## Example
    ```python
    nn.init.zeros_(self.dt_proj.bias)
    ```

    ## Use instead
    ```python
    dt = torch.exp(torch.rand(d) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
    self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
    ```

    ## Known problems
    Scans in custom kernels are not seen.

    ## References
    - Gu and Dao 2023 (Mamba), arXiv:2312.00752, and its released code
    - Gu et al. 2022 (S4D), arXiv:2206.11893
    """

    code = "IL314"
    name = "dt-range"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Gu and Dao 2023, arXiv:2312.00752", "Gu et al. 2022, arXiv:2206.11893")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        for layer in context.facts.layers:
            bias = context.parameter(layer.bias) if layer.bias else None
            if bias is None or bias.stats is None or not _is_step(context.facts, layer):
                continue
            low, high = _softplus(bias.stats.minimum), _softplus(bias.stats.maximum)
            middle = _softplus(bias.stats.mean)
            if _LOW / _SLACK <= middle <= _HIGH * _SLACK:
                continue
            yield self._report(context, bias, low, high)

    def _report(self, context: Context, bias: ParameterFacts, low: float, high: float) -> Outcome:
        stats = bias.stats
        raw = (
            stats is not None
            and stats.distinct is None
            and stats.minimum >= _LOW / _SLACK
            and stats.maximum <= _HIGH * _SLACK
        )
        return self.finding(
            context,
            f"time steps softplus(`{bias.name}`) start at {low:.3g} to {high:.3g}; state-space models use 0.001 to 0.1"
            + ("; the bias holds the steps themselves, not their inverse softplus" if raw else ""),
            parameters=[bias.name],
            severity=Severity.WARNING if raw else Severity.NOTE,
            site=site_of(bias),
            expected={"low": _LOW, "high": _HIGH},
            actual={"low": low, "high": high},
            effect=f"the state remembers about {1 / max(high, 1e-9):.2g} to {1 / max(low, 1e-9):.2g} tokens",
            fix="self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # dt log-uniform in [0.001, 0.1]",
            topic="bias",
        )

    @bad
    def zero_steps() -> Any:
        import torch

        return _scan(False), (torch.randn(2, 16, 24),)

    @good
    def logarithmic_steps() -> Any:
        import torch

        return _scan(True), (torch.randn(2, 16, 24),)


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x)) if x < 30 else x


def _is_step(facts: ModelFacts, layer: Layer) -> bool:
    """Whether softplus of the layer's output becomes a decay: exp of it times a parameter, or of its running sum."""
    if layer.activation != "softplus" or layer.consumer_node is None:
        return False
    start = layer.consumer_node

    def onward(node: Node) -> bool:
        return transparent(node) or node.op in ("mul", "scale", "cumsum")

    found = list(reached(facts, start, onward))
    decays = [n for n in found if n.op == "activation" and n.attrs.get("fn") == "exp"]
    for decay in decays:
        product = source(facts, decay.inputs[0])
        if product.op == "mul" and any(source(facts, i).op == "parameter" for i in product.inputs):
            return True
    return any(n.op == "cumsum" for n in found) and bool(decays)


def _scan(prior: bool) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dt, self.value = nn.Linear(24, 24), nn.Linear(24, 24)
            nn.init.zeros_(self.dt.bias)
            if prior:
                dt = torch.exp(torch.rand(24) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
                with torch.no_grad():
                    self.dt.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dt = F.softplus(self.dt(x))
            decay = torch.exp(-dt.cumsum(dim=1))
            return (self.value(x) * dt / decay.clamp_min(1e-6)).cumsum(dim=1) * decay

    return Scan()
