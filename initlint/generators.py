"""Layers that write the weights of other layers: hypernetworks, dynamic filters."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initlint.facts import Layer, ModelFacts, Node
from initlint.records import dataclass
from initlint.wiring import kept_for_last, reached, transparent

#: Ops that hand on what was written as it is.
_SAME = ("reshape", "select", "identity")
#: Ops between a product of queries and keys and its softmax.
_BEFORE_SOFTMAX = ("scale", "shift", "add", "where")


@dataclass(frozen=True, slots=True)
class Generator:
    """A layer whose output, cut into matrices, is a factor of a product with another signal."""

    layer: Layer
    matrices: int  # the node that gives them
    fan: int  # inputs of the layer that they are the weights of
    free: int  # its outputs; with one of them what is written may be a gate as well


@kept_for_last
def generators(facts: ModelFacts) -> tuple[Generator, ...]:
    """All layers that write weights, in order of their products."""
    products = [n for n in facts.nodes if n.op == "matmul" and not n.parameters and len(n.inputs) == 2]
    if not products:
        return ()
    layers = {layer.nodes[0]: layer for layer in facts.layers if len(layer.nodes) == 1 and layer.fan_in}
    return tuple(found for product in products for found in _of(facts, layers, product))


def _of(facts: ModelFacts, layers: dict[int, Layer], product: Node) -> Iterator[Generator]:
    fan = product.attrs.get("contraction")
    if not isinstance(fan, int) or fan < 2 or _scores(facts, product):
        return
    for place, index in enumerate(product.inputs):
        start = _origin(facts, index)
        matrices, features = facts.nodes[index].shape, start.shape
        layer = layers.get(start.index)
        if layer is None or start.op != "linear" or not matrices or not features:
            continue
        # both axes come from the features: of keys and values one comes from the positions
        rows = math.prod(features[:-1])
        free = math.prod(matrices) // max(rows * fan, 1)
        cut = free > 0 and rows * free * fan == math.prod(matrices) and {free, fan}.isdisjoint(features[1:-1])
        if cut and _kept(product, place, matrices) in (free, None):
            yield Generator(layer, index, fan, free)


def _scores(facts: ModelFacts, product: Node) -> bool:
    """Whether what a product gives becomes weights of a softmax: queries meet keys."""
    onward = reached(facts, product.index, lambda node: transparent(node) or node.op in _BEFORE_SOFTMAX)
    return any(node.op == "softmax" for node in onward)


def _kept(product: Node, place: int, shape: tuple[int, ...]) -> int | None:
    """The elements along the axes that one factor has alone; None for a convolution, whose axes have no letters."""
    equation = product.attrs.get("equation")
    if not isinstance(equation, str):
        return None if product.attrs.get("convolution") and place == 1 else 0
    sides = equation.split("->")[0].split(",")
    if len(sides) != 2 or len(sides[place]) != len(shape):
        return 0
    return math.prod(n for letter, n in zip(sides[place], shape, strict=True) if letter not in sides[1 - place])


def _origin(facts: ModelFacts, index: int) -> Node:
    node = facts.nodes[index]
    while node.op in _SAME and node.inputs:
        node = facts.nodes[node.inputs[0]]
    return node
