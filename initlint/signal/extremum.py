"""The greater or lesser of two signals, element by element: closed forms for two Gaussians (Clark 1961).

With z = a - b and w = a + b the greater is (w + |z|) / 2. By Stein's lemma E[w |z|'] follows from the covariance of w
and z, and E|z||z'| is the curve of ``abs``; all of it holds for operands that share a signal as well. That of two
rectified signals is the rectified one of what they were before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from initlint.facts import Node, Plain
from initlint.signal.curves import curve, named
from initlint.signal.elementwise import EVERYWHERE, activation, activation_back, apply
from initlint.signal.merge import crossed, spread
from initlint.signal.moments import Grad, NoRuleError, State, bounded, carried, common, state
from initlint.signal.operands import everywhere
from initlint.signal.rectified import below
from initlint.signal.scene import Op, Scene, text
from initlint.theory.functions import normal_cdf
from initlint.theory.quadrature import nodes

#: Share of the second moment below which what varies in a constant is rounding.
LEVEL = 1e-9
#: E max^4 / (E max^2)^2 - 1 of two standard normals.
FOURTH = 2.0


class Pair(NamedTuple):
    """Two Gaussians, and what they have in common: covariance, and its difference between samples and positions.

    ``rectified``: they are what two rectified signals were before.
    """

    a: State
    b: State
    shared: float
    d: float
    e: float
    u: float
    rectified: bool = False

    @property
    def m(self) -> float:
        """Mean of a - b."""
        return self.a.m - self.b.m

    @property
    def v(self) -> float:
        """Variance of a - b."""
        return max(self.a.v + self.b.v - 2.0 * self.shared, 0.0)

    @property
    def first(self) -> float:
        """The probability that a is the greater one."""
        if self.v <= LEVEL * (self.a.q + self.b.q):
            return 0.5 if self.m == 0.0 else float(self.m > 0.0)
        return normal_cdf(self.m / math.sqrt(self.v))

    def gap(self, a: float, b: float, shared: float) -> float:
        """E[(y - y')^2] / 2 of the greater, for operands that differ by ``a`` and ``b``."""
        apart = curve(named("abs"), self.m, self.v).gap(max(a + b - 2.0 * shared, 0.0))
        return 0.25 * (a + b + 2.0 * shared + 2.0 * (a - b) * (2.0 * self.first - 1.0) + apart)


def extremum(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """The moments of the greater (lesser) of two."""
    limited = _limited(node, xs)
    if limited is not None:
        return activation(limited[0], (xs[limited[1]],), scene)
    pair = _pair(node, xs, scene)
    y = _chosen(node, pair, scene)
    if pair.rectified:
        return _rectified(node, pair, y, scene)
    sides = ((xs[0].positive, xs[1].positive), (xs[0].negative, xs[1].negative))
    (lifting, lowering), least = sides, _sign(node) < 0.0
    return replace(
        y,
        positive=all(lifting) if least else any(lifting),
        negative=any(lowering) if least else all(lowering),
    )


def _rectified(node: Node, pair: Pair, under: State, scene: Scene) -> State:
    """The rectified one of ``under``, which is no Gaussian: its differences are in proportion."""
    y = apply(curve(named("relu"), under.m, under.v), under, scene.layout(node.index).channels)
    m, q = (_open(node, pair.a, pair.b, power) + _open(node, pair.b, pair.a, power) for power in (1, 2))
    ratio = (q - m * m) / y.v if y.v > 0.0 else 1.0
    return replace(y, q=q, m=m, d=y.d * ratio, e=y.e * ratio, u=y.u * ratio, positive=True)


def _chosen(node: Node, pair: Pair, scene: Scene) -> State:
    a, b, apart = pair.a, pair.b, curve(named("abs"), pair.m, pair.v)
    total = a.m + b.m
    leaning = (a.v - b.v) * (2.0 * pair.first - 1.0)
    square = a.q + b.q + 2.0 * (pair.shared + a.m * b.m)
    q = 0.25 * (square + 2.0 * (total * apart.mean + leaning) + apart.second)
    return state(
        q,
        _sign(node) * 0.5 * (total + apart.mean),
        pair.gap(a.d, b.d, pair.d),
        pair.gap(a.e, b.e, pair.e),
        pair.gap(a.u, b.u, pair.u),
        kind="post",
        own=FOURTH / scene.layout(node.index).channels,
        noise=carried((a, b), (a.q, b.q)),
        like=(a, b),
    )


def extremum_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """To each operand the gradient where it was chosen."""
    pair = _pair(node, xs, scene)
    step = curve(named("relu"), pair.m, pair.v) if pair.v > 0.0 else None
    differing = max(pair.a.e + pair.b.e - 2.0 * pair.e, 0.0)
    both = pair.first if step is None else step.kernel(differing)  # a is greater at two positions of one sample
    if pair.rectified:  # what falls on zeros does not pass the operand's own ReLU
        passed = [bounded(g.p * share) for share in (_open(node, pair.a, pair.b), _open(node, pair.b, pair.a))]
        return tuple(Grad(p, 0.0, g.noise, won=p, window=EVERYWHERE) for p in passed)
    found = [
        spread(Grad(bounded(g.p * share), g.t * max(alike, 0.0), g.noise), at, node, scene)
        for at, (share, alike) in enumerate(((pair.first, both), (1.0 - pair.first, 1.0 - 2.0 * pair.first + both)))
    ]
    limited = _limited(node, xs)
    if limited is not None:
        found[limited[1]] = activation_back(limited[0], (xs[limited[1]],), y, g, scene)[0]
    return tuple(found)


def _open(node: Node, x: State, other: State, power: int = 0) -> float:
    """E x^power where a rectified signal is chosen and not zero; both as ``_pair`` gives them."""
    sigma, width, sign = math.sqrt(x.v), math.sqrt(other.v), _sign(node)
    zs, ws = nodes(named("relu"), x.m, sigma)
    values = [x.m + sigma * z for z in zs]
    return sum(
        w * (sign * value) ** power * normal_cdf((value - other.m) / width)
        for value, w in zip(values, ws, strict=True)
        if sign * value > 0.0
    )


def _limited(node: Node, xs: tuple[State, ...]) -> tuple[Node, int] | None:
    """The clamp or ReLU that it is where one operand has one value everywhere, and which the other operand is."""
    if len(xs) != 2:
        return None
    for at, other in ((0, 1), (1, 0)):
        x, limit = xs[at], xs[other]
        if limit.kind == "constant" != x.kind and limit.v <= LEVEL * limit.q:
            bound = "min" if _sign(node) > 0.0 else "max"
            rectified = bound == "min" and limit.q == 0.0
            attrs: dict[str, Plain] = {"fn": "relu"} if rectified else {"fn": "clamp", bound: limit.m}
            return replace(node, op="activation", inputs=(node.inputs[at],), attrs=attrs), at
    return None


def _sign(node: Node) -> float:
    return -1.0 if text(node, "fn", "max") == "min" else 1.0


def _pair(node: Node, xs: tuple[State, ...], scene: Scene) -> Pair:
    """The operands, as of a maximum: a minimum is one of what is mirrored."""
    if len(xs) != 2:
        raise NoRuleError(f"{node.label or node.op} has no two signal inputs")
    sign = _sign(node)
    a, b = (everywhere(node, which, xs, scene) for which in (0, 1))
    shared = common(a, b, (node.inputs[0], node.inputs[1]))
    if shared is None and all(x.positive and 0.0 < x.open < 1.0 for x in (a, b)):
        under = (below(a), below(b))
        if under[0] is not None and under[1] is not None:
            a, b = (replace(x, m=sign * x.m) for x in under if x is not None)
            return Pair(a, b, 0.0, 0.0, 0.0, 0.0, rectified=True)
    a, b = replace(a, m=sign * a.m), replace(b, m=sign * b.m)
    if shared is None:
        return Pair(a, b, 0.0, 0.0, 0.0, 0.0)
    whole, (d, e, u) = crossed(*shared, 1.0)
    one, other = shared
    return Pair(a, b, whole - one.together * other.together * one.base.m**2, d, e, u)


OPS: Mapping[str, Op] = {"extremum": Op(extremum, extremum_back)}
