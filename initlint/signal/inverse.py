"""Negative powers of a signal that is never negative: quotients, 1 / sum of weights, 1 / sqrt(variance).

A Gaussian of that mean and variance reaches zero, and the moments of its inverse rest on the values there, which the
signal does not have. It is taken as log-normal instead, a law of positive numbers with that mean and variance whose
inverse has every moment: E x^t = m^t exp(t (t - 1) s^2 / 2) with s^2 = ln(1 + v / m^2).
"""

from __future__ import annotations

import math

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.curves import Curve, Shape, named
from initlint.signal.moments import State
from initlint.signal.patterns import exponent

#: E f^4 and E f'^4 feed noise bands only: beyond this exponent they say that nothing is known, and are cut.
LARGEST = 50.0


@dataclass(frozen=True, slots=True)
class Inverse(Curve):
    """x^-power of a positive x of mean ``m`` and variance ``v``."""

    power: float = 1.0

    @property
    def _spread(self) -> float:
        return math.log1p(self.v / (self.m * self.m))

    def _moment(self, t: float) -> float:
        return float(self.m**t * math.exp(min(0.5 * t * (t - 1.0) * self._spread, LARGEST)))

    def _together(self, t: float, difference: float) -> float:
        """E[x^t x'^t]."""
        alike = max(1.0 - difference / self.v, -1.0) * self.v / (self.m * self.m)
        common = math.log1p(max(alike, -0.999))
        return float(self.m ** (2.0 * t) * math.exp(min(t * (t - 1.0) * self._spread + t * t * common, LARGEST)))

    def gap(self, difference: float) -> float:
        """As of ``Curve``."""
        return max(self.second - self._together(-self.power, difference), 0.0) if difference > 0.0 else 0.0

    def kernel(self, difference: float) -> float:
        """As of ``Curve``."""
        return self.power**2 * self._together(-self.power - 1.0, difference) if difference > 0.0 else self.slope

    @property
    def shape(self) -> Shape:
        """As of ``Curve``, in closed form."""
        p, s2 = self.power, self._spread
        fourth = math.exp(min(4.0 * p * p * s2, LARGEST))
        steep = math.exp(min(4.0 * (p + 1.0) ** 2 * s2, LARGEST))
        lean = p * (self._moment(-p) - self.m * self._moment(-p - 1.0)) / math.sqrt(self.v)
        return Shape(fourth - 1.0, steep, -p, lean * lean / self.slope if self.slope > 0.0 else 0.0)


def inverse(m: float, v: float, power: float = 1.0) -> Curve:
    """x^-power for x >= 0 of mean ``m`` > 0 and variance ``v`` > 0."""
    plain = Inverse(named("reciprocal"), m, v, 0.0, 0.0, 0.0, power=power)
    mean, second = plain._moment(-power), plain._moment(-2.0 * power)
    slope = power * power * plain._moment(-2.0 * power - 2.0)
    return Inverse(plain.function, m, v, mean, second, slope, power=power)


def power_of(node: Node, x: State) -> float | None:
    """p > 0, where a node computes x^-p of a signal that is never negative."""
    power = -(exponent(node) or 0.0)
    return power if power > 0.0 and not node.table and invertible(x) else None


def invertible(x: State) -> bool:
    """Whether a signal is never negative, and varies."""
    return x.positive and x.m > 0.0 and x.v > 0.0
