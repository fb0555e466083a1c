"""Order statistics of Gaussians and the loss of softmax, by quadrature: what pooling and attention need."""

from __future__ import annotations

import math
from functools import lru_cache

from initlint.theory.functions import normal_cdf, normal_pdf, safe_exp

#: Trapezoidal rule on [-REACH, REACH]: for analytic integrands that vanish at the ends it converges exponentially.
REACH = 9.0
POINTS = 240
#: Range and points of the outer integral over log t of ``softmax_energy`` and ``log_sum_exp``.
OUTER = 260
#: Above this many items an expectation over their maximum is taken from extreme value theory at log scale.
MANY = 10**7


@lru_cache(maxsize=4096)
def maximum(count: int) -> tuple[float, float]:
    """Mean and variance of the greatest of ``count`` independent standard normals."""
    if count <= 1:
        return 0.0, 1.0
    n = min(count, MANY)
    step = 2 * REACH / POINTS
    first = second = 0.0
    for index in range(POINTS + 1):
        z = -REACH + index * step
        below = normal_cdf(z)
        if below > 0.0:
            density = n * normal_pdf(z) * math.exp((n - 1) * math.log(below)) * step
            first += z * density
            second += z * z * density
    return first, second - first * first


def _grid(sigma: float) -> tuple[list[float], list[float]]:
    """Values exp(sigma z) and the weights of a standard normal z."""
    step = 2 * REACH / POINTS
    zs = [-REACH + index * step for index in range(POINTS + 1)]
    return [safe_exp(sigma * z) for z in zs], [normal_pdf(z) * step for z in zs]


def _rounded(sigma: float) -> float:
    return round(sigma, 3) if sigma < 10 else round(sigma, 1)


def softmax_energy(sigma: float, count: float) -> float:
    """E sum_j a_j^2 of a softmax over ``count`` independent N(0, sigma^2) logits: 1/count at 0, towards 1 for large.

    Exact: count * integral of t h(t) g(t)^(count-1) dt with g = E exp(-t e^l), h = E exp(2 l - t e^l) (THEORY 5.5).
    """
    n = max(count, 1.0)
    if n <= 1.0:
        return 1.0
    if sigma <= 1e-3:
        return (1.0 + sigma * sigma * (1 - 1 / n)) / n
    return _softmax_energy(min(_rounded(sigma), 60.0), round(n, 2 if n < 100 else 0))


@lru_cache(maxsize=2048)
def _softmax_energy(sigma: float, n: float) -> float:
    values, weights = _grid(sigma)
    low, high = -8.0 * sigma - math.log(n) - 12.0, 8.0 * sigma + 5.0
    step = (high - low) / OUTER
    total = 0.0
    for index in range(OUTER + 1):
        t = safe_exp(low + index * step)
        g = h = 0.0
        for value, weight in zip(values, weights, strict=True):
            decay = t * value
            if decay < 700.0:
                part = weight * math.exp(-decay)
                g += part
                h += part * value * value
        if g > 0:
            total += t * t * h * math.exp((n - 1.0) * math.log(min(g, 1.0))) * step
    return min(max(n * total, 1.0 / n), 1.0)


def log_sum_exp(sigma: float, count: int) -> float:
    """E log sum_j exp(sigma z_j): the expected cross-entropy of ``count`` classes with N(0, sigma^2) logits.

    Exact: the integral over u of exp(-e^u) - g(e^u)^count, with g(t) = E exp(-t exp(sigma z)).
    """
    if count <= 1:
        return 0.0
    if sigma <= 1e-3:
        return math.log(count) + 0.5 * sigma * sigma * (1 - 1 / count)
    if sigma > 60.0:  # the greatest alone counts
        return sigma * maximum(count)[0]
    return _log_sum_exp(_rounded(sigma), count)


@lru_cache(maxsize=1024)
def _log_sum_exp(sigma: float, count: int) -> float:
    values, weights = _grid(sigma)
    total_weight = sum(weights)
    low, high = -8.0 * sigma - math.log(count) - 12.0, 8.0 * sigma + 6.0
    step = (high - low) / OUTER
    total = 0.0
    for index in range(OUTER + 1):
        t = safe_exp(low + index * step)
        g = sum(w * math.exp(-t * v) for v, w in zip(values, weights, strict=True) if t * v < 700.0) / total_weight
        power = math.exp(count * math.log(min(g, 1.0))) if g > 0 else 0.0
        total += (math.exp(-t) if t < 700.0 else 0.0) - power
    return total * step
