"""How an elementwise function changes the correlation between two Gaussian signals.

For two jointly Gaussian x, x' of one mean and variance with correlation rho, Mehler's formula gives
E f(x) f(x') = sum_k a_k^2 rho^k with the normalised Hermite coefficients a_k of f (Poole et al. 2016,
Daniely et al. 2016). The coefficients beyond ``COUNT`` are replaced by a power law with the true
remaining mass and slope. What differs between samples, ``contrast`` = E f^2 - E f f', is summed as
a_k^2 (1 - rho^k), so that it keeps its digits when samples have nearly collapsed onto one another.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import mul

from initlint.records import dataclass
from initlint.theory import closed_forms
from initlint.theory.functions import normal_pdf
from initlint.theory.quadrature import STEP, Elementwise, at_grid, hermite

#: Coefficients kept; beyond it the tail of a kinked function (a_k^2 ~ k^-5/2) holds 1e-3 of the mass.
COUNT = 25
#: Exponents of the tail: jump k^-3/2, kink k^-5/2; smooth functions have no tail to speak of.
JUMP, KINK, SMOOTH = 1.5, 2.5, 6.0
#: Where the tail starts, and the integral of k^-3/2 and k^-5/2 from there.
START = COUNT - 0.5
JUMP_MASS, KINK_MASS = 2.0 * START**-0.5, START**-1.5 / 1.5
#: Points per factor e of k in the sum over the tail.
TAIL_POINTS = 3


@dataclass(frozen=True, slots=True)
class Series:
    """Squared Hermite coefficients at a grid point, with products for shifts of mean and variance."""

    mean: float
    sigma: float
    squares: tuple[float, ...]
    by_mean: tuple[float, ...]  # a_k a_(k+1) sqrt(k+1)
    by_var: tuple[float, ...]  # a_k a_(k+2) sqrt((k+1)(k+2)) + k a_k^2
    tail: tuple[float, ...]  # orders that stand for those beyond the kept ones
    tail_masses: tuple[float, ...]


def contrast(function: Elementwise, mean: float, var: float, gap: float) -> float:
    """E f(x)^2 - E f(x) f(x') where var - cov(x, x') is ``gap``; exact as ``gap`` goes to zero.

    Accuracy: 1e-3 relative (a few per cent for functions that jump); closed forms where they are known.
    """
    if not gap > 0 or not var > 0 or not math.isfinite(var):
        return 0.0 if math.isfinite(var) else math.nan
    known = closed_forms.contrast(function, mean, var, gap)
    if known is not None:
        return known
    sigma = math.sqrt(var)
    series = _series(function, round(math.log(var) / STEP), round(mean / sigma / STEP))
    a, b = (mean - series.mean) / series.sigma, 0.5 * (var / (series.sigma * series.sigma) - 1.0)
    missing, beyond = _one_minus(series, min(gap / var, 2.0))
    # first order in the distance from the grid: dE ff' = 2 a E f f'_x' + 2 b (E f f''_x' + rho E f' f'_x')
    total: float = sum(map(mul, missing, series.squares))
    total += 2.0 * a * sum(map(mul, missing, series.by_mean)) + 2.0 * b * sum(map(mul, missing, series.by_var))
    tail: float = sum(map(mul, beyond, series.tail_masses))
    return max(0.0, total + (1.0 + 2.0 * b) * tail)


def correlation(function: Elementwise, second: float, mean: float, var: float, cov: float) -> float:
    """E f(x) f(x') from E f^2 and the contrast."""
    return second - contrast(function, mean, var, max(0.0, var - cov))


def _one_minus(series: Series, e: float) -> tuple[list[float], list[float]]:
    """1 - rho^k for the kept orders and for the tail, without cancellation; rho = 1 - e."""
    if e < 1.0:
        log_rho = math.log1p(-e)
        return [-math.expm1(k * log_rho) for k in range(COUNT)], [-math.expm1(k * log_rho) for k in series.tail]
    rho = 1.0 - e
    return [1.0 - math.pow(rho, k) for k in range(COUNT)], [1.0] * len(series.tail)


@lru_cache(maxsize=8192)
def _series(function: Elementwise, log_var: int, ratio: int) -> Series:
    sigma = math.exp(0.5 * STEP * log_var)
    mean = ratio * STEP * sigma
    a = hermite(function, mean, sigma, COUNT + 2)
    point = at_grid(function, log_var, ratio)
    squares = tuple(x * x for x in a[:COUNT])
    by_mean = tuple(a[k] * a[k + 1] * math.sqrt(k + 1) for k in range(COUNT))
    by_var = tuple(a[k] * a[k + 2] * math.sqrt((k + 1) * (k + 2)) + k * squares[k] for k in range(COUNT))
    mass = max(0.0, point.second[0] - sum(squares))
    slope = point.slope[0] * sigma * sigma - sum(k * s for k, s in enumerate(squares))
    tail = _tail(function, mean, sigma, mass, slope, point.second[0])
    return Series(mean, sigma, squares, by_mean, by_var, tuple(k for k, _ in tail), tuple(m for _, m in tail))


def _tail(
    function: Elementwise, mean: float, sigma: float, mass: float, slope: float, total: float
) -> tuple[tuple[float, float], ...]:
    """Geometric points k > COUNT with masses that sum to ``mass`` and, for no jumps, k mass to ``slope``."""
    if not abs(mass) > 1e-13 * total or not math.isfinite(mass):
        return ()
    jumps, bends = _edges(function, mean, sigma)
    if jumps or bends:
        points = [*_power_law(JUMP, jumps * JUMP_MASS), *_power_law(KINK, bends * KINK_MASS)]
        rest = mass - sum(m for _, m in points)
        if jumps:
            return (*points, (COUNT + 0.5, rest))
        steep = slope - sum(k * m for k, m in points)
        first, second = COUNT + 0.5, 2.0 * COUNT
        upper = (steep - first * rest) / (second - first)
        return (*points, (first, rest - upper), (second, upper))
    exponent = SMOOTH
    if slope > 1.01 * START * mass > 0:
        # the power law k^-p from START on has mean k of START (p - 1) / (p - 2)
        mean_k = slope / mass / START
        exponent = min(max((2.0 * mean_k - 1.0) / (mean_k - 1.0), 2.05), 40.0)
    return tuple(_power_law(exponent, mass))


def _edges(function: Elementwise, mean: float, sigma: float) -> tuple[float, float]:
    """Factors A of the asymptotic a_k^2 ~ A k^-3/2 of the jumps of f, and A k^-5/2 of the jumps of f'.

    Two Gaussians with a small gap lie on either side of x0 with probability pdf(x0) E|x - x'|, so that
    E(f - f')^2 / 2 tends to J^2 pdf(x0) sqrt(gap / pi); the power law gives 2 A sqrt(pi gap / var).
    """
    jumps = bends = 0.0
    for kink in function.kinks:
        z = (kink - mean) / sigma
        weight = normal_pdf(z) / (2.0 * math.pi)
        step = 1e-9 * max(1.0, abs(kink))
        low, high = max(kink - step, function.domain[0] + step), kink + step
        jumps += (function.value(high) - function.value(low)) ** 2 * weight if function.jumps else 0.0
        bends += (sigma * (function.slope(high) - function.slope(low))) ** 2 * weight
    return jumps, bends


def _power_law(exponent: float, mass: float) -> list[tuple[float, float]]:
    """Points (k, mass) of the density k^-exponent from START on, with this mass in all."""
    points: list[tuple[float, float]] = []
    if mass <= 0:
        return points
    edge, factor = START, math.exp(1.0 / TAIL_POINTS)
    # beyond 1e24 not even a jump has mass left that a gap of 1e-24 would see
    while edge < 1e24:
        following = edge * factor
        share = (edge / START) ** (1.0 - exponent) - (following / START) ** (1.0 - exponent)
        if share < 1e-13:
            break
        points.append((_moment(edge / START, following / START, exponent) * START / share, share * mass))
        edge = following
    return points


def _moment(low: float, high: float, exponent: float) -> float:
    """Integral of x (p-1) x^-p over [low, high]."""
    p = exponent
    if abs(p - 2.0) < 1e-9:
        return math.log(high / low)
    return (p - 1.0) / (p - 2.0) * (math.pow(low, 2.0 - p) - math.pow(high, 2.0 - p))
