"""Graph rewriting before propagation: functions and norms written from primitives become the one op that they are.

Indices are kept: only a node's op, inputs and attributes change. A node that nothing reads any more after that stays
where it was and takes no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.expressions import fuse_functions
from initlint.signal.patterns import written_norm, written_softmax
from initlint.signal.running import running_means
from initlint.signal.scene import number

#: Increasing functions: the greatest of f(x) is f of the greatest x.
INCREASING = frozenset(
    {"relu", "leaky_relu", "prelu", "relu6", "tanh", "sigmoid", "elu", "celu", "selu", "softplus", "hardtanh"}
    | {"hardsigmoid", "softsign", "threshold", "logsigmoid", "exp"}
    # these fall a little where x < -1, where the greatest of a window hardly ever is
    | {"gelu", "gelu_tanh", "silu", "hardswish", "mish", "quick_gelu"}
)


def fuse(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Norms, softmax, running means and functions written from primitives, as one op each; max-pooling before its
    activation."""
    found = running_means(nodes)
    for index, node in enumerate(nodes):
        made = written_norm(node, nodes) or written_softmax(node, nodes)
        if made is not None:
            found[index] = made
        elif node.op == "select":
            found[index] = _unstacked(node, nodes)
    return tuple(_pooled(node, found) for node in fuse_functions(found))


def _unstacked(node: Node, nodes: Sequence[Node]) -> Node:
    """One of several stacked signals (the last layer's, of those that a decoder returns) is that signal."""
    source = nodes[node.inputs[0]] if node.inputs else node
    rank = len(source.shape) if source.shape is not None else 0
    dims = (node.attrs.get("dim"), source.attrs.get("dim"))
    start, stop = node.attrs.get("start"), node.attrs.get("stop")
    if source.op != "stack" or not rank or not all(isinstance(dim, int) for dim in dims):
        return node
    if not isinstance(start, int) or not isinstance(stop, int) or stop - start != 1:
        return node
    if (number(node, "dim") - number(source, "dim")) % rank or not 0 <= start < len(source.inputs):
        return node
    return replace(node, op="reshape", inputs=(source.inputs[start],), attrs={"kind": "unstack"})


def _pooled(node: Node, nodes: Sequence[Node]) -> Node:
    """The greatest of a window of f(x) as f of the greatest: the Gaussian is seen before it is cut."""
    if node.op != "pool" or node.attrs.get("kind") != "max" or not node.inputs:
        return node
    source = nodes[node.inputs[0]]
    fn = source.attrs.get("fn")
    if source.op != "activation" or fn not in INCREASING or not source.inputs:
        return node
    if number(source, "negative_slope") < 0:
        return node
    attrs = {**source.attrs, **node.attrs, "fn": fn}
    return replace(node, inputs=source.inputs, attrs=attrs)
