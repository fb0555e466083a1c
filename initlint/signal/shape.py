"""Sources of signals, and ops that only move elements around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.elementwise import passed, passed_back
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state, tied
from initlint.signal.scene import Op, Scene, number, text


def source_input(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """A model input: what was fed, or unit variance, independent between samples and positions."""
    kind = text(node, "kind", "float")
    if kind != "float":
        return State(number(node, "second", 1.0), number(node, "mean"), kind="index" if kind == "index" else "constant")
    q, m = number(node, "second", 1.0), number(node, "mean")
    c, s = number(node, "correlation"), number(node, "positions")
    return state(q, m, q * (1 - c), q * (1 - s), q * (1 - max(c, 0.0) * max(s, 0.0)))


def source_value(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """A parameter or constant read as a signal: the same for all samples."""
    fact = scene.parameters.get(node.parameters.get("value", ""))
    stats = fact.stats if fact else None
    q = number(node, "second", stats.second if stats else float("nan"))
    m = number(node, "mean", stats.mean if stats else 0.0)
    if q != q:
        if node.op == "parameter":
            raise NoRuleError(f"the statistics of {node.parameters.get('value', node.label)} are not known")
        q = float("inf") if "second" in node.attrs else 0.0
    # only a tensor of two or more proper axes can differ between positions as well as between channels
    varied = sum(1 for size in node.shape or () if size > 1) > 1
    apart = max(q - m * m, 0.0) if varied else 0.0
    return state(q, m, 0.0, apart, apart, kind="constant")


def none_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """No signal comes in."""
    return tuple(Grad(0.0) for _ in xs)


def output(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """What forward returns: the first signal among it."""
    for x in xs:
        if x.kind != "index":
            return x
    return xs[0] if xs else state(0.0, kind="constant")


def output_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The loss's gradient to each output."""
    return tuple(g if x.kind not in ("index", "constant") else Grad(0.0) for x in xs)


def reshape(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """view, permute, expand ...: moments unchanged. Flattening positions into channels leaves one position."""
    return passed(node, xs, scene)


def reshape_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """An expanded tensor takes the sum over its copies."""
    kept = number(node, "kept", 1.0)
    if kept <= 1.0:
        return (g,)
    return (Grad(bounded(kept * (g.p + (kept - 1.0) * max(g.t, 0.0))), 0.0, g.noise),)


def select(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """A part of the signal: the same moments, but another signal unless it is all of it."""
    x = passed(node, xs, scene)
    return x if _share(node, scene) >= 1.0 else replace(xs[0], ties=())


def select_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Zero elsewhere: on average the share of the gradient."""
    share = _share(node, scene)
    shared = g.t * share if text(node, "axis") == "channel" else g.t * share * share
    return (Grad(g.p * share, shared, g.noise), *(Grad(0.0) for _ in xs[1:]))


def _share(node: Node, scene: Scene) -> float:
    share = number(node, "share", float("nan"))
    if share == share:
        return min(share, 1.0)
    source = scene.nodes[node.inputs[0]]
    if source.shape is None or node.shape is None:
        return 1.0
    whole, own = scene.layout(source.index), scene.layout(node.index)
    return min(own.batch * own.elements / max(whole.batch * whole.elements, 1), 1.0)


def pad(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Zeros around the signal thin it out; other modes repeat it."""
    x = xs[0]
    share = number(node, "n_in", 1.0) / max(number(node, "n_out", 1.0), 1.0)
    if text(node, "mode", "constant") != "constant" or share >= 1.0:
        return replace(x, ties=tied(x, node.inputs[0]))
    return replace(
        x, q=x.q * share, m=x.m * share, d=x.d * share, e=x.e * share, u=x.u * share, ties=tied(x, node.inputs[0])
    )


def resize(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Interpolation averages what differs between positions and keeps what they share."""
    x, gain = xs[0], number(node, "gain_white", 1.0)
    lost = 1.0 - gain
    eps = max(x.d + x.e - x.u, 0.0)
    return state(
        x.q - lost * x.e,
        x.m,
        x.d - lost * eps,
        x.e * gain,
        x.u - lost * x.e,
        kind=x.kind,
        noise=x.noise + x.own,
        like=(x,),
    )


def resize_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Independent gradients by the Frobenius norm, shared ones by the number of outputs for each input."""
    ratio = number(node, "n_out", 1.0) / max(number(node, "n_in", 1.0), 1.0)
    back = number(node, "back_white", ratio * number(node, "gain_white", 1.0))
    shared = max(min(g.t, g.p), 0.0)
    return (Grad(bounded((g.p - shared) * back + shared * ratio * ratio), shared * ratio * ratio, g.noise),)


OPS: Mapping[str, Op] = {
    "input": Op(source_input, none_back, clears=True),
    "parameter": Op(source_value, none_back, clears=True),
    "constant": Op(source_value, none_back, clears=True),
    "output": Op(output, output_back),
    "reshape": Op(reshape, reshape_back),
    "select": Op(select, select_back),
    "pad": Op(pad, passed_back),
    "resize": Op(resize, resize_back),
}
