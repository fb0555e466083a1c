"""Functions of one signal, element by element: activations, constant factors, gated halves, masks and dropout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.curves import Curve, curve, function_of, named
from initlint.signal.decay import decay, hangs_on_its_tail
from initlint.signal.inverse import inverse, power_of
from initlint.signal.moments import Grad, NoRuleError, State, bounded, kept_ties, state, tied
from initlint.signal.order import maximum
from initlint.signal.rectified import POSITIVE, active_share, below, fallen, levels_of, rectified_again, stayed, through
from initlint.signal.scene import Op, Scene, number, text
from initlint.theory.quadrature import Elementwise

#: A finite-width layer of n units adds (3 E f'^4 / (E f'^2)^2 - 1) / n to the variance of ln p (Hanin & Nica 2020;
#: 5/n for ReLU, as forward).
GAUSSIAN_FOURTH = 3.0


#: Functions that reach this value and none below it, so that a constant added makes them positive; elu has its own.
LEAST = {"tanh": -1.0, "sin": -1.0, "cos": -1.0, "softsign": -1.0, "erf": -1.0}
#: The window of a gradient that falls on active elements only: the greatest of so many is active.
EVERYWHERE = 1e6


def apply(shape: Curve, x: State, width: float, kind: str = "post", channels: float = 1e9) -> State:
    """The state of f(x), with units of one layer averaged over ``width`` of them."""
    form = shape.shape
    fourth = max(form.fourth - 2.0, 0.0) if x.isometric else form.fourth
    drawn = x.isometric or x.own > 0.0 or x.noise > 0.0  # inputs that no weight has touched are the same for every seed
    d = shape.gap(x.d)
    e = d if x.e == x.d else shape.gap(x.e)
    u = d if x.u == x.d else e if x.u == x.e else shape.gap(x.u)
    return state(
        shape.second,
        shape.mean,
        d,
        e,
        u,
        kind=kind,
        own=fourth / max(width, 1.0) if drawn else 0.0,
        noise=x.noise * form.elastic**2,
        spread=x.spread * form.elastic**2 + max(form.fourth - 2.0, 0.0) / max(channels, 1.0),
        like=(x,),
    )


def width_of(index: int, x: State, scene: Scene) -> float:
    """How many independent numbers average out in a mean square over one sample."""
    layout = scene.layout(index)
    alike = max(1.0 - x.e / x.q, 0.0) ** 2 if x.q > 0 else 1.0
    return layout.channels / max(alike, 1.0 / layout.positions)


def greatest(x: State, count: float) -> State:
    """The greatest of ``count`` positions of a Gaussian signal, which share what positions share."""
    v = x.v
    if v <= 0 or count <= 1:
        return x
    e = min(x.e, v)  # what differs between the window's positions; the rest moves all of them together
    mean, var = maximum(max(round(count), 1))
    m = x.m + mean * math.sqrt(e)
    eps, beta = max(x.d + e - x.u, 0.0), max(x.u - e, 0.0)
    # the same position wins for nearly equal samples; for independent ones the whole variance differs
    own = eps * (1.0 - (1.0 - var) * min(eps / e, 1.0)) if e > 0 else 0.0
    y = state(m * m + v - e + e * var, m, beta + own, e * var, beta + e * var, noise=x.noise + x.own, like=(x,))
    return replace(y, kind=x.kind)


def chosen(x: State, count: float) -> State:
    """The greatest of ``count`` positions of any signal."""
    return (_rectified(x, count) if x.kind == "post" else None) or greatest(x, count)


def _rectified(x: State, count: float) -> State | None:
    """The greatest of ``count`` positions of a signal that was rectified, scaled and put together since.

    (``rewrite`` does the same exactly for an activation right before the pool.)
    """
    under = below(x)
    if under is None:
        return None
    top = greatest(under, count)
    return apply(curve(named("relu"), top.m, top.v), top, 1e9)


def activation(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """f(x) on a Gaussian edge, exact to quadrature. On a signal that is itself f(Gaussian) the second one is
    approximate; ``rewrite.fuse`` composes such chains before they get here."""
    x = xs[0]
    if x.positive and _relu(node):
        return replace(x, ties=tied(x, node.inputs[0]))
    shape = _through(node, x)
    y = apply(shape, x, width_of(node.index, x, scene), channels=scene.layout(node.index).channels)
    # nearly homogeneous functions keep channels of unequal scale unequal
    kept = x.harmonic if 0.8 < shape.shape.elastic < 1.25 else 1.0
    y = replace(y, positive=text(node, "fn") in POSITIVE or number(node, "sign") > 0, harmonic=kept)
    if _relu(node):
        y = replace(y, open=shape.slope, lifted=rectified_again(x), levels=levels_of(x, y))
    # logits that a function caps are still compared along their keys
    return replace(y, kind="logits", share=x.share) if x.kind == "logits" else y


def activation_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """p E f'^2; the part that positions share shrinks with E f'(x) f'(x')."""
    x = xs[0]
    if x.positive and _relu(node):
        # zero where the signal is: but what made it zero does not stop the gradient once more
        won = min(g.won, g.p) if g.window >= EVERYWHERE else 0.0
        kept = won + (g.p - won) * active_share(x)
        return (g._replace(p=kept, won=kept, window=EVERYWHERE, t=g.t * kept / g.p, parts=()),)
    shape = _through(node, x)
    form = shape.shape
    width = width_of(node.index, x, scene)
    p = bounded(g.p * shape.slope)
    seen = bounded(g.through * shape.slope) if g.through >= 0.0 else -1.0
    active = first = 0.0
    falls: tuple[float, ...] = ()
    if _relu(node) and (y.levels is not None or (g.falls and not x.mix)):
        passed, falls = fallen(g, x)
        p = bounded(g.p * passed)
        # of what a plain rectified signal was part of, the share on units where it was above zero
        active = x.mix[0][0] * falls[0] if len(x.mix) == 2 and falls else 0.0
        falls = falls if len(falls) > 2 else ()
    elif x.mix and _relu(node):
        # what falls on units above zero passes whole; of those some come from zero with the change alone
        won = min(g.won, g.p) if g.window >= EVERYWHERE else 0.0
        p = bounded(won + (g.p - won) * shape.slope)
        active, first = stayed(x, g, p, shape.slope)
    elif g.won > 0.0 and g.window > 1.0 and (g.window < EVERYWHERE or _relu(node)):
        # the greatest of a window is active more often than the rest
        top = greatest(x, g.window)
        p = bounded(
            max(g.p - g.won, 0.0) * shape.slope + min(g.won, g.p) * curve(function_of(node), top.m, top.v).slope
        )
    # an orthogonal matrix keeps the gradient's norm: only the slopes are left to chance
    chance = GAUSSIAN_FOURTH * form.steep - (GAUSSIAN_FOURTH if x.isometric else 1.0)
    noise = g.noise + max(chance, 0.0) / width
    across = g.across * shape.kernel(x.u if scene.layout(node.index).positions > 1 else x.d) if g.across else 0.0
    near = tuple(value * shape.kernel(x.e) / shape.slope for value in g.near) if g.near and shape.slope > 0.0 else ()
    if not g.t:
        return (Grad(p, 0.0, noise, seen, active=active, first=first, across=across, near=near, falls=falls),)
    along = min(max(g.t, 0.0), g.p) * shape.slope * form.tilt
    t = g.t * shape.kernel(x.e)
    found = Grad(p, t, noise, seen, along=along, active=active, first=first, across=across, near=near, falls=falls)
    return (found,)


def _relu(node: Node) -> bool:
    return text(node, "fn") == "relu" and not node.table


def _through(node: Node, x: State) -> Curve:
    """The function as the signal sees it."""
    if text(node, "fn") == "exp" and not node.table:
        if x.negative and x.m < 0.0 < x.v:
            return decay(x.m, x.v)
        if hangs_on_its_tail(x.v):
            raise NoRuleError(f"{node.label or node.op}: its moments rest on a tail that no tensor has")
    power = power_of(node, x)
    if power is not None:
        return inverse(x.m, x.v, power)
    return through(function_of(node), x)


def glu(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """a f(b) for the two halves of one layer's output, which are independent."""
    x = xs[0]
    gate = apply(curve(_gate(node), x.m, x.v), x, width_of(node.index, x, scene))
    return times(x, gate)


