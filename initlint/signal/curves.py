"""An elementwise function as a Gaussian signal sees it: moments, and what it does to differences and to noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.moments import NoRuleError
from initlint.theory import activations, correlation
from initlint.theory.quadrature import Elementwise, expand, expectation, nodes

#: Grid, in log variance and in mean / sigma, on which fourth moments are taken: they only feed noise bands.
COARSE = 0.25
#: Half-width of the difference quotient of ``Curve.kernel``.
STEP = 0.01


@dataclass(frozen=True, slots=True)
class Curve:
    """Moments of f(x) for x ~ N(m, v)."""

    function: Elementwise
    m: float
    v: float
    mean: float
    second: float
    slope: float  # E f'^2
    scale: float = 1.0  # of the differences, where the signal is no Gaussian

    def gap(self, difference: float) -> float:
        """E[(f(x) - f(x'))^2] / 2 for inputs with E[(x - x')^2] / 2 = ``difference``."""
        if difference <= 0.0:
            return 0.0
        if self.v <= 0.0:
            return self.slope * difference
        return self.scale * correlation.contrast(self.function, self.m, self.v, min(difference, 2.0 * self.v))

    def kernel(self, difference: float) -> float:
        """E[f'(x) f'(x')] at that difference: the slope of ``gap``."""
        if difference <= 0.0 or self.v <= 0.0:
            return self.slope
        at = min(difference, 2.0 * self.v / (1.0 + STEP))
        return max((self.gap(at * (1 + STEP)) - self.gap(at * (1 - STEP))) / (2 * STEP * at), 0.0)

    @property
    def shape(self) -> Shape:
        """Fourth moments and elasticity, from a coarse grid."""
        if self.v <= 0.0:
            return FLAT
        sigma = math.sqrt(self.v)
        level = 0 if self.function.homogeneous else round(math.log(self.v) / COARSE)
        ratio = max(min(round(self.m / sigma / COARSE), 400), -400)
        return _shape(self.function, level, ratio)


@dataclass(frozen=True, slots=True)
class Shape:
    """``fourth``: E f^4 / (E f^2)^2 - 1; ``steep``: E f'^4 / (E f'^2)^2; ``elastic``: d ln E f^2 / d ln scale^2;
    ``tilt``: (E f' z)^2 / E f'^2, how much of a constant gradient points along the signal once it has passed f'."""

    fourth: float
    steep: float
    elastic: float
    tilt: float = 0.0


FLAT = Shape(0.0, 1.0, 0.0)


def function_of(node: Node, key: str = "fn") -> Elementwise:
    """The elementwise function of a node. Raises NoRuleError where it is not known."""
    if node.table:
        return activations.table(node.table["x"], node.table["y"], node.table["dy"])
    name = node.attrs.get(key)
    if not isinstance(name, str):
        raise NoRuleError(f"{node.label or node.op}: no elementwise function given")
    return named(name, node.attrs)


def named(name: str, args: Mapping[str, object] | None = None) -> Elementwise:
    """The function of that canonical name. Raises NoRuleError for one that the registry lacks."""
    try:
        return activations.bind(name, {k: v for k, v in (args or {}).items() if k != "fn"})
    except activations.UnknownActivation as error:
        raise NoRuleError(error.message) from None


def curve(function: Elementwise, m: float, v: float) -> Curve:
    """Moments of the function of N(m, v). Raises NoRuleError where they do not exist."""
    try:
        got = activations.moments_of(function, m, v)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise NoRuleError(f"{function.name} has no moments at mean {m:.3g} and variance {v:.3g}") from None
    if got.mean != got.mean:
        raise NoRuleError(f"{function.name} has no moments at mean {m:.3g} and variance {v:.3g}")
    return Curve(function, m, v if v >= 1e-24 * m * m else 0.0, got.mean, got.second, got.slope_second)


@lru_cache(maxsize=4096)
def _shape(function: Elementwise, level: int, ratio: int) -> Shape:
    sigma = math.exp(0.5 * COARSE * level)
    mean = ratio * COARSE * sigma
    point = expand(function, mean, sigma)
    second = point.second[0]
    if not second > 0 or not math.isfinite(second):
        return FLAT
    fourth = expectation(function, mean, sigma, 4) / second**2 - 1.0
    slope = Elementwise("slope", function.slope, function.slope, function.kinks, function.width, domain=function.domain)
    steep = expectation(slope, mean, sigma, 4) / point.slope[0] ** 2 if point.slope[0] > 0 else 1.0
    elastic = 0.5 * (mean / sigma * point.second[1] + point.second[2]) / second
    zs, ws = nodes(function, mean, sigma)
    lean = sum(w * z * function.slope(mean + sigma * z) for z, w in zip(zs, ws, strict=True))
    tilt = lean * lean / point.slope[0] if point.slope[0] > 0 else 0.0
    return Shape(max(fourth, 0.0), max(steep, 1.0), elastic, tilt)
