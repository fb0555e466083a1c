"""Which layers compute the same: value numbering over the traced graph."""

from __future__ import annotations

from initlint.facts import ModelFacts


def parallel_twins(facts: ModelFacts) -> frozenset[tuple[str, str]]:
    """Pairs of separate parameters whose nodes compute the same output for every input.

    Two nodes get the same number when op, attributes and input numbers agree and their parameters hold equal content
    (equal ``TensorStats.digest``). Pairs are in order of appearance, both ways, so that a lookup needs no sorting.
    """
    digest: dict[str, str] = {}
    for parameter in facts.parameters:
        for name in (parameter.name, *parameter.aliases):
            digest[name] = parameter.stats.digest if parameter.stats and parameter.stats.digest else f"?{name}"
    numbers: list[int] = []
    known: dict[tuple[object, ...], int] = {}
    holders: dict[int, list[dict[str, str]]] = {}
    for node in facts.nodes:
        content = tuple(sorted((role, digest.get(name, name)) for role, name in node.parameters.items()))
        own: object = node.index if node.op in ("input", "opaque") or node.attrs.get("stochastic") else None
        key = (node.op, repr(sorted(node.attrs.items(), key=str)), tuple(numbers[i] for i in node.inputs), content, own)
        number = known.setdefault(key, len(known))
        numbers.append(number)
        if node.parameters:
            holders.setdefault(number, []).append(dict(node.parameters))
    pairs: set[tuple[str, str]] = set()
    for same in holders.values():
        for first in same:
            for second in same:
                pairs |= {(first[r], second[r]) for r in first if r in second and first[r] != second[r]}
    return frozenset(pairs)
