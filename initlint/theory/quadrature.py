"""Gaussian expectations of elementwise functions by composite Gauss-Legendre quadrature.

Gauss-Hermite is not safe here: for a function with a kink its error decays like 1/sqrt(n). Panels are
split at every kink instead, and graded around the origin of the function where the Gaussian is much
wider than the scale on which the function varies.

Off the grid of cached points, expectations follow from the exact expansion of one Gaussian density in the
Hermite polynomials of another: E_{m+dm, v+dv}[g] = sum_k c_k E_{m,v}[g He_k(z)], where c_k is the
coefficient of t^k in exp(a t + b t^2), a = dm / sqrt(v), b = dv / (2 v).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from operator import mul

from initlint.records import dataclass

Function = Callable[[float], float]

#: The standard normal has 2e-17 of its mass beyond this; f^2 He_4 of a linear function has 1e-12.
REACH = 8.5
#: Panels of the Gaussian itself; order 10 on a width of 1.7 integrates exp(-z^2/2) He_8 to 1e-12.
PANELS = 10
ORDER = 10
#: Enough for sin(30 x) at unit variance; far beyond it the phase is uniform and closed forms take over.
MAX_PANELS = 400
#: Grid of cached points in log variance and in mean / sigma; with six orders of correction the error is
#: below 1e-6 relative (test_activations.py measures it), and a large model hits few hundred points.
STEP = 0.03
#: Where mean / sigma is beyond this the function is evaluated as if it were local (no feature in reach).
LOCAL = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """A function of one real variable with its arguments filled in. Compared by identity.

    ``width`` is the distance over which it varies (its nearest complex singularity), measured from each
    of ``centres``; ``inf`` for polynomials. ``jumps``: it is discontinuous at its kinks, so that its
    almost-everywhere slope misses the jumps. ``period``: it oscillates that fast everywhere. ``domain``:
    where it is defined; expectations leave out the rest.
    """

    name: str
    value: Function
    slope: Function
    kinks: tuple[float, ...] = ()
    width: float = math.inf
    homogeneous: bool = False
    jumps: bool = False
    domain: tuple[float, float] = (-math.inf, math.inf)
    centres: tuple[float, ...] = (0.0,)
    period: float = math.inf
    closed: tuple[str, float] | None = None  # key and parameter of a closed form, see closed_forms.py


@dataclass(frozen=True, slots=True)
class Expansion:
    """Coefficients E[g He_k(z)], k = 0..6, of g = f, f^2 and f'^2 at one mean and variance."""

    mean: float
    sigma: float
    value: tuple[float, ...]
    second: tuple[float, ...]
    slope: tuple[float, ...]


