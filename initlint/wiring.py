"""How the nodes of a graph hang together, as rules ask about it: users, sources, what a signal reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import TypeVar

from initlint.facts import Layer, ModelFacts, Node

#: Ops that hand a signal on as it is (or part of it).
TRANSPARENT = frozenset({"reshape", "identity", "dropout", "select", "output", "pad"})
#: The same and multiplication by a constant.
SCALED = TRANSPARENT | {"scale"}
#: Uses from which a weight acts again and again; twice is a shared (tied) layer.
_REPEATED = 3

_T = TypeVar("_T")


def kept_for_last(function: Callable[[ModelFacts], _T]) -> Callable[[ModelFacts], _T]:
    """The function, whose answer is kept until it is asked about other facts; the same ones are the same object."""
    known: tuple[ModelFacts, _T] | None = None

    @wraps(function)
    def asked(facts: ModelFacts) -> _T:
        nonlocal known
        last = known  # one read: another thread may ask about other facts meanwhile
        if last is None or last[0] is not facts:
            last = known = (facts, function(facts))
        return last[1]

    return asked


@kept_for_last
def users(facts: ModelFacts) -> tuple[tuple[int, ...], ...]:
    """For each node the nodes that read it."""
    found: list[list[int]] = [[] for _ in facts.nodes]
    for node in facts.nodes:
        for source in dict.fromkeys(node.inputs):
            found[source].append(node.index)
    return tuple(map(tuple, found))


def source(facts: ModelFacts, index: int, through: frozenset[str] = TRANSPARENT) -> Node:
    """The node that a signal comes from, back through ops that hand it on."""
    node = facts.nodes[index]
    while node.op in through and node.inputs:
        node = facts.nodes[node.inputs[0]]
    return node


def reached(facts: ModelFacts, start: int, onward: Callable[[Node], bool]) -> Iterator[Node]:
    """Nodes downstream of ``start``, nearest first; the walk goes on behind those for which ``onward`` holds."""
    readers = users(facts)
    seen, front = {start}, [start]
    while front:
        following: list[int] = []
        for index in front:
            for user in readers[index]:
                if user in seen:
                    continue
                seen.add(user)
                yield facts.nodes[user]
                if onward(facts.nodes[user]):
                    following.append(user)
        front = following


@kept_for_last
def uses_in_line(facts: ModelFacts) -> Mapping[str, int]:
    """How often each weight acts on what it made itself: steps of time, or of a loop; most do not, and are left out.

    Of one recurrent layer that is its number of steps; a module that is used side by side acts once.
    """
    found: dict[str, int] = {}
    for node in facts.nodes:
        steps = node.attrs.get("steps") if node.op == "recurrent" else None
        if isinstance(steps, int) and steps > 1:
            found.update(dict.fromkeys(node.parameters.values(), steps))
    for layer in facts.layers:
        if len(layer.nodes) >= _REPEATED:
            longest = _longest_chain(facts, layer.nodes)
            if longest >= _REPEATED:
                found.update({name: max(longest, found.get(name, 1)) for name in (layer.weight, *layer.parameters)})
    return found


def _longest_chain(facts: ModelFacts, calls: tuple[int, ...]) -> int:
    """The most of these nodes that lie on one path."""
    mine, first, last = frozenset(calls), min(calls), max(calls)
    before: dict[int, int] = {}
    for node in facts.nodes[first : last + 1]:
        count = max((before.get(i, 0) for i in node.inputs), default=0) + (node.index in mine)
        if count:
            before[node.index] = count
    return max((before.get(i, 0) for i in calls), default=1)


def transparent(node: Node) -> bool:
    """Whether an op hands its signal on as it is."""
    return node.op in TRANSPARENT


def depth_counts(facts: ModelFacts) -> tuple[float, float, float]:
    """Counts whose roots are depth factors: of residual branches, of blocks of two, and twice as many."""
    branches = float(sum(layer.branch for layer in facts.layers))
    return branches, branches / 2.0, 2.0 * branches


def writer(facts: ModelFacts, index: int, through: frozenset[str] = TRANSPARENT) -> Layer | None:
    """The layer whose output arrives at a node as it is."""
    node = source(facts, index, through)
    return next((layer for layer in facts.layers if node.index in layer.nodes), None)
