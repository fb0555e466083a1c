"""IL310: a branch added to a finished stream starts as large as the stream itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.signal.trunk import WEIGHTED
from initlint.upstream import judged, writers
from initlint.wiring import transparent

# The branch changes the stream by as much as there is: from here the sum says more of random weights than of the
# stream.
_RATIO = 1.0
# What published adapters start with: N(0, 0.01) or exact zero (Houlsby et al. 2019, section 2.1; Hu et al. 2021).
_CLOSED = 1e-4
# A normalisation inside the branch, or anything that reshapes the stream itself, makes it an ordinary block.
_ORDINARY = frozenset({"norm", "activation", "recurrent", "attention", "mha", "softmax", "pool", "mul", "where"})


class AdapterNotClosed(Rule):
    """An adapter branch beside an untouched stream starts at full strength.

    ## What it does
    Looks at models in which every weight on the way from input to output sits in branches: the input itself, or a
    stream of frozen weights, passes to the output unchanged, and branches without normalisation are added to it.
    Reports a branch whose second moment is at least that of the stream. It is a note as long as a residual block
    without normalisation, analysed alone, would look the same. Structure tells an adapter from such a block: a branch
    of linear layers that is narrower inside than the stream (a warning) or has an explicit strength of at least one
    (an error), and a stream whose own weights are all frozen, so that nothing but the branch can learn its features
    back (an error).

    ## Why is this bad?
    Adapters, hypernetworks and control branches are added to features that already mean something. At full strength
    the random branch drowns them before the first step; the identity is the right start (Houlsby et al. 2019, section
    2.1). The same block stacked in a net without normalisation makes the signal grow with each copy (Zhang et al.
    2019).

    ## Example
    ```python
    nn.init.kaiming_normal_(self.up.weight)  # return context + self.up(F.relu(self.down(context)))
    ```

    ## Use instead
    ```python
    nn.init.zeros_(self.up.weight)  # or N(0, 0.01) throughout the branch
    ```

    ## Known problems
    An MLP block with a strength factor that is a part of a net, analysed alone, is taken for an adapter. PyTorch's
    default scale is never reported.

    ## References
    - https://github.com/AUTOMATIC1111/stable-diffusion-webui/issues/4350
    - Houlsby et al. 2019, section 2.1, arXiv:1902.00751
    - Houlsby et al. 2019, section 3.6: a std above 0.01 on a frozen trunk loses accuracy
    - Zhang et al. 2023 (ControlNet), section 4.1 and figure 8: without zero convolutions the trunk's features are lost
    - Zhang et al. 2019 (Fixup), arXiv:1901.09321
    """

    code = "IL310"
    name = "adapter-not-closed"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("Houlsby et al. 2019, section 2.1, arXiv:1902.00751", "Zhang et al. 2019, arXiv:1901.09321")

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context):
            return
        nodes, trunk = context.facts.nodes, context.signal.trunk
        frozen = _stream(context, trunk)
        if frozen is None:
            return
        on_trunk = set(trunk)
        for index in trunk:
            node = nodes[index]
            if node.op not in ("add", "sub") or len(node.inputs) != 2:
                continue
            stream = next((i for i in node.inputs if _leads_to(nodes, i, on_trunk)), None)
            branch = next((i for i in node.inputs if i != stream), None)
            if stream is not None and branch is not None:
                outcome = self._judge(context, stream, branch, on_trunk, frozen=frozen)
                if outcome is not None:
                    yield outcome

    def _judge(self, context: Context, stream: int, branch: int, trunk: set[int], *, frozen: bool) -> Outcome | None:
        sweeps, nodes = context.signal.sweeps, context.facts.nodes
        assert sweeps is not None
        x, y = sweeps[0].states[stream], sweeps[0].states[branch]
        inside = _inside(nodes, branch, trunk)
        weights = [p for n in inside if (p := context.parameter(n.parameters.get("weight", "")))]
        if x.undetermined or y.undetermined or x.q <= 0 or y.q < _RATIO * x.q or not weights:
            return None
        if any(n.op == "norm" for n in inside) or not all(p.requires_grad and _chosen(p) for p in weights):
            return None
        # convolutions and attention make a residual block of it, with a factor (EDSR's 1.0) or without
        pointwise = all(n.op == "linear" for n in inside if n.op in WEIGHTED)
        strength = pointwise and any(n.op == "scale" and _factor(n) >= 1.0 for n in _tail(nodes, branch))
        width = max(_width(nodes[branch]), 1)
        narrow = pointwise and any(_width(n) < width for n in inside if n.op in WEIGHTED)
        last = writers(context, branch, roles=("weight",))
        second = last[0].stats.second if last and last[0].stats else 1.0
        ratio = y.q / x.q
        kind = "a stream of frozen weights" if frozen else "the input itself, which no weight touches"
        return self.finding(
            context,
            f"the branch of `{weights[0].name}` is added to {kind} and starts {math.sqrt(ratio):.3g} times as large",
            parameters=[p.name for p in reversed(weights)] if len(weights) > 1 else [weights[0].name],
            severity=Severity.ERROR if frozen or strength else Severity.WARNING if narrow else Severity.NOTE,
            site=site_of(last[0] if last else weights[0]),
            expected={"ratio": 0.0},
            actual={"ratio": math.sqrt(ratio)},
            effect=context.effect({p.name: Nominal(0.0, second * _CLOSED) for p in last[:1]}),
            fix="nn.init.zeros_(weight)  # of the branch's last layer; or N(0, 0.01)",
            topic="scale",
            why="The sum starts as mostly random features; what the stream carried has to be learned back.",
        )

    @bad
    def full_strength() -> Any:
        import torch

        return _adapter(None), (torch.randn(4, 16, 64),)

    @good
    def nearly_closed() -> Any:
        import torch

        return _adapter(0.01), (torch.randn(4, 16, 64),)


def _stream(context: Context, trunk: tuple[int, ...]) -> bool | None:
    """Whether the stream has weights, all frozen; ``None`` where it is an ordinary net's."""
    nodes = context.facts.nodes
    inner = [nodes[i] for i in trunk]
    weighted = [n for n in inner if n.op in WEIGHTED]
    if weighted:
        parameters = [p for n in weighted for name in n.parameters.values() if (p := context.parameter(name))]
        return True if parameters and not any(p.requires_grad for p in parameters) else None
    start = inner[0] if inner else None
    if start is None or start.op != "input" or start.attrs.get("kind") != "float" or len(inner) < 2:
        return None
    return None if any(n.op in _ORDINARY for n in inner) or not any(n.op == "add" for n in inner) else False


