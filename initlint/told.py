"""What is left of a model's facts to tell once the rules have run: half the memory of a run over many models."""

from __future__ import annotations

from collections.abc import Mapping

from initlint.facts import Chunk, ModelFacts, Node, TensorStats

_NO_PARTS: Mapping[str, tuple[Chunk, ...]] = {}
#: What only rules read of a tensor: how its slices compare.
_SHED = {"rows": None, "columns": None, "last": None, "chunks": _NO_PARTS, "experts": ()}


def shed(facts: ModelFacts) -> None:
    """Drop what only rules and propagation read: how slices of a tensor compare, what nodes compute.

    In place, as ``relocate`` does it: a copy of every parameter would take a tenth of the time that its rules take.
    The caller has the only facts, and the rules have run.
    """
    for parameter in facts.parameters:
        if parameter.stats is not None:
            _shed(parameter.stats)
    object.__setattr__(facts, "nodes", tuple(map(_node, facts.nodes)))


def _shed(stats: TensorStats) -> None:
    for name, value in _SHED.items():
        object.__setattr__(stats, name, value)


def _node(node: Node) -> Node:
    """What the depth curve shows of a node."""
    return Node(node.index, node.op, parameters=node.parameters, label=node.label, measured=node.measured)
