"""Learned queries that all start equal: what one of them reads, all of them read."""

from __future__ import annotations

from collections.abc import Iterator

from initlint.facts import Node, ParameterFacts
from initlint.rule import Context
from initlint.signal.trunk import returned
from initlint.wiring import SCALED, reached

#: Two equal rows of two may be meant to start alike.
_SEVERAL = 3
#: Ops that do the same at every position.
_EVERYWHERE = SCALED | {"shift", "linear", "norm", "activation"}


def alike_queries(context: Context) -> Iterator[tuple[ParameterFacts, Node]]:
    """Parameters of equal slices that are the queries of an attention, and the attention (or its product).

    Its results are the same at all of these positions then, and the model goes on with copies of one vector. Not where
    it returns them one by one: there a loss tells them apart at once.
    """
    for node in context.facts.nodes:
        if not _asks(context, node) or _returned_alike(context, node):
            continue
        for parameter in _queries(context, node):
            yield parameter, node


def _asks(context: Context, node: Node) -> bool:
    """Whether several equal queries are compared with keys, without a mask or bias that differs between them."""
    if node.op in ("attention", "mha"):
        differs = bool(node.attrs.get("causal")) or len(node.inputs) > (3 if node.op == "attention" else 4)
    elif node.op == "matmul" and node.attrs.get("kind") == "logits":
        behind = reached(context.facts, node.index, lambda n: n.op in SCALED)
        differs = any(n.op not in SCALED | {"softmax"} for n in behind)
    else:
        return False
    sweeps = context.signal.sweeps
    if differs or sweeps is None or not node.inputs:
        return False
    query = sweeps[0].states[node.inputs[0]]
    return not query.undetermined and query.q > 0.0 and query.e == 0.0


def _queries(context: Context, node: Node) -> Iterator[ParameterFacts]:
    """The parameters that the queries are made of alone, where several slices of one are equal."""
    nodes = context.facts.nodes
    at = nodes[node.inputs[0]]
    while at.op in _EVERYWHERE and at.inputs:
        at = nodes[at.inputs[0]]
    for name in at.parameters.values() if at.op == "parameter" else ():
        parameter = context.parameter(name)
        if parameter is not None and parameter.requires_grad and _repeats(parameter):
            yield parameter


def _repeats(parameter: ParameterFacts) -> bool:
    """Whether all slices along an axis are the same, of a tensor of several vectors."""
    stats, shape = parameter.stats, [size for size in parameter.shape if size > 1]
    if stats is None or len(shape) < 2 or max(shape[:-1]) < _SEVERAL:
        return False
    units = [u for u in (stats.rows, stats.columns) if u is not None and u.count >= _SEVERAL]
    return stats.distinct == 1 or any(u.duplicates == u.count - 1 for u in units)


def _returned_alike(context: Context, node: Node) -> bool:
    """Whether what the queries read is returned at each of its positions."""
    scene = context.signal.scene
    if scene is None:
        return True
    positions = scene.layout(node.inputs[0]).positions
    ends = set(returned(scene, context.facts.outputs))
    found = reached(context.facts, node.index, lambda n: n.op in _EVERYWHERE | {"add", "matmul", "softmax"})
    return any(n.index in ends and scene.layout(n.index).positions >= positions for n in found)
