"""Where signals meet: sums, products, quotients, concatenation and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.elementwise import EVERYWHERE, apply, chosen, scaled, times, width_of
from initlint.signal.inverse import inverse, invertible
from initlint.signal.moments import (
    LARGEST,
    Grad,
    NoRuleError,
    Shares,
    State,
    Tie,
    bounded,
    carried,
    common,
    kept_ties,
    state,
    tied,
)
from initlint.signal.operands import again, everywhere, own_total, rounded, score, shared_by_inputs
from initlint.signal.rectified import NEGLIGIBLE, active_share, blurred, mixture, moved
from initlint.signal.scene import Op, Scene, number, numbers, text

#: A constant with a second moment beyond this is a mask (-inf, -1e4 in half precision, -1e9 ...), no signal.
MASK = 1e7
#: The number L of a mask {0, -L}: exp(-20) is nothing to a softmax.
DEEP = 20.0
#: The least share of a mask: the mean of a parameter is not zero by chance and would pass for one of fewer elements.
LEAST = 0.01
#: A divisor whose variance is below this share of its squared mean is treated as nearly constant.
STEADY = 0.5
#: Variance of what rounding takes away, uniform between -1/2 and 1/2.
ROUNDING = 1.0 / 12.0
SOURCES = ("parameter", "constant")


def masks(x: State) -> bool:
    """Whether an operand is a mask: a constant of zeros and one large negative number."""
    if x.kind != "constant" or x.q < MASK:
        return x.kind == "constant" and x.m < 0 and x.q > DEEP * -x.m and x.m * x.m > LEAST * x.q
    return True


def _unmasked(mask: State) -> float:
    """The share of zeros in a mask of 0 and -L: E = -L s, E^2 = L^2 s."""
    return 1.0 - min(mask.m * mask.m / mask.q, 1.0) if 0 < mask.q < LARGEST and mask.m < 0 else 0.5


def add(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Sum of two signals: independent ones add their parts, and their common mean; a shared one adds coherently."""
    a, b = _pair(node, xs, scene)
    alpha = number(node, "alpha", 1.0) * (-1.0 if node.op == "sub" else 1.0)
    for which, x in ((1, a), (0, b)):
        left = _left(node, which, alpha, scene) if x.kind == "logits" else 0.0
        if left > 0.0:
            return masked(x, left)
    for mask, x in ((a, b), (b, a)):
        if masks(mask):
            return masked(x, _unmasked(mask))
    first, second = node.inputs[0], node.inputs[-1]
    if alpha == -1.0 and rounded(node, scene):
        return state(ROUNDING, 0.0, ROUNDING, ROUNDING, ROUNDING, kind="post", like=(a, b))
    shared = common(a, b, (first, second))
    square = alpha * alpha
    if shared is None:
        cross, q2 = 2.0 * alpha * a.m * b.m, (0.0, 0.0, 0.0)
    else:
        cross, q2 = crossed(*shared, 2.0 * alpha)
        # the means of what each has beside the signal that both contain, with it and with each other
        m, f, h = shared[0].base.m, shared[0].together, shared[1].together
        rests = (a.m - f * m, b.m - h * m)
        cross += 2.0 * alpha * (m * (f * rests[1] + h * rests[0]) + rests[0] * rests[1])
    q = max(a.q + square * b.q + cross, 0.0)
    main, source = (a, first) if a.q >= square * b.q else (b, second)
    found = state(
        q,
        a.m + alpha * b.m,
        a.d + square * b.d + q2[0],
        a.e + square * b.e + q2[1],
        a.u + square * b.u + q2[2],
        kind=_kind(a, b),
        noise=carried((a, b), (a.q, square * b.q)) if shared is None else max(a.noise + a.own, b.noise + b.own),
        spread=_spread(a, b, square, scene.layout(node.index).channels),
        like=(a, b),
    )
    factor = 1.0 if main is a else alpha
    ties = tied(main, source, factor)
    lesser, beside = (second, b) if main is a else (first, a)
    if lesser != source:
        weight = alpha if main is a else 1.0
        ties = (ties[0], Tie(lesser, weight, beside, weight), *ties[1:])
    if shared is not None:  # what both contain is in the sum with both factors
        one, other = shared
        apart, together = one.factor + alpha * other.factor, one.together + alpha * other.together
        ties = tied(one.base, one.root, apart, together) if apart or together else ()
    found = replace(found, ties=ties, share=min(a.share, b.share, 1.0 - hidden(node, scene)), turns=main.turns)
    found = _turned(node, found, main, scene)
    if alpha != 1.0 or shared is not None:
        return found
    if _outweighs(a, b) or _outweighs(b, a) or (a.positive and b.positive):
        return replace(found, positive=True)
    if a.positive != b.positive and "constant" not in (a.kind, b.kind):
        rectified, change = (a, b) if a.positive else (b, a)
        return replace(found, mix=mixture(rectified, change), moved=moved(rectified, change, found))
    if bool(a.mix) != bool(b.mix) and "constant" not in (a.kind, b.kind):  # a norm of a rectified signal, and another
        whole, change = (a, b) if a.mix else (b, a)
        return replace(found, mix=blurred(whole.mix, change))
    return found


