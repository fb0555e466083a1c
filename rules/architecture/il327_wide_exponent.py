"""IL327: what a layer predicts is exponentiated, and starts orders of magnitude apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.runtime_scale import run_time_factor
from initlint.wiring import SCALED, writer

# Outputs one standard deviation above and below the mean then differ by a factor of 100. Heads of unit gain, which
# PyTorch's default and LeCun's scheme stay below on inputs of unit size, are within a factor of 8.
_WIDE = math.log(10.0)


class WideExponent(Rule):
    """A layer predicts a logarithm, and its weights are so large that the exponential spans orders of magnitude.

    ## What it does
    Finds linear layers and convolutions whose output goes through `exp` and nothing else (a predicted standard
    deviation, variance, scale or rate), and predicts the spread of the exponent. It is reported from a standard
    deviation of ln 10, where weights of variance 1 / fan_in would stay below.

    ## Why is this bad?
    exp turns a spread into orders of magnitude: an exponent of standard deviation 8 gives standard deviations between
    1e-10 and 1e10 on the first batch. Samples, likelihoods and their gradients are ruled by the few largest.

    ## Example
    ```python
    nn.init.normal_(self.log_sigma.weight)  # std 1 on 128 features: the exponent has std 8
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.log_sigma.weight, std=0.01)
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/rlworkgroup/garage/issues/255
    """

    code = "IL327"
    name = "wide-exponent"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/rlworkgroup/garage/issues/255",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, Layer, float]] = {}
        for node in context.facts.nodes:
            exponent = node.op == "activation" and node.attrs.get("fn") == "exp" and node.inputs
            layer = writer(context.facts, node.inputs[0], SCALED | {"shift"}) if exponent else None
            weight = context.parameter(layer.weight) if layer is not None else None
            spread = _spread(context, node.inputs[0]) if layer is not None else 0.0
            if layer is not None and weight is not None and _at_fault(context.facts, layer, weight, spread):
                found[weight.name] = (weight, layer, spread)
        for group in by_cause(weight for weight, _, _ in found.values()).values():
            weight, layer, spread = max((found[p.name] for p in group), key=lambda item: item[2])
            more = f" and {len(group) - 1} more" if len(group) > 1 else ""
            yield self.finding(
                context,
                f"`{weight.name}`{more}: the output is exponentiated and starts with std {spread:.3g}, a factor of"
                f" {_shown(2 * spread)} between one standard deviation below and above the mean",
                parameters=[p.name for p in group],
                site=site_of(weight),
                expected={"exponent_std": 0.1},
                actual={"exponent_std": spread},
                effect=f"what is predicted spans {2 * spread / math.log(10):.1f} orders of magnitude at the start",
                fix="nn.init.normal_(weight, std=0.01)  # or zeros: every sample starts with the same scale",
                topic="scale",
            )

    @bad
    def unit_weights() -> Any:
        return _policy(1.0)

    @good
    def small_weights() -> Any:
        return _policy(0.01)

    @good
    def default_weights() -> Any:
        return _policy(None)

    @good
    def rates_of_decay() -> Any:
        import torch
        from torch import nn

        class Decays(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.time, self.read = nn.Linear(16, 24), nn.Linear(24 * 16, 4)
                self.log_rates = nn.Parameter(torch.log(torch.arange(1.0, 17.0)).repeat(24, 1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                times = nn.functional.softplus(self.time(x))
                left = torch.exp(torch.einsum("bd,dn->bdn", times, -torch.exp(self.log_rates.float())))
                return self.read(left.flatten(1))

        return Decays(), (torch.randn(16, 16),)


def _spread(context: Context, index: int) -> float:
    """The standard deviation of what a node gives, before any training."""
    moments = context.signal.built[index]
    return 0.0 if moments.undetermined else math.sqrt(max(0.0, moments.q - moments.m**2))


def _at_fault(facts: ModelFacts, layer: Layer, weight: ParameterFacts, spread: float) -> bool:
    """Whether the weights make the exponent wide, and not what they read.

    Weights that are exponentials themselves are rates of decay on a logarithmic scale (Gu and Dao 2023, section 3.6):
    exp(-rate time) lies between 0 and 1 however far the rates are apart, and that they are is meant.
    """
    stats, write = weight.stats, weight.last
    if run_time_factor(facts, layer, weight) is None:
        return False
    if layer.kind not in ("linear", "conv", "matmul") or stats is None or write is None or write.origin == "torch":
        return False
    gain = math.sqrt((layer.fan_in or 1.0) * stats.second)
    return weight.requires_grad and spread >= _WIDE and gain > 1.0 and spread / gain < _WIDE


def _shown(exponent: float) -> str:
    return f"{math.exp(exponent):.2g}" if exponent < 700 else "more than 1e300"


def _policy(std: float | None) -> Any:
    import torch
    from torch import nn

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(12, 64), nn.Tanh())
            self.mean, self.log_std = nn.Linear(64, 3), nn.Linear(64, 3)
            nn.init.xavier_normal_(self.trunk[0].get_parameter("weight"))
            if std is not None:
                nn.init.normal_(self.log_std.weight, std=std)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.trunk(x)
            return self.mean(h), self.log_std(h).exp()

    return Policy(), (torch.randn(16, 12),)