def glu_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Mean over the two halves of the gradient to each."""
    x = xs[0]
    shape = curve(_gate(node), x.m, x.v)
    factor = 0.5 * (shape.second + x.q * shape.slope)
    return (Grad(bounded(g.p * factor), g.t * factor, g.noise + _product_noise(node, scene)),)


def _gate(node: Node) -> Elementwise:
    name = text(node, "fn", "sigmoid")
    return function_of(node) if node.table else named(name)


def _product_noise(node: Node, scene: Scene) -> float:
    return 2.0 / scene.layout(node.index).channels


def times(a: State, b: State) -> State:
    """The product of two independent signals: second moments, means and covariances multiply."""
    q = bounded(a.q * b.q)

    def differing(x: float, y: float) -> float:
        return x * b.q + max(a.q - x, 0.0) * y

    return state(
        q,
        a.m * b.m,
        differing(a.d, b.d),
        differing(a.e, b.e),
        differing(a.u, b.u),
        kind="post",
        own=a.own + b.own,
        noise=a.noise + b.noise,
        like=(a, b),
    )


def scaled(x: State, factor: float, source: int) -> State:
    """A constant times the signal of node ``source``."""
    square = factor * factor
    return replace(
        x,
        q=bounded(x.q * square),
        m=x.m * factor,
        d=bounded(x.d * square),
        e=bounded(x.e * square),
        u=bounded(x.u * square),
        ties=tied(x, source, factor),
        positive=(x.positive and factor > 0) or (x.negative and factor < 0),
        negative=(x.negative and factor > 0) or (x.positive and factor < 0),
        mix=tuple((weight, m * factor, v * square) for weight, m, v in x.mix),
    )


def scale(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """factor * x."""
    return scaled(xs[0], number(node, "factor", 1.0), node.inputs[0])


def scale_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """factor^2 p."""
    square = number(node, "factor", 1.0) ** 2
    return (
        Grad(
            bounded(g.p * square),
            g.t * square,
            g.noise,
            lean=g.lean,
            won=g.won * square,
            window=g.window,
            across=g.across * square,
            ties=kept_ties(g, number(node, "factor", 1.0)),
        ),
    )


def shift(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """x + value: shared by all samples and positions, so that no difference changes."""
    x, value = xs[0], number(node, "value")
    return replace(
        x,
        q=bounded(x.q + 2 * x.m * value + value * value),
        m=x.m + value,
        ties=tied(x, node.inputs[0]),
        positive=(x.positive and value >= 0) or value >= -_least(scene.nodes[node.inputs[0]]),
        negative=x.negative and value <= 0,
        mix=tuple((weight, m + value, v) for weight, m, v in x.mix),
    )


def _least(node: Node) -> float:
    """The least value of the function that a node applies."""
    fn = text(node, "fn") if node.op == "activation" and not node.table else ""
    return -number(node, "alpha", 1.0) if fn in ("elu", "celu") else LEAST.get(fn, -math.inf)


def passed(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """The signal unchanged."""
    if not xs:
        raise NoRuleError(f"{node.label or node.op} has no signal input")
    return replace(xs[0], ties=tied(xs[0], node.inputs[0]))


def passed_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The gradient unchanged, to the first input only."""
    return (g, *(Grad(0.0) for _ in xs[1:]))


