"""Which layers compute the same: value numbering over the traced graph."""

from __future__ import annotations

from initlint.facts import ModelFacts, Node


def parallel_twins(facts: ModelFacts) -> frozenset[tuple[str, str]]:
    """Pairs of separate parameters whose nodes compute the same output for every input.

    Two nodes get the same number when op, attributes and input numbers agree and their parameters hold equal content
    (equal ``TensorStats.digest``). Pairs are in order of appearance, both ways, so that a lookup needs no sorting.
    """
    pairs: set[tuple[str, str]] = set()
    for same in _equal_nodes(facts).values():
        for first in same:
            for second in same:
                pairs |= {
                    (first.parameters[r], second.parameters[r])
                    for r in first.parameters
                    if r in second.parameters and first.parameters[r] != second.parameters[r]
                }
    return frozenset(pairs)


def repeated_calls(facts: ModelFacts) -> dict[str, int]:
    """Parameters that are applied to one and the same input again and again, with how often; chance breaks the tie."""
    found: dict[str, int] = {}
    for same in _equal_nodes(facts).values():
        for name in {name for node in same for name in node.parameters.values()}:
            calls = sum(name in node.parameters.values() for node in same)
            if calls > 1:
                found[name] = max(calls, found.get(name, 0))
    return found


def _equal_nodes(facts: ModelFacts) -> dict[int, list[Node]]:
    """Nodes with parameters, by the number of the value that they compute."""
    digest: dict[str, str] = {}
    for parameter in facts.parameters:
        for name in (parameter.name, *parameter.aliases):
            digest[name] = parameter.stats.digest if parameter.stats and parameter.stats.digest else f"?{name}"
    numbers: list[int] = []
    known: dict[tuple[object, ...], int] = {}
    holders: dict[int, list[Node]] = {}
    for node in facts.nodes:
        content = tuple(sorted((role, digest.get(name, name)) for role, name in node.parameters.items()))
        own: object = node.index if _unlike_any(node) else None
        key = (node.op, repr(sorted(node.attrs.items(), key=str)), tuple(numbers[i] for i in node.inputs), content, own)
        number = known.setdefault(key, len(known))
        numbers.append(number)
        if node.parameters:
            holders.setdefault(number, []).append(node)
    return holders


def _unlike_any(node: Node) -> bool:
    """Whether another node of the same op and attributes may compute something else.

    So may a selection of entries that the data decide (tokens routed to an expert): a slice says where it starts.
    """
    chosen = node.op == "select" and "start" not in node.attrs
    return chosen or node.op in ("input", "opaque") or bool(node.attrs.get("stochastic"))