def _left(node: Node, which: int, alpha: float, scene: Scene) -> float:
    """The share of the keys that a fixed bias leaves which counts against some of them; 0 where an operand is none."""
    bias = scene.nodes[node.inputs[which]] if which < len(node.inputs) else node
    against = number(bias, "sign") * (alpha if which == 1 else 1.0) < 0.0
    fixed = bias.op == "constant" and not bias.attrs.get("random")
    return number(bias, "leaves") if fixed and against else 0.0


def _turned(node: Node, found: State, main: State, scene: Scene) -> State:
    this = again(node, scene)
    if this is None or found.q <= 0.0 or main.q <= 0.0:
        return found
    turns = main.turns[1] if main.turns[0] == this.weight else 0
    ratio = this.gain(turns) * main.q / found.q
    return replace(
        found,
        q=bounded(found.q * ratio),
        m=found.m * ratio**0.5,
        d=found.d * ratio,
        e=found.e * ratio,
        u=found.u * ratio,
        turns=(this.weight, turns + 1),
    )


def crossed(one: Tie, other: Tie, scale: float) -> tuple[float, tuple[float, float, float]]:
    """What a signal in both operands adds to the second moment of their sum, and to d, e and u."""
    base = one.base
    apart, together = scale * one.factor * other.factor, scale * one.together * other.together
    samples = max(base.u - base.e, 0.0)  # of the difference between samples what all positions share
    return (
        together * (base.q - base.e) + apart * base.e,
        (
            together * samples + apart * (base.d - samples),
            apart * base.e,
            together * (base.u - base.e) + apart * base.e,
        ),
    )


def _outweighs(a: State, b: State) -> bool:
    """Whether ``a`` is positive and ``b`` too small to change that: a branch that is closed at initialisation."""
    return a.positive and b.q <= NEGLIGIBLE * a.q


def hidden(node: Node, scene: Scene) -> float:
    """The share of elements that a constant operand masks; its ``mean`` and ``second`` are those of the others."""
    return max((min(number(scene.nodes[i], "masked"), 1.0) for i in node.inputs), default=0.0)


def _spread(a: State, b: State, square: float, channels: int) -> float:
    """Fluctuation of a sum's energy: those of the parts, and of their chance product (4 q_a q_b / n)."""
    q1, q2 = a.q, square * b.q
    total = q1 + q2
    if total <= 0:
        return 0.0
    share = q1 / total
    return share * share * a.spread + (1 - share) ** 2 * b.spread + 4.0 * share * (1 - share) / channels


