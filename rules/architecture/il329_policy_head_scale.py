"""IL329: the policy of an actor-critic starts with a decided opinion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal

# Policies are given gains of 0.01 (Andrychowicz et al. 2021: a hundredth of the other layers); from half of the usual
# gain of one on nothing was made smaller.
_LARGE, _RIGHT = 0.5, 0.01
# That orthogonal matrices are how this net is initialised shows in more layers than its two heads.
_HIDDEN = 2


class PolicyHeadScale(Rule):
    """The head of a policy has the gain of a hidden layer, where a hundredth is what works best.

    ## What it does
    Looks at nets whose layers, heads included, were drawn by `orthogonal_`, and that give one value beside another
    output (actor and critic on one body, or on two). Reports the head of the other output where its gain is 0.5 or
    more. It is a note.

    ## Why is this bad?
    The first actions should hardly depend on the observation: a policy that starts with an opinion collects data for
    it. Of all choices of initialisation the small last layer of the policy made the largest difference in a study of
    250,000 agents (Andrychowicz et al. 2021, section 3.2).

    ## Example
    ```python
    nn.init.orthogonal_(self.policy.weight, gain=math.sqrt(2))
    ```

    ## Use instead
    ```python
    nn.init.orthogonal_(self.policy.weight, gain=0.01)
    ```

    ## Known problems
    Policies that are returned as a distribution, or as samples alone, are not looked at.

    ## References
    - Andrychowicz et al. 2021, What Matters In On-Policy Reinforcement Learning, section 3.2, arXiv:2006.05990
    - Engstrom et al. 2020, Implementation Matters in Deep RL, section 3, arXiv:2005.12729
    """

    code = "IL329"
    name = "policy-head-scale"
    family = "architecture"
    severity = Severity.NOTE
    sources = ("Andrychowicz et al. 2021, section 3.2, arXiv:2006.05990", "Engstrom et al. 2020, arXiv:2005.12729")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        drawn = [
            (layer, weight, gain)
            for layer in context.facts.layers
            if layer.kind == "linear" and (weight := context.parameter(layer.weight))
            and (gain := _orthogonal_gain(weight)) is not None
        ]  # fmt: skip
        heads = [entry for entry in drawn if entry[0].head]
        every = [layer for layer in context.facts.layers if layer.head]
        values = [layer for layer, _, _ in heads if layer.fan_out == 1]
        policies = [entry for entry in heads if (entry[0].fan_out or 1) > 1]
        if len(drawn) - len(heads) < _HIDDEN or len(every) != 2 or len(values) != 1 or len(policies) != 1:
            return
        layer, weight, gain = policies[0]
        if gain >= _LARGE:
            yield self._report(context, layer, weight, gain)

    def _report(self, context: Context, layer: Layer, weight: ParameterFacts, gain: float) -> Outcome:
        second = weight.stats.second if weight.stats else 1.0
        return self.finding(
            context,
            f"`{weight.name}` writes {layer.fan_out:g} outputs beside a value, with a hidden layer's gain {gain:.3g}",
            parameters=[weight.name],
            site=site_of(weight),
            expected={"gain": _RIGHT},
            actual={"gain": gain},
            effect=context.effect({weight.name: Nominal(0.0, second * (_RIGHT / gain) ** 2)}),
            fix=f"nn.init.orthogonal_(weight, gain={_RIGHT})",
            topic="head",
            why="If this is a policy: its first actions depend on the observation before anything was learned.",
        )

    @bad
    def gain_of_hidden_layers() -> Any:
        return _agent(2**0.5)

    @good
    def small_policy() -> Any:
        return _agent(0.01)


def _orthogonal_gain(weight: ParameterFacts) -> float | None:
    write = weight.last
    if write is None or write.op != "orthogonal_" or write.share < 1:
        return None
    gain = write.args.get("gain", 1.0)
    return float(gain) if isinstance(gain, (int, float)) else None


def _agent(gain: float) -> Any:
    import torch
    from torch import nn

    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 64)
            self.policy, self.value = nn.Linear(64, 6), nn.Linear(64, 1)
            gains = ((self.first, 2**0.5), (self.second, 2**0.5), (self.policy, gain), (self.value, 1.0))
            for layer, scale in gains:
                nn.init.orthogonal_(layer.weight, scale)
                nn.init.zeros_(layer.bias)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = torch.tanh(self.second(torch.tanh(self.first(x))))
            return self.policy(h), self.value(h)

    return Agent(), (torch.randn(8, 16),)
