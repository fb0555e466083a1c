"""Values and slopes of every elementwise function that initlint knows, with PyTorch's defaults.

Each builder takes the function's arguments as PyTorch names them and returns an ``Elementwise``. Slopes are
those of autograd almost everywhere. ``width`` is the distance of the nearest singularity in the complex
plane from the centre, which the quadrature grades its panels by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from initlint.theory.quadrature import Elementwise, Function

Arguments = Mapping[str, float]
Builder = Callable[[Arguments], Elementwise]

SQRT2 = math.sqrt(2.0)
SQRT_2PI = math.sqrt(2.0 * math.pi)
#: SELU's constants: the fixed point (mean 0, variance 1) of Klambauer et al. 2017, eq. 14.
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
#: exp overflows a float64 beyond this; the value is infinite for every purpose here.
EXP_LIMIT = 700.0


def safe_exp(x: float) -> float:
    """exp(x), infinite instead of raising."""
    return math.exp(x) if x < EXP_LIMIT else math.inf


def normal_cdf(x: float) -> float:
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-x / SQRT2)


def normal_pdf(x: float) -> float:
    """Standard normal density."""
    return math.exp(-0.5 * x * x) / SQRT_2PI if abs(x) < 38.0 else 0.0


def logistic(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(max(x, -EXP_LIMIT))
    return e / (1.0 + e)


def _softplus(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(max(x, -EXP_LIMIT)))


def identity(args: Arguments) -> Elementwise:
    """x."""
    return Elementwise("identity", lambda x: x, lambda x: 1.0, homogeneous=True, closed=("leaky", 1.0))


def leaky(name: str, key: str, default: float) -> Builder:
    """max(x, 0) + slope min(x, 0), the slope being argument ``key``."""

    def build(args: Arguments) -> Elementwise:
        slope = float(args.get(key, default))
        return piecewise(name, slope)

    return build


def piecewise(name: str, negative: float) -> Elementwise:
    """The two-piece linear function with slope 1 above and ``negative`` below zero."""
    return Elementwise(
        name,
        lambda x: x if x > 0 else negative * x,
        lambda x: 1.0 if x > 0 else negative,
        kinks=(0.0,),
        homogeneous=True,
        closed=("leaky", negative),
    )


def rrelu(args: Arguments) -> Elementwise:
    """RReLU: in training each negative slope is U(lower, upper), else their mean."""
    low, high = float(args.get("lower", 1 / 8)), float(args.get("upper", 1 / 3))
    if not args.get("training", False):
        return piecewise("rrelu", 0.5 * (low + high))
    # E[a^2] = (l^2 + l u + u^2) / 3 replaces a^2 in second moments; the mean slope is a little smaller (3 %).
    return piecewise("rrelu", math.sqrt((low * low + low * high + high * high) / 3.0))


def threshold(args: Arguments) -> Elementwise:
    """x above the threshold, else ``value``."""
    edge, below = float(args.get("threshold", 0.0)), float(args.get("value", 0.0))
    if edge == 0.0 and below == 0.0:
        return piecewise("threshold", 0.0)
    return Elementwise(
        "threshold",
        lambda x: x if x > edge else below,
        lambda x: 1.0 if x > edge else 0.0,
        kinks=(edge,),
        jumps=edge != below,
    )


def clamp(name: str, low: float | None, high: float | None) -> Builder:
    """min(max(x, low), high) with arguments ``min`` and ``max`` (also ``min_val``, ``max_val``)."""

    def build(args: Arguments) -> Elementwise:
        lower, upper = args.get("min", args.get("min_val", low)), args.get("max", args.get("max_val", high))
        a = -math.inf if lower is None else float(lower)
        b = math.inf if upper is None else float(upper)
        if a == 0.0 and b == math.inf:
            return piecewise(name, 0.0)
        kinks = tuple(x for x in (a, b) if math.isfinite(x))
        return Elementwise(name, lambda x: min(max(x, a), b), lambda x: 1.0 if a < x < b else 0.0, kinks=kinks)

    return build


def elu(args: Arguments) -> Elementwise:
    """x above zero, alpha (exp(x) - 1) below."""
    alpha = float(args.get("alpha", 1.0))
    return _exponential("elu", 1.0, alpha, 1.0)


def celu(args: Arguments) -> Elementwise:
    """x above zero, alpha (exp(x / alpha) - 1) below."""
    alpha = float(args.get("alpha", 1.0)) or 1.0
    return _exponential("celu", 1.0, alpha, 1.0 / alpha)


def selu(args: Arguments) -> Elementwise:
    """Scaled ELU, Klambauer et al. 2017."""
    return _exponential("selu", SELU_SCALE, SELU_ALPHA, 1.0)


def _exponential(name: str, scale: float, alpha: float, rate: float) -> Elementwise:
    return Elementwise(
        name,
        lambda x: scale * x if x > 0 else scale * alpha * math.expm1(max(rate * x, -EXP_LIMIT)),
        lambda x: scale if x > 0 else scale * alpha * rate * math.exp(max(rate * x, -EXP_LIMIT)),
        kinks=(0.0,),
        width=3.0 / abs(rate),  # exp is entire: panels as wide as a few decay lengths
    )


def gelu(args: Arguments) -> Elementwise:
    """x Phi(x), or its tanh approximation (argument ``approximate``: 1 for "tanh")."""
    if args.get("approximate"):
        return gelu_tanh(args)
    return Elementwise(
        "gelu",
        lambda x: x * normal_cdf(x),
        lambda x: normal_cdf(x) + x * normal_pdf(x),
        width=1.5,
        closed=("gelu", 0.0),
    )


def gelu_tanh(args: Arguments) -> Elementwise:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    c, d = math.sqrt(2.0 / math.pi), 0.044715

    def slope(x: float) -> float:
        t = math.tanh(c * (x + d * x**3))
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * d * x * x)

    return Elementwise("gelu_tanh", lambda x: 0.5 * x * (1.0 + math.tanh(c * (x + d * x**3))), slope, width=1.0)


def swish(name: str, rate: float) -> Builder:
    """x sigmoid(beta x); SiLU has beta 1, quick GELU 1.702."""

    def build(args: Arguments) -> Elementwise:
        beta = float(args.get("beta", rate))

        def slope(x: float) -> float:
            s = logistic(beta * x)
            return s + beta * x * s * (1.0 - s)

        return Elementwise(name, lambda x: x * logistic(beta * x), slope, width=_over(3.0, beta))

    return build


def mish(args: Arguments) -> Elementwise:
    """x tanh(softplus(x))."""

    def slope(x: float) -> float:
        t = math.tanh(_softplus(x))
        return t + x * (1.0 - t * t) * logistic(x)

    return Elementwise("mish", lambda x: x * math.tanh(_softplus(x)), slope, width=2.0)


def softplus(args: Arguments) -> Elementwise:
    """log(1 + exp(beta x)) / beta. PyTorch's ``threshold`` changes it by less than 3e-9."""
    beta = float(args.get("beta", 1.0)) or 1.0
    return Elementwise(
        "softplus", lambda x: _softplus(beta * x) / beta, lambda x: logistic(beta * x), width=_over(3.0, beta)
    )


