"""Named parts of packed weights: queries, keys and values, and the gates of hand-written cells."""

from __future__ import annotations

from collections.abc import Sequence

from initlint.facts import Block, Node
from initlint.probe.pair_graph import TRANSPARENT, Graph
from initlint.probe.pair_walk import attention_role

_SHORT = {"query": "q", "key": "k", "value": "v"}


def attention_blocks(graph: Graph, members: Sequence[Node]) -> tuple[Block, ...]:
    """Rows of a packed projection that become queries, keys and values."""
    found: dict[str, tuple[int, int]] = {}
    for node in members:
        part = node.attrs.get("part")
        if isinstance(part, list) and len(part) == 2:
            role = _role(graph, node.index)
            if role:
                found.setdefault(role, (int(part[0]), int(part[1])))  # type: ignore[arg-type]
            continue
        for index in _parts(graph, node.index):
            rows = graph.nodes[index].attrs.get("rows")
            role = _role(graph, index)
            if role and isinstance(rows, list):
                found.setdefault(role, (int(rows[0]), int(rows[1])))  # type: ignore[arg-type]
    if len(found) < 2 or len(set(found.values())) < len(found):
        return ()
    return tuple(Block(_SHORT[r], *found[r]) for r in ("query", "key", "value") if r in found)


def _parts(graph: Graph, start: int) -> list[int]:
    """The first nodes after a layer that hold a known range of its rows."""
    found, stack, seen = [], [start], {start}
    while stack:
        for user in graph.users[stack.pop()]:
            node = graph.nodes[user]
            if user in seen:
                continue
            seen.add(user)
            if "rows" in node.attrs:
                found.append(user)
            elif node.op in TRANSPARENT or node.op == "norm":
                stack.append(user)
    return found


def _role(graph: Graph, start: int) -> str:
    """Which operand of an attention a signal becomes, through norms and rotations."""
    stack, seen = [start], {start}
    while stack:
        index = stack.pop()
        for user in graph.users[index]:
            node = graph.nodes[user]
            if node.op in ("attention", "mha") or (
                node.op == "matmul" and node.attrs.get("kind") in ("logits", "values")
            ):
                role = attention_role(node, index)
                if role:
                    return role
            passing = node.op in TRANSPARENT or node.op in ("norm", "activation", "mul", "add", "sub")
            if user not in seen and passing and len(seen) < 64:
                seen.add(user)
                stack.append(user)
    return ""


def gate_blocks(graph: Graph, members: Sequence[Node]) -> tuple[Block, ...]:
    """Gates of a recurrent cell written by hand (thin: none yet)."""
    del graph, members
    return ()
