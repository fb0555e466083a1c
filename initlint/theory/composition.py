"""Elementwise functions made of others: chains, and tables of samples of an unknown callable."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise

from initlint.theory.quadrature import Elementwise

#: Kinks of a later step are searched where an earlier one reaches them, on this grid of x.
SEARCH = tuple(sign * math.exp(0.25 * k) * 1e-3 for sign in (-1.0, 1.0) for k in range(52))  # 1e-3 to 345 either side
BISECTIONS = 60


def chain(steps: tuple[Elementwise, ...]) -> Elementwise:
    """The composition of the steps, first applied first."""
    if not steps:
        return Elementwise("identity", lambda x: x, lambda x: 1.0, homogeneous=True, closed=("leaky", 1.0))
    whole = steps[0]
    for step in steps[1:]:
        whole = _pair(whole, step)
    return whole


def _pair(inner: Elementwise, outer: Elementwise) -> Elementwise:
    if inner.closed == ("leaky", 1.0):
        return outer
    if outer.closed == ("leaky", 1.0):
        return inner
    first, second, rise, climb = inner.value, outer.value, inner.slope, outer.slope
    name = f"{outer.name}({inner.name})"
    affine = inner.closed is not None and inner.closed[0] == "affine"
    factor = abs(rise(0.0)) if affine else 1.0
    if affine and inner.closed is not None:
        special = _scaled(outer, rise(0.0), inner.closed[1])
        if special is not None:
            return special
    kinks = sorted({*inner.kinks, *_preimages(inner, outer.kinks)})
    centres = _preimages(inner, outer.centres) if math.isfinite(outer.width) else ()
    width = min(inner.width, outer.width / factor if factor else math.inf)
    return Elementwise(
        name,
        lambda x: second(first(x)),
        lambda x: climb(first(x)) * rise(x),
        kinks=tuple(kinks),
        width=width,
        period=min(inner.period, outer.period / factor if factor else math.inf),
        homogeneous=inner.homogeneous and outer.homogeneous,
        jumps=inner.jumps or outer.jumps,
        centres=tuple(sorted({*inner.centres, *centres})),
        domain=_domain(inner, outer),
    )


def _scaled(outer: Elementwise, factor: float, shift: float) -> Elementwise | None:
    """sin(factor x) and the like, whose closed forms take the factor."""
    from initlint.theory import functions

    if outer.closed is None or shift != 0.0:
        return None
    key, parameter = outer.closed
    if key == "sin":
        return functions.sine({"omega": parameter * factor})
    if key == "cos":
        return functions.cosine({"omega": parameter * factor})
    return None


def _preimages(inner: Elementwise, targets: tuple[float, ...]) -> tuple[float, ...]:
    if not targets:
        return ()
    if inner.closed is not None and inner.closed[0] == "affine":
        factor, shift = inner.slope(0.0), inner.closed[1]
        return tuple((t - shift) / factor for t in targets) if factor else ()
    xs = sorted({*SEARCH, 0.0, *inner.kinks})
    ys = [inner.value(x) for x in xs]
    found = []
    for target in targets:
        for left, right, a, b in zip(xs[:-1], xs[1:], ys[:-1], ys[1:], strict=True):
            if a == target and b != target:
                found.append(left)
            elif (a - target) * (b - target) < 0:
                found.append(_bisect(inner, target, left, right))
            elif b == target and a != target:
                found.append(right)
    return tuple(sorted(set(found)))


def _bisect(inner: Elementwise, target: float, left: float, right: float) -> float:
    rising = inner.value(right) > target
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        if (inner.value(middle) > target) == rising:
            right = middle
        else:
            left = middle
    return 0.5 * (left + right)


def _domain(inner: Elementwise, outer: Elementwise) -> tuple[float, float]:
    if outer.domain == (-math.inf, math.inf):
        return inner.domain
    if inner.closed is not None and inner.closed[0] == "affine" and inner.slope(0.0) > 0:
        low, _ = outer.domain
        return (low - inner.closed[1]) / inner.slope(0.0), math.inf
    # e.g. sqrt(x^2): the outer step sees only what the inner one can give
    return inner.domain if inner.value(1.0) > outer.domain[0] and inner.value(-1.0) > outer.domain[0] else outer.domain


@lru_cache(maxsize=256)
def tabulated(x: tuple[float, ...], y: tuple[float, ...], dy: tuple[float, ...]) -> Elementwise:
    """Cubic Hermite interpolation of increasing samples, linear beyond them.

    Where the slope changes abruptly between two samples the function is taken to have a kink there.
    """
    if len(x) < 2:
        level = y[0] if y else 0.0
        return Elementwise("callable", lambda _: level, lambda _: 0.0)
    last = len(x) - 2

    def place(at: float) -> tuple[int, float, float]:
        index = min(max(bisect_right(x, at) - 1, 0), last)
        width = x[index + 1] - x[index]
        return index, width, (at - x[index]) / width

    def value(at: float) -> float:
        if at <= x[0]:
            return y[0] + dy[0] * (at - x[0])
        if at >= x[-1]:
            return y[-1] + dy[-1] * (at - x[-1])
        i, h, t = place(at)
        s = 1.0 - t
        return s * s * ((1 + 2 * t) * y[i] + t * h * dy[i]) + t * t * ((3 - 2 * t) * y[i + 1] - s * h * dy[i + 1])

    def slope(at: float) -> float:
        if at <= x[0]:
            return dy[0]
        if at >= x[-1]:
            return dy[-1]
        i, _, t = place(at)
        return (1.0 - t) * dy[i] + t * dy[i + 1]

    return Elementwise("callable", value, slope, kinks=_edges(x, dy), width=max(1e-3, 0.25 * min(x[-1], -x[0], 4.0)))


def _edges(x: tuple[float, ...], dy: tuple[float, ...]) -> tuple[float, ...]:
    """Samples around which the slope jumps by much more than its typical change."""
    changes = sorted(abs(b - a) for a, b in pairwise(dy))
    if not changes:
        return ()
    typical = changes[int(0.9 * (len(changes) - 1))]
    limit = max(10.0 * typical, 0.05 * (max(dy) - min(dy)))
    found: set[float] = set()
    for i in range(len(dy) - 1):
        if abs(dy[i + 1] - dy[i]) > limit > 0:
            found.update((x[i], x[i + 1]))
    return tuple(sorted(found))