def logsigmoid(args: Arguments) -> Elementwise:
    """log(sigmoid(x))."""
    return Elementwise("logsigmoid", lambda x: -_softplus(-x), lambda x: logistic(-x), width=3.0)


def softsign(args: Arguments) -> Elementwise:
    """x / (1 + |x|)."""
    return Elementwise(
        "softsign", lambda x: x / (1.0 + abs(x)), lambda x: 1.0 / (1.0 + abs(x)) ** 2, kinks=(0.0,), width=1.0
    )


def tanh(args: Arguments) -> Elementwise:
    """Hyperbolic tangent."""
    return Elementwise("tanh", math.tanh, lambda x: 1.0 - math.tanh(x) ** 2, width=1.5)


def sigmoid(args: Arguments) -> Elementwise:
    """Logistic function."""
    return Elementwise("sigmoid", logistic, lambda x: logistic(x) * logistic(-x), width=3.0)


def hardswish(args: Arguments) -> Elementwise:
    """x relu6(x + 3) / 6."""

    def value(x: float) -> float:
        return 0.0 if x <= -3 else x if x >= 3 else x * (x + 3.0) / 6.0

    def slope(x: float) -> float:
        return 0.0 if x <= -3 else 1.0 if x >= 3 else (2.0 * x + 3.0) / 6.0

    return Elementwise("hardswish", value, slope, kinks=(-3.0, 3.0))