def dropout(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """q / (1 - p); masks of different samples differ, so the covariance stays (Schoenholz et al. 2017, section 5)."""
    x, rate = xs[0], number(node, "p")
    kind = text(node, "kind", "element")
    if rate <= 0 or kind == "alpha":  # alpha dropout keeps mean and variance (Klambauer et al. 2017)
        return x
    if rate >= 1:
        return replace(x, q=0.0, m=0.0, d=0.0, e=0.0, u=0.0, kind="constant")
    q = x.q / (1.0 - rate)
    extra = q - x.q
    apart = extra if kind == "element" else 0.0  # channel and path masks are common to the positions of a sample
    ties, active = tied(x, node.inputs[0]), x.open * (1.0 - rate)
    return replace(x, q=bounded(q), d=x.d + extra, e=x.e + apart, u=x.u + extra, ties=ties, mix=(), open=active)


def dropout_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """p / (1 - p)."""
    rate = number(node, "p")
    if rate <= 0 or text(node, "kind", "element") == "alpha":
        return (g,)
    return (Grad(g.p / (1.0 - rate), g.t, g.noise, lean=g.lean, across=g.across) if rate < 1 else Grad(0.0),)


def stop(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """detach, comparisons and casts: the value where it is a signal, statistics where they are given."""
    if xs and text(node, "name") == "detach":
        return passed(node, xs, scene)
    if "second" in node.attrs:
        q = number(node, "second")
        if not node.attrs.get("mask"):
            return state(q, number(node, "mean"), kind="post")
        mean, alike = number(node, "mean"), number(node, "correlation")
        return state(q, mean, q * (1.0 - alike), q - mean * mean, kind="post")
    return replace(xs[0], ties=()) if xs else state(0.0, kind="constant")


def stop_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Nothing passes."""
    return tuple(Grad(0.0) for _ in xs)


OPS: Mapping[str, Op] = {
    "activation": Op(activation, activation_back),
    "glu": Op(glu, glu_back),
    "scale": Op(scale, scale_back),
    "shift": Op(shift, passed_back),
    "identity": Op(passed, passed_back),
    "dropout": Op(dropout, dropout_back),
    "stop": Op(stop, stop_back),
}
