"""A loss computed inside forward: what it is at the start, and the gradient that it sends to its input."""

from __future__ import annotations

import math
from collections.abc import Mapping

from initlint.facts import Node
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.order import log_sum_exp, softmax_energy
from initlint.signal.scene import Op, Scene, number, text

#: Beyond this spread a softmax is one-hot for every purpose.
WIDEST = 60.0


def loss(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Its expected value, the same for all samples."""
    if not xs:
        raise NoRuleError(f"{node.label or node.op} has no signal input")
    x, kind = xs[0], text(node, "kind")
    if "cross_entropy" in kind and "binary" not in kind:
        value = log_sum_exp(min(math.sqrt(x.v), 1e6), _classes(node, scene))
    elif "binary" in kind:
        value = math.log(2.0) + x.q / 8.0  # softplus to second order
    elif "nll" in kind:
        value = abs(x.m)
    else:
        value = x.q + (xs[1].q - 2.0 * x.m * xs[1].m if len(xs) > 1 else 0.0)
    return state(value * value, value, kind="constant", like=(x,))


def loss_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Gradient of a mean: softmax less one-hot over the number of predictions, or the error over that of elements."""
    x, kind = xs[0], text(node, "kind")
    layout = scene.layout(node.inputs[0])
    elements = float(layout.batch * layout.elements)
    if "cross_entropy" in kind and "binary" not in kind:
        classes = _classes(node, scene)
        count = max(elements / classes, 1.0)
        row = softmax_energy(min(math.sqrt(x.v), WIDEST), classes)
        each = (row + 1.0 - 2.0 / classes) / classes / count**2
    elif "nll" in kind:
        classes = _classes(node, scene)
        each = 1.0 / classes / max(elements / classes, 1.0) ** 2
    elif "binary" in kind:
        each = 0.25 / elements**2
    else:
        each = 4.0 * (x.q + (xs[1].q if len(xs) > 1 else 0.0)) / elements**2
    back = Grad(bounded(g.p * each), 0.0, g.noise)
    return (back, *(Grad(0.0) for _ in xs[1:]))


def _classes(node: Node, scene: Scene) -> int:
    return max(int(number(node, "classes", scene.layout(node.inputs[0]).channels)), 2)


OPS: Mapping[str, Op] = {"loss": Op(loss, loss_back)}