@cache
def gauss_legendre(order: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on [-1, 1], by Newton's method on the Legendre polynomial."""
    nodes, weights = [], []
    for index in range(order):
        x = math.cos(math.pi * (index + 0.75) / (order + 0.5))
        for _ in range(100):
            before, now = 1.0, x
            for degree in range(2, order + 1):
                before, now = now, ((2 * degree - 1) * x * now - (degree - 1) * before) / degree
            derivative = order * (x * now - before) / (x * x - 1)
            change = now / derivative
            x -= change
            if abs(change) < 1e-15:
                break
        nodes.append(x)
        weights.append(2.0 / ((1.0 - x * x) * derivative * derivative))
    return tuple(nodes), tuple(weights)


def nodes(
    function: Elementwise, mean: float, sigma: float, extra: Sequence[float] = (), order: int = ORDER
) -> tuple[list[float], list[float]]:
    """Nodes z and weights (density included) for E over x = mean + sigma z, split at kinks.

    Args:
        extra: further break points, in x.
    """
    points, weights = gauss_legendre(order)
    zs: list[float] = []
    ws: list[float] = []
    breaks = _breaks(function, mean, sigma, extra)
    for left, right in pairwise(breaks):
        half, middle = 0.5 * (right - left), 0.5 * (right + left)
        scale = half / math.sqrt(2.0 * math.pi)
        panel = [middle + half * x for x in points]
        zs += panel
        ws += [scale * w * math.exp(-0.5 * z * z) for z, w in zip(panel, weights, strict=True)]
    return zs, ws


def _breaks(function: Elementwise, mean: float, sigma: float, extra: Sequence[float]) -> list[float]:
    low = max(-REACH, (function.domain[0] - mean) / sigma)
    high = min(REACH, (function.domain[1] - mean) / sigma)
    if not low < high:
        return []
    found = {low, high}
    panels = min(MAX_PANELS, max(PANELS, math.ceil(4 * REACH * sigma / function.period)))  # half a period each
    step = 2 * REACH / panels
    found.update(z for index in range(1, panels) if low < (z := -REACH + index * step) < high)
    found.update(z for x in (*function.kinks, *extra) if low < (z := (x - mean) / sigma) < high)
    if math.isfinite(function.width):
        for centre in function.centres:
            found.update(_graded((centre - mean) / sigma, function.width / sigma, low, high))
    return sorted(found)


def _graded(centre: float, width: float, low: float, high: float) -> list[float]:
    """Break points at centre +- width 2^k: each panel is as far from the singularities as it is wide."""
    found = [centre] if low < centre < high else []
    distance, step = width, 2 * REACH / PANELS
    while distance < high - centre or distance < centre - low:
        found += [z for z in (centre - distance, centre + distance) if low < z < high]
        if distance > 2 * step and low < centre < high:
            break  # the panels of the Gaussian are finer from here on
        distance *= 2.0
    return found


def expectation(function: Elementwise, mean: float, sigma: float, power: int) -> float:
    """E[f(x)^power] for x ~ N(mean, sigma^2), at the point itself."""
    if sigma <= 0:
        return _power(function.value(mean), power)
    zs, ws = nodes(function, mean, sigma)
    value = function.value
    return sum(w * _power(value(mean + sigma * z), power) for z, w in zip(zs, ws, strict=True))


def hermite(function: Elementwise, mean: float, sigma: float, count: int) -> tuple[float, ...]:
    """Normalised Hermite coefficients a_k = E[f(mean + sigma z) He_k(z)] / sqrt(k!), k < count."""
    zs, ws = nodes(function, mean, sigma)
    value = function.value
    before = [0.0] * len(zs)
    now = [w * value(mean + sigma * z) for z, w in zip(zs, ws, strict=True)]
    found = [sum(now)]
    for k in range(1, count):
        root, last = math.sqrt(k), math.sqrt(k - 1)
        before, now = now, [(z * n - last * b) / root for z, n, b in zip(zs, now, before, strict=True)]
        found.append(sum(now))
    return tuple(found)


def expand(function: Elementwise, mean: float, sigma: float) -> Expansion:
    """The expansion of a function at one point; see the module's docstring."""
    zs, ws = nodes(function, mean, sigma)
    xs = [mean + sigma * z for z in zs]
    values = list(map(function.value, xs))
    slopes = list(map(function.slope, xs))
    squares = list(map(mul, values, values))
    steep = list(map(mul, slopes, slopes))
    polynomials = [ws, list(map(mul, ws, zs))]
    for k in range(2, 7):
        polynomials.append([z * h - (k - 1) * g for z, h, g in zip(zs, polynomials[-1], polynomials[-2], strict=True)])
    first, second, slope = (tuple(sum(map(mul, p, g)) for p in polynomials) for g in (values, squares, steep))
    return Expansion(mean, sigma, first, second, slope)


@lru_cache(maxsize=65536)
def at_grid(function: Elementwise, log_var: int, ratio: int) -> Expansion:
    """The expansion at a point of the grid; see ``near``."""
    sigma = math.exp(0.5 * STEP * log_var)
    return expand(function, ratio * STEP * sigma, sigma)


def near(function: Elementwise, mean: float, var: float) -> tuple[Expansion, float, float]:
    """The cached expansion nearest to (mean, var > 0), and the shifts a and b from it."""
    sigma = math.sqrt(var)
    log_var = round(math.log(var) / STEP)
    ratio = round(mean / sigma / STEP)
    if abs(ratio * STEP) > LOCAL:
        return expand(function, mean, sigma), 0.0, 0.0
    grid = at_grid(function, log_var, ratio)
    return grid, (mean - grid.mean) / grid.sigma, 0.5 * (var / (grid.sigma * grid.sigma) - 1.0)


def shifted(coefficients: Sequence[float], a: float, b: float) -> float:
    """E[g] at the shifted mean and variance, to sixth order."""
    c0, c1, c2, c3, c4, c5, c6 = coefficients
    square = a * a
    return (
        c0
        + a * c1
        + (0.5 * square + b) * c2
        + (square / 6.0 + b) * a * c3
        + (square * square / 24.0 + 0.5 * square * b + 0.5 * b * b) * c4
        + (square * square / 120.0 + square * b / 6.0 + 0.5 * b * b) * a * c5
        + (square**3 / 720.0 + square * square * b / 24.0 + 0.25 * square * b * b + b**3 / 6.0) * c6
    )


def _power(value: float, power: int) -> float:
    try:
        return float(value**power)
    except OverflowError:
        return math.inf
