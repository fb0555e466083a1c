"""Pooling over windows of positions, and reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.contraction import axes_of
from initlint.signal.curves import curve, function_of, named
from initlint.signal.elementwise import EVERYWHERE, apply, chosen, greatest, width_of
from initlint.signal.moments import Grad, NoRuleError, State, bounded, kept_ties, state, tied
from initlint.signal.rectified import POSITIVE, below
from initlint.signal.scene import Op, Scene, number, text


def averaged(x: State, count: float, over: str) -> State:
    """The mean of ``count`` elements that differ in position, channel or sample, or in all of them."""
    lost = 1.0 - 1.0 / max(count, 1.0)
    eps, beta, tau = max(x.d + x.e - x.u, 0.0), max(x.u - x.e, 0.0), max(x.u - x.d, 0.0)
    if over == "channel":
        # every part but the mean common to all channels is averaged
        keep = 1.0 - lost
        q, d, e, u = x.m * x.m + x.v * keep, x.d * keep, x.e * keep, x.u * keep
    elif over == "batch":
        q, d, e, u = x.q - lost * x.d, 0.0, x.e - lost * eps, x.u - lost * x.d
    elif over == "all":
        q, d, e, u = x.m * x.m + x.v / max(count, 1.0), x.d / max(count, 1.0), 0.0, x.d / max(count, 1.0)
    else:
        q, d, e = x.q - lost * x.e, beta + eps * (1.0 - lost), x.e * (1.0 - lost)
        u = beta + (tau + eps) * (1.0 - lost)
    return state(q, x.m, d, e, u, noise=x.noise + x.own, like=(x,))


def pool(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Average or greatest over a window. ``fn``: an increasing function that was applied before it (see rewrite)."""
    x, window = xs[0], max(number(node, "window", 1.0), 1.0)
    if text(node, "kind") == "max":
        window = within(node, window, scene)
        y = greatest(x, window) if "fn" in node.attrs or node.table else chosen(x, window)
        if "fn" in node.attrs or node.table:
            y = apply(curve(function_of(node), y.m, y.v), y, width_of(node.index, y, scene))
            return replace(y, positive=text(node, "fn") in POSITIVE)
        return replace(y, own=2.0 / width_of(node.index, y, scene), kind="post", positive=x.positive)
    if text(node, "kind") == "lp":
        return _length(x, window, width_of(node.index, x, scene))
    y = averaged(x, window, "position")
    y = replace(y, own=2.0 / width_of(node.index, y, scene), ties=tied(x, node.inputs[0], 1.0 / window, 1.0))
    return replace(y, positive=x.positive, kind="post" if x.positive else y.kind)


def _length(x: State, n: float, width: float) -> State:
    """The length of n elements: E S = n q of the sum of squares S, and E sqrt(S) from its mean and variance.

    S / E S as a gamma variable of shape k = E[S]^2 / Var S: E sqrt = Gamma(k + 1/2) / (Gamma(k) sqrt(k)). A Gaussian's
    square has a variance of 2 q^2, a rectified one's of 5.
    """
    q, k = n * x.q, n / (5.0 if x.positive else 2.0)
    m = math.sqrt(q / k) * math.exp(math.lgamma(k + 0.5) - math.lgamma(k))
    v = q - m * m
    # one length of one window hardly depends on another's: what samples and positions share is the mean
    y = state(q, m, v, v, v, own=2.0 / width, kind="post", noise=x.noise + x.own, like=(x,))
    return replace(y, positive=True)


def within(node: Node, window: float, scene: Scene) -> float:
    """How many elements of a square window lie inside the map, on average: the padding never wins."""
    before, after = scene.nodes[node.inputs[0]].shape, node.shape
    if before is None or after is None or len(before) != len(after) or len(before) < 3:
        return window
    axes = [(i, o) for i, o in zip(before[2:], after[2:], strict=True) if i > 0 and o > 0]
    side = round(window ** (1.0 / len(axes))) if axes else 0
    if not axes or side ** len(axes) != round(window):
        return window
    found = 1.0
    for read, written in axes:
        stride = max(round(read / written), 1)
        ahead = max((written - 1) * stride + side - read, 0) // 2
        inside = sum(max(min(o * stride - ahead + side, read) - max(o * stride - ahead, 0), 0) for o in range(written))
        found *= inside / written
    return max(min(found, window), 1.0)


