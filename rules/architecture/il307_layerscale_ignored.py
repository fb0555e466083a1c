"""IL307: a learned branch scale that was configured small and starts at one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, ModuleFacts, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

# CaiT's LayerScale starts at 0.1 (18 blocks) down to 1e-6 (deeper); above a half nobody would call a scale small.
_SMALL = 0.5
# Attributes that are small numbers for other reasons in modules of all kinds: an epsilon is below any useful scale of
# float32 sums, a probability is used by dropout ops in the same module.
_EPSILON_NAMES = ("eps", "epsilon", "momentum")


class BranchScaleIgnored(Rule):
    """A LayerScale module stores a small starting value, but its parameter starts at one.

    ## What it does
    Finds modules whose only parameter is a per-channel scale of a residual branch, filled with ones, and which
    hold a small constructor value (such as `init_values=1e-5`) that no write ever used.

    ## Why is this bad?
    LayerScale starts a branch near zero so that a deep net starts near the identity. A reset that fills ones
    switches it off without a sign: the net trains, only worse at depth.

    ## Example
    ```python
    def reset_parameters(self):
        nn.init.ones_(self.gamma)
    ```

    ## Use instead
    ```python
    def reset_parameters(self):
        nn.init.constant_(self.gamma, self.init_values)
    ```

    ## Known problems
    A stored number that has nothing to do with the scale can mislead the rule; epsilons are exempt.

    ## References
    - https://github.com/huggingface/pytorch-image-models/pull/2605
    - Touvron et al. 2021 (CaiT), section 2.2
    """

    code = "IL307"
    name = "branch-scale-ignored"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/huggingface/pytorch-image-models/pull/2605", "Touvron et al. 2021, arXiv:2103.17239")

    def check(self, context: Context) -> Iterator[Outcome]:
        found: dict[str, tuple[ParameterFacts, str, float]] = {}
        for module in context.facts.modules:
            if module.library != "user" or len(module.parameters) != 1:
                continue
            parameter = context.parameter(module.parameters[0])
            asked = _small_attribute(module)
            if (
                parameter is None
                or asked is None
                or not _ones(parameter)
                or not _scales_branch(context.facts, parameter)
            ):
                continue
            found[parameter.name] = (parameter, *asked)
        for group in by_cause(p for p, _, _ in found.values()).values():
            _, attribute, value = found[group[0].name]
            yield self.finding(
                context,
                f"`{group[0].name}` scales a residual branch and starts at 1; its module holds {attribute}={value:g}",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"value": value},
                actual={"value": 1.0},
                effect=f"the branches start at full size instead of {value:g} of it",
                fix=f"nn.init.constant_(self.{group[0].local}, self.{attribute})",
                topic="reach",
            )

    @bad
    def reset_to_ones() -> Any:
        return _net(obey=False)

    @good
    def reset_to_value() -> Any:
        return _net(obey=True)


def _small_attribute(module: ModuleFacts) -> tuple[str, float] | None:
    values = [
        (name, value)
        for name, value in module.attrs.items()
        if isinstance(value, float) and 0 < value < _SMALL and name not in _EPSILON_NAMES
    ]
    return values[0] if len(values) == 1 else None


def _ones(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return stats is not None and stats.count > 1 and stats.minimum == stats.maximum == 1.0


def _scales_branch(facts: ModelFacts, parameter: ParameterFacts) -> bool:
    return any(
        layer.kind == "scale" and layer.weight == parameter.name and (layer.branch or layer.consumer == "residual")
        for layer in facts.layers
    )


def _net(obey: bool) -> Any:
    import torch
    from torch import nn

    class Scale(nn.Module):
        def __init__(self, dim: int, init_values: float) -> None:
            super().__init__()
            self.init_values = init_values
            self.gamma = nn.Parameter(torch.empty(dim))
            nn.init.constant_(self.gamma, init_values if obey else 1.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gamma

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc, self.scale = nn.LayerNorm(16), nn.Linear(16, 16), Scale(16, 1e-4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.scale(self.fc(self.norm(x)))

    return nn.Sequential(Block(), Block(), nn.Linear(16, 4))
