"""A list of canonical nodes that can be edited: replace, find users, drop what became unused, renumber."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from initlint.facts import Node

#: What may vanish when nothing reads it any more; layers, norms and inputs are kept for the record.
DROPPED = frozenset(
    ("parameter", "constant", "scale", "shift", "activation", "reduce", "add", "sub", "mul", "div", "select", "reshape",
     "identity", "stop", "where", "dropout")
)  # fmt: skip
#: Views that change neither values nor their number.
PASSING = frozenset(("identity", "reshape"))


class Editor:
    """Nodes under rewriting; indices stay until ``compact``."""

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[int]) -> None:
        self.nodes = list(nodes)
        self.outputs = list(outputs)
        self.users: list[set[int]] = [set() for _ in nodes]
        self.touched: set[int] = set(range(len(nodes)))  # what may have lost its last reader
        self.replaced: set[int] = set()  # layers and norms taken in by a later node
        for node in nodes:
            for source in node.inputs:
                self.users[source].add(node.index)

    def replace(self, index: int, op: str, inputs: Sequence[int], attrs: Mapping[str, Any], **changes: Any) -> None:
        """Make node ``index`` another op, with other inputs."""
        node = self.nodes[index]
        for source in node.inputs:
            self.users[source].discard(index)
            self.touched.add(source)
        kept = {k: v for k, v in attrs.items() if v is not None}
        changes.setdefault("response", None)
        self.nodes[index] = dataclasses.replace(node, op=op, inputs=tuple(inputs), attrs=kept, **changes)
        for source in inputs:
            self.users[source].add(index)

    def take_in(self, index: int) -> None:
        """Node ``index`` is part of a later node from now on and vanishes with its last reader."""
        self.touched.add(index)
        self.replaced.add(index)

    def redirect(self, old: int, new: int) -> None:
        """Let everything that reads ``old`` read ``new``."""
        for user in list(self.users[old]):
            node = self.nodes[user]
            inputs = tuple(new if i == old else i for i in node.inputs)
            self.nodes[user] = dataclasses.replace(node, inputs=inputs)
            self.users[new].add(user)
        self.users[old].clear()
        self.outputs = [new if i == old else i for i in self.outputs]
        self.touched.add(old)

    def sole_user(self, index: int) -> Node | None:
        """The only node that reads ``index``, unless the model returns it as well."""
        if len(self.users[index]) != 1 or index in self.outputs:
            return None
        return self.nodes[next(iter(self.users[index]))]

    def through(self, index: int) -> int:
        """The node behind identities and reshapes that add or drop axes of size one."""
        while True:
            node = self.nodes[index]
            if node.op not in PASSING or len(node.inputs) != 1 or node.attrs.get("kept"):
                return index
            before, after = self.nodes[node.inputs[0]].shape, node.shape
            if node.op == "reshape" and (before is None or after is None or _squeezed(before) != _squeezed(after)):
                return index
            index = node.inputs[0]

    def compact(self) -> tuple[tuple[Node, ...], tuple[int, ...]]:
        """The nodes that are left, in topological order, with new indices."""
        dead: set[int] = set()
        queue = list(self.touched)
        while queue:
            index = queue.pop()
            if index in dead or self.users[index] or index in self.outputs:
                continue
            if self.nodes[index].op not in DROPPED and index not in self.replaced:
                continue
            dead.add(index)
            for source in self.nodes[index].inputs:
                self.users[source].discard(index)
                queue.append(source)
        order = self._order(dead)
        new = {old: i for i, old in enumerate(order)}
        nodes = tuple(
            dataclasses.replace(self.nodes[old], index=i, inputs=tuple(new[j] for j in self.nodes[old].inputs))
            for i, old in enumerate(order)
        )
        return nodes, tuple(new[i] for i in self.outputs)

    def _order(self, dead: set[int]) -> list[int]:
        """Remaining indices; an input that comes later (a parameter read afterwards) moves before its reader."""
        order: list[int] = []
        placed: set[int] = set()
        for start in range(len(self.nodes)):
            stack = [start]
            while stack:
                index = stack[-1]
                if index in placed or index in dead:
                    stack.pop()
                    continue
                waiting = [j for j in self.nodes[index].inputs if j not in placed]
                if waiting:
                    stack.extend(waiting)
                    continue
                placed.add(index)
                order.append(index)
                stack.pop()
        return order


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(s for s in shape if s != 1)
