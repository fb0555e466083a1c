"""Sums of products of two signals, over whichever axes: what the operands have in common along them adds up.

For y = sum_k a_k b_k the second moment is the sum over pairs E[a_k a_k'] E[b_k b_k'] of independent operands. What two
elements of a signal share depends on the axis along which they differ: q - e for two positions, q - d for two samples,
the squared mean for two channels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from initlint.facts import Node
from initlint.signal.curves import curve, function_of
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.operands import LAID_OUT, behind
from initlint.signal.patterns import exponent
from initlint.signal.scene import Scene, text

#: Ops between a layer and a product that keep it linear, and one that does not.
BETWEEN = frozenset({"reshape", "identity", "select", "scale", "shift", "activation"})
#: Ops between a product and the quotient that it is a part of.
OVER = LAID_OUT | {"scale", "shift"}


class Axes(NamedTuple):
    """The axes of a product by their letters in an equation, and what each is: a sample, channel or position axis."""

    a: dict[str, str]
    b: dict[str, str]
    y: dict[str, str]
    sizes: dict[str, int]

    def own(self, of: str) -> dict[str, str]:
        """The axes of an operand ("a", "b") or of the result ("y")."""
        return {"y": self.y, "a": self.a, "b": self.b}[of]

    def summed(self, of: str) -> tuple[str, ...]:
        """What the sum over products runs over ("y"), or the gradient to an operand."""
        own = self.own(of)
        return tuple(label for label in self.sizes if label not in own and self.sizes[label] > 1)

    def places(self, of: str) -> tuple[str, ...]:
        """The position axes: heads and other axes that all three have are none where there is another one."""
        found = [label for label, kind in self.own(of).items() if kind == "p" and self.sizes[label] > 1]
        apart = [label for label in found if not (label in self.a and label in self.b and label in self.y)]
        return tuple(apart or found)

    def samples(self) -> tuple[str, ...]:
        """The sample axis of the result."""
        return tuple(label for label, kind in self.y.items() if kind == "s")


def axes_of(node: Node, scene: Scene) -> Axes | None:
    """The axes of a product whose equation and shapes are known."""
    terms = text(node, "equation").replace("->", ",").split(",")
    if len(terms) != 3 or len(node.inputs) != 2:
        return None
    sizes: dict[str, int] = {}
    kinds: list[dict[str, str]] = []
    for labels, owner in zip(terms, (*(scene.nodes[index] for index in node.inputs), node), strict=True):
        if owner.shape is None or len(owner.shape) != len(labels):
            return None
        channel = (owner.channel if owner.channel is not None else -1) % max(len(labels), 1)
        for label, size in zip(labels, owner.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
        kinds.append({x: "s" if i == owner.batch else "c" if i == channel else "p" for i, x in enumerate(labels)})
    return Axes(kinds[0], kinds[1], kinds[2], sizes)


def shared(x: State, kinds: Iterable[str]) -> float:
    """E[x x'] of two elements that differ along axes of these kinds."""
    apart = set(kinds)
    if not apart:
        return x.q
    if "c" in apart:
        return x.m * x.m
    return max(x.q - {"p": x.e, "s": x.d}.get("".join(apart), x.u), 0.0)


def shared_gradient(g: Grad, kinds: Iterable[str]) -> float:
    """The same of a gradient, whose channels are independent."""
    apart = set(kinds)
    if not apart:
        return g.p
    return {"p": min(max(g.t, 0.0), g.p), "s": g.across}.get("".join(apart), 0.0)


def _pairs(axes: Axes, labels: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Which of the axes two terms of a sum differ along, and how many pairs of terms do."""
    terms = math.prod(axes.sizes[label] for label in labels)
    for size in range(len(labels) + 1):
        for apart in itertools.combinations(labels, size):
            yield apart, float(terms * math.prod(axes.sizes[label] - 1 for label in apart))


def _common(a: State, b: State, axes: Axes, apart: tuple[str, ...]) -> float:
    """E[y y'] of two results that differ along axes ``apart``."""
    return sum(
        count * shared(a, _kinds(axes.a, (*apart, *inner))) * shared(b, _kinds(axes.b, (*apart, *inner)))
        for inner, count in _pairs(axes, axes.summed("y"))
    )


def _kinds(own: dict[str, str], labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(own[label] for label in labels if label in own)


def contracted(node: Node, a: State, b: State, axes: Axes, scene: Scene) -> State:
    """Forward."""
    terms = math.prod(axes.sizes[label] for label in axes.summed("y"))
    chance = _aligned(node, a, b, axes, scene)
    q = _common(a, b, axes, ()) + chance
    places, samples = axes.places("y"), axes.samples()
    # differences term by term, without the rounding of a difference of sums
    d, e, u = (_differing(a, b, axes, apart) for apart in (samples, places, (*samples, *places)))
    # the tokens' covariance is the same for all samples
    e, u = (e + chance, u + chance) if places else (e, u)
    noise = a.noise + b.noise + a.own + b.own
    y = state(q, terms * a.m * b.m, d, e, u, noise=noise, like=(a, b))
    return replace(y, positive=a.positive and b.positive)


def _differing(a: State, b: State, axes: Axes, apart: tuple[str, ...]) -> float:
    """E[y y] - E[y y'] for results that differ along ``apart``."""
    total = 0.0
    for inner, count in _pairs(axes, axes.summed("y")):
        left, right = (
            (shared(x, _kinds(own, inner)), shared(x, _kinds(own, (*apart, *inner))))
            for x, own in ((a, axes.a), (b, axes.b))
        )
        total += count * ((left[0] - left[1]) * right[0] + left[1] * (right[0] - right[1]))
    return max(total, 0.0)


def _aligned(node: Node, a: State, b: State, axes: Axes, scene: Scene) -> float:
    """What two projections of the same tokens have in common by chance, summed over the tokens.

    Row i of one and row j of the other give W_i C W_j^T with C the tokens' covariance: beside chance there is its mean,
    1 / D of the whole for D channels.
    """
    labels = axes.summed("y")
    if len(labels) != 1 or axes.a[labels[0]] != "p" or axes.b[labels[0]] != "p":
        return 0.0
    left, right = (_tokens(index, scene) for index in node.inputs)
    if left is None or right is None or left[0] != right[0]:
        return 0.0
    n, width = axes.sizes[labels[0]], scene.layout(left[0]).channels
    return n * (n - 1.0) * left[1] * a.e * right[1] * b.e / max(width, 1)


def _tokens(index: int, scene: Scene) -> tuple[int, float] | None:
    """The signal that a layer made this one of, and which share of what differs is linear in it."""
    node, linear = scene.nodes[index], 1.0
    while node.op in BETWEEN and len(node.inputs) == 1:
        if node.op == "activation":
            try:
                shape = curve(function_of(node), 0.0, 1.0)
            except NoRuleError:
                return None
            spread = shape.second - shape.mean**2
            linear *= min(shape.kernel(1.0) / spread, 1.0) if spread > 0.0 else 0.0
        node = scene.nodes[node.inputs[0]]
    if node.op not in ("linear", "conv") or not node.inputs:
        return None
    return behind(node.inputs[0], scene).index, linear


def contracted_back(node: Node, g: Grad, a: State, b: State, axes: Axes, scene: Scene) -> tuple[Grad, Grad]:
    """To each operand the other one times the gradient, summed over the axes that it does not have itself."""
    weighed, place = b, _average(node, scene)
    if place == "total":
        weighed = replace(b, q=0.0, m=0.0, d=0.0, e=0.0, u=0.0)
    elif place == "values":  # what the sums share moves no weight
        weighed = replace(b, q=min(b.q, b.e), m=0.0)
    return _to("a", weighed, axes.b, g, axes), _to("b", a, axes.a, g, axes)


def _average(node: Node, scene: Scene) -> str:
    """Which part of an average a b / a b' weighed by a a product is: the dividend ("values") or divisor ("total")."""
    top, users = node.index, scene.consumers[node.index]
    while len(users) == 1 and _kept(users[0], scene):
        top = users[0]
        users = scene.consumers[top]
    quotient = scene.nodes[users[0]] if len(users) == 1 else node
    if quotient.op not in ("mul", "div") or len(quotient.inputs) != 2:
        return ""
    other = quotient.inputs[1 - quotient.inputs.index(top)]
    under = [other]
    while _kept(under[-1], scene):
        under.append(scene.nodes[under[-1]].inputs[0])
    made = scene.nodes[under[-1]]
    if made.op != "matmul" or behind(made.inputs[0], scene).index != behind(node.inputs[0], scene).index:
        return ""
    if quotient.op == "div":
        return "values" if quotient.inputs[0] == top else "total"
    if any(_inverts(index, scene) for index in under):
        return "values"
    return "total" if _inverts(top, scene) else ""


def _kept(index: int, scene: Scene) -> bool:
    """Whether a node is a factor, or one over its input."""
    return bool(scene.nodes[index].inputs) and (scene.nodes[index].op in OVER or _inverts(index, scene))


def _inverts(index: int, scene: Scene) -> bool:
    node = scene.nodes[index]
    return node.op == "activation" and exponent(node) == -1.0


def _to(which: str, other: State, kinds: dict[str, str], g: Grad, axes: Axes) -> Grad:
    pairs = tuple(_pairs(axes, axes.summed(which)))

    def total(apart: tuple[str, ...]) -> float:
        return sum(
            count
            * shared_gradient(g, _kinds(axes.y, (*apart, *inner)))
            * shared(other, _kinds(kinds, (*apart, *inner)))
            for inner, count in pairs
        )

    places = axes.places(which)
    return Grad(
        bounded(total(())),
        total(places) if places else 0.0,
        g.noise + other.noise + other.own,
        across=total(axes.samples()) if g.across else 0.0,
    )
