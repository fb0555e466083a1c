"""What is left of a model's facts to tell once the rules have run: half the memory of a run over many models."""

from __future__ import annotations

from dataclasses import replace

from initlint.facts import ModelFacts, Node, ParameterFacts


def told(facts: ModelFacts) -> ModelFacts:
    """The facts without what only rules and propagation read: how slices of a tensor compare, what nodes compute."""
    return replace(
        facts,
        parameters=tuple(map(_parameter, facts.parameters)),
        nodes=tuple(map(_node, facts.nodes)),
    )


def _parameter(parameter: ParameterFacts) -> ParameterFacts:
    if parameter.stats is None:
        return parameter
    stats = replace(parameter.stats, rows=None, columns=None, last=None, chunks={}, experts=())
    return replace(parameter, stats=stats)


def _node(node: Node) -> Node:
    """What the depth curve shows of a node."""
    return Node(node.index, node.op, parameters=node.parameters, label=node.label, measured=node.measured)
