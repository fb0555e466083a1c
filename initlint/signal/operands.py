"""What the graph around a sum, a product or a quotient says of its operands: that one was made of the other."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from initlint.facts import Node
from initlint.signal.moments import State
from initlint.signal.scene import Scene, number, text

#: Ops that lay a signal out anew, and more that take a part of it, or only scale it.
LAID_OUT = frozenset({"reshape", "identity"})
TAKEN, SCALED = LAID_OUT | {"select"}, LAID_OUT | {"scale", "norm"}


def behind(index: int, scene: Scene, through: frozenset[str] = LAID_OUT) -> Node:
    """The node that a signal is the output of, whichever of these ops it went through since."""
    node = scene.nodes[index]
    while node.op in through and node.inputs:
        node = scene.nodes[node.inputs[0]]
    return node


def everywhere(node: Node, which: int, xs: tuple[State, ...], scene: Scene) -> State:
    """An operand of one position that is added or multiplied at all: a condition, which positions do not differ by."""
    x, shape = xs[which], scene.nodes[node.inputs[which]].shape
    if x.kind in ("constant", "index") or shape is None or x.e == 0.0:
        return x
    if scene.layout(node.inputs[which]).positions > 1 or scene.layout(node.index).positions == 1:
        return x
    return replace(x, e=0.0, u=x.d)


class Again(NamedTuple):
    """x + W x for a depthwise W that acts on x more than once."""

    weight: str
    kernel: int  # the node of W x
    source: int  # the operand x
    gains: tuple[float, ...]

    def gain(self, turns: int) -> float:
        """E |(1 + W)^(turns + 1) x|^2 over the same of one turn less."""
        at = min(turns, len(self.gains) - 1)
        before = self.gains[at - 1] if at > 0 else 1.0
        return self.gains[at] / before if before > 0.0 else 1.0


def again(node: Node, scene: Scene) -> Again | None:
    """Whether a sum is x + W x with a depthwise kernel W that is applied again elsewhere.

    Powers of one kernel are not independent: channels and frequencies with a large 1 + W run away from the others.
    """
    if node.op != "add" or len(node.inputs) != 2 or number(node, "alpha", 1.0) != 1.0:
        return None
    for kernel, source in (node.inputs, node.inputs[::-1]):
        made = behind(kernel, scene)
        if made.op != "conv" or not made.inputs or "weight" not in made.parameters:
            continue
        if behind(made.inputs[0], scene).index != behind(source, scene).index:
            continue
        gains = scene.again.get(made.parameters["weight"], ())
        if gains:
            return Again(made.parameters["weight"], made.index, source, gains)
    return None


def rounded(node: Node, scene: Scene) -> bool:
    """Whether a difference is that between a value and the same rounded (quantisers that pass gradients straight)."""
    if len(node.inputs) != 2:
        return False
    for one, other in (node.inputs, node.inputs[::-1]):
        made = scene.nodes[one]
        if made.op == "stop" and text(made, "name") == "round" and made.inputs == (other,):
            return True
    return False


def score(node: Node, scene: Scene) -> float:
    """Mean squared correlation of each channel of x with a linear score of all of them, where x is weighed by its own.

    1 / C for C independent channels, and 1 / F more where a layer of F inputs wrote them: W W^T is no identity.
    """
    if len(node.inputs) != 2:
        return 0.0
    for one, other in (node.inputs, node.inputs[::-1]):
        channels = scene.layout(other).channels
        if scene.layout(one).elements * channels != scene.layout(other).elements or channels <= 1:
            continue
        made, source, linear = scene.nodes[one], behind(other, scene), False
        while made.inputs and made.op in ("reshape", "identity", "scale", "norm", "linear"):
            if made.op == "linear":
                if linear or made.operator is None or made.operator.width_out != 1:
                    break
                linear = True
            made = scene.nodes[made.inputs[0]]
            if linear and made.index == source.index:
                writer = behind(other, scene, SCALED).operator
                return 1.0 / channels + (1.0 / writer.fan_in if writer is not None and writer.fan_in >= 1.0 else 0.0)
    return 0.0


def shared_by_inputs(index: int, n: float, scene: Scene) -> float | None:
    """The share of a gradient's energy that n channels have in common, where one map reads them all; else ``None``."""
    users = scene.consumers[index]
    while len(users) == 1 and scene.nodes[users[0]].op in LAID_OUT:
        users = scene.consumers[users[0]]
    operator = scene.nodes[users[0]].operator if len(users) == 1 and scene.nodes[users[0]].op == "linear" else None
    if operator is None or operator.fan_in != n or operator.gain <= 0.0:
        return None
    return min(operator.total_second / (n * operator.gain), 1.0)


def own_total(node: Node, b: State, scene: Scene) -> tuple[float, float]:
    """The mean of the divisor where it is the sum of the dividend itself, as in x / x.sum(), and of how many terms.

    It is nearly constant. Zeros for other divisors.
    """
    if len(node.inputs) != 2 or b.m <= 0.0:
        return 0.0, 0.0
    top, below = behind(node.inputs[0], scene), behind(node.inputs[1], scene)
    while below.op == "shift" and below.inputs:
        below = behind(below.inputs[0], scene)
    summed = below.op == "reduce" and text(below, "fn") == "sum" and bool(below.inputs)
    own = summed and behind(below.inputs[0], scene).index == top.index
    return (b.m, max(number(below, "n", 1.0), 1.0)) if own else (0.0, 0.0)
