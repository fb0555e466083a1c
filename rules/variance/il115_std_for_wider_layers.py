"""IL115: a std that is usual, in layers too narrow for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.asked import nominal_second
from initlint.diagnosis import scaled_for_width, suspects
from initlint.facts import Layer, ParameterFacts
from initlint.findings import Severity
from initlint.generators import generators
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.runtime_scale import factor_in_front, run_time_factor
from initlint.signal import Nominal
from initlint.suspect_rule import normalised_away

# The smallest variance that a scheme gives which counts the inputs: PyTorch's default, 1 / (3 fan_in).
_LEAST = 1 / 3
# THEORY 6.1: a ratio of 10 of second moments is harmless.
_HARMLESS = 10.0
# One layer of few inputs among wide ones (the first of a DCGAN) is no matter of the model's width; most of them are.
_MOST = 0.5
# A width is what layers have in common: two at the least.
_SHARED = 2


class StdForWiderLayers(Rule):
    """Weights drawn with a usual std in layers that are too narrow for it.

    ## What it does
    Looks for models in which most weight matrices have a std that convention allows, such as the 0.02 of
    GPT-2, but a variance below a tenth of every scheme that counts the inputs: 1 / (3 fan_in), PyTorch's default, is
    the smallest. Heads, the last layers of residual branches and weights whose scale a norm behind takes out are not
    looked at, nor lines of which IL101 or another rule of this family reports other weights. One note for a model.

    ## Why is this bad?
    N(0, 0.02) was chosen for about 1000 inputs, where it is what sqrt(2 / (5 fan_in)) gives. At 64 inputs it is a
    quarter of that: the branches of a transformer write a small part of what they would in a wide model, and attention
    starts flat. The norms hide it from the stream. Such models train, but rates tuned at one width do not carry over.

    ## Example
    ```python
    nn.init.normal_(layer.weight, std=0.02)  # of 64 inputs
    ```

    ## Use instead
    ```python
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (5 * layer.in_features)))
    ```

    ## Known problems
    Small configurations of large models, as tests use them, keep the std of the large ones on purpose. Models whose
    attentions divide by the width of a head (muP) have the std of a base model, and are left alone.

    ## References
    - Nguyen and Salazar 2019, section 2.3 (small init), arXiv:1910.05895
    - Yang et al. 2022, arXiv:2203.03466: the variance of hidden weights falls with 1 / fan_in
    """

    code = "IL115"
    name = "std-for-wider-layers"
    family = "variance"
    severity = Severity.NOTE
    sources = ("Nguyen and Salazar 2019, section 2.3, arXiv:1910.05895", "Yang et al. 2022, arXiv:2203.03466")
    generic = True

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded or scaled_for_width(context.facts):
            return
        inputs = _inputs(context)
        # a line that draws other weights off every scheme is told there
        told = {site_of(suspect.parameter) for suspect in suspects(context.facts)}
        narrow = [
            (weight, fan_in)
            for weight, fan_in in inputs
            if nominal_second(weight)[0] * fan_in * _HARMLESS < _LEAST
            and weight.requires_grad
            and site_of(weight) not in told
            and not normalised_away(context, weight.name)
        ]
        if len(narrow) >= max(_SHARED, _MOST * len(inputs)):
            yield self._report(context, narrow)

    def _report(self, context: Context, narrow: list[tuple[ParameterFacts, float]]) -> Outcome:
        first, fan_in = narrow[0]
        std, expected = math.sqrt(nominal_second(first)[0]), math.sqrt(2 / (5 * fan_in))
        more = f" and {len(narrow) - 1} more" if len(narrow) > 1 else ""
        return self.finding(
            context,
            f"`{first.name}`{more}: std {std:.3g} suits layers of {2 / (5 * std * std):.0f} inputs; for {fan_in:.3g},"
            f" sqrt(2 / (5 fan_in)) is {expected / std:.2g} times as large",
            parameters=[weight.name for weight, _ in narrow],
            site=site_of(first),
            expected={"std": expected},
            actual={"std": std, "ratio": std / expected},
            effect=context.effect({weight.name: Nominal(0.0, 2 / (5 * fan)) for weight, fan in narrow}),
            fix="nn.init.normal_(weight, std=(2 / (5 * fan_in)) ** 0.5)",
            topic="scale",
        )

    @bad
    def gpt2_std_in_a_narrow_net() -> Any:
        return _blocks(0.02)

    @good
    def counts_the_inputs() -> Any:
        return _blocks((2 / (5 * 64)) ** 0.5)


def _inputs(context: Context) -> list[tuple[ParameterFacts, float]]:
    """Weights drawn at random inside the model, each with its fan_in; constant factors beside them count with it."""
    facts = context.facts
    found: dict[str, tuple[ParameterFacts, float]] = {}
    writers = {generator.layer.name for generator in generators(facts)}
    for layer in facts.layers:
        weight = context.parameter(layer.weight)
        if weight is None or not layer.fan_in or layer.name in writers or not _counted(layer, weight):
            continue
        factor = run_time_factor(facts, layer, weight)
        if factor is not None:
            beside = factor * factor_in_front(facts, layer) * layer.pre_scale**2
            found.setdefault(weight.name, (weight, layer.fan_in * beside))
    return list(found.values())


def _counted(layer: Layer, weight: ParameterFacts) -> bool:
    stats = weight.stats
    return (
        layer.kind in ("linear", "conv", "conv_transpose", "matmul", "attention")
        and not (layer.head or layer.branch)  # both have reasons of their own to start small
        and weight.kind == "parameter"
        and not weight.generated
        and weight.uninitialised == 0
        and stats is not None
        and stats.distinct is None  # zeros and constants are matters of other rules
        and stats.second > 0
    )


def _blocks(std: float) -> Any:
    """A stream of 64 with four branches of two layers behind norms."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 256), nn.Linear(256, 64)
            for layer in (self.up, self.down):
                nn.init.normal_(layer.weight, std=std)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(nn.functional.gelu(self.up(self.norm(x))))

    return nn.Sequential(*(Block() for _ in range(4)), nn.LayerNorm(64), nn.Linear(64, 10))
