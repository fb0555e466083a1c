"""exp of a signal that is never positive: what a gate or a state-space model keeps of its state, exp(-a dt).

A Gaussian of that mean and variance has positive values, and the exponential of its tail is all that its moments
show. The negated signal is taken as a gamma variable instead, the usual two-parameter law of what is never negative:
with mean -m and variance v its shape is k = m^2 / v and its scale s = v / -m, and E exp(-t x) = (1 + t s)^-k.
"""

from __future__ import annotations

import math

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.curves import Curve, Shape, named
from initlint.signal.moments import State

#: Ops whose values are sums, means or choices of those that they read, or zero.
_SUMS = frozenset({"reshape", "select", "identity", "dropout", "pad", "cumsum", "where", "stack", "cat", "reduce"})
#: The reductions among them.
_REDUCTIONS = frozenset({"mean", "sum", "max", "min"})
#: The second moment of exp(x), x Gaussian of variance v, comes from values around m + 2 v, which is 2 sqrt(v) standard
#: deviations away. One value in 1e8 lies beyond 5.6 of them: no tensor holds such values.
RARE = 5.6


@dataclass(frozen=True, slots=True)
class Decay(Curve):
    """exp(x) of a never positive x of mean ``m`` and variance ``v``; the function is its own derivative."""

    def gap(self, difference: float) -> float:
        """As of ``Curve``, linear in the correlation: exact for the same and for independent inputs."""
        if difference <= 0.0:
            return 0.0
        return (self.second - self.mean**2) * min(difference / self.v, 1.0)

    def kernel(self, difference: float) -> float:
        """E[f'(x) f'(x')], which is E[f(x) f(x')] here."""
        return self.second - self.gap(difference)

    @property
    def shape(self) -> Shape:
        """As of ``Curve``, in closed form."""
        k, s = self.m * self.m / self.v, self.v / -self.m
        fourth = math.exp(k * (2.0 * math.log1p(2.0 * s) - math.log1p(4.0 * s)))  # E f^4 / (E f^2)^2
        lean = math.sqrt(k) * s * math.exp(-(k + 1.0) * math.log1p(s))  # E f z
        return Shape(fourth - 1.0, fourth, -k * s / (1.0 + 2.0 * s), lean * lean / self.second)


def decay(m: float, v: float) -> Curve:
    """exp(x) for x <= 0 of mean ``m`` < 0 and variance ``v`` > 0."""
    k, s = m * m / v, v / -m
    mean, second = (math.exp(-k * math.log1p(t * s)) for t in (1.0, 2.0))
    return Decay(named("exp"), m, v, mean, second, second)


def never_positive(node: Node, xs: tuple[State, ...]) -> bool:
    """Whether all values are zero or below, as those that the node reads are; zeros and masks do not change that."""
    if node.op not in _SUMS or not any(x.negative for x in xs):
        return False
    if node.op == "reduce" and node.attrs.get("fn", "mean") not in _REDUCTIONS:
        return False
    above = node.attrs.get("value") if node.op == "pad" else 0
    fills = not isinstance(above, (int, float)) or above <= 0
    return fills and all(x.negative or x.kind == "index" or (x.kind == "constant" and x.q == 0.0) for x in xs)


def hangs_on_its_tail(v: float) -> bool:
    """Whether the second moment of exp(x), x Gaussian of variance ``v``, rests on values that no tensor has."""
    return 2.0 * math.sqrt(v) > RARE
