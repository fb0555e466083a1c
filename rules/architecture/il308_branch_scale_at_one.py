"""IL308: the learned strength of norm-free residual branches starts at one, and the net explodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal.trunk import WEIGHTED
from initlint.signal.verdict import LOGITS, LOSS
from initlint.upstream import judged
from initlint.wiring import reached, transparent

# The first threshold of the depth profile (THEORY 6.1): at a ratio of 1e4 of the second moments SGD loses points. Adam
# stands more, but the learned strength shows that the branch was meant to be held down, and that it is not.
_HARM = 4.0
# Fewer blocks than this cannot reach it: each about doubles the second moment.
_BLOCKS = 4


class BranchScaleAtOne(Rule):
    """SkipInit or ReZero scalars start at one where no normalisation holds the branches down.

    ## What it does
    In nets whose residual branches end in a learned scalar or per-channel gain and contain no normalisation, finds
    gains of at least one in so many blocks that the signal grows by 1e4 (second moments) or more, or the loss
    starts at several times ln C for it.

    ## Why is this bad?
    Each branch adds as much as there is, so that the second moment doubles with every block. A scale of zero (ReZero,
    SkipInit), a small one (LayerScale) or 1/sqrt(N) keeps the net near the identity; the scale exists for nothing
    else.

    ## Example
    ```python
    self.alpha = nn.Parameter(torch.ones(1))  # x + self.alpha * self.branch(x), 28 blocks
    ```

    ## Use instead
    ```python
    self.alpha = nn.Parameter(torch.zeros(1))
    ```

    ## Known problems
    Nets of few blocks are not reported: the growth is harmless.

    ## References
    - De and Smith 2020 (SkipInit), section 4.2, arXiv:2002.10444
    - Bachlechner et al. 2020 (ReZero), arXiv:2003.04887
    """

    code = "IL308"
    name = "branch-scale-at-one"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("De and Smith 2020, section 4.2, arXiv:2002.10444", "Bachlechner et al. 2020, arXiv:2003.04887")

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context):
            return
        found = {}
        for layer in context.facts.layers:
            gain = context.parameter(layer.weight)
            if gain is not None and _full(layer, gain) and not _normalised(context, layer):
                found[gain.name] = (gain, layer)
        span = context.signal.spans.get("forward")
        if len(found) < _BLOCKS or span is None or span.shrinks or not (span.value >= _HARM or _costs(context)):
            return
        for group in by_cause(p for p, _ in found.values()).values():
            if len(group) < _BLOCKS:
                continue
            grown = sum(_growth(context, found[p.name][1]) for p in group)
            if grown < span.value / 2:
                continue  # something else makes the signal grow
            weights = [w for p in group for w in self._branch(context, found[p.name][1])]
            value = group[0].stats.mean if group[0].stats else 1.0
            yield self.finding(
                context,
                f"{len(group)} residual branches without normalisation start at strength {value:g} (`{group[0].name}`):"
                f" the signal grows 1e{span.raw / 2:.0f}-fold (standard deviation)",
                parameters=dict.fromkeys([*(p.name for p in group), *weights]),
                severity=Severity.ERROR if span.value >= 9.0 else Severity.WARNING,
                site=site_of(group[0]),
                expected={"value": 0.0, "log10_ratio": 0.0},
                actual={"value": value, "log10_ratio": span.raw},
                effect=f"the second moment grows 1e{grown:.0f}-fold over these branches (1e4 costs SGD points)",
                fix="nn.Parameter(torch.zeros(...))  # or a small constant, as LayerScale",
                topic="scale",
            )

    def _branch(self, context: Context, layer: Layer) -> list[str]:
        """Weights inside the branch that a gain closes."""
        nodes, names = context.facts.nodes, list[str]()
        stack, trunk = [layer.nodes[0]], set(context.signal.trunk)
        seen = set(stack)
        while stack:
            index = stack.pop()
            if index in trunk:
                continue
            if nodes[index].op in WEIGHTED and "weight" in nodes[index].parameters:
                names.append(nodes[index].parameters["weight"])
            stack += [i for i in nodes[index].inputs if i not in seen]
            seen.update(nodes[index].inputs)
        return names

    @bad
    def deep_and_open() -> Any:
        return _net(1.0)

    @good
    def deep_and_closed() -> Any:
        return _net(0.0)

    @good
    def shallow_and_open() -> Any:
        return _net(1.0, depth=6)


def _full(layer: Layer, gain: ParameterFacts) -> bool:
    stats = gain.stats
    return (
        layer.kind == "scale"
        and (layer.branch or layer.consumer == "residual")
        and gain.kind == "parameter"
        and gain.requires_grad
        and stats is not None
        and stats.distinct in (None, 1)
        and stats.minimum >= 1.0
        and not math.isinf(stats.maximum)
    )


def _costs(context: Context) -> bool:
    """Whether the outputs are so large that the loss starts several times above that of a uniform guess."""
    loss = context.signal.init_loss
    return loss is not None and loss.predicted - loss.expected >= LOSS * loss.expected and loss.logit_std >= LOGITS


def _growth(context: Context, layer: Layer) -> float:
    """log10 of how much the sum that a branch writes into exceeds the stream before it."""
    facts, signal = context.facts, context.signal
    total = facts.nodes[layer.consumer_node] if layer.consumer_node is not None else None
    if total is None or total.op not in ("add", "sub") or len(total.inputs) != 2:
        return 0.0
    mine = {layer.nodes[0], *(n.index for n in reached(facts, layer.nodes[0], transparent))}
    stream = next((i for i in total.inputs if i not in mine), None)
    if stream is None:
        return 0.0
    before, after = signal.built[stream], signal.built[total.index]
    if before.undetermined or after.undetermined or before.q <= 0 or after.q <= 0:
        return 0.0
    return math.log10(after.q / before.q)


def _normalised(context: Context, layer: Layer) -> bool:
    """Whether a norm lies on the branch, between the gain and the trunk."""
    nodes, trunk = context.facts.nodes, set(context.signal.trunk)
    stack, seen = [layer.nodes[0]], {layer.nodes[0]}
    while stack:
        node = nodes[stack.pop()]
        if node.op == "norm":
            return True
        if node.index in trunk:
            continue
        stack += [i for i in node.inputs if i not in seen]
        seen.update(node.inputs)
    return False


def _net(alpha: float, depth: int = 24) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
            self.alpha = nn.Parameter(torch.full((1,), alpha))
            nn.init.kaiming_normal_(self.branch[0].get_parameter("weight"))
            nn.init.kaiming_normal_(self.branch[2].get_parameter("weight"), nonlinearity="linear")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.alpha * self.branch(x)

    return nn.Sequential(*[Block() for _ in range(depth)], nn.Linear(32, 4))
