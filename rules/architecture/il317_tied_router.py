"""IL317: a router whose choice of experts does not depend on its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, Node
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import reached, transparent

_CHOOSES = frozenset({"topk", "argmax", "max", "argsort", "sort", "kthvalue"})
_KEEPS_TIES = frozenset({"softmax", "log_softmax", "scale", "shift", "norm"})
_APPLIES = frozenset({"mul", "matmul", "opaque", "where", "stop", "linear", "conv", "embedding"})
_FAR = 200  # nodes looked at behind a choice; the product with the experts' outputs is a few ops away


class TiedRouter(Rule):
    """The scores of a hard routing decision start equal, so that every input goes to the same experts.

    ## What it does
    Finds layers whose output goes through top-k, argmax or a sort and selects among other layers, and whose weight is
    zero or one constant, without noise added before the choice.

    ## Why is this bad?
    Ties are broken by position: every token is sent to the same k experts, the others get no gradient, and the ones
    that are chosen get better, which keeps them chosen. A soft mixture may start at zero; a choice may not, unless
    noise decides it (Shazeer et al. 2017).

    ## Example
    ```python
    nn.init.zeros_(self.gate.weight)  # scores.topk(k)
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.gate.weight, std=0.02)
    ```

    ## Known problems
    Choices inside custom kernels are not seen.

    ## References
    - Shazeer et al. 2017, section 2.1 and appendix A, arXiv:1701.06538
    - Fedus et al. 2021 (Switch), section 2.4, arXiv:2101.03961
    """

    code = "IL317"
    name = "tied-router"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Shazeer et al. 2017, section 2.1, arXiv:1701.06538", "Fedus et al. 2021, section 2.4, arXiv:2101.03961")

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        if facts.loaded:
            return
        found, varying = {}, _varying(facts)
        for layer in facts.layers:
            parameter = context.parameter(layer.weight)
            stats = parameter.stats if parameter is not None else None
            tied = (
                layer.kind in ("linear", "conv", "matmul")
                and stats is not None
                and parameter is not None
                and parameter.kind == "parameter"
                and stats.distinct == 1
                and (layer.fan_out or 0) > 1
            )
            if tied and parameter is not None and any(_chosen(facts, varying, node) for node in layer.nodes):
                found[parameter.name] = parameter
        for group in by_cause(found.values()).values():
            first = group[0]
            value = first.stats.mean if first.stats else 0.0
            experts = int(context.layers_of(first.name)[0].fan_out or 0)
            yield self.finding(
                context,
                f"every weight of `{first.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f" is {value:g}, and its {experts} scores choose by rank: all inputs get the same choice",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"distribution": "normal", "std": 0.02},
                actual={"value": value},
                effect="what is not chosen at the start gets no gradient",
                fix="nn.init.normal_(weight, std=0.02)",
                topic="symmetry",
            )

    @bad
    def zero_router() -> Any:
        return _mixture(0.0), _inputs()

    @good
    def small_router() -> Any:
        return _mixture(0.02), _inputs()

    @good
    def zero_router_with_noise() -> Any:
        return _mixture(0.0, noisy=True), _inputs()


def _chosen(facts: ModelFacts, varying: frozenset[int], start: int) -> bool:
    """Whether the scores reach a choice by rank that selects among something, and nothing breaks the ties before."""
    untouched = {start}

    def ties(node: Node) -> bool:
        kept = transparent(node) or node.op in _KEEPS_TIES or node.op == "activation"
        if node.op in ("add", "sub", "mul", "div"):
            others = [i for i in node.inputs if i not in untouched]
            kept = varying.isdisjoint(others)
        if kept and not _by_rank(node):
            untouched.add(node.index)
        return kept and not _by_rank(node)

    return any(_by_rank(node) and _used(facts, node) for node in reached(facts, start, ties))


def _by_rank(node: Node) -> bool:
    name = str(node.attrs.get("name", "")) if node.op == "stop" else node.label if node.op == "select" else ""
    return name in _CHOOSES or (node.op == "reduce" and node.attrs.get("fn") == "max")


def _used(facts: ModelFacts, choice: Node) -> bool:
    """Whether what was chosen goes on to select or weigh something (not only to the output)."""
    for count, node in enumerate(reached(facts, choice.index, lambda n: n.op != "output")):
        if node.op in _APPLIES:
            return True
        if count > _FAR:
            return False
    return False


def _varying(facts: ModelFacts) -> frozenset[int]:
    """Nodes that depend on an input or are drawn anew; parameters and constants break ties for all inputs alike."""
    found: set[int] = set()
    for node in facts.nodes:
        if node.op == "input" or node.attrs.get("random") or not found.isdisjoint(node.inputs):
            found.add(node.index)
    return frozenset(found)


def _inputs() -> Any:
    import torch

    return (torch.randn(8, 16),)


def _mixture(std: float, noisy: bool = False) -> Any:
    import torch
    from torch import nn

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(16, 4, bias=False)
            self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
            nn.init.normal_(self.gate.weight, std=std) if std else nn.init.zeros_(self.gate.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.gate(x)
            if noisy:
                scores = scores + torch.randn_like(scores)
            best, index = scores.topk(2, dim=-1)
            mask = torch.zeros_like(scores).scatter(1, index, best.softmax(-1))
            return (torch.stack([expert(x) for expert in self.experts], 1) * mask.unsqueeze(-1)).sum(1)

    return Mixture()
