"""The canonical graph as pairing needs it: users, ancestors, and what lets a signal through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from initlint.facts import Node

#: Ops that hand a signal on in kind: its consumer is whatever comes after them.
TRANSPARENT = frozenset(
    ("reshape", "select", "dropout", "pool", "identity", "pad", "resize", "cat", "stack", "scale", "shift", "reduce",
     "cumsum", "where")
)  # fmt: skip
#: Ops with weights of their own.
WEIGHTED = frozenset(("linear", "conv", "conv_transpose", "bilinear", "embedding", "recurrent", "mha"))
#: Ops that make a path nonlinear, so that it is a branch and not a shortcut.
NONLINEAR = frozenset(("activation", "glu", "attention", "mha", "softmax", "recurrent", "matmul", "opaque", "extremum"))
#: Sources that carry no signal of the input.
FIXED = frozenset(("parameter", "constant"))


class Graph:
    """Nodes with their users and, as bit sets, their ancestors."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.users: list[list[int]] = [[] for _ in nodes]
        for node in nodes:
            for source in dict.fromkeys(node.inputs):
                self.users[source].append(node.index)

    @cached_property
    def ancestors(self) -> list[int]:
        """For each node the set of nodes it depends on, itself excluded, as a bit set."""
        found: list[int] = []
        for node in self.nodes:
            bits = 0
            for source in node.inputs:
                bits |= found[source] | (1 << source)
            found.append(bits)
        return found

    @cached_property
    def fixed(self) -> list[bool]:
        """Whether a node depends on no input of the model."""
        found: list[bool] = []
        for node in self.nodes:
            if node.op in FIXED:
                found.append(True)
            else:
                found.append(bool(node.inputs) and all(found[i] for i in node.inputs) and node.op != "embedding")
        return found

    @cached_property
    def weighted(self) -> int:
        """Bit set of the nodes with weights."""
        return sum(1 << n.index for n in self.nodes if n.op in WEIGHTED)

    @cached_property
    def nonlinear(self) -> int:
        """Bit set of the nonlinear nodes."""
        return sum(1 << n.index for n in self.nodes if n.op in NONLINEAR)

    def others(self, node: Node, source: int) -> list[int]:
        """The other signal operands of a node; ``source`` again when it is read twice."""
        rest = list(node.inputs)
        if source in rest:
            rest.remove(source)
        return rest

    def held(self, index: int) -> Node:
        """What an operand is a view of: a parameter behind its reshapings and selections."""
        node = self.nodes[index]
        while node.op in ("reshape", "select", "identity") and len(node.inputs) == 1:
            node = self.nodes[node.inputs[0]]
        return node

    def stripped(self, index: int) -> int:
        """What an operand comes from, through scalings, norms and rearrangements."""
        while True:
            node = self.nodes[index]
            live = [i for i in node.inputs if not self.fixed[i]]
            passing = node.op in TRANSPARENT or node.op == "norm" or node.op in ("mul", "add", "sub", "div")
            if not passing or len(live) != 1 or node.op in ("cat", "stack"):
                return index
            index = live[0]

    def backwards(self, index: int) -> Iterator[int]:
        """The node and what it comes from, through ops with one live input that let signals through."""
        while True:
            yield index
            node = self.nodes[index]
            live = [i for i in node.inputs if not self.fixed[i]]
            if not live or not (node.op in TRANSPARENT or (node.op in ("mul", "add", "sub", "div") and len(live) == 1)):
                return
            index = live[0]
