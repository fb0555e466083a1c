"""Signals that are zero or positive: a rectified Gaussian, its greatest values, and its sum with another signal.

The trunk of a residual network with activations on it is rectified again and again. Such a sum is no Gaussian: where
the rectified part is zero only the rest is left. It is taken as a mixture of two Gaussians, one for either case; where
norms bring what was rectified to zero mean, it becomes sparser with every block, and as many Gaussians as levels are
told apart.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from initlint.signal.curves import Curve, curve, named
from initlint.signal.moments import Grad, Levels, Lifted, Mixture, Moved, State
from initlint.theory.functions import normal_cdf
from initlint.theory.quadrature import Elementwise

#: Functions without negative values.
POSITIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "exp", "square", "abs", "relu_squared"})
#: Of the ratio mean^2 / second moment: a rectified Gaussian with mean / sigma from -2 to 3. Below, it is hardly ever
#: active and the fit rests on its tail; above, it is as good as not rectified.
LOW, HIGH = 0.05, 0.9
#: Changes whose mean has more than this share of their variance are no walk about zero: in ten steps they go one way as
#: far as they go by chance.
DRIFT = 0.1
#: Mean / sigma of a Gaussian of which zero cuts off nothing that float64 can tell.
FAR = 40.0
#: Relative difference that a moment may have from what is known of it.
SAME = 1e-6
#: Points of an integral over an active unit's values, and how many standard deviations it reaches.
POINTS, REACH = 64, 6.0
#: A signal whose second moment is below this share of a rectified one's does not make it change its sign.
NEGLIGIBLE = 1e-3
#: Levels of a rectified mixture. They are dense near zero, where most of it is: with eight times as many its moments
#: after twelve sparse blocks differ by 0.2 %, the gradient by 0.005 in log10 std; half as many leave four times that.
LEVELS = 48
#: Of the second moment of a walk that zero holds up, averaged over its time: what samples, times and both differ by. Of
#: |B_t| for a Brownian motion, E|B_s||B_t| = (2 / pi) (sqrt(s (t - s)) + s asin sqrt(s / t)).
REFLECTED = (1.0 - 2.0 / math.pi, 0.25, 1.0 - 16.0 / (9.0 * math.pi))
#: A part of a mixture with a smaller share does not decide how far the levels reach.
RARE = 1e-7


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


def active_share(x: State) -> float:
    """The share of a rectified signal that is not zero."""
    if 0.0 < x.open < 1.0:
        return x.open
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
    levels = _still(x.levels, x)
    if levels is not None:
        return blurred(_with_zero(levels), other)
    share = active_share(x)
    if share >= 1.0:
        return ()
    mean = x.m / share
    spread = max(x.q / share - mean * mean, 0.0)
    return blurred(((share, mean, spread), (1.0 - share, 0.0, 0.0)), other)


def blurred(mix: Mixture, other: State) -> Mixture:
    """The sum of a mixture and an independent Gaussian signal."""
    return tuple((weight, m + other.m, v + other.v) for weight, m, v in mix)


def _with_zero(levels: Levels) -> Mixture:
    return (*levels.values, (1.0 - sum(weight for weight, _, _ in levels.values), 0.0, 0.0))


def through(function: Elementwise, x: State) -> Curve:
    """The function of such a sum."""
    plain = curve(function, x.m, x.v)
    if not x.mix:
        return plain
    sum_ = moved_of(x)
    if sum_ is not None and function.name == "relu":
        slope, after = _again(sum_)
        return _like(plain, after.m, after.q, slope)
    shapes = [(weight, curve(function, m, v)) for weight, m, v in x.mix]
    mean, second, slope = (
        sum(weight * part for (weight, _), part in zip(shapes, parts, strict=True))
        for parts in zip(*((c.mean, c.second, c.slope) for _, c in shapes), strict=True)
    )
    return _like(plain, mean, second, slope)


def _like(plain: Curve, mean: float, second: float, slope: float) -> Curve:
    spread = plain.second - plain.mean**2
    scale = max(second - mean * mean, 0.0) / spread if spread > 0 else 1.0
    return replace(plain, mean=mean, second=second, slope=slope, scale=scale)


_Known = TypeVar("_Known", Lifted, Moved, Levels)


def _still(known: _Known | None, x: State) -> _Known | None:
    """What is known of a signal, where it is still of this one, and of none that was scaled or shifted since."""
    if known is None or abs(known.q - x.q) > SAME * x.q or abs(known.m - x.m) > SAME * x.q**0.5:
        return None
    return known


def moved_of(x: State) -> Moved | None:
    """The sum that a signal is, where it is one with a rectified operand."""
    return _still(x.moved, x)


def levels_of(x: State, y: State) -> Levels | None:
    """How y is spread, x rectified: where x is a mixture, and no walk about zero as a plain trunk is."""
    if not x.mix or moved_of(x) is not None or not (y.q > 0.0 and y.m > 0.0):
        return None
    return _stretched(x.mix, y)


def by_levels(x: State) -> Mixture:
    """A signal that was rectified, and nothing else, as its levels and zero; empty for others."""
    if not (x.positive and 0.0 < x.open < 1.0):
        return ()
    known = _still(x.levels, x)
    if known is None and (under := below(x)) is not None:
        known = _stretched(((1.0, under.m, under.v),), x)
    return () if known is None else _with_zero(known)


def _stretched(mix: Mixture, y: State) -> Levels | None:
    """The levels of a rectified mixture, whose exact moments are those of y."""
    values = _levels(mix)
    shares = sum(weight for weight, _, _ in values)
    mean = sum(weight * at for weight, at, _ in values)
    second = sum(weight * (at * at + within) for weight, at, within in values)
    if not mean > 0.0:
        return None
    # all values are stretched to the mean, and their widths make up for the rest
    by = y.m / mean
    wide = (y.q - second * by * by) / shares
    return Levels(
        y.m, y.q, tuple((weight, at * by, max(within * by * by + wide, 0.0)) for weight, at, within in values)
    )


@lru_cache(maxsize=1024)
def _levels(mix: Mixture) -> tuple[tuple[float, float, float], ...]:
    """Shares of a mixture of Gaussians between borders above zero, their middles, and the variance within."""
    borders = _borders(mix)
    rows = passing(mix)
    shares = [sum(part[0] * row[k] for part, row in zip(mix, rows, strict=True)) for k in range(LEVELS)]
    ends = itertools.pairwise(borders)
    return tuple((share, 0.5 * (a + b), (b - a) ** 2 / 12.0) for share, (a, b) in zip(shares, ends, strict=True))


def _borders(mix: Mixture) -> list[float]:
    top = max(m + REACH * math.sqrt(v) for weight, m, v in mix if weight > RARE)
    return [max(top, 0.0) * (k / LEVELS) ** 2 for k in range(LEVELS + 1)]


@lru_cache(maxsize=64)  # a row of numbers for each part
def passing(mix: Mixture) -> tuple[tuple[float, ...], ...]:
    """The share of each part of a mixture that comes to each level once it is rectified; the rest is zero."""
    borders, found = _borders(mix), []
    for _, m, v in mix:
        sigma = math.sqrt(v)
        below = [normal_cdf((at - m) / sigma) if sigma > 0.0 else float(at > m) for at in borders]
        found.append(tuple(b - a for a, b in itertools.pairwise(below)))
    return tuple(found)


def fallen(g: Grad, x: State) -> tuple[float, tuple[float, ...]]:
    """The share of a gradient that passes where a signal is above zero, and how its energy lies on the parts of it.

    A unit that is large is active in the blocks around as well: what comes back from later ones falls on such units.
    """
    mix = x.mix or ((1.0, x.m, x.v),)
    there = g.falls if len(g.falls) == LEVELS + 1 else (1.0,) * (LEVELS + 1)
    found = [math.fsum(map(operator.mul, row, there)) for row in passing(mix)]
    slope = sum(weight * energy for (weight, _, _), energy in zip(mix, found, strict=True))
    return slope, tuple(energy / slope for energy in found) if slope > 0.0 else ()


def mixed_falls(pieces: Sequence[Grad]) -> tuple[float, ...]:
    """How the energy of a sum of gradients lies; of those that say nothing it lies evenly."""
    size = max((len(piece.falls) for piece in pieces), default=0)
    total = sum(piece.p for piece in pieces)
    if not size or total <= 0.0:
        return ()
    rows = [(piece.p / total, piece.falls if len(piece.falls) == size else (1.0,) * size) for piece in pieces]
    return tuple(sum(share * row[k] for share, row in rows) for k in range(size))


def lifted_of(x: State) -> Lifted | None:
    """What is known of a signal that is zero or positive; one that was rectified once where nothing else is."""
    known = _still(x.lifted, x)
    if known is not None:
        return known
    at = ratio_of(x)
    if at is None:
        return None
    sigma = x.m / curve(named("relu"), at, 1.0).mean
    return Lifted(x.m, x.q, normal_cdf(at), at * sigma, sigma)


def moved(x: State, other: State, total: State) -> Moved | None:
    """Their sum, for what it is like once it is rectified."""
    base = lifted_of(x)
    if base is None or base.sigma <= 0.0 or base.share >= 1.0 or not other.v > 0.0:
        return None
    if other.m * other.m > DRIFT * other.v:
        return None
    return Moved(total.m, total.q, base, other.m, other.v)


def rectified_again(x: State) -> Lifted | None:
    """What the rectified sum is like."""
    sum_ = moved_of(x)
    return None if sum_ is None else _again(sum_)[1]


@lru_cache(maxsize=4096)
def _again(x: Moved) -> tuple[float, Lifted]:
    """The slope of the rectified sum, and what it is like."""
    base, sigma = x.base, math.sqrt(x.variance)
    total = m1 = m2 = passed = 0.0
    low = max(0.0, base.mean - REACH * base.sigma)
    high = base.mean + REACH * base.sigma
    for at, weight in _simpson():
        point = low + (high - low) * at
        density = weight * math.exp(-0.5 * ((point - base.mean) / base.sigma) ** 2)
        z = (point + x.mean) / sigma
        under, bell = normal_cdf(z), sigma * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        total += density
        m1 += density * ((point + x.mean) * under + bell)
        m2 += density * (((point + x.mean) ** 2 + x.variance) * under + (point + x.mean) * bell)
        passed += density * under
    m1, m2, passed = m1 / total, m2 / total, passed / total
    steps, variance = base.steps + 1, base.variance + x.variance
    mean, second, open_ = _climbed(steps, variance)
    active_mean, active_sigma = _cut(m1, m2)
    rest = 1.0 - base.share
    m, q = base.share * m1 + rest * mean, base.share * m2 + rest * second
    after = Lifted(m, q, base.share, active_mean, active_sigma, passed, steps, variance)
    return base.share * passed + rest * open_, after


def stayed(x: State, g: Grad, p: float, slope: float) -> tuple[float, float]:
    """Of a gradient p that passed a rectified sum, the share on units where the rectified operand was above zero too.

    And the energy on those of them that were so from the first: the others come to zero again and again, these hardly.
    """
    weight, m, v = x.mix[-1]
    rise = normal_cdf(m / math.sqrt(v)) if v > 0.0 else 0.5
    sum_ = moved_of(x)
    if sum_ is None:
        return (max(1.0 - weight * rise / slope, 0.0) if slope > 0.0 else 0.0), 0.0
    base, (_, after) = sum_.base, _again(sum_)
    among = min(max((g.p * base.share * after.above + g.first) / p, 0.0), 1.0) if p > 0.0 else base.share
    still = max(1.0 - (1.0 - base.above) * rise / after.above, 0.0) if after.above > 0.0 else 0.0
    before = _climb(base.steps)[2] if base.steps else 0.0
    climbing = max(1.0 - (1.0 - before) * rise / _climb(base.steps + 1)[2], 0.0)
    return among * still + (1.0 - among) * climbing, p * among * still


def _climbed(steps: int, variance: float) -> tuple[float, float, float]:
    """Mean, second moment and share above zero of w -> max(w + z, 0), from zero, after n equal steps.

    It has the law of the greatest partial sum S_k (Lindley 1952). With a_k = E S_k+ / k and b_k = E (S_k+)^2 / k its
    moments are the sum of a_k up to n, and that of b_k and of all a_i a_j with i + j <= n (Spitzer 1956).
    """
    first, second, above = _climb(steps)
    each = variance / steps
    return math.sqrt(each) * first, each * second, above


@lru_cache(maxsize=1024)
def _climb(steps: int) -> tuple[float, float, float]:
    """``_climbed`` of steps of variance one."""
    a = [0.0, *((2.0 * math.pi * k) ** -0.5 for k in range(1, steps + 1))]
    sums = list(itertools.accumulate(a))
    pairs = sum(a[k] * sums[steps - k] for k in range(1, steps + 1))
    none = math.exp(math.lgamma(2 * steps + 1) - 2.0 * math.lgamma(steps + 1) - 2.0 * steps * math.log(2.0))
    return sums[-1], 0.5 * steps + pairs, 1.0 - none


@lru_cache(maxsize=256)
def reflected(mean: float, spread: float, variance: float, steps: int) -> tuple[float, float, float, float]:
    """Mean and second moment of w -> max(w + z, 0), from zero, averaged over n steps, and after the last of them.

    z ~ N(c, variance) with a c ~ N(mean, spread) of each walk; by Spitzer's sums, as ``_climbed``.
    """
    if spread <= 0.0:
        return _drifting(mean, variance, steps)
    points = [(mean + math.sqrt(spread) * REACH * (2.0 * at - 1.0), at) for at, _ in _simpson()]
    weights = [w * math.exp(-0.5 * (REACH * (2.0 * at - 1.0)) ** 2) for at, w in _simpson()]
    rows = [_drifting(point, variance, steps) for point, _ in points]
    first, second, last, end = (
        sum(map(operator.mul, weights, column)) / sum(weights) for column in zip(*rows, strict=True)
    )
    return first, second, last, end


def _drifting(drift: float, variance: float, steps: int) -> tuple[float, float, float, float]:
    relu, a, b = named("relu"), [0.0], [0.0]
    for k in range(1, steps + 1):
        found = curve(relu, k * drift, k * variance)
        a.append(found.mean / k)
        b.append(found.second / k)
    means, squares = list(itertools.accumulate(a)), list(itertools.accumulate(b))
    pairs = list(itertools.accumulate(sum(a[i] * a[k - i] for i in range(1, k)) for k in range(1, steps + 1)))
    seconds = [square + pair for square, pair in zip(squares[1:], pairs, strict=True)]
    return sum(means) / steps, sum(seconds) / steps, means[-1], seconds[-1]


def _cut(m1: float, m2: float) -> tuple[float, float]:
    """Mean and standard deviation of the Gaussian which, above zero, has these moments."""

    def first(at: float) -> float:
        return at + math.exp(-0.5 * at * at) / math.sqrt(2.0 * math.pi) / normal_cdf(at)

    def rising(at: float) -> float:
        mean = first(at)
        return mean * mean / (1.0 + at * mean)

    at = bisected(rising, m1 * m1 / m2, -3.0, FAR)
    sigma = m1 / first(at)
    return at * sigma, sigma


@lru_cache(maxsize=1)
def _simpson() -> tuple[tuple[float, float], ...]:
    """Nodes and weights on [0, 1]: composite Simpson's, which a Gaussian cut off at zero converges for as fast."""
    return tuple(
        (i / POINTS, (1.0 if i in (0, POINTS) else 4.0 if i % 2 else 2.0) / (3.0 * POINTS)) for i in range(POINTS + 1)
    )
