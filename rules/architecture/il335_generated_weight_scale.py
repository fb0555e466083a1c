"""IL335: a layer that writes another layer's weights, too large for the fan of that layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.generators import generators
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.verdict import distance, mistake
from initlint.upstream import judged

# He's 2 / fan_in is the largest that suits a generated layer, too; four times away from every scheme is IL101's bound.
_LARGEST, _AWAY = 2.0, 4.0
# What the generator's weight must contribute to what it writes: otherwise its bias, or what is added, sets the scale.
_MOST = 0.5


class GeneratedWeightScale(Rule):
    """A layer that generates the weights of another (a hypernetwork) counts its own inputs alone.

    ## What it does
    Finds products of two signals of which one is a layer's output, cut into matrices: the weights of a layer that is
    generated for each sample or task. Where their second moment times the inputs of the generated layer is more than
    four times that of He's scheme, the generator is reported. At PyTorch's default it is a note, unless the depth
    profile of the net suffers.

    ## Why is this bad?
    What is generated has the variance that its generator's fan_in gives, about 1, and not the 1 / fan_in of the layer
    that it is for: each generated layer multiplies the second moment by its number of inputs, 64^4 = 1.7e7 after four.

    ## Example
    ```python
    nn.init.normal_(self.to_weight.weight, std=ctx_dim ** -0.5)  # writes a matrix (64, 64)
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.to_weight.weight, std=(ctx_dim * 64) ** -0.5)
    ```

    ## Known problems
    Generated weights that pass another op before they are used (a norm, softmax, an addition to fixed weights) are
    not looked at, nor are single rows of weights, which look like gates.

    ## References
    - Chang et al. 2020, section 4, Principled Weight Initialization for Hypernetworks (ICLR)
    """

    code = "IL335"
    name = "generated-weight-scale"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("Chang et al. 2020, section 4, Principled Weight Initialization for Hypernetworks",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context) or context.signal.sweeps is None:
            return
        found: dict[str, tuple[float, int]] = {}  # a generator's weight -> times the layer's fan, and that fan
        states, nodes = context.signal.sweeps[0].states, context.facts.nodes
        for generator in generators(context.facts):
            layer, state = generator.layer, states[generator.matrices]
            weight = context.parameter(layer.weight)
            if generator.free < 2 or weight is None or not _drawn(weight) or state.undetermined or state.q <= 0:
                continue
            times = state.q * generator.fan
            own = _second(weight) * (layer.fan_in or 0.0) * states[nodes[layer.nodes[0]].inputs[0]].q
            if times > _LARGEST * _AWAY and own >= _MOST * state.q:
                found[weight.name] = max(found.get(weight.name, (0.0, 0)), (times, generator.fan))
        for group in by_cause(p for name in found if (p := context.parameter(name))).values():
            yield self._report(context, group, found)

    def _report(self, context: Context, group: list[ParameterFacts], found: dict[str, tuple[float, int]]) -> Outcome:
        worst = max(group, key=lambda p: found[p.name][0])
        times, fan = found[worst.name]
        effect = context.effect({p.name: Nominal(0.0, _second(p) * _LARGEST / found[p.name][0]) for p in group})
        chosen = any(p.last is not None and p.last.origin != "torch" for p in group)
        judge = mistake if chosen else distance
        level = judge(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE
        std, right = math.sqrt(_second(worst)), math.sqrt(_second(worst) * _LARGEST / times)
        more = f" and {len(group) - 1} more write" if len(group) > 1 else " writes"
        return self.finding(
            context,
            f"`{worst.name}`{more} the weights of a layer of {fan} inputs with variance {times / fan:.3g}:"
            f" that layer multiplies the second moment by {times:.3g}",
            parameters=[p.name for p in group],
            severity=level,
            site=site_of(worst),
            expected={"std": right, "generated_variance": _LARGEST / fan},
            actual={"std": std, "generated_variance": times / fan},
            effect=effect,
            fix=f"nn.init.normal_(weight, std={right:.4g})",
            topic="scale",
        )

    @bad
    def own_fan_alone() -> Any:
        return _regressor(32**-0.5)

    @good
    def both_fans() -> Any:
        return _regressor((32 * 64) ** -0.5)


def _second(weight: ParameterFacts) -> float:
    return weight.stats.second if weight.stats is not None else 0.0


def _drawn(weight: ParameterFacts) -> bool:
    known = weight.kind == "parameter" and weight.requires_grad and not weight.generated
    return known and weight.stats is not None and weight.stats.distinct is None and weight.stats.second > 0


def _regressor(std: float) -> Any:
    import torch
    from torch import nn

    class Regressor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(32)
            self.generators = nn.ModuleList([nn.Linear(32, 64 * 64, bias=False) for _ in range(3)])
            self.last = nn.Linear(64, 1)
            for weight in self.generators.parameters():
                nn.init.normal_(weight, std=std)

        def forward(self, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            for layer in self.generators:
                weight = layer(self.norm(task)).view(-1, 64, 64)
                x = torch.relu(torch.bmm(weight, x.unsqueeze(-1)).squeeze(-1))
            return self.last(x)

    return Regressor(), (torch.randn(8, 64), torch.randn(8, 32))