def add_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The gradient to both; an operand that was broadcast takes the sum over what it was spread over."""
    square = number(node, "alpha", 1.0) ** 2
    if len(node.inputs) == 1:
        return (g,)
    a, b = xs[0], xs[1]
    this = again(node, scene)
    if this is not None:  # what x and W x send back adds up to one more turn
        turns = g.turns[1] if g.turns[0] == this.weight else 0
        direct = g._replace(turns=(this.weight, turns + 1), won=0.0, active=0.0, first=0.0)
        beside = g._replace(turns=(this.weight, turns), won=0.0, active=0.0, first=0.0)
        return (direct, beside) if node.inputs[0] == this.source else (beside, direct)
    g = g._replace(ties=(Shares(node.index, 1.0, g.p, 1.0, min(max(g.t, 0.0), g.p)), *g.ties[:2]))
    sign = -1.0 if node.op == "sub" else 1.0
    # the greatest sum need not be the greatest of either, unless the other is closed
    left = g if _outweighs(a, b) else _lit(g, a, b, y)
    right = g if _outweighs(b, a) else _lit(g, b, a, y)
    ties = kept_ties(g, sign * number(node, "alpha", 1.0))
    right = _times(right, square)._replace(won=right.won * square, window=right.window, ties=ties, falls=right.falls)
    return (spread(left, 0, node, scene), spread(right, 1, node, scene))


def _lit(g: Grad, x: State, other: State, y: State) -> Grad:
    """The gradient of a sum to one side: it falls more often where a rectified side is active than where it is zero."""
    g, active, first = g._replace(won=0.0, active=0.0, first=0.0), g.active, g.first
    if not y.mix or not x.positive or other.positive or not 0.0 < active < 1.0:
        kept = x.levels is not None or len(x.mix) == len(g.falls)
        return g if g.falls and kept else g._replace(falls=())
    g = g._replace(falls=())
    share = 1.0 - y.mix[-1][0]
    beyond = first - g.p * y.moved.base.share * y.moved.base.above if y.moved is not None else 0.0
    return g._replace(won=g.p * max(active - share, 0.0) / (1.0 - share), window=EVERYWHERE, first=beyond)


def _times(g: Grad, factor: float) -> Grad:
    return Grad(bounded(g.p * factor), g.t * factor, g.noise, lean=g.lean, across=g.across * factor, near=g.near)


def spread(g: Grad, which: int, node: Node, scene: Scene, mean: float = 0.0) -> Grad:
    """The gradient to an operand smaller than the output: summed over the positions that share it.

    ``mean``: how much of what positions share all units share, too.
    """
    out, own = scene.layout(node.index), scene.layout(node.inputs[which])
    times_used = out.batch * out.elements / max(own.batch * own.elements, 1)
    if times_used <= 1.0 or scene.nodes[node.inputs[which]].shape is None:
        return g
    over, shared = min(times_used, out.positions), max(g.t, 0.0)
    # several positions that each gate many (one gate for each path) share the mean of all that they gate
    t = times_used * over * shared * mean if own.positions > 1 else 0.0
    return Grad(bounded(times_used * (g.p + (over - 1.0) * shared)), t, g.noise)


def mul(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Product of two signals. Of one signal with itself by Isserlis, of independent ones by moments."""
    a, b = _pair(node, xs, scene)
    shared = common(a, b, (node.inputs[0], node.inputs[-1]))
    if shared is not None and shared[0].base.kind != "constant":
        factor, base = shared[0].factor * shared[1].factor, shared[0].base
        v, m2 = base.v, base.m * base.m
        q = factor * factor * (3.0 * v * v + 6.0 * m2 * v + m2 * m2)
        slope = 4.0 * factor * factor * base.q
        return state(q, factor * base.q, slope * base.d, slope * base.e, slope * base.u, kind="post", like=(a, b))
    if (own := score(node, scene)) > 0.0:
        return _scored(a, b, own)
    alike = (a.positive and b.positive) or (a.negative and b.negative)
    opposed = (a.positive and b.negative) or (a.negative and b.positive)
    found = replace(times(a, b), positive=alike, negative=opposed)
    main = 0 if b.kind == "constant" else 1 if a.kind == "constant" else None
    if main is None:
        return found
    other, x = (b, a) if main == 0 else (a, b)
    return replace(
        found, kind=x.kind, share=x.share, ties=tied(x, node.inputs[main], other.m), centred=x.centred or other.centred
    )


def _scored(a: State, b: State, alike: float) -> State:
    """x times its own score: E s^2 x^2 = (1 + 2 rho^2) of independent ones, and rho^2 of it is the same everywhere."""
    found, base = times(a, b), a.v * b.v
    q, more = found.q + 2.0 * alike * base, alike * base
    return replace(
        found,
        q=bounded(q),
        d=min(found.d + more, 2.0 * q),
        e=min(found.e + more, 2.0 * q),
        u=min(found.u + more, q - more if q > more else q),
    )


def _by(g: Grad, b: State) -> Grad:
    """The gradient times an independent signal."""
    noise = g.noise + b.noise + b.own
    return Grad(
        bounded(g.p * b.q),
        g.t * max(b.q - b.e, 0.0),
        noise,
        lean=g.lean,
        ties=kept_ties(g, b.m) if b.kind == "constant" else (),
        won=g.won * b.q,
        window=g.window,
        across=g.across * (b.q - b.u),
    )


def mul_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """To each operand the gradient times the other one's second moment."""
    a, b = _pair(node, xs, scene)
    left = _by(g, b)
    if len(node.inputs) == 1:
        return (Grad(4.0 * left.p, 4.0 * left.t, left.noise),)
    right = _by(g, a)
    if g.won > 0.0 and g.window > 1.0:  # where the greatest was chosen the other operand is greater than elsewhere
        greater = a.q / active_share(a) if g.window >= EVERYWHERE else chosen(a, g.window).q
        right = right._replace(p=bounded(right.p + g.won * max(greater - a.q, 0.0)))
    return (spread(left, 0, node, scene, _mean(b)), spread(right, 1, node, scene, _mean(a)))


