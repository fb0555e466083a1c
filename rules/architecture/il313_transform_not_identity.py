"""IL313: a predicted transform adds the identity to a layer that does not start at zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of

# A perturbation of a tenth of the identity's norm still starts as an identity for all purposes.
_RELATIVE = 0.1


class TransformNotIdentity(Rule):
    """A network predicts a transform as identity plus a correction, and the correction starts at random.

    ## What it does
    Finds layers whose output is added to a constant identity matrix (flattened or not) and whose weight is not zero.

    ## Why is this bad?
    Adding the identity says that the transform should start as one. A default-initialised last layer adds a random
    matrix whose norm can exceed the identity's: for a 64 x 64 feature transform the input arrives scrambled.
    Spatial transformers zero the last layer.

    ## Example
    ```python
    return self.fc2(h) + torch.eye(k).flatten()
    ```

    ## Use instead
    ```python
    nn.init.zeros_(self.fc2.weight)
    nn.init.zeros_(self.fc2.bias)
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/fxia22/pointnet.pytorch/issues/108
    - Jaderberg et al. 2015 (spatial transformer networks)
    """

    code = "IL313"
    name = "transform-not-identity"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/fxia22/pointnet.pytorch/issues/108", "Jaderberg et al. 2015, arXiv:1506.02025")

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        for node in facts.nodes:
            if node.op != "add" or len(node.inputs) != 2:
                continue
            for side, other in ((0, 1), (1, 0)):
                size = _identity_size(context, facts.nodes[node.inputs[side]])
                layer = _writer(facts, node.inputs[other]) if size else None
                if layer is not None and size:
                    outcome = self._judge(context, layer, size)
                    if outcome is not None:
                        yield outcome

    def _judge(self, context: Context, layer: Layer, size: int) -> Outcome | None:
        weight = context.parameter(layer.weight)
        bias = context.parameter(layer.bias) if layer.bias else None
        if weight is None or weight.stats is None or weight.stats.second == 0:
            return None
        moments = context.signal.built[layer.nodes[-1]]
        # the identity has Frobenius norm sqrt(k); a correction of second moment q has k sqrt(q)
        relative = math.sqrt(size * moments.q) if not moments.undetermined else math.sqrt(size * weight.stats.second)
        if relative < _RELATIVE:
            return None
        return self.finding(
            context,
            f"`{layer.name}` predicts a {size} x {size} transform on top of the identity and starts at random:"
            f" the correction has {relative:.2g} times the identity's norm",
            parameters=[weight.name, *([bias.name] if bias else [])],
            site=site_of(weight),
            expected={"relative_norm": 0.0},
            actual={"relative_norm": relative},
            effect="what the transform is applied to arrives scrambled at the start",
            fix="nn.init.zeros_(layer.weight); nn.init.zeros_(layer.bias)",
            topic="convention",
        )

    @bad
    def default_correction() -> Any:
        return _transformer(zero=False)

    @good
    def zero_correction() -> Any:
        return _transformer(zero=True)


def _identity_size(context: Context, node: Node) -> int | None:
    """k when the node is a constant k x k identity matrix, in any shape; by its moments, which only it has."""
    mean, second = node.attrs.get("mean"), node.attrs.get("second")
    name = next(iter(node.parameters.values()), "")
    parameter = context.parameter(name) if name else None
    if parameter is not None and not _frozen(parameter):
        return None
    if (
        node.op not in ("parameter", "constant")
        or not isinstance(mean, (int, float))
        or not isinstance(second, (int, float))
    ):
        return None
    count = math.prod(parameter.shape) if parameter is not None else math.prod(node.shape or ())
    k = round(1 / mean) if mean > 0 else 0
    # ones on the diagonal only: mean = second = 1/k over k^2 elements
    if k < 2 or abs(mean * k - 1) > 1e-4 or abs(second * k - 1) > 1e-4 or count % (k * k):
        return None
    return k


def _frozen(parameter: ParameterFacts) -> bool:
    return parameter.kind == "buffer" or not parameter.requires_grad


def _writer(facts: ModelFacts, index: int) -> Layer | None:
    """The layer whose output arrives here through reshapes only."""
    by_node = {node: layer for layer in facts.layers for node in layer.nodes}
    while index not in by_node:
        node = facts.nodes[index]
        if node.op not in ("reshape", "identity", "select") or not node.inputs:
            return None
        index = node.inputs[0]
    return by_node[index]


def _transformer(zero: bool) -> Any:
    import torch
    from torch import nn

    class Aligned(nn.Module):
        eye: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 64)
            self.register_buffer("eye", torch.eye(8).flatten())
            if zero:
                nn.init.zeros_(self.fc2.weight)
                nn.init.zeros_(self.fc2.bias)

        def forward(self, x: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
            matrix = (self.fc2(torch.relu(self.fc1(x))) + self.eye).view(-1, 8, 8)
            return torch.bmm(matrix, points)

    return Aligned(), (torch.randn(4, 16), torch.randn(4, 8, 5))
