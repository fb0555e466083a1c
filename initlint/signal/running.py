"""Running means: a running sum over how many terms it is of, or over another running sum of as many.

Sums of t terms grow along positions as what they are divided by does. The quotient's moments are those of each
position, and not what the averages over all positions give: both are taken as means over the t terms instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.scene import number

#: Ops that are linear in one operand, and products of which one side may be the running sum.
LINEAR = frozenset({"reshape", "identity", "select", "scale"})
PRODUCTS = frozenset({"matmul", "mul"})
#: Longer ways from a running sum to the quotient are not looked for.
FARTHEST = 8
#: Relative difference of moments that are computed in float32.
SAME = 1e-4
#: What is added to a divisor against zero is less than this.
SMALL = 1e-2


def running_means(nodes: Sequence[Node]) -> list[Node]:
    """Quotients of running sums as quotients of running means, and a running mean as one op."""
    found = list(nodes)
    uses = [0] * len(nodes)
    for node in nodes:
        for source in set(node.inputs):
            uses[source] += 1
    for node in nodes:
        if node.op not in ("div", "mul") or len(node.inputs) != 2:
            continue
        summed = _counted(node, nodes)
        if summed is not None:
            attrs = {**summed.attrs, "mean": True}
            found[node.index] = replace(node, op="cumsum", inputs=summed.inputs, attrs=attrs, parameters={})
        elif node.op == "div":
            above, below = (_way(source, nodes, uses, FARTHEST) for source in node.inputs)
            if above and below and nodes[above[-1]].attrs.get("n") == nodes[below[-1]].attrs.get("n"):
                for index in {*above, *below}:  # (what was measured is that of the sums)
                    found[index] = replace(found[index], measured=None)
                for index in (above[-1], below[-1]):
                    found[index] = replace(found[index], attrs={**nodes[index].attrs, "mean": True})
    return found


def _counted(node: Node, nodes: Sequence[Node]) -> Node | None:
    """The running sum that is divided by 1, 2, 3 ... n along its positions."""
    for value, counts in (node.inputs, node.inputs[::-1])[: 1 if node.op == "div" else 2]:
        summed = nodes[value]
        while summed.op in ("reshape", "identity") and summed.inputs and summed.shape == nodes[summed.inputs[0]].shape:
            summed = nodes[summed.inputs[0]]
        if summed.op == "cumsum" and summed.shape == node.shape and _counts(nodes[counts], node, number(summed, "n")):
            return summed
    return None


def _counts(node: Node, user: Node, n: float) -> bool:
    """Whether a constant is 1, 2, 3 ... n, or the inverse of these where it is multiplied by: from its moments."""
    if node.op not in ("constant", "parameter") or n < 2 or node.shape is None or math.prod(node.shape) % n:
        return False
    harmonic, squares = sum(1.0 / t for t in range(1, int(n) + 1)), sum(t**-2.0 for t in range(1, int(n) + 1))
    counts, inverse = ((n + 1.0) / 2.0, (n + 1.0) * (2.0 * n + 1.0) / 6.0), (harmonic / n, squares / n)
    names = ("mean", "second", "inverse_mean", "inverse_second")
    expected = (*counts, *inverse) if user.op == "div" else inverse
    return all(abs(number(node, name) - value) <= SAME * value for name, value in zip(names, expected, strict=False))


def _way(index: int, nodes: Sequence[Node], uses: Sequence[int], left: int) -> tuple[int, ...]:
    """The nodes from an operand back to the running sum that it is linear in, if nothing else reads them."""
    node = nodes[index]
    if uses[index] != 1 or left == 0:
        return ()
    if node.op == "cumsum":
        return (index,)
    passing = node.op in LINEAR or (node.op == "shift" and 0.0 <= number(node, "value") < SMALL)
    sources = node.inputs if node.op in PRODUCTS else node.inputs[:1] if passing else ()
    ways = [way for source in dict.fromkeys(sources) if (way := _way(source, nodes, uses, left - 1))]
    return (index, *ways[0]) if len(ways) == 1 else ()