def _winners(node: Node, scene: Scene) -> float:
    """Overlapping windows often have the same greatest element: how many on average, seen from one of them.

    Two windows of w elements that have o in common agree where the greatest of all 2w - o is among those o.
    """
    before, after = scene.nodes[node.inputs[0]].shape, node.shape
    kernel = max(number(node, "window", 1.0), 1.0)
    if before is None or after is None or len(before) != len(after) or len(before) < 3:
        return 1.0
    axes = [(read, written) for read, written in zip(before[2:], after[2:], strict=True) if read > 0 and written > 0]
    side = round(kernel ** (1.0 / len(axes))) if axes else 0
    if not axes or side ** len(axes) != round(kernel):
        return 1.0
    overlaps = [(1.0, 1.0)]  # share of an axis' overlap in the window, and of the windows that have such a neighbour
    for read, written in axes:
        stride = max(round(read / written), 1)
        steps = range(-((side - 1) // stride), (side - 1) // stride + 1)
        along = [(1.0 - abs(step) * stride / side, max(1.0 - abs(step) / written, 0.0)) for step in steps]
        overlaps = [(a * b, c * d) for a, c in overlaps for b, d in along]
    return sum(found * share / (2.0 - share) for share, found in overlaps)


def pool_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The winner takes all of it, or everyone an equal part; ``ratio``: windows that each input lies in, over k."""
    window = max(number(node, "window", 1.0), 1.0)
    if text(node, "kind") == "max":
        window = within(node, window, scene)
    n_in, n_out = number(node, "n_in"), number(node, "n_out")
    ratio = n_out / n_in if n_in and n_out else 1.0 / window
    if text(node, "kind") == "max":
        factor = ratio
        if "fn" in node.attrs or node.table:
            top = greatest(xs[0], window)
            factor *= curve(function_of(node), top.m, top.v).slope
        shared = max(min(g.t, g.p), 0.0)
        across, p = g.across * factor * ratio, bounded((g.p + shared * (_winners(node, scene) - 1.0)) * factor)
        won = p if "fn" not in node.attrs and not node.table else 0.0
        return (Grad(p, max(g.t, 0.0) * factor * ratio, g.noise, won=won, window=window, across=across),)
    cover = ratio * window
    if text(node, "kind") == "lp":  # to each x / y of it: nothing to where a rectified x is zero
        x = xs[0]
        t = max(g.t, 0.0) * cover * ratio * (min(x.m * x.m / x.q, 1.0) if x.q > 0.0 else 0.0)
        p = bounded(g.p * ratio)
        return (Grad(p, min(t, p), g.noise, won=p if x.positive else 0.0, window=EVERYWHERE),)
    shared = max(min(g.t, g.p), 0.0)
    both = shared * (cover / window) ** 2
    p = bounded((g.p - shared) * cover / window**2 + both)
    # positions of one window take the same gradient: all of them where the window is the whole map
    t = both + max(p - both, 0.0) / scene.layout(node.index).positions
    ties = kept_ties(g, 1.0 / window, 1.0) if n_in == n_out else ()
    return (Grad(p, t, g.noise, across=g.across * (cover / window) ** 2, ties=ties),)


def reduce(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """mean, sum, max, min or logsumexp over an axis."""
    x, n, fn = xs[0], max(number(node, "n", 1.0), 1.0), text(node, "fn", "mean")
    over = text(node, "over", "position")
    if fn in ("mean", "sum"):
        y = averaged(x, n, over)
        y = replace(y, own=2.0 / width_of(node.index, y, scene), positive=x.positive)
        if fn == "sum":
            square = n * n
            y = replace(y, q=bounded(y.q * square), m=y.m * n, d=y.d * square, e=y.e * square, u=y.u * square)
        return y
    if fn in ("max", "min", "amax", "amin"):
        return _extreme(x, n, over, -1.0 if fn.endswith("min") else 1.0)
    if fn == "logsumexp":
        m = x.m + math.log(n) + 0.5 * x.v
        return state(m * m + x.v / n, m, x.d / n, x.e / n, x.u / n, kind="post", like=(x,))
    raise NoRuleError(f"{node.label or node.op}: the reduction {fn!r} is not modelled")


def _extreme(x: State, n: float, over: str, sign: float) -> State:
    # between channels everything but the common mean is independent
    x = replace(x, e=x.v) if over in ("channel", "all") else x
    y = chosen(x, n) if sign > 0.0 else _least(x, n)
    return replace(y, kind="post", positive=x.positive)


def _least(x: State, n: float) -> State:
    """The least of n positions: of a rectified signal the rectified one of what it was before."""
    under = _before(x)
    low = _lowest(x if under is None else under, n)
    return low if under is None else apply(curve(named("relu"), low.m, low.v), low, 1e9)


def _before(x: State) -> State | None:
    return below(x) if x.kind == "post" and x.positive else None


def _lowest(x: State, n: float) -> State:
    top = greatest(replace(x, m=-x.m), n)
    return replace(top, m=-top.m)


def reduce_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The mean spreads 1/n to each; an extreme gives all to one of n."""
    n, fn = max(number(node, "n", 1.0), 1.0), text(node, "fn", "mean")
    if fn in ("sum", "mean"):
        square = n * n if fn == "mean" else 1.0
        t = _alike(node, g, scene)
        return (Grad(bounded(g.p / square), t / square, g.noise, across=g.across / square),)
    if fn == "logsumexp":
        each = g.p * math.exp(min(xs[0].v, 50.0)) / (n * n)
        return (Grad(bounded(min(each, g.p / n)), 0.0, g.noise),)
    p = bounded(g.p / n)
    under = _before(xs[0])
    if fn.endswith("min") and under is not None:  # what falls on zeros does not pass the ReLU before
        low = _lowest(under, n)
        p = bounded(p * curve(named("relu"), low.m, low.v).slope)
        return (Grad(p, 0.0, g.noise, won=p, window=EVERYWHERE),)
    if fn.endswith("min") or text(node, "over", "position") != "position":
        return (Grad(p, 0.0, g.noise),)
    return (Grad(p, 0.0, g.noise, won=p, window=n),)


def _alike(node: Node, g: Grad, scene: Scene) -> float:
    """Covariance between positions of a gradient that n elements take alike: of those n, and of what is left after."""
    if text(node, "over", "position") not in ("position", "all"):
        return g.t
    before, after = float(scene.layout(node.inputs[0]).positions), float(scene.layout(node.index).positions)
    together = before / after if after > 1.0 else before
    if after <= 1.0 or before <= 1.0 or together <= 1.0:
        return g.p
    return (g.p * (together - 1.0) + max(g.t, 0.0) * (before - together)) / (before - 1.0)


def cumsum(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Running sums along n positions: on average (n+1)/2 of what differs, (n+1)(2n+1)/6 of what is shared."""
    x, n = xs[0], max(number(node, "n", 1.0), 1.0)
    if node.attrs.get("mean"):
        return _running(x, n)
    apart, together = (n + 1.0) / 2.0, (n + 1.0) * (2.0 * n + 1.0) / 6.0
    eps, beta = max(x.d + x.e - x.u, 0.0), max(x.u - x.e, 0.0)
    q = apart * x.e + together * (x.q - x.e)
    d = apart * eps + together * beta
    y = state(q, x.m * apart, d, 0.5 * apart * x.e, max(d, 0.5 * apart * x.e), noise=x.noise + x.own, like=(x,))
    return replace(y, positive=x.positive)


def _running(x: State, n: float) -> State:
    """Means of the first t of n positions: what differs between these is 1/t of it, and 1/t' of t' > t has t in common.

    Averages over t, and over pairs, follow from the harmonic number H_n.
    """
    total = _harmonic(n)
    kept, common = total / n, 2.0 * (n - total) / (n * (n - 1.0)) if n > 1.0 else 1.0
    eps, beta, tau = max(x.d + x.e - x.u, 0.0), max(x.u - x.e, 0.0), max(x.u - x.d, 0.0)
    q, d, e = x.q - x.e * (1.0 - kept), beta + eps * kept, x.e * (kept - common)
    y = state(q, x.m, d, e, beta + eps * kept + tau * (kept - common), noise=x.noise + x.own, like=(x,))
    return replace(y, positive=x.positive)


def _harmonic(n: float) -> float:
    return sum(1.0 / t for t in range(1, int(n) + 1))


def _along(node: Node, scene: Scene) -> bool:
    """Whether what positions share of the gradient is what those of the running sum do, and not those of another axis.

    A product with the sum, position by position, says so of the axis that it sums over.
    """
    users, axis = scene.consumers[node.index], node.attrs.get("dim")
    user = scene.nodes[users[0]] if len(users) == 1 else node
    axes = axes_of(user, scene) if user.op == "matmul" and isinstance(axis, int) else None
    if axes is None:
        return True
    which = "a" if user.inputs[0] == node.index else "b"
    return tuple(axes.own(which))[int(number(node, "dim"))] in axes.places(which)


def cumsum_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The reverse running sum; of running means, of the gradients over t."""
    n = max(number(node, "n", 1.0), 1.0)
    shared = max(min(g.t, g.p), 0.0)
    if node.attrs.get("mean") and n > 1.0:
        total, pairs = _harmonic(n), n * (n - 1.0)
        apart, together = total / n, (2.0 * n - total) / n
        if not _along(node, scene):
            return (Grad(bounded(apart * g.p), apart * shared, g.noise),)
        t = ((g.p - shared) * (n - total) + shared * (n * n - 2.0 * n + total)) / pairs
        return (Grad(bounded(apart * (g.p - shared) + together * shared), t, g.noise),)
    apart, together = (n + 1.0) / 2.0, (n + 1.0) * (2.0 * n + 1.0) / 6.0
    return (Grad(bounded(apart * (g.p - shared) + together * shared), together * shared, g.noise),)


OPS: Mapping[str, Op] = {
    "pool": Op(pool, pool_back),
    "reduce": Op(reduce, reduce_back),
    "cumsum": Op(cumsum, cumsum_back),
}
