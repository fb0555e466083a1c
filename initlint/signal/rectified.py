"""Signals that are zero or positive: a rectified Gaussian, its greatest values, and its sum with another signal.

The trunk of a residual network with activations on it is rectified again and again. Such a sum is no Gaussian: where
the rectified part is zero only the rest is left. It is taken as a mixture of two Gaussians, one for either case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from initlint.signal.curves import Curve, curve, named
from initlint.signal.moments import Mixture, State
from initlint.theory.functions import normal_cdf
from initlint.theory.quadrature import Elementwise

#: Functions without negative values.
POSITIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "exp", "square", "abs", "relu_squared"})
#: Of the ratio mean^2 / second moment: a rectified Gaussian with mean / sigma from -2 to 3. Below, it is hardly ever
#: active and the fit rests on its tail; above, it is as good as not rectified.
LOW, HIGH = 0.05, 0.9
#: A signal whose second moment is below this share of a rectified one's does not make it change its sign.
NEGLIGIBLE = 1e-3


def ratio_of(x: State) -> float | None:
    """mean / sigma of the Gaussian which, rectified, has the signal's mean and second moment; None without one."""
    ratio = x.m * x.m / x.q if x.q > 0 and x.m > 0 else 0.0
    return _ratio(round(ratio, 6)) if LOW < ratio < HIGH else None


@lru_cache(maxsize=4096)
def _ratio(ratio: float) -> float:
    relu = named("relu")

    def rising(at: float) -> float:
        found = curve(relu, at, 1.0)
        return found.mean**2 / found.second

    return bisected(rising, ratio, -3.0, 4.0)


def active(x: State) -> float:
    """The share of a rectified signal that is not zero."""
    at = ratio_of(x)
    return 1.0 if at is None else normal_cdf(at)


def below(x: State) -> State | None:
    """The Gaussian signal that was rectified."""
    at = ratio_of(x)
    if at is None:
        return None
    relu = named("relu")
    sigma = x.m / curve(relu, at, 1.0).mean
    under = curve(relu, at * sigma, sigma * sigma)
    d, e, u = (bisected(under.gap, gap, 0.0, 2.0 * under.v) for gap in (x.d, x.e, x.u))
    return replace(x, q=under.m**2 + under.v, m=under.m, d=d, e=e, u=max(u, d, e))


def bisected(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where an increasing function takes a value."""
    for _ in range(30):  # to 1e-9 of the range
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return 0.5 * (low + high)


def mixture(x: State, other: State) -> Mixture:
    """The sum of a rectified signal and an independent Gaussian one: weight, mean and variance for active and zero."""
    share = active(x)
    if share >= 1.0:
        return ()
    mean = x.m / share
    spread = max(x.q / share - mean * mean, 0.0)
    return ((share, mean + other.m, spread + other.v), (1.0 - share, other.m, other.v))


def through(function: Elementwise, x: State) -> tuple[Curve, float]:
    """The function of such a sum; and, of the gradient that passes it, the share where the rectified part is active."""
    plain = curve(function, x.m, x.v)
    if not x.mix:
        return plain, 0.0
    shapes = [(weight, curve(function, m, v)) for weight, m, v in x.mix]
    mean, second, slope = (
        sum(weight * part for (weight, _), part in zip(shapes, parts, strict=True))
        for parts in zip(*((c.mean, c.second, c.slope) for _, c in shapes), strict=True)
    )
    spread = plain.second - plain.mean**2
    scale = max(second - mean * mean, 0.0) / spread if spread > 0 else 1.0
    share = shapes[0][0] * shapes[0][1].slope / slope if slope > 0 else 0.0
    return replace(plain, mean=mean, second=second, slope=slope, scale=scale), share
