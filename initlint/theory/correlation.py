"""How an elementwise function changes the correlation between two Gaussian signals.

For two jointly Gaussian x, x' of one mean and variance with correlation rho, Mehler's formula gives
E f(x) f(x') = sum_k a_k^2 rho^k with the normalised Hermite coefficients a_k of f (Poole et al. 2016,
Daniely et al. 2016). The coefficients beyond ``COUNT`` are replaced by a power law with the true
remaining mass and slope. What differs between samples, ``contrast`` = E f^2 - E f f', is summed as
a_k^2 (1 - rho^k), so that it keeps its digits when samples have nearly collapsed onto one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from initlint.theory import closed_forms
from initlint.theory.quadrature import STEP, Elementwise, expand, hermite

#: Coefficients kept; beyond it the tail of a kinked function (a_k^2 ~ k^-5/2) holds 1e-3 of the mass.
COUNT = 25
#: Exponents of the tail: jump k^-3/2, kink k^-5/2; smooth functions have no tail to speak of.
JUMP, KINK, SMOOTH = 1.5, 2.5, 6.0
#: Points per factor e of k in the sum over the tail.
TAIL_POINTS = 4


@dataclass(frozen=True, slots=True)
class Series:
    """Squared Hermite coefficients at a grid point, with products for shifts of mean and variance."""

    mean: float
    sigma: float
    squares: tuple[float, ...]
    by_mean: tuple[float, ...]  # a_k a_(k+1) sqrt(k+1)
    by_var: tuple[float, ...]  # a_k a_(k+2) sqrt((k+1)(k+2))
    tail: tuple[tuple[float, float], ...]  # (k, mass) beyond the kept coefficients


def contrast(function: Elementwise, mean: float, var: float, gap: float) -> float:
    """E f(x)^2 - E f(x) f(x') where var - cov(x, x') is ``gap``; exact as ``gap`` goes to zero.

    Accuracy: 1e-3 relative, and closed forms where they are known.
    """
    if not gap > 0 or not var > 0 or not math.isfinite(var):
        return 0.0 if math.isfinite(var) else math.nan
    known = closed_forms.contrast(function, mean, var, gap)
    if known is not None:
        return known
    sigma = math.sqrt(var)
    series = _series(function, round(math.log(var) / STEP), round(mean / sigma / STEP))
    a, b = (mean - series.mean) / series.sigma, 0.5 * (var / (series.sigma * series.sigma) - 1.0)
    e = min(gap / var, 2.0)
    # 1 - rho^k without cancellation; for rho <= 0 there is none to fear
    log_rho = math.log1p(-e) if e < 1 else None
    total = 0.0
    for k, (square, by_mean, by_var) in enumerate(zip(series.squares, series.by_mean, series.by_var, strict=True)):
        missing = _one_minus(k, e, log_rho)
        # first order in the distance from the grid: dE ff' = 2 a E f f'_x' + 2 b (E f f''_x' + rho E f' f'_x')
        total += missing * (square + 2.0 * a * by_mean + 2.0 * b * (by_var + k * square))
    return max(0.0, total + (1.0 + 2.0 * b) * sum(mass * _one_minus(k, e, log_rho) for k, mass in series.tail))


def correlation(function: Elementwise, second: float, mean: float, var: float, cov: float) -> float:
    """E f(x) f(x') from E f^2 and the contrast."""
    return second - contrast(function, mean, var, max(0.0, var - cov))


def _one_minus(k: float, e: float, log_rho: float | None) -> float:
    if k == 0:
        return 0.0
    if log_rho is not None:
        return -math.expm1(k * log_rho)
    rho = 1.0 - e
    return 1.0 - (math.pow(rho, k) if float(k).is_integer() else 0.0)


@lru_cache(maxsize=8192)
def _series(function: Elementwise, log_var: int, ratio: int) -> Series:
    sigma = math.exp(0.5 * STEP * log_var)
    mean = ratio * STEP * sigma
    a = hermite(function, mean, sigma, COUNT + 2)
    point = expand(function, mean, sigma)
    squares = tuple(x * x for x in a[:COUNT])
    by_mean = tuple(a[k] * a[k + 1] * math.sqrt(k + 1) for k in range(COUNT))
    by_var = tuple(a[k] * a[k + 2] * math.sqrt((k + 1) * (k + 2)) for k in range(COUNT))
    mass = max(0.0, point.second[0] - sum(squares))
    slope = point.slope[0] * sigma * sigma - sum(k * s for k, s in enumerate(squares))
    return Series(mean, sigma, squares, by_mean, by_var, _tail(function, mass, slope, point.second[0]))


def _tail(function: Elementwise, mass: float, slope: float, total: float) -> tuple[tuple[float, float], ...]:
    """Geometric points k > COUNT with masses that sum to ``mass`` and, for no jumps, k mass to ``slope``."""
    if mass <= 1e-13 * total or not math.isfinite(mass):
        return ()
    start = COUNT - 0.5
    exponent = JUMP if function.jumps else KINK if function.kinks else SMOOTH
    if not function.jumps and slope > 1.01 * start * mass:
        # the power law k^-p from ``start`` on has mean k of start (p-1)/(p-2)
        mean_k = slope / mass / start
        exponent = min(max((2.0 * mean_k - 1.0) / (mean_k - 1.0), 2.05), 40.0)
    points = []
    edge, factor = start, math.exp(1.0 / TAIL_POINTS)
    # far enough that what is left of the slope, k^(2-p), is below 1e-6; jumps have none: 1e24
    limit = 1e24
    while edge < limit:
        following = edge * factor
        share = (edge / start) ** (1.0 - exponent) - (following / start) ** (1.0 - exponent)
        if share < 1e-13:
            break
        first = _moment(edge / start, following / start, exponent) * start
        points.append((first / share, share * mass))
        edge = following
    return tuple(points)


def _moment(low: float, high: float, exponent: float) -> float:
    """Integral of x (p-1) x^-p over [low, high]."""
    p = exponent
    if abs(p - 2.0) < 1e-9:
        return math.log(high / low)
    return (p - 1.0) / (p - 2.0) * (low ** (2.0 - p) - high ** (2.0 - p))
