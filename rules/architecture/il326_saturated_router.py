"""IL326: the softmax that mixes experts starts nearly one-hot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.odds import decided
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.upstream import judged
from initlint.wiring import reached, transparent, users

# With 19 times the weight of the next, 0.95 to 0.05, a choice is as good as made: p (1 - p) is a fifth of what it is at
# one half.
_MADE = 19.0
# Shares of the inputs for which it is made before any training: half of them, and a quarter, which is worth a word.
_WARNING, _NOTE = 0.5, 0.25
# The scores that are small enough: what PyTorch's default gives behind a norm is 0.58, Switch takes 0.3 (section 2.4).
_TARGET = 0.58
_ON = frozenset({"scale", "shift", "add", "sub", "where", "opaque"})
_BEHIND = frozenset({"div", "scale", "opaque", "where", "reduce"})


class SaturatedRouter(Rule):
    """The softmax that mixes experts starts nearly one-hot: the scores of the router are too large.

    ## What it does
    Finds layers whose scores go through softmax, before or behind a choice of the best, and multiply what other layers
    give (experts, branches, kernels). Predicts the std of the scores of one input, and from it for how many inputs
    the best expert has 19 times the weight of the next. A warning from half of the inputs on, a note from a quarter.

    ## Why is this bad?
    Softmax passes the gradient p (1 - p): a router that has decided learns next to nothing, and the expert that it
    decided for gets everything. Small scores are what keeps routers stable (Fedus et al. 2021, section 2.4: a tenth of
    the usual variance; Zoph et al. 2022, section 3.1: a loss against large ones).

    ## Example
    ```python
    nn.init.normal_(self.router.weight)  # behind a norm of width 64 the scores have std 8
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.router.weight, std=0.02)
    ```

    ## Known problems
    Scores are taken as independent between experts. Noise that is added before softmax is not counted.

    ## References
    - Fedus et al. 2021 (Switch), section 2.4, arXiv:2101.03961
    - Zoph et al. 2022 (ST-MoE), section 3.1, arXiv:2202.08906
    """

    code = "IL326"
    name = "saturated-router"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Fedus et al. 2021, section 2.4, arXiv:2101.03961", "Zoph et al. 2022, section 3.1, arXiv:2202.08906")

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context) or context.signal.sweeps is None:
            return
        groups: dict[tuple[str, int], list[tuple[ParameterFacts, float, float]]] = {}
        for layer in context.facts.layers:
            weight = context.parameter(layer.weight)
            experts = int(layer.fan_out or 0)
            factor = _factor(context.facts, layer) if weight and _drawn(layer, weight) and experts > 1 else None
            if weight is None or factor is None:
                continue
            state = context.signal.sweeps[0].states[layer.nodes[0]]
            spread = factor * math.sqrt(max(0.0, state.v)) if not state.undetermined else 0.0
            share = decided(_MADE, spread, experts)
            if share >= _NOTE:
                site = site_of(weight)
                groups.setdefault((site.file, site.line) if site else ("", 0), []).append((weight, spread, share))
        for group in groups.values():
            yield self._report(context, group)

    def _report(self, context: Context, group: list[tuple[ParameterFacts, float, float]]) -> Outcome:
        weight, spread, share = max(group, key=lambda entry: entry[2])
        std = math.sqrt(weight.stats.second) if weight.stats else 0.0
        right = std * _TARGET / spread
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"the scores of `{weight.name}`{more} have std {spread:.3g}: for {share:.0%} of all inputs the best expert"
            f" has {_MADE:g} times the weight of the next before any training",
            parameters=[p.name for p, _, _ in group],
            severity=Severity.WARNING if share >= _WARNING else Severity.NOTE,
            site=site_of(weight),
            expected={"score_std": _TARGET, "std": right},
            actual={"score_std": spread, "std": std, "share": share},
            effect=context.effect({p.name: Nominal(0.0, (right / std) ** 2 * std * std) for p, _, _ in group}),
            fix=f"nn.init.normal_(weight, std={right:.2g})",
            topic="scale",
        )

    @bad
    def unit_normal() -> Any:
        return _mixture(1.0)

    @good
    def small() -> Any:
        return _mixture(0.02)

    @good
    def default() -> Any:
        return _mixture(None)


def _drawn(layer: Layer, weight: ParameterFacts) -> bool:
    stats = weight.stats
    known = layer.kind in ("linear", "conv", "matmul") and bool(layer.nodes) and weight.kind == "parameter"
    return known and weight.requires_grad and stats is not None and stats.distinct is None and stats.second > 0


def _factor(facts: ModelFacts, layer: Layer) -> float | None:
    """What the scores are multiplied by before softmax makes factors of other layers' outputs of them, if it does."""
    start, readers = layer.nodes[0], users(facts)
    factors, todo = {start: 1.0}, [start]
    while todo:
        index = todo.pop()
        for user in readers[index]:
            node = facts.nodes[user]
            if user in factors:
                continue
            if node.op == "softmax" and node.attrs.get("axis") in ("channel", None) and _mixes(facts, node, factors):
                return factors[index]
            if transparent(node) or node.op in _ON:
                by = node.attrs.get("factor") if node.op == "scale" else 1.0
                factors[user] = factors[index] * abs(by if isinstance(by, (int, float)) else 1.0)
                todo.append(user)
    return None


def _mixes(facts: ModelFacts, softmax: Node, scores: Iterable[int]) -> bool:
    """Whether the weights that a softmax gives multiply what other layers give."""
    mine = {*scores, softmax.index}
    for node in reached(facts, softmax.index, lambda n: transparent(n) or n.op in _BEHIND):
        mine.add(node.index)
        if node.op in ("mul", "matmul") and _of_others(facts, node, mine):
            return True
    return False


def _of_others(facts: ModelFacts, product: Node, mine: set[int]) -> bool:
    """Whether the other factor is larger than the weights: outputs of what is mixed, and no factor of the weights."""
    sizes = [math.prod(facts.nodes[i].shape or ()) for i in product.inputs]
    others = [size for i, size in zip(product.inputs, sizes, strict=True) if i not in mine]
    weights = [size for i, size in zip(product.inputs, sizes, strict=True) if i in mine]
    return len(others) == 1 and len(weights) == 1 and others[0] > weights[0]


def _mixture(std: float | None) -> Any:
    import torch
    from torch import nn

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(64)
            self.router = nn.Linear(64, 8, bias=False)
            self.experts = nn.ModuleList([nn.Linear(64, 64) for _ in range(8)])
            if std is not None:
                nn.init.normal_(self.router.weight, std=std)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x)
            best, index = self.router(x).softmax(-1).topk(2, dim=-1)
            weights = torch.zeros(len(x), 8).scatter(1, index, best)
            return (torch.stack([expert(x) for expert in self.experts], 1) * weights.unsqueeze(-1)).sum(1)

    return Mixture(), (torch.randn(16, 64),)
