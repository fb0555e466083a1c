"""IL211: attention logits so spread that each query starts with one key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.signal.spread import logit_spread
from initlint.upstream import judged, writers

# THEORY 5.5: softmax over T Gaussian logits freezes at std sqrt(2 ln T); one speaks of it from 0.6 of that.
_NOTE = 0.6
# Models are traced with short sequences; real ones are longer, and the critical spread grows (slowly) with length.
_FEWEST_KEYS = 64
# The scale that is missing when logits are q . k without 1 / sqrt(d): a factor of at least 2 in std from d = 4.
_UNSCALED = 2.0


class AttentionEntropyCollapse(Rule):
    """Attention starts nearly one-hot: its logits spread beyond what softmax averages over.

    ## What it does
    Predicts the standard deviation s of the logits between the keys of one query, from the scales of queries and keys
    and the factor in front, and compares it with sqrt(2 ln T) for T keys (at least 64).

    ## Why is this bad?
    Beyond that spread a few keys, chosen at random, get all the weight whatever the length: gradients through softmax
    vanish and training diverges or stalls (Zhai et al. 2023). The usual cause is a missing 1 / sqrt(d).

    ## Example
    ```python
    w = torch.softmax(q @ k.transpose(-2, -1), dim=-1)
    ```

    ## Use instead
    ```python
    w = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    ```

    ## Known problems
    T5 leaves the factor out and divides the std of its query matrix instead; this is seen and right.

    ## References
    - Zhai et al. 2023, Stabilizing Transformer Training by Preventing Attention Entropy Collapse, arXiv:2303.06296
    - Vaswani et al. 2017, section 3.2.1
    """

    code = "IL211"
    name = "attention-entropy-collapse"
    family = "signal"
    severity = Severity.WARNING
    sources = ("Zhai et al. 2023, arXiv:2303.06296", "Vaswani et al. 2017, section 3.2.1, arXiv:1706.03762")

    def check(self, context: Context) -> Iterator[Outcome]:
        signal = context.signal
        if not judged(context) or signal.scene is None or signal.sweeps is None:
            return
        guilty: list[ParameterFacts] = []
        worst, at, freezing, count = 0.0, -1, 1.0, 0
        for index, (spread, keys) in logit_spread(signal.scene, signal.sweeps[0].states).items():
            critical = math.sqrt(2 * math.log(max(keys, _FEWEST_KEYS)))
            if keys < 2 or spread < _NOTE * critical:
                continue
            count += 1
            guilty += [p for p in _projections(context, index) if p not in guilty]
            if spread > worst:
                worst, at, freezing = spread, index, critical
        if at < 0:
            return
        yield self._report(context, guilty, worst, at, freezing, count)

    def _report(
        self, context: Context, guilty: list[ParameterFacts], spread: float, at: int, critical: float, count: int
    ) -> Outcome:
        node = context.facts.nodes[at]
        unscaled = _unscaled(node)
        # where the factor 1 / sqrt(d) is plainly missing, the spread is nobody's choice
        severity = Severity.WARNING if spread > critical or unscaled else Severity.NOTE
        more = f" ({count} attentions)" if count > 1 else ""
        cause = "; the products are not divided by sqrt(d)" if unscaled else ""
        changes = {p.name: Nominal(0.0, p.stats.second / spread) for p in guilty if p.stats and len(p.shape) > 1}
        return self.finding(
            context,
            f"logits of `{node.label or node.op}`{more} have std {spread:.3g} between keys; softmax over them is nearly"
            f" one-hot from {critical:.2g}{cause}",
            parameters=[p.name for p in guilty],
            severity=severity,
            site=node.site if unscaled or not guilty else site_of(guilty[0]),
            expected={"logit_std": 1.0, "critical": critical},
            actual={"logit_std": spread, "attentions": count},
            effect=context.effect(changes) if changes else "each query attends to one key chosen at random",
            fix="logits / math.sqrt(head_dim)"
            if unscaled
            else "nn.init.xavier_uniform_(weight)  # of queries and keys",
            topic="head" if unscaled else "scale",
        )

    @bad
    def unscaled_products() -> Any:
        import torch

        return _attention(1.0), (torch.randn(2, 32, 256),)

    @good
    def scaled_products() -> Any:
        import torch

        return _attention(256**-0.5), (torch.randn(2, 32, 256),)


def _projections(context: Context, index: int) -> list[ParameterFacts]:
    """The weights that make queries and keys."""
    nodes = context.facts.nodes
    node = nodes[index]
    if node.op == "mha":
        names = [n for role, n in node.parameters.items() if role in ("in_proj", "q_proj", "k_proj")]
        return [p for name in names if (p := context.parameter(name)) is not None]
    if node.op == "attention":
        sources = list(node.inputs[:2])
    else:
        product = _product(nodes, node)
        sources = list(product.inputs) if product else []
    found: list[ParameterFacts] = []
    for source in sources:
        found += [p for p in writers(context, source, roles=("weight",)) if p not in found]
    return found


def _product(nodes: tuple[Node, ...], node: Node) -> Node | None:
    """The matmul whose products a softmax reads, through factors, masks and biases."""
    for _ in range(16):
        if node.op == "matmul" or not node.inputs:
            break
        node = nodes[node.inputs[0]]
    return node if node.op == "matmul" else None


def _unscaled(node: Node) -> bool:
    scale, dim = node.attrs.get("scale"), node.attrs.get("head_dim")
    if not isinstance(scale, (int, float)) or not isinstance(dim, (int, float)):
        return False
    return scale * math.sqrt(dim) >= _UNSCALED


def _attention(scale: float) -> Any:
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            return torch.softmax(q @ k.transpose(-2, -1) * scale, dim=-1) @ v

    return Attention()
