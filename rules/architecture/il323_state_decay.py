"""IL323: the state matrix of a state-space layer grows, or holds decay rates where their logarithms belong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import reached, source, transparent

# float32 rounds 1, 2, 3 ... exactly; a draw hits them by no chance.
_EXACT = 1e-6


class StateDecay(Rule):
    """The decay exp(dt A) of a state-space layer starts above one, or its rates are exponentiated integers.

    ## What it does
    Finds parameters that are multiplied by a softplus (the time step) and exponentiated: the state matrix A, read as
    -exp(A_log). Reports A above zero, where the state grows at every step, and an A_log that holds 1, 2, ... N
    itself, so that the rates are e, e^2, ... e^N.

    ## Why is this bad?
    The state is multiplied by exp(dt A) at every token. With A > 0 it grows without bound. With rates of e^16 a state
    forgets within a token, and 12 of 16 states carry nothing.

    ## Example
    ```python
    self.A_log = nn.Parameter(torch.arange(1, n + 1).float().repeat(d, 1))
    ```

    ## Use instead
    ```python
    self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1).float()).repeat(d, 1))
    ```

    ## Known problems
    Scans in custom kernels are not seen.

    ## References
    - Gu et al. 2022 (S4D), section 4, arXiv:2206.11893
    - Gu and Dao 2023 (Mamba), section 3.6, arXiv:2312.00752
    """

    code = "IL323"
    name = "state-decay"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Gu et al. 2022, section 4, arXiv:2206.11893", "Gu and Dao 2023, section 3.6, arXiv:2312.00752")

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        if facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, str, str]] = {}
        for node in facts.nodes:
            parameter = _rates(context, node)
            if parameter is None or parameter.name in found or not _decays(facts, node):
                continue
            mean, text = node.attrs.get("mean"), str(node.attrs.get("expr") or parameter.name)
            if isinstance(mean, (int, float)) and mean > 0:
                clause = f"exp(dt * A) with A = {text}, {mean:.3g} on average: the state grows at every step"
                found[parameter.name] = (parameter, clause, "-torch.exp(self.A_log)  # A below zero")
            elif "exp(" in text and _counts(parameter):
                n = parameter.shape[-1]
                clause = f"{text} with 1 to {n} as they are gives rates up to e^{n}: their logarithms belong here"
                found[parameter.name] = (parameter, clause, "torch.log(torch.arange(1, n + 1).float()).repeat(d, 1)")
        for group in by_cause(p for p, _, _ in found.values()).values():
            first, clause, fix = found[group[0].name]
            yield self.finding(
                context,
                f"`{first.name}`" + (f" and {len(group) - 1} more" if len(group) > 1 else "") + f": {clause}",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"A": "-1 to -N"},
                actual={"mean": first.stats.mean if first.stats else None},
                effect="the memory of the states is lost within a token, or grows without bound",
                fix=fix,
                topic="value",
            )

    @bad
    def rates_not_logarithms() -> Any:
        return _scan("raw")

    @bad
    def growing_state() -> Any:
        return _scan("growing")

    @good
    def logarithms() -> Any:
        return _scan("log")


def _rates(context: Context, node: Node) -> ParameterFacts | None:
    names = set(node.parameters.values())
    parameter = context.parameter(names.pop()) if node.op == "parameter" and len(names) == 1 else None
    known = parameter is not None and parameter.kind == "parameter" and parameter.stats is not None
    return parameter if known else None


def _decays(facts: ModelFacts, node: Node) -> bool:
    """Whether the node is multiplied by a softplus and exponentiated, and nothing else makes a decay of it."""
    for product in reached(facts, node.index, transparent):
        if product.op != "mul":
            continue
        others = [source(facts, i) for i in product.inputs if source(facts, i).index != node.index]
        steps = any(o.op == "activation" and o.attrs.get("fn") == "softplus" for o in others)
        following = [n for n in reached(facts, product.index, transparent) if not transparent(n)]
        if steps and any(n.op == "activation" and n.attrs.get("fn") == "exp" for n in following):
            return True
    return False


def _counts(parameter: ParameterFacts) -> bool:
    """Whether every row holds 1, 2, ... N."""
    stats, n = parameter.stats, parameter.shape[-1] if parameter.shape else 0
    if stats is None or n < 2:
        return False
    mean, second = (n + 1) / 2, (n + 1) * (2 * n + 1) / 6
    exact = abs(stats.mean / mean - 1) < _EXACT and abs(stats.second / second - 1) < _EXACT
    return exact and stats.minimum == 1.0 and stats.maximum == float(n)


def _scan(kind: str) -> Any:
    import math

    import torch
    import torch.nn.functional as F
    from torch import nn

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dt, self.out = nn.Linear(8, 8), nn.Linear(8, 4)
            rates = torch.arange(1, 5).float().repeat(8, 1)
            self.rates = nn.Parameter(rates if kind == "raw" else rates.log())
            dt = torch.exp(torch.rand(8) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
            with torch.no_grad():
                self.dt.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dt = F.softplus(self.dt(x))
            a = self.rates.exp() if kind == "growing" else -self.rates.exp()
            state = torch.zeros(x.shape[0], 8, 4)
            for step in range(3):
                now = dt[:, step, :, None]
                state = torch.exp(now * a) * state + now * x[:, step, :, None]
            return self.out(state.sum(-1))

    return Scan(), (torch.randn(2, 3, 8),)