def _mean(x: State) -> float:
    return min(x.m * x.m / (x.q - x.e), 1.0) if x.q > x.e else 0.0


def div(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Quotient by a nearly constant signal; others have no second moment in general."""
    a, b = _pair(node, xs, scene)
    total, _ = own_total(node, b, scene)
    if total > 0.0:
        return replace(scaled(a, 1.0 / total, node.inputs[0]), positive=a.positive, share=a.share)
    return times(a, _inverse(node, b, scene))


def div_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """p / q_b to the numerator, p q_a / q_b^2 to the divisor."""
    a, b = _pair(node, xs, scene)
    total, terms = own_total(node, b, scene)
    if total > 0.0:
        return (_times(g, _beside_total(node, y, terms, scene) / (total * total)), Grad(0.0))
    under = _inverse(node, b, scene)
    left = _times(g, under.q)
    back = inverse(b.m, b.v).slope if _uneven(b) else under.q * under.q
    return (spread(left, 0, node, scene), spread(Grad(bounded(g.p * a.q * back), 0.0, g.noise), 1, node, scene))


def _beside_total(node: Node, y: State, n: float, scene: Scene) -> float:
    """The share of a gradient's energy that y = x / x.sum() passes: its mean over the n terms, weighted with y, goes.

    g - sum(g y): of what the terms do not share (1 - c), c = 1/n of independent ones, the weights bring back their own
    variance, (E[y^2] / E[y]^2 - 1) / n.
    """
    uneven = max(y.q / (y.m * y.m) - 1.0, 0.0) if y.m else 0.0
    shared = shared_by_inputs(node.index, n, scene)
    return (1.0 - (1.0 / n if shared is None else shared)) * (1.0 + uneven / n)


def _inverse(node: Node, b: State, scene: Scene) -> State:
    known = scene.nodes[node.inputs[-1]]
    if "inverse_second" in known.attrs and b.kind == "constant":  # fixed values, as uneven as they are
        second, mean = number(known, "inverse_second"), number(known, "inverse_mean")
        apart = max(second - mean * mean, 0.0) if b.e > 0.0 else 0.0
        return replace(b, q=bounded(second), m=mean, d=0.0, e=apart, u=apart, ties=())
    if _uneven(b):
        return replace(apply(inverse(b.m, b.v), b, width_of(node.inputs[-1], b, scene)), positive=True)
    steady = b.kind == "constant" or b.v <= STEADY * b.m * b.m
    if b.q <= 0 or not steady:
        raise NoRuleError(f"{node.label or node.op}: division by a signal that comes near zero")
    square = b.q * b.q
    return replace(
        b, q=bounded(1.0 / b.q), m=b.m / b.q, d=b.d / square, e=b.e / square, u=b.u / square, kind=b.kind, ties=()
    )


def _uneven(b: State) -> bool:
    """Whether a divisor is positive, and no constant."""
    return b.kind != "constant" and invertible(b)


def _pair(node: Node, xs: tuple[State, ...], scene: Scene) -> tuple[State, State]:
    if not xs:
        raise NoRuleError(f"{node.label or node.op} has no signal input")
    if len(xs) == 1:
        return xs[0], xs[0]
    return everywhere(node, 0, xs, scene), everywhere(node, 1, xs, scene)


def _kind(a: State, b: State) -> str:
    if "logits" in (a.kind, b.kind):
        return "logits"
    if a.kind == b.kind == "constant":
        return "constant"
    # a sum of a post-activation signal and a larger Gaussian one is nearly Gaussian
    main = a if a.q >= b.q and a.kind != "constant" else b if b.kind != "constant" else a
    return main.kind


def masked(x: State, share: float) -> State:
    """Logits of which only ``share`` of the keys count."""
    return replace(x, share=min(x.share, share), kind="logits" if x.kind == "logits" else x.kind)


def where(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Two signals mixed by a mask that is the same for all samples."""
    a, b = _pair(node, xs, scene)
    share = number(node, "share", 0.5)
    first, second = masks(a) or _blank(node.inputs[0], scene), masks(b) or _blank(node.inputs[-1], scene)
    if first or second:
        return masked(b if first else a, 1.0 - share if first else share)
    return mixed((a, b), (share, 1.0 - share), apart=True)


def _blank(index: int, scene: Scene) -> bool:
    """Whether a constant is nothing but the large negative number of a mask, which is left out of its moments."""
    return scene.nodes[index].op in SOURCES and number(scene.nodes[index], "masked") > 0.999


def mixed(xs: tuple[State, ...], shares: tuple[float, ...], *, apart: bool) -> State:
    """The state of a tensor whose parts have these states; ``apart``: the parts lie at different positions."""
    q = sum(s * x.q for s, x in zip(shares, xs, strict=True))
    m = sum(s * x.m for s, x in zip(shares, xs, strict=True))
    d = sum(s * x.d for s, x in zip(shares, xs, strict=True))
    e = sum(s * x.e for s, x in zip(shares, xs, strict=True))
    u = sum(s * x.u for s, x in zip(shares, xs, strict=True))
    if apart:
        alike = sum(s * s * (x.q - x.e) for s, x in zip(shares, xs, strict=True))
        wide = sum(s * s * (x.q - x.u) for s, x in zip(shares, xs, strict=True))
        means = m * m - sum((s * x.m) ** 2 for s, x in zip(shares, xs, strict=True))
        e, u = q - alike - means, q - wide - means
    kinds = {x.kind for x in xs if x.kind != "constant"}
    found = state(q, m, d, e, u, noise=carried(xs, tuple(s * x.q for s, x in zip(shares, xs, strict=True))), like=xs)
    found = replace(found, positive=all(x.positive for x in xs))
    return replace(found, kind=kinds.pop() if len(kinds) == 1 else "post" if kinds else "constant")


def where_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Each takes the gradient where it was chosen; what was written into another tensor has a size of its own."""
    share = number(node, "share", 0.5)
    kept, chosen = _times(g, share), _times(g, 1.0 - share)
    if node.attrs.get("written"):
        whole, part = (scene.layout(index) for index in (node.index, node.inputs[-1]))
        size = part.batch * part.elements
        if size > 0:  # each of its elements takes the gradient of all that it was written to
            chosen = _times(g, (1.0 - share) * whole.batch * whole.elements / size)
    return (kept, chosen)[: len(node.inputs)]


def cat(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Parts side by side. A linear layer that follows sees their average, weighted by channels."""
    if not xs:
        raise NoRuleError(f"{node.label or node.op} has no signal input")
    sizes = numbers(node.attrs.get("sizes"))
    if len(sizes) != len(xs):
        sizes = tuple(float(scene.layout(i).batch * scene.layout(i).elements) for i in node.inputs)
    total = sum(sizes) or 1.0
    shares = tuple(size / total for size in sizes)
    if len(xs) == 1:
        return replace(xs[0], ties=tied(xs[0], node.inputs[0]))
    y = mixed(xs, shares, apart=text(node, "axis") == "position")
    if text(node, "axis") != "channel" or not all(x.u > 0.0 for x in xs):
        return y
    # channels of unequal scale side by side: what divides each by its own treats the gradient as unequally
    mean = sum(share * x.u for share, x in zip(shares, xs, strict=True))
    return replace(y, harmonic=mean * sum(share * x.harmonic / x.u for share, x in zip(shares, xs, strict=True)))


def cat_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Each part takes its slice: of a gradient that was divided by each channel's scale, what is due to its own."""
    columns = _columns(node, len(xs), scene)
    if columns:
        return tuple(_times(g, factor) for factor in columns)
    if g.through < 0.0 or text(node, "axis") != "channel" or y.harmonic <= 1.0:
        return tuple(g for _ in xs)
    return tuple(_own(g, y.u / x.u, x.harmonic) for x in xs)


def _columns(node: Node, count: int, scene: Scene) -> tuple[float, ...]:
    """Where a layer of few inputs alone reads these signals as its channels: its weights' energy for each."""
    users = scene.consumers[node.index]
    user = scene.nodes[users[0]] if len(users) == 1 else node
    operator, axis, shape = user.operator, node.attrs.get("dim"), node.shape
    if operator is None or len(operator.columns) != count or not shape or not isinstance(axis, int):
        return ()
    channel = 1 if user.op == "conv" else len(shape) - 1
    return operator.columns if axis % len(shape) == channel and shape[channel] == count else ()


def _own(g: Grad, ratio: float, harmonic: float) -> Grad:
    p = g.through * ratio
    t, across = (g.t * ratio, g.across * ratio)
    return g._replace(p=bounded(p * harmonic), through=bounded(p), t=t, across=across)


OPS: Mapping[str, Op] = {
    "add": Op(add, add_back),
    "sub": Op(add, add_back),
    "mul": Op(mul, mul_back),
    "div": Op(div, div_back),
    "where": Op(where, where_back),
    "cat": Op(cat, cat_back),
    "stack": Op(cat, cat_back),
}
