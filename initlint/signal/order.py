"""Order statistics of Gaussians and the loss of softmax, by quadrature: what pooling and attention need."""

from __future__ import annotations

import math
from functools import lru_cache

from initlint.theory.functions import normal_cdf, normal_pdf, safe_exp

#: Trapezoidal rule on [-REACH, REACH]: for analytic integrands that vanish at the ends it converges exponentially.
REACH = 9.0
POINTS = 240
#: Most points of the outer integral over log t of ``softmax_energy`` and ``log_sum_exp``.
OUTER = 260
#: Steps of both integrals, in log t. exp(-e^x) is bounded on the strip |Im x| < pi/2, so that the trapezoidal rule
#: errs by exp(-pi^2 / step): below 1e-9 for 0.45.
STEP = 0.45
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


@lru_cache(maxsize=256)
def _grid(sigma: float) -> tuple[tuple[float, float], ...]:
    """Values exp(sigma z) and the weights of a standard normal z."""
    points = min(POINTS, math.ceil(2 * REACH * max(sigma, 1.0) / STEP))
    step = 2 * REACH / points
    zs = [-REACH + index * step for index in range(points + 1)]
    return tuple((safe_exp(sigma * z), normal_pdf(z) * step) for z in zs)


def _outer_step(sigma: float) -> float:
    """The step in log t; the same for every count, so that their integrals share ``_transform``."""
    return max(STEP, (16.0 * sigma + 35.0) / OUTER)


@lru_cache(maxsize=1 << 15)
def _transform(sigma: float, index: int) -> tuple[float, float, float]:
    """t, g = E exp(-t e^l) and t^2 E exp(2 l - t e^l) for a normal l, at the index-th point t of the outer integral."""
    t = safe_exp(index * _outer_step(sigma))
    g = h = 0.0
    for value, weight in _grid(sigma):
        decay = t * value
        if decay >= 700.0:
            break  # the values increase
        part = weight * math.exp(-decay)
        g += part
        h += part * decay * decay
    return t, min(g, 1.0), h


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
    step = _outer_step(sigma)
    low, high = -8.0 * sigma - math.log(n) - 12.0, 8.0 * sigma + 5.0
    total = 0.0
    for index in range(math.floor(low / step), math.ceil(high / step) + 1):
        _, g, h = _transform(sigma, index)
        if g <= 0.0:
            break  # g falls with t
        total += h * math.exp((n - 1.0) * math.log(g))
    return min(max(n * total * step, 1.0 / n), 1.0)


def softmax_slip(sigma: float, count: float) -> float:
    """E sum_j a_j^2 (1 - 2 a_j + sum_k a_k^2): what softmax lets through of the differences between the values that it
    weighs. 1/count at sigma 0, where all weights are alike, and 0 where one weight is all.

    Exact by the integrals of ``softmax_energy``: 1/Z^k is the integral of t^(k-1) exp(-t Z) over (k-1)!.
    """
    n = max(count, 1.0)
    if n <= 1.0:
        return 0.0
    if sigma <= 1e-3:
        return (1.0 - 1.0 / n) / n
    return _softmax_slip(min(_rounded(sigma), 60.0), round(n, 2 if n < 100 else 0))


@lru_cache(maxsize=2048)
def _softmax_slip(sigma: float, n: float) -> float:
    step = _outer_step(sigma)
    low, high = -8.0 * sigma - math.log(n) - 12.0, 8.0 * sigma + 5.0
    third = fourth = pair = 0.0
    for index in range(math.floor(low / step), math.ceil(high / step) + 1):
        _, g, h = _transform(sigma, index)
        if g <= 0.0:
            break  # g falls with t
        cube, power = _higher(sigma, index)
        alone = math.exp((n - 1.0) * math.log(g))
        third += cube * alone
        fourth += power * alone
        pair += h * h * alone / g
    energy = _softmax_energy(sigma, n)
    square = n * step * (fourth + (n - 1.0) * pair) / 6.0
    return min(max(energy - n * step * third + square, 0.0), energy)


@lru_cache(maxsize=1 << 15)
def _higher(sigma: float, index: int) -> tuple[float, float]:
    """t^3 E exp(3 l - t e^l) and t^4 E exp(4 l - t e^l) at the index-th point t of the outer integral."""
    t = safe_exp(index * _outer_step(sigma))
    third = fourth = 0.0
    for value, weight in _grid(sigma):
        decay = t * value
        if decay >= 700.0:
            break  # the values increase
        part = weight * math.exp(-decay) * decay**3
        third += part
        fourth += part * decay
    return third, fourth


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
    step = _outer_step(sigma)
    low, high = -8.0 * sigma - math.log(count) - 12.0, 8.0 * sigma + 6.0
    start = math.floor(low / step)
    total = 0.0
    for index in range(start, math.ceil(high / step) + 1):
        t, g, _ = _transform(sigma, index)
        power = math.exp(count * math.log(g)) if g > 0.0 else 0.0
        total += (math.exp(-t) if t < 700.0 else 0.0) - power
    return total * step
