"""Named parts of packed weights: queries, keys and values, and the gates of hand-written cells."""

from __future__ import annotations

from collections.abc import Sequence

from initlint.facts import Block, Node, Plain
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
                found.setdefault(role, _range(part))
            continue
        for index in _parts(graph, node.index):
            rows = graph.nodes[index].attrs.get("rows")
            role = _role(graph, index)
            if role and isinstance(rows, list):
                found.setdefault(role, _range(rows))
    if len(found) < 2 or len(set(found.values())) < len(found):
        return ()
    return tuple(Block(_SHORT[r], *found[r]) for r in ("query", "key", "value") if r in found)


def _range(rows: Sequence[Plain]) -> tuple[int, int]:
    """First row and one past the last."""
    start, stop = (int(r) if isinstance(r, (int, float)) else 0 for r in rows[:2])
    return start, stop


def _parts(graph: Graph, start: int, also: tuple[str, ...] = ()) -> list[int]:
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
            elif node.op in TRANSPARENT or node.op == "norm" or node.op in also:
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
    """Rows of the gates of a cell written by hand: i, f, g, o of an LSTM by what they multiply.

    g is the part through tanh, i the sigmoid that multiplies it, o the one that multiplies another
    tanh, f the one that is left. Other cells get no names.
    """
    found: list[tuple[tuple[int, int], int]] = []
    for node in members[:1]:
        for index in _parts(graph, node.index, ("add",)):
            rows = graph.nodes[index].attrs.get("rows")
            gate = _sole_activation(graph, index)
            if isinstance(rows, list) and gate is not None:
                found.append((_range(rows), gate))
    functions = [str(graph.nodes[g].attrs.get("fn")) for _, g in found]
    if len(found) != 4 or sorted(functions) != ["sigmoid", "sigmoid", "sigmoid", "tanh"]:
        return ()
    candidate = found[functions.index("tanh")][1]
    names: dict[str, tuple[int, int]] = {"g": found[functions.index("tanh")][0]}
    for (part, gate), fn in zip(found, functions, strict=True):
        if fn == "sigmoid":
            names.setdefault(_gate_name(graph, gate, candidate), part)
    if set(names) != {"i", "f", "g", "o"}:
        return ()
    return tuple(Block(k, *names[k]) for k in "ifgo")


def _sole_activation(graph: Graph, index: int) -> int | None:
    users = [graph.nodes[u] for u in graph.users[index]]
    return users[0].index if len(users) == 1 and users[0].op == "activation" else None


def _gate_name(graph: Graph, gate: int, candidate: int) -> str:
    """i when it multiplies the candidate, o when it multiplies another tanh, f otherwise."""
    for user in graph.users[gate]:
        node = graph.nodes[user]
        if node.op != "mul":
            continue
        others = graph.others(node, gate)
        if candidate in others:
            return "i"
        if any(graph.nodes[o].op == "activation" and graph.nodes[o].attrs.get("fn") == "tanh" for o in others):
            return "o"
    return "f"
