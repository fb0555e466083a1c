"""Ops without a closed form: what the probe measured on the op itself, marked as numeric; never a silent identity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from initlint.facts import Node, Response
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.scene import Op, Scene, text


def opaque(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """From the response table of the op, else from what a real forward measured at this node."""
    if not xs:
        return measured(node, xs, scene, _reason(node))
    if node.measured is not None and all(x.kind == "constant" for x in xs):  # a value, which is known as it is
        got = node.measured
        apart = max(got.second - got.mean**2, 0.0)
        return state(got.second, got.mean, 0.0, apart, apart, kind="constant")
    if node.response is None:
        return measured(node, xs, scene, _reason(node))
    response, factor = node.response, _factor(node.response, xs)
    q = math.exp(_between(factor, response.scales, [math.log(max(x, 1e-150)) for x in response.second]))
    m = _between(factor, response.scales, response.mean) if response.mean else 0.0
    c = _between(factor, response.scales, response.correlation) if response.correlation else xs[0].q and 0.0
    d = q * (1.0 - min(max(_shifted(c, response, xs), -1.0), 1.0))
    e = q * min(xs[0].e / xs[0].q, 1.0) if xs[0].q > 0 else 0.0
    y = state(q, m, d, e, max(d, e), kind="post", noise=max(x.noise + x.own for x in xs), like=xs)
    return replace(y, numeric=True)


def _shifted(c: float, response: Response, xs: tuple[State, ...]) -> float:
    """The output's cosine for inputs more or less alike than the sampled ones: 1-c in proportion."""
    if not response.c_in or xs[0].q <= 0:
        return c
    sampled = 1.0 - response.c_in[0]
    return 1.0 - (1.0 - c) * min(xs[0].d / xs[0].q / sampled, 2.0) if sampled > 1e-6 else c


def _factor(response: Response, xs: tuple[State, ...]) -> float:
    """How far the first signal is from the operating point, as a factor of its standard deviation."""
    if not response.q_in or response.q_in[0] <= 0:
        return 1.0
    return math.sqrt(max(xs[0].q, 1e-150) / response.q_in[0])


def _between(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolation in log x, straight on beyond the ends."""
    if not ys:
        return 0.0
    if len(xs) < 2 or len(ys) < 2:
        return ys[0]
    pairs = sorted(zip(xs, ys, strict=False))
    at = 0
    while at < len(pairs) - 2 and pairs[at + 1][0] < x:
        at += 1
    (x0, y0), (x1, y1) = pairs[at], pairs[at + 1]
    share = math.log(x / x0) / math.log(x1 / x0) if x0 > 0 and x1 > x0 and x > 0 else 0.0
    return y0 + share * (y1 - y0)


def _reason(node: Node) -> str:
    name, why = text(node, "name", node.label or node.op), text(node, "why")
    return f"{name} is not modelled" + (f" ({why})" if why else "")


def measured(node: Node, xs: tuple[State, ...], scene: Scene, reason: str) -> State:
    """The output's measured moments, scaled by how far the prediction is from what went in. Raises NoRuleError."""
    got = node.measured
    if got is None or not got.finite:
        raise NoRuleError(reason)
    scale = 1.0
    for source, x in zip(node.inputs, xs, strict=False):
        before = scene.nodes[source].measured
        if before is not None and before.second > 0 and x.q > 0 and x.kind not in ("index", "constant"):
            scale = x.q / before.second
            break
    q = got.second * scale
    shared = got.mean**2 / got.second if got.second > 0 else 0.0  # where it was not measured: the mean at the least
    c = got.correlation if got.correlation is not None else shared
    s = got.positions if got.positions is not None else shared
    d, e = q * (1.0 - c), q * (1.0 - s)
    y = state(q, got.mean * math.sqrt(scale), d, e, max(d, e, q * (1.0 - max(c, 0.0) * max(s, 0.0))), kind="post")
    noise = max((x.noise + x.own for x in xs), default=0.0)
    # differences smaller than float32 can hold were not measured: take over the inputs' share
    shares = [x.d / x.q for x in xs if x.q > 0 and x.kind not in ("index", "constant")]
    if shares and max(shares) < 1e-4:
        y = replace(y, d=min(y.d, y.q * max(shares)))
    return replace(y, numeric=True, noise=noise)


def opaque_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Measured ratios where there are any; else energy is kept: p_x N_x q_x = p_y N_y q_y (exact for functions that
    are homogeneous of degree one)."""
    response = node.response
    found = []
    size = scene.layout(node.index)
    for index, x in enumerate(xs):
        if x.kind in ("index", "constant") or x.q <= 0 or y.q <= 0:
            found.append(Grad(0.0))
        elif response is not None and index < len(response.back) and response.back[index]:
            factor = _between(_factor(response, xs), response.scales, response.back[index])
            found.append(Grad(bounded(g.p * max(factor, 0.0)), 0.0, g.noise))
        else:
            own = scene.layout(node.inputs[index])
            ratio = size.batch * size.elements / max(own.batch * own.elements, 1)
            found.append(Grad(bounded(g.p * ratio * y.q / x.q / len(xs)), 0.0, g.noise))
    return tuple(found)


OPS: Mapping[str, Op] = {"opaque": Op(opaque, opaque_back)}
