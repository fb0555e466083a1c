"""Elementwise functions: one registry, their Gaussian moments, gains and correlation maps.

Names are canonical snake_case; ``canonical`` maps the names of torch modules, functions and methods onto
them. All moments are for an input x ~ N(mean, var); ``second`` is E f^2, ``slope_second`` E f'^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from initlint.errors import InitlintError
from initlint.records import dataclass
from initlint.theory import closed_forms
from initlint.theory import correlation as correlations
from initlint.theory.composition import chain, tabulated
from initlint.theory.functions import normal_cdf
from initlint.theory.quadrature import Elementwise, expand, expectation, near, shifted
from initlint.theory.registry import ACTIVATIONS, Activation, canonical

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Elementwise",
    "ElementwiseMoments",
    "GatedMoments",
    "UnknownActivationError",
    "bind",
    "canonical",
    "centred_gain",
    "chi",
    "compose",
    "contrast",
    "correlation",
    "correlation_at_zero",
    "finite_width",
    "fixed_point",
    "gain",
    "gated",
    "known",
    "moments",
    "moments_of",
    "saturation",
    "stability",
    "table",
    "table_moments",
]

#: Where a singularity (log 0, 1/0) is nearer to the mean than this many sigma, moments are not reliable.
SINGULAR = 4.0


class UnknownActivationError(InitlintError):
    """A function that the registry does not know."""


UnknownActivation = UnknownActivationError


@dataclass(frozen=True, slots=True)
class ElementwiseMoments:
    """Moments of f(x): mean E f, second E f^2, slope_second E f'^2.

    ``reliable`` is False where the expectation hangs on a singularity near the mean, or where f jumps
    (the almost-everywhere slope misses the jump).
    """

    mean: float
    second: float
    slope_second: float
    reliable: bool = True

    @property
    def var(self) -> float:
        """Variance of f(x)."""
        return max(0.0, self.second - self.mean * self.mean)


@dataclass(frozen=True, slots=True)
class GatedMoments:
    """Moments of y = a f(b) with independent a and b.

    ``to_value``: gradient second moment at a per unit at y (E f^2); ``to_gate`` at b (E a^2 E f'^2).
    """

    mean: float
    second: float
    to_value: float
    to_gate: float


def known(name: str) -> bool:
    """Whether the registry knows the function (under any of its names)."""
    return canonical(name)[0] in ACTIVATIONS


def bind(fn: str | Elementwise, args: Mapping[str, object] | None = None) -> Elementwise:
    """The function with its arguments filled in; the same object for the same arguments.

    Raises:
        UnknownActivationError: the name is not in the registry.
    """
    if isinstance(fn, Elementwise):
        return fn
    return _bind(fn, _frozen(args))


def compose(steps: Sequence[tuple[str | Elementwise, Mapping[str, object]]]) -> Elementwise:
    """The elementwise function that applies the steps in order: ``(("scale", {"factor": 30}), ("sin", {}))``."""
    key = tuple((fn, _frozen(args)) for fn, args in steps)
    return _compose(key)


def table(x: Sequence[float], y: Sequence[float], dy: Sequence[float]) -> Elementwise:
    """A tabulated function (``Node.table``): cubic Hermite between the samples, linear beyond them."""
    return tabulated(tuple(x), tuple(y), tuple(dy))


def moments(fn: str, args: Mapping[str, object] | None, mean: float, var: float) -> ElementwiseMoments:
    """Moments of a named function under N(mean, var). See ``moments_of``."""
    return moments_of(bind(fn, args), mean, var)


def table_moments(samples: Mapping[str, Sequence[float]], mean: float, var: float) -> ElementwiseMoments:
    """Moments of a tabulated callable with samples ``x``, ``y``, ``dy``."""
    return moments_of(table(samples["x"], samples["y"], samples["dy"]), mean, var)


def moments_of(function: Elementwise, mean: float, var: float) -> ElementwiseMoments:
    """Moments of a bound function under N(mean, var); closed form or quadrature, 1e-6 relative or better."""
    if not math.isfinite(mean) or not math.isfinite(var):
        return ElementwiseMoments(math.nan, math.inf, math.inf, False)
    if var <= 0.0 or var < 1e-24 * mean * mean:
        value, slope = function.value(mean), function.slope(mean)
        return ElementwiseMoments(value, value * value, slope * slope, math.isfinite(value))
    known_form = closed_forms.closed_form(function, mean, var)
    if known_form is not None:
        return ElementwiseMoments(*known_form)
    if function.homogeneous:
        return _homogeneous(function, mean, var)
    grid, a, b = near(function, mean, var)
    return ElementwiseMoments(
        shifted(grid.value, a, b),
        max(0.0, shifted(grid.second, a, b)),
        max(0.0, shifted(grid.slope, a, b)),
        _reliable(function, mean, var),
    )


def correlation(fn: str | Elementwise, args: Mapping[str, object] | None, mean: float, var: float, cov: float) -> float:
    """E[f(x) f(x')] of two Gaussians with this mean, variance and covariance."""
    function = bind(fn, args)
    if var <= 0:
        return function.value(mean) ** 2
    return correlations.correlation(function, moments_of(function, mean, var).second, mean, var, cov)


def contrast(fn: str | Elementwise, args: Mapping[str, object] | None, mean: float, var: float, gap: float) -> float:
    """E f(x)^2 - E f(x) f(x') where var - cov = ``gap``: the input-dependent part q (1 - c) of the output.

    Use it instead of ``second - correlation`` where samples nearly coincide: it keeps its digits down to
    any gap, so that a depth profile of 1e-16 is seen.
    """
    return correlations.contrast(bind(fn, args), mean, var, gap)


@lru_cache(maxsize=4096)
def _gain(function: Elementwise) -> float:
    second = moments_of(function, 0.0, 1.0).second
    return 1.0 / math.sqrt(second) if second > 0 else math.inf


def gain(fn: str | Elementwise, args: Mapping[str, object] | None = None) -> float:
    """1 / sqrt(E f(z)^2): the gain that keeps the second moment at 1 with zero biases."""
    return _gain(bind(fn, args))


def centred_gain(fn: str | Elementwise, args: Mapping[str, object] | None = None) -> float:
    """1 / sqrt(Var f(z)): the gain for weight-standardised layers (Brock et al. 2021)."""
    var = moments_of(bind(fn, args), 0.0, 1.0).var
    return 1.0 / math.sqrt(var) if var > 0 else math.inf


def chi(
    fn: str | Elementwise, args: Mapping[str, object] | None = None, var: float = 1.0, weight: float | None = None
) -> float:
    """Gradient factor per square layer, ``weight`` E f'^2, at pre-activation variance ``var``.

    ``weight`` is F Var[w]; by default the one that keeps the second moment at ``var``.
    """
    found = moments_of(bind(fn, args), 0.0, var)
    if weight is None:
        weight = var / found.second if found.second > 0 else math.inf
    return weight * found.slope_second


def stability(fn: str | Elementwise, args: Mapping[str, object] | None = None, var: float = 1.0) -> float:
    """d log E f(sqrt(q) z)^2 / d log q at q = ``var``: below 1 the scale corrects itself, above 1 it runs away."""
    point = expand(bind(fn, args), 0.0, math.sqrt(var))
    return 0.5 * point.second[2] / point.second[0] if point.second[0] > 0 else 0.0


def correlation_at_zero(fn: str | Elementwise, args: Mapping[str, object] | None = None) -> float:
    """C(0) = (E f)^2 / E f^2: the correlation that f creates between uncorrelated inputs."""
    found = moments_of(bind(fn, args), 0.0, 1.0)
    return found.mean * found.mean / found.second if found.second > 0 else 0.0


@lru_cache(maxsize=4096)
def _finite_width(function: Elementwise) -> float:
    fourth, second = expectation(function, 0.0, 1.0, 4), expectation(function, 0.0, 1.0, 2)
    return fourth / (second * second) - 1.0 if second > 0 else 0.0


def finite_width(fn: str | Elementwise, args: Mapping[str, object] | None = None) -> float:
    """k = E f^4 / (E f^2)^2 - 1: a layer of n units adds k / n to the variance of log q (5 for ReLU)."""
    return _finite_width(bind(fn, args))


def fixed_point(
    fn: str, args: Mapping[str, object] | None, weight: float, bias: float = 0.0, start: float = 1.0
) -> float:
    """Limit of q <- weight E f(sqrt(q) z)^2 + bias (0 and inf included)."""
    function, q = bind(fn, args), start
    for _ in range(4000):
        following = weight * moments_of(function, 0.0, q).second + bias
        if not following < 1e6:  # grows without limit
            return math.inf
        if following < 1e-9:
            return 0.0
        if abs(following - q) < 1e-10 * q:
            return following
        q = following
    return q


def gated(
    fn: str | Elementwise,
    args: Mapping[str, object] | None,
    value: tuple[float, float],
    gate: tuple[float, float],
) -> GatedMoments:
    """Moments of y = a f(b): GLU (sigmoid), ReGLU, GEGLU, SwiGLU (silu), bilinear (identity).

    Args:
        value: mean and second moment of a.
        gate: mean and variance of b.
    """
    found = moments_of(bind(fn, args), *gate)
    return GatedMoments(value[0] * found.mean, value[1] * found.second, found.second, value[1] * found.slope_second)


def saturation(fn: str, args: Mapping[str, object] | None, mean: float, var: float) -> float:
    """Share of units whose slope is below 7 % of the greatest (|x| > 2 for tanh, 4 for sigmoid); 0 if unbounded.

    Source: Glorot & Bengio 2010, section 3, for the notion; the bound is tanh'(2) = 0.07.
    """
    name, fixed = canonical(fn)
    activation = ACTIVATIONS.get(name)
    limits = activation.saturates({**fixed, **_numbers(args)}) if activation is not None else None
    if limits is None:
        return 0.0
    low, high = limits
    if var <= 0:
        return float(mean < low or mean > high)
    sigma = math.sqrt(var)
    return normal_cdf((low - mean) / sigma) + normal_cdf((mean - high) / sigma)


def _homogeneous(function: Elementwise, mean: float, var: float) -> ElementwiseMoments:
    sigma = math.sqrt(var)
    grid, a, b = near(function, mean / sigma, 1.0)
    return ElementwiseMoments(
        sigma * shifted(grid.value, a, b), var * max(0.0, shifted(grid.second, a, b)), shifted(grid.slope, a, b)
    )


def _reliable(function: Elementwise, mean: float, var: float) -> bool:
    if function.jumps:
        return False
    low, high = function.domain
    return min(mean - low, high - mean) > SINGULAR * math.sqrt(var)


def _numbers(args: Mapping[str, object] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in (args or {}).items():
        if isinstance(value, str):
            found[key] = 0.0 if value in ("none", "") else 1.0
        elif isinstance(value, (bool, int, float)):
            found[key] = float(value)
    return found


def _frozen(args: Mapping[str, object] | None) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(_numbers(args).items())) if args else ()


@lru_cache(maxsize=4096)
def _bind(fn: str, args: tuple[tuple[str, float], ...]) -> Elementwise:
    name, fixed = canonical(fn)
    activation = ACTIVATIONS.get(name)
    if activation is None:
        raise UnknownActivationError(
            f"unknown elementwise function {fn!r}", "Tabulate it: activations.table(x, y, dy)."
        )
    return activation.build({**fixed, **dict(args)})


@lru_cache(maxsize=4096)
def _compose(key: tuple[tuple[str | Elementwise, tuple[tuple[str, float], ...]], ...]) -> Elementwise:
    return chain(tuple(fn if isinstance(fn, Elementwise) else _bind(fn, args) for fn, args in key))