def _leads_to(nodes: tuple[Node, ...], index: int, trunk: set[int]) -> bool:
    """Whether a node is the stream, or the stream unchanged."""
    while index not in trunk:
        node = nodes[index]
        if not transparent(node) or not node.inputs:
            return False
        index = node.inputs[0]
    return True


def _inside(nodes: tuple[Node, ...], branch: int, trunk: set[int]) -> list[Node]:
    """The nodes of the branch, from its end back to the stream."""
    found, stack, seen = list[Node](), [branch], {branch}
    while stack:
        index = stack.pop()
        if index in trunk:
            continue
        found.append(nodes[index])
        stack += [i for i in nodes[index].inputs if i not in seen]
        seen.update(nodes[index].inputs)
    return found


def _tail(nodes: tuple[Node, ...], branch: int) -> list[Node]:
    """The ops between the branch's last layer and the sum."""
    found, node = [nodes[branch]], nodes[branch]
    while node.op not in WEIGHTED and len(node.inputs) == 1:
        node = nodes[node.inputs[0]]
        found.append(node)
    return found


def _width(node: Node) -> int:
    """Channels of a node's output."""
    if node.operator is not None:
        return node.operator.width_out
    return node.shape[-1] if node.shape else 0


def _factor(node: Node) -> float:
    value = node.attrs.get("factor")
    return abs(value) if isinstance(value, (int, float)) else 0.0


def _chosen(parameter: ParameterFacts) -> bool:
    """Whether the code gave it a value (PyTorch's default in place is not a full-strength choice)."""
    return parameter.last is None or parameter.last.origin != "torch"


def _adapter(std: float | None) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(64, 16), nn.Linear(16, 64)
            for layer in (self.down, self.up):
                if std is None:
                    nn.init.kaiming_normal_(layer.weight)
                else:
                    nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.up(F.relu(self.down(x)))

    return Adapter()
