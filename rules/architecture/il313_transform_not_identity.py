"""IL313: a predicted transform does not start as the identity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of

# A perturbation of a tenth of the identity's norm still starts as an identity for all purposes.
_RELATIVE = 0.1
# From half of the identity's norm on, corners of the image move by half of its size.
_SCRAMBLED = 0.5
#: Reshapes that exchange the last two axes of a batch of matrices.
_TRANSPOSES = ("transpose", "swapaxes", "permute", "mT", "T", "t")


class TransformNotIdentity(Rule):
    """A network predicts a transform, and what it predicts at the start is not the identity.

    ## What it does
    Finds layers whose output is added to a constant identity matrix (flattened or not) and whose weight is not zero,
    and layers whose output becomes the grid of a spatial transformer (`affine_grid`) and whose bias is not the
    identity (1, 0, 0, 0, 1, 0), in the layout in which it is read, or whose weight is not small.

    ## Why is this bad?
    Adding the identity says that the transform should start as one. A default-initialised last layer adds a random
    matrix whose norm can exceed the identity's: for a 64 x 64 feature transform the input arrives scrambled.
    Spatial transformers zero the last layer's weight and set its bias to the identity. With a zero bias every output
    pixel samples the centre of the image; with PyTorch's default the image shrinks to a spot around it.

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
        if facts.loaded:
            return
        yield from self._grids(context)
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

    def _grids(self, context: Context) -> Iterator[Outcome]:
        """Layers that predict the matrix of a sampling grid."""
        facts = context.facts
        told: set[str] = set()
        for node in facts.nodes:
            if node.op != "opaque" or node.attrs.get("name") != "affine_grid" or not node.inputs:
                continue
            matrix = facts.nodes[node.inputs[0]].shape
            if matrix is None or len(matrix) != 3:
                continue
            layer, added = _writer(facts, node.inputs[0]), False
            if layer is None:
                layer, added = _beside_identity(facts, node.inputs[0], matrix[1], matrix[2]), True
            if layer is None or layer.weight in told:
                continue
            told.add(layer.weight)
            turned = _turned(facts, node.inputs[0])
            outcome = self._judge_grid(context, layer, matrix[1], matrix[2], added=added, turned=turned)
            if outcome is not None:
                yield outcome

    def _judge_grid(
        self, context: Context, layer: Layer, rows: int, columns: int, *, added: bool, turned: bool
    ) -> Outcome | None:
        """``added``: the forward adds the identity itself. ``turned``: it transposes what the layer gives."""
        weight, bias = context.parameter(layer.weight), context.parameter(layer.bias) if layer.bias else None
        held = True if added else _identity_bias(bias, rows, columns, turned)
        moments = context.signal.built[layer.nodes[-1]]
        if weight is None or weight.stats is None or held is None:
            return None
        # what is predicted beside the identity: random in every entry
        beside = moments.q if added else max(0.0, moments.q - _q(bias))
        spread = 0.0 if weight.stats.second == 0 or moments.undetermined else math.sqrt(beside)
        relative = spread * math.sqrt(columns)  # rows x columns entries over the identity's norm sqrt(rows)
        names = [*([weight.name] if spread else []), *([bias.name] if bias and not held else [])]
        if held and relative < _RELATIVE:
            return None
        if held:
            clause = f"starts {relative:.2g} times the identity's norm away from it"
        elif bias is None or bias.stats is None or bias.stats.second == 0:
            clause = "starts at zero instead of the identity: every pixel samples the centre"
        elif _identity_bias(bias, rows, columns, not turned):
            layout = f"{columns} x {rows}" if turned else f"{rows} x {columns}"
            clause = f"has the identity in its bias by the other layout: it is read as {layout}"
        else:
            clause = "has no identity in its bias: the grid shrinks to a spot around the centre"
        guilty = bias if bias is not None and not held else weight
        return self.finding(
            context,
            f"`{layer.name}` predicts the {rows} x {columns} matrix of a sampling grid and {clause}",
            parameters=names or [weight.name],
            # beside the identity the input is only perturbed: half of its norm away it is another image
            severity=Severity.NOTE if held and relative < _SCRAMBLED else Severity.WARNING,
            site=site_of(guilty),
            expected={"bias": "1, 0, 0, 0, 1, 0" if columns == 3 else "the identity", "weight": 0.0},
            actual={"bias_rms": math.sqrt(_q(bias)), "output_rms": spread},
            effect="what the transform is applied to arrives as one spot, or scrambled, at the start",
            fix="layer.weight.data.zero_(); layer.bias.data.copy_(torch.eye(2, 3).flatten())"
            if columns == 3
            else "layer.weight.data.zero_(); layer.bias.data.copy_(torch.eye(3, 4).flatten())",
            topic="convention",
        )

    @bad
    def identity_in_the_other_layout() -> Any:
        return _spatial(identity=True, turned=True)

    @bad
    def grid_from_zero() -> Any:
        return _spatial(identity=False)

    @good
    def grid_from_identity() -> Any:
        return _spatial(identity=True)

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


