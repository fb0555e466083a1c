"""Tables from which the entry nearest to a signal is chosen: the codes of a vector quantiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.wiring import kept_for_last, reached

# From the table to the choice lie the terms of the distance: squares, sums, products with -2, a reshape.
_FAR = 12
_TWICE = 2.0
_CHOICES = frozenset({"argmin", "argmax", "min", "max", "topk"})
_READS = frozenset({"linear", "matmul", "sub", "opaque"})

Tables = Mapping[str, ParameterFacts]


@kept_for_last
def codebooks(facts: ModelFacts) -> tuple[tuple[ParameterFacts, int], ...]:
    """Each with the node of a signal that it codes: what is nearest to that is read from the table again."""
    choices = [node for node in facts.nodes if node.op == "stop" and node.attrs.get("name") in _CHOICES]
    tables = {name: p for p in facts.parameters for name in (p.name, *p.aliases)} if choices else {}
    return tuple(
        (table, source)
        for choice in choices
        for table, source in _compared(facts, choice, tables)
        if _looked_up(facts, choice, table)
    )


def _compared(facts: ModelFacts, choice: Node, tables: Tables) -> Iterator[tuple[ParameterFacts, int]]:
    """Tables that a choice compares with a signal as they are, each with the node of the signal."""
    nodes = facts.nodes
    front, seen = list(choice.inputs), set(choice.inputs)
    for _ in range(_FAR):
        following: list[int] = []
        for index in front:
            node = nodes[index]
            held = {i: p for i in node.inputs if (p := _table(nodes[i], tables)) is not None}
            own = tables.get(node.parameters.get("weight", ""))
            if node.op in _READS and own is not None and "expr" not in node.attrs and len(node.inputs) == 1:
                yield own, _unscaled(nodes, node.inputs[0])
            elif node.op in _READS and len(node.inputs) == 2 and len(held) == 1:
                (place, table) = next(iter(held.items()))
                yield table, _unscaled(nodes, next(i for i in node.inputs if i != place))
            following += [i for i in node.inputs if i not in seen]
            seen.update(node.inputs)
        front = following


def _unscaled(nodes: tuple[Node, ...], index: int) -> int:
    """What is coded, before it is multiplied by the 2 of 2 z e."""
    node = nodes[index]
    factor = node.attrs.get("factor")
    twice = node.op == "scale" and isinstance(factor, (int, float)) and abs(factor) == _TWICE
    return node.inputs[0] if twice else index


def _table(node: Node, tables: Tables) -> ParameterFacts | None:
    """The table that a node holds as it is: not normalised, not scaled."""
    if node.op != "parameter" or len(node.parameters) != 1:
        return None
    table = tables.get(next(iter(node.parameters.values())))
    return table if table is not None and table.stats is not None and node.shape is not None else None


def _looked_up(facts: ModelFacts, choice: Node, table: ParameterFacts) -> bool:
    """Whether what was chosen is read from the table again."""
    names = {table.name, *table.aliases}
    behind = reached(facts, choice.index, lambda node: not names.intersection(node.parameters.values()))
    for node in behind:
        held = [facts.nodes[i] for i in node.inputs]
        if any(names.intersection(n.parameters.values()) for n in (node, *(h for h in held if h.op == "parameter"))):
            return True
    return False
