"""IL314: time steps of a state-space model outside the range that its literature uses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import reached, source, transparent

# Gu et al. 2022 (S4D) and Gu and Dao 2023: dt log-uniform in [0.001, 0.1]. Outside by half a decade is no rounding.
_LOW, _HIGH, _SLACK = 1e-3, 1e-1, 10**0.5
# dt |A| of 1 leaves exp(-1) = 0.37 of a state at each token. Where the slowest state of all is faster, none of them
# is a memory, and the recurrence is idle; a step of 0.69 (zero bias) with the slowest usual rate of 1 is not there yet.
_WHOLE_MEMORY = 1.0


class DtRange(Rule):
    """The time step of a state-space layer starts outside [0.001, 0.1].

    ## What it does
    Where softplus of a layer's output becomes a decay, exp(dt A) with a parameter A or a sum along the sequence (a
    scan), computes softplus(bias), the time step at the start, and compares it with [0.001, 0.1]. The bias is that of
    a layer or a parameter added to a projection. It is a warning where the bias holds such time steps themselves
    instead of what softplus turns into them, and where even the slowest state keeps less than 1/e of itself per token.

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
        found: dict[str, tuple[ParameterFacts, float | None]] = {}
        for bias, rate in _steps(context):
            if bias.stats is not None and not _LOW / _SLACK <= _softplus(bias.stats.mean) <= _HIGH * _SLACK:
                found.setdefault(bias.name, (bias, rate))
        for group in by_cause(bias for bias, _ in found.values()).values():
            yield self._report(context, [found[bias.name] for bias in group])

    def _report(self, context: Context, group: list[tuple[ParameterFacts, float | None]]) -> Outcome:
        bias = group[0][0]
        held = [p.stats for p, _ in group if p.stats is not None]
        low, high = _softplus(min(s.minimum for s in held)), _softplus(max(s.maximum for s in held))
        rates = [rate for _, rate in group if rate is not None]
        forgets = len(rates) == len(group) and low * min(rates) > _WHOLE_MEMORY
        stats = bias.stats
        raw = (
            stats is not None
            and stats.distinct is None
            and stats.minimum >= _LOW / _SLACK
            and stats.maximum <= _HIGH * _SLACK
        )
        return self.finding(
            context,
            f"time steps softplus(`{bias.name}`)"
            + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            + f" start at {low:.3g} to {high:.3g}; state-space models use 0.001 to 0.1"
            + ("; the bias holds the steps themselves, not their inverse softplus" if raw else ""),
            parameters=[p.name for p, _ in group],
            severity=Severity.WARNING if raw or forgets else Severity.NOTE,
            site=site_of(bias),
            expected={"low": _LOW, "high": _HIGH},
            actual={"low": low, "high": high},
            effect=f"no state keeps more than {math.exp(-low * min(rates)):.2g} of itself from one token to the next"
            if forgets
            else f"the state remembers about {1 / max(high, 1e-9):.2g} to {1 / max(low, 1e-9):.2g} tokens",
            fix=f"self.{bias.local}.copy_(dt + torch.log(-torch.expm1(-dt)))  # dt log-uniform in [0.001, 0.1]"
            if forgets
            else "self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # dt log-uniform in [0.001, 0.1]",
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


def _steps(context: Context) -> Iterator[tuple[ParameterFacts, float | None]]:
    """Biases under a softplus that makes time steps, with the least rate |A| that the steps are multiplied by.

    The bias is a layer's, or a parameter of its own that is added to a projection.
    """
    facts = context.facts
    for layer in facts.layers:
        if layer.activation == "softplus" and layer.consumer_node is not None and layer.bias:
            yield from _with_rate(context, layer.bias, layer.consumer_node)
    for node in facts.nodes:
        if node.op == "activation" and node.attrs.get("fn") == "softplus":
            total = source(facts, node.inputs[0])
            for item in map(facts.nodes.__getitem__, total.inputs if total.op == "add" else ()):
                if item.op == "parameter" and item.attrs.get("expr") is None:
                    yield from _with_rate(context, next(iter(item.parameters.values()), ""), node.index)


def _with_rate(context: Context, name: str, start: int) -> Iterator[tuple[ParameterFacts, float | None]]:
    bias = context.parameter(name)
    decay, rate = _decay(context, start)
    if decay and bias is not None and bias.kind == "parameter" and bias.stats is not None:
        yield bias, rate


def _decay(context: Context, start: int) -> tuple[bool, float | None]:
    """Whether softplus becomes a decay: exp of it times a parameter, or of its running sum; with the least rate."""
    facts = context.facts

    def onward(node: Node) -> bool:
        return transparent(node) or node.op in ("mul", "scale", "cumsum")

    found = list(reached(facts, start, onward))
    decays = [n for n in found if n.op == "activation" and n.attrs.get("fn") == "exp"]
    for decay in decays:
        product = source(facts, decay.inputs[0])
        for factor in (source(facts, i) for i in product.inputs) if product.op == "mul" else ():
            if factor.op == "parameter":
                return True, _least(context, factor)
    return any(n.op == "cumsum" for n in found) and bool(decays), None


def _least(context: Context, node: Node) -> float | None:
    """The least |A| of A = exp(A_log) or -exp(A_log), the usual ways to write it."""
    names = list(node.parameters.values())
    parameter = context.parameter(names[0]) if len(names) == 1 else None
    rate = "" if parameter is None else f"exp({parameter.name})"
    known = node.attrs.get("expr") in (rate, f"neg({rate})")
    if parameter is None or parameter.stats is None or not known:
        return None
    return math.exp(min(parameter.stats.minimum, 700.0))


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