def hardsigmoid(args: Arguments) -> Elementwise:
    """relu6(x + 3) / 6."""
    return Elementwise(
        "hardsigmoid",
        lambda x: min(max(x + 3.0, 0.0), 6.0) / 6.0,
        lambda x: 1.0 / 6.0 if -3 < x < 3 else 0.0,
        kinks=(-3.0, 3.0),
    )


def hardshrink(args: Arguments) -> Elementwise:
    """x outside [-lambd, lambd], else 0."""
    edge = float(args.get("lambd", 0.5))
    return Elementwise(
        "hardshrink",
        lambda x: x if abs(x) > edge else 0.0,
        lambda x: 1.0 if abs(x) > edge else 0.0,
        kinks=(-edge, edge),
        jumps=edge != 0,
    )


def softshrink(args: Arguments) -> Elementwise:
    """sign(x) max(|x| - lambd, 0)."""
    edge = float(args.get("lambd", 0.5))
    return Elementwise(
        "softshrink",
        lambda x: x - edge if x > edge else x + edge if x < -edge else 0.0,
        lambda x: 1.0 if abs(x) > edge else 0.0,
        kinks=(-edge, edge),
    )


def tanhshrink(args: Arguments) -> Elementwise:
    """x - tanh(x)."""
    return Elementwise("tanhshrink", lambda x: x - math.tanh(x), lambda x: math.tanh(x) ** 2, width=1.5)


def sine(args: Arguments) -> Elementwise:
    """sin(omega x)."""
    omega = float(args.get("omega", 1.0))
    return Elementwise(
        "sin",
        lambda x: math.sin(omega * x),
        lambda x: omega * math.cos(omega * x),
        period=_over(2.0 * math.pi, omega),
        closed=("sin", omega),
    )


def cosine(args: Arguments) -> Elementwise:
    """cos(omega x)."""
    omega = float(args.get("omega", 1.0))
    return Elementwise(
        "cos",
        lambda x: math.cos(omega * x),
        lambda x: -omega * math.sin(omega * x),
        period=_over(2.0 * math.pi, omega),
        closed=("cos", omega),
    )


def snake(args: Arguments) -> Elementwise:
    """x + sin(alpha x)^2 / alpha."""
    alpha = float(args.get("alpha", 1.0)) or 1.0
    return Elementwise(
        "snake",
        lambda x: x + math.sin(alpha * x) ** 2 / alpha,
        lambda x: 1.0 + math.sin(2.0 * alpha * x),
        period=_over(math.pi, alpha),
    )


def simple(
    name: str,
    value: Function,
    slope: Function,
    kinks: tuple[float, ...] = (),
    width: float = math.inf,
    *,
    homogeneous: bool = False,
    jumps: bool = False,
    domain: tuple[float, float] = (-math.inf, math.inf),
    closed: tuple[str, float] | None = None,
) -> Builder:
    """A function without arguments."""
    built = Elementwise(name, value, slope, kinks, width, homogeneous, jumps, domain, closed=closed)
    return lambda args: built


def power(args: Arguments) -> Elementwise:
    """x^exponent; for an exponent that is no integer only x > 0 counts."""
    exponent = float(args.get("exponent", 2.0))
    if exponent == 2.0:
        return square({})
    if exponent == 1.0:
        return identity({})
    whole = exponent.is_integer()
    return Elementwise(
        "pow",
        lambda x: _pow(x, exponent),
        lambda x: exponent * _pow(x, exponent - 1.0),
        kinks=(0.0,),
        width=math.inf if whole and exponent > 0 else 1.0,
        domain=(-math.inf, math.inf) if whole and exponent > 0 else (0.0, math.inf),
    )


def square(args: Arguments) -> Elementwise:
    """x^2."""
    return Elementwise("square", lambda x: x * x, lambda x: 2.0 * x, closed=("square", 0.0))


def exponential(args: Arguments) -> Elementwise:
    """exp(x)."""
    return Elementwise("exp", safe_exp, safe_exp, width=3.0, closed=("exp", 0.0))


def affine(args: Arguments) -> Elementwise:
    """factor x + shift: for chains that scale or shift between two functions."""
    factor, shift = float(args.get("factor", 1.0)), float(args.get("value", 0.0))
    return Elementwise("affine", lambda x: factor * x + shift, lambda x: factor, closed=("affine", shift))


def _pow(x: float, exponent: float) -> float:
    try:
        return float(x**exponent)
    except (ZeroDivisionError, OverflowError):
        return math.inf


def _over(width: float, rate: float) -> float:
    return width / abs(rate) if rate else math.inf
