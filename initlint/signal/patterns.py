"""Normalisation and softmax written by hand, recognised by what is computed from what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from initlint.facts import Node, Plain
from initlint.records import dataclass
from initlint.signal.scene import number, text

#: Ops that a statistic passes on its way back to the signal it was taken of.
CARRIES = frozenset({"reshape", "identity"})
KINDS = {"channel": "layer", "position": "instance", "batch": "batch"}


@dataclass(frozen=True, slots=True)
class Statistic:
    """A mean square, variance or sum of squares of node ``of``."""

    of: int
    n: float
    over: str
    centred: bool
    total: bool  # a sum, not a mean
    eps: float = 0.0


class Reader:
    """Looks backwards through the graph."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    def behind(self, index: int) -> Node:
        """The node whose values these are, through reshapes and copies."""
        node = self.nodes[index]
        while node.op in CARRIES and node.inputs:
            node = self.nodes[node.inputs[0]]
        return node

    def squared(self, index: int) -> int | None:
        """x, if the node is x^2."""
        node = self.behind(index)
        if node.op == "activation" and node.inputs:
            fn = node.attrs.get("fn")
            if fn == "square" or (fn == "pow" and number(node, "exponent", 2.0) == 2.0):
                return node.inputs[0]
        if node.op == "mul" and node.inputs and len(set(node.inputs)) == 1:
            return node.inputs[0]
        return None

    def mean_of(self, index: int) -> int | None:
        """x, if the node is the mean of x over an axis."""
        node = self.behind(index)
        if node.op == "reduce" and text(node, "fn") == "mean" and node.inputs:
            return node.inputs[0]
        return None

    def centred(self, index: int) -> int | None:
        """x, if the node is x - mean(x)."""
        node = self.behind(index)
        if node.op == "sub" and len(node.inputs) == 2 and self.mean_of(node.inputs[1]) is not None:
            source = self.mean_of(node.inputs[1])
            if source is not None and self.same(node.inputs[0], source):
                return node.inputs[0]
        return None

    def same(self, a: int, b: int) -> bool:
        """Whether two nodes hold the same values, reshapes aside."""
        return self.behind(a).index == self.behind(b).index

    def statistic(self, index: int) -> Statistic | None:
        """The statistic that a node computes, with an epsilon added or clamped to."""
        node, eps = self.behind(index), 0.0
        while node.op in ("shift", "scale") or (node.op == "activation" and node.attrs.get("fn") == "clamp"):
            if node.op == "scale" and abs(number(node, "factor", 1.0) - 1.0) > 0.05:  # (n - 1) / n is let through
                return None
            eps += number(node, "value") if node.op == "shift" else number(node, "min")
            node = self.behind(node.inputs[0])
        found = self._reduced(node)
        return replace(found, eps=found.eps + eps) if found else None

    def _reduced(self, node: Node) -> Statistic | None:
        if node.op != "reduce" or not node.inputs:
            return None
        fn, n, over = text(node, "fn"), max(number(node, "n", 1.0), 1.0), text(node, "over", "channel")
        if fn == "var":
            return Statistic(node.inputs[0], n, over, True, False)
        if fn not in ("mean", "sum"):
            return None
        of = self.squared(node.inputs[0])
        if of is None:
            return None
        inner = self.centred(of)
        return Statistic(of if inner is None else inner, n, over, inner is not None, fn == "sum")

    def root(self, index: int) -> Statistic | None:
        """The statistic whose root a node is: sqrt(var + eps), x.std(), x.norm()."""
        node, eps = self.behind(index), 0.0
        while node.op == "shift" or (node.op == "activation" and node.attrs.get("fn") == "clamp"):
            eps += (number(node, "value") if node.op == "shift" else number(node, "min")) ** 2
            node = self.behind(node.inputs[0])
        found: Statistic | None = None
        if node.op == "activation" and exponent(node) == 0.5:
            found = self.statistic(node.inputs[0])
        elif node.op == "reduce" and text(node, "fn") in ("std", "norm") and node.inputs:
            n, over = max(number(node, "n", 1.0), 1.0), text(node, "over", "channel")
            norm = text(node, "fn") == "norm"
            found = Statistic(node.inputs[0], n, over, not norm, norm)
        return replace(found, eps=found.eps + eps) if found else None

    def inverse_root(self, index: int) -> Statistic | None:
        """The statistic of 1 / sqrt(statistic)."""
        node = self.behind(index)
        if node.op != "activation" or not node.inputs:
            return None
        if exponent(node) == -0.5:
            return self.statistic(node.inputs[0])
        return self.root(node.inputs[0]) if exponent(node) == -1.0 else None


def exponent(node: Node) -> float | None:
    """p, where a node computes x^p."""
    fn = node.attrs.get("fn")
    if fn == "pow":
        return number(node, "exponent", 2.0)
    return {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}.get(str(fn))


def written_norm(node: Node, nodes: Sequence[Node]) -> Node | None:
    """x / sqrt(statistic of x) or (x - mean) * rsqrt(...) as one ``norm``; None where the node is no such thing."""
    if node.op not in ("mul", "div") or len(node.inputs) != 2:
        return None
    reader = Reader(nodes)
    a, b = node.inputs
    sides = ((a, reader.root(b)),) if node.op == "div" else ((a, reader.inverse_root(b)), (b, reader.inverse_root(a)))
    for signal, statistic in sides:
        if statistic is None:
            continue
        centred = reader.centred(signal)
        source = signal if centred is None else centred
        if reader.same(source, statistic.of) or (centred is not None and reader.same(signal, statistic.of)):
            return _norm(node, source, statistic, centred is not None)
    return None


def _norm(node: Node, source: int, statistic: Statistic, centred: bool) -> Node:
    if statistic.total:
        kind = "l2"
    elif centred or statistic.centred:
        kind = KINDS.get(statistic.over, "layer")
    else:
        kind = "rms"
    attrs: dict[str, Plain] = {"kind": kind, "n": statistic.n, "eps": statistic.eps, "training": True}
    if kind == "layer" and statistic.over == "channel":
        attrs["channels"] = statistic.n
    return replace(node, op="norm", inputs=(source,), attrs=attrs, parameters={}, operator=None)


def written_softmax(node: Node, nodes: Sequence[Node]) -> Node | None:
    """exp(x) / sum(exp(x)), with or without the maximum taken off first."""
    if node.op != "div" or len(node.inputs) != 2:
        return None
    reader = Reader(nodes)
    top, below = reader.behind(node.inputs[0]), reader.behind(node.inputs[1])
    while below.op == "shift" and below.inputs:
        below = reader.behind(below.inputs[0])
    if top.op != "activation" or top.attrs.get("fn") != "exp" or below.op != "reduce" or text(below, "fn") != "sum":
        return None
    if not below.inputs or not reader.same(below.inputs[0], top.index) or not top.inputs:
        return None
    source = top.inputs[0]
    lowered = reader.behind(source)
    if lowered.op == "sub" and len(lowered.inputs) == 2:
        greatest = reader.behind(lowered.inputs[1])
        while greatest.op == "stop" and greatest.inputs:
            greatest = reader.behind(greatest.inputs[0])
        if greatest.op in ("reduce", "select") and text(greatest, "fn", "max") in ("max", "amax"):
            source = lowered.inputs[0]
    attrs: dict[str, Plain] = {"n": number(below, "n", 1.0)}
    return replace(node, op="softmax", inputs=(source,), attrs=attrs)
