"""Moments of elementwise functions that are known in closed form, for x ~ N(mean, var).

Sources are in THEORY terms: Cho & Saul 2009 (arc-cosine kernels), Williams 1997 (erf), Tsuchida et al. 2018
(GELU); the rest by direct integration. All are tested against quadrature and sampling.
"""

from __future__ import annotations

import math

from initlint.theory.functions import normal_cdf, normal_pdf, safe_exp
from initlint.theory.quadrature import Elementwise

#: Below this |mean| / sigma the formulas for zero mean apply: the next term is of its order.
CENTRED = 1e-7
Triple = tuple[float, float, float]


def closed_form(function: Elementwise, mean: float, var: float) -> Triple | None:
    """(E f, E f^2, E f'^2), or ``None`` where no closed form is known at this mean."""
    if function.closed is None:
        return None
    key, parameter = function.closed
    centred = abs(mean) <= CENTRED * math.sqrt(var)
    match key:
        case "leaky":
            return leaky(parameter, mean, var)
        case "sin":
            return sine(parameter, mean, var)
        case "cos":
            return cosine(parameter, mean, var)
        case "square":
            return mean * mean + var, 3 * var * var + 6 * mean * mean * var + mean**4, 4 * (mean * mean + var)
        case "exp":
            second = safe_exp(2 * mean + 2 * var)
            return safe_exp(mean + 0.5 * var), second, second
        case "affine":
            factor = function.slope(0.0)
            at = factor * mean + parameter
            return at, at * at + factor * factor * var, factor * factor
        case "gelu":
            return gelu(var) if centred else None
        case "erf":
            return erf(var) if centred else None
    return None


def leaky(negative: float, mean: float, var: float) -> Triple:
    """max(x, 0) + negative min(x, 0)."""
    if negative == 1.0:
        return mean, mean * mean + var, 1.0
    sigma = math.sqrt(var)
    a = mean / sigma
    above, below = normal_cdf(a), normal_cdf(-a)
    density = sigma * normal_pdf(a)
    first = mean * above + density - negative * (density - mean * below)
    upper = (mean * mean + var) * above + mean * density
    lower = (mean * mean + var) * below - mean * density
    square = negative * negative
    return first, max(upper, 0.0) + square * max(lower, 0.0), above + square * below


def gelu(var: float) -> Triple:
    """x Phi(x) at mean zero."""
    root = math.sqrt(1.0 + 2.0 * var)
    angle = math.asin(var / (1.0 + var))
    first = var / math.sqrt(2.0 * math.pi * (1.0 + var))
    second = var * (0.25 + (var / ((1.0 + var) * root) + 0.5 * angle) / math.pi)
    slope = (
        0.25
        + angle / (2.0 * math.pi)
        + var / (math.pi * (1.0 + var) * root)
        + var / (2.0 * math.pi * (root * root * root))
    )
    return first, second, slope


def erf(var: float) -> Triple:
    """erf(x) at mean zero."""
    second = (2.0 / math.pi) * math.asin(2.0 * var / (1.0 + 2.0 * var))
    return 0.0, second, 4.0 / math.pi / math.sqrt(1.0 + 4.0 * var)


def sine(omega: float, mean: float, var: float) -> Triple:
    """sin(omega x)."""
    phase = omega * omega * var
    double = math.exp(-2.0 * phase) * math.cos(2.0 * omega * mean)
    second = -0.5 * math.expm1(-2.0 * phase) if mean == 0 else 0.5 * (1.0 - double)
    return math.exp(-0.5 * phase) * math.sin(omega * mean), second, 0.5 * omega * omega * (1.0 + double)


def cosine(omega: float, mean: float, var: float) -> Triple:
    """cos(omega x)."""
    phase = omega * omega * var
    double = math.exp(-2.0 * phase) * math.cos(2.0 * omega * mean)
    return math.exp(-0.5 * phase) * math.cos(omega * mean), 0.5 * (1.0 + double), 0.5 * omega * omega * (1.0 - double)


def contrast(function: Elementwise, mean: float, var: float, gap: float) -> float | None:
    """Half of E[(f(x) - f(x'))^2] for two Gaussians with that mean and variance and var - cov = ``gap``.

    The part of f's second moment that differs between samples, without cancellation when the gap is
    tiny; ``None`` where no closed form is known.
    """
    if function.closed is None:
        return None
    key, parameter = function.closed
    centred = abs(mean) <= CENTRED * math.sqrt(var)
    match key:
        case "leaky" if parameter == 1.0:
            return gap
        case "leaky" if centred:
            return _leaky_contrast(parameter, var, gap)
        case "affine":
            return function.slope(0.0) ** 2 * gap
        case "square":
            cov = var - gap
            return 2.0 * gap * (var + cov) + 4.0 * mean * mean * gap
        case "exp":
            return -safe_exp(2 * mean + 2 * var) * math.expm1(-gap)
        case "sin" | "cos":
            # E f f' = (exp(-w^2 gap) -+ exp(-w^2 (2 var - gap)) cos(2 w mean)) / 2
            square = parameter * parameter
            sign = -1.0 if key == "sin" else 1.0
            growth = math.exp(-square * (2.0 * var - gap)) * -math.expm1(-square * gap)
            return -0.5 * math.expm1(-square * gap) - 0.5 * sign * growth * math.cos(2.0 * parameter * mean)
        case "erf" if centred:
            top, cov = 1.0 + 2.0 * var, var - gap
            return (2.0 / math.pi) * _asin_difference(2.0 * var / top, 2.0 * cov / top, 2.0 * gap / top)
    return None


def _leaky_contrast(negative: float, var: float, gap: float) -> float:
    """Cho & Saul 2009: q (1 - C(c)) of the leaky ReLU, written so that nothing cancels at c -> 1."""
    e = min(gap / var, 2.0)
    angle = 2.0 * math.asin(math.sqrt(0.5 * e))
    # sin t - t cos t, which loses digits below 1e-2
    if angle < 1e-2:
        bend = angle**3 / 3.0 - angle**5 / 30.0
    else:
        bend = math.sin(angle) - angle * math.cos(angle)
    relu = 0.5 * var * (e - bend / math.pi)
    return (1.0 - negative) ** 2 * relu + negative * var * e


def _asin_difference(high: float, low: float, gap: float) -> float:
    """asin(high) - asin(low) with high - low = gap, without cancellation."""
    total = high * math.sqrt(max(0.0, 1.0 - low * low)) + low * math.sqrt(max(0.0, 1.0 - high * high))
    # sin(A - B) = sin A cos B - cos A sin B = (high^2 - low^2) / (sin A cos B + cos A sin B)
    if abs(total) < 1e-300:
        return math.asin(high) - math.asin(low)
    sine_of = gap * (high + low) / total
    near = math.asin(max(-1.0, min(1.0, sine_of)))
    direct = math.asin(high) - math.asin(low)
    return near if abs(direct) < 0.5 else direct