def _identity_bias(bias: ParameterFacts | None, rows: int, columns: int, turned: bool = False) -> bool | None:
    """Whether a bias is the flattened identity (rows x columns), by its moments; ``None`` where it is not known.

    ``turned``: stored as columns x rows.
    """
    if bias is None:
        return False
    stats, entries = bias.stats, rows * columns
    if stats is None or bias.shape != (entries,):
        return None
    # ones on the diagonal and zeros elsewhere have mean = second = rows / entries; a small shift or zoom is as good
    share = rows / entries
    if not (abs(stats.mean / share - 1) < _SCRAMBLED and abs(stats.second / share - 1) < _SCRAMBLED):
        return False
    # where they are show the parts of the bias: (1, 0, 0, 0, 1, 0) has nothing in its middle third
    wide = rows if turned else columns
    ones = [i * wide + i for i in range(rows)]
    for count, parts in stats.chunks.items():
        size = entries // int(count) if int(count) and entries % int(count) == 0 else 0
        for at, part in enumerate(parts if size else ()):
            inside = sum(at * size <= one < (at + 1) * size for one in ones)
            if abs(part.mean * size - inside) > _SCRAMBLED:
                return False
    return True


def _turned(facts: ModelFacts, index: int) -> bool:
    """Whether what a layer gives is transposed on its way here."""
    node, turned = facts.nodes[index], False
    while node.op in ("reshape", "identity", "select", "add") and node.inputs:
        turned ^= node.op == "reshape" and node.attrs.get("kind") in _TRANSPOSES
        node = facts.nodes[node.inputs[0]]
    return turned


def _beside_identity(facts: ModelFacts, index: int, rows: int, columns: int) -> Layer | None:
    """The layer whose output the forward adds to a constant identity of rows x columns."""
    node = facts.nodes[index]
    while node.op in ("reshape", "identity", "select") and node.inputs:
        node = facts.nodes[node.inputs[0]]
    if node.op != "add" or len(node.inputs) != 2:
        return None
    share = rows / (rows * columns)
    for mine, other in (node.inputs, node.inputs[::-1]):
        held = [facts.nodes[mine].attrs.get(key) for key in ("mean", "second")]
        constant = facts.nodes[mine].op in ("constant", "parameter")
        if constant and all(isinstance(x, (int, float)) and abs(x / share - 1) < 1e-4 for x in held):
            return _writer(facts, other)
    return None


def _q(bias: ParameterFacts | None) -> float:
    return bias.stats.second if bias is not None and bias.stats is not None else 0.0


def _spatial(identity: bool, turned: bool = False) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Spatial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.locate = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 6))
            self.head = nn.Linear(64, 4)
            last = self.locate[3]
            nn.init.zeros_(last.get_parameter("weight"))
            nn.init.zeros_(last.get_parameter("bias"))
            if identity:
                last.get_parameter("bias").data.copy_(torch.eye(2, 3).flatten())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            theta = self.locate(x)
            theta = theta.view(-1, 3, 2).transpose(1, 2) if turned else theta.view(-1, 2, 3)
            grid = F.affine_grid(theta, list(x.shape), align_corners=False)
            return self.head(F.grid_sample(x, grid, align_corners=False).flatten(1))

    return Spatial(), (torch.randn(4, 1, 8, 8),)


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
