"""The registry of elementwise functions and the names by which torch and users call them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

from initlint.records import dataclass
from initlint.theory import functions as f
from initlint.theory.quadrature import Elementwise

Arguments = Mapping[str, float]
Limits = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function by name.

    ``torch_gain`` is what ``torch.nn.init.calculate_gain`` returns for it, ``None`` where it raises.
    ``limits`` gives the inputs beyond which it is saturated (slope below 7 % of the greatest).
    """

    name: str
    builder: f.Builder
    torch_gain: float | Callable[[Arguments], float] | None = None
    limits: Limits | Callable[[Arguments], Limits] | None = None

    def build(self, args: Arguments) -> Elementwise:
        """The function with its arguments filled in; the same object for the same arguments."""
        return _build(self, tuple(sorted(args.items())))

    def value(self, x: float, **args: float) -> float:
        """f(x)."""
        return self.build(args).value(x)

    def derivative(self, x: float, **args: float) -> float:
        """f'(x), almost everywhere."""
        return self.build(args).slope(x)

    def kinks(self, args: Arguments | None = None) -> tuple[float, ...]:
        """Points where f or f' jumps."""
        return self.build(args or {}).kinks

    def homogeneous(self, args: Arguments | None = None) -> bool:
        """Whether f(s x) = s f(x) for s > 0."""
        return self.build(args or {}).homogeneous

    def gain(self, args: Arguments | None = None) -> float | None:
        """PyTorch's ``calculate_gain``, or ``None`` where it raises."""
        return self.torch_gain(args or {}) if callable(self.torch_gain) else self.torch_gain

    def saturates(self, args: Arguments) -> Limits | None:
        """The inputs beyond which it is saturated."""
        return self.limits(args) if callable(self.limits) else self.limits


@lru_cache(maxsize=4096)
def _build(activation: Activation, args: tuple[tuple[str, float], ...]) -> Elementwise:
    return activation.builder(dict(args))


def _leaky_gain(key: str, default: float) -> Callable[[Arguments], float]:
    return lambda args: math.sqrt(2.0 / (1.0 + float(args.get(key, default)) ** 2))


def _clamp_limits(low: float, high: float) -> Callable[[Arguments], Limits]:
    def limits(args: Arguments) -> Limits:
        return float(args.get("min", args.get("min_val", low))), float(args.get("max", args.get("max_val", high)))

    return limits


_INF = math.inf
_POSITIVE = (0.0, _INF)


def _erf_slope(x: float) -> float:
    return 2.0 / math.sqrt(math.pi) * math.exp(-x * x) if abs(x) < 26 else 0.0


def _cosh(x: float) -> float:
    return 0.5 * (f.safe_exp(x) + f.safe_exp(-x))


def _log1p_relu(x: float) -> float:
    return math.log1p(x) if x > 0 else 0.0


def _table(*entries: Activation) -> Mapping[str, Activation]:
    return {entry.name: entry for entry in entries}


_a, _s = Activation, f.simple
ACTIVATIONS: Mapping[str, Activation] = _table(
    _a("identity", f.identity, 1.0),
    _a("relu", f.leaky("relu", "unused", 0.0), math.sqrt(2.0)),
    _a("leaky_relu", f.leaky("leaky_relu", "negative_slope", 0.01), _leaky_gain("negative_slope", 0.01)),
    _a("prelu", f.leaky("prelu", "negative_slope", 0.25), _leaky_gain("negative_slope", 0.25)),
    _a("rrelu", f.rrelu),
    _a("threshold", f.threshold),
    _a("abs", f.leaky("abs", "unused", -1.0)),
    _a("elu", f.elu),
    _a("celu", f.celu),
    _a("selu", f.selu, 0.75),
    _a("gelu", f.gelu),
    _a("gelu_tanh", f.gelu_tanh),
    _a("quick_gelu", f.swish("quick_gelu", 1.702)),
    _a("silu", f.swish("silu", 1.0)),
    _a("mish", f.mish),
    _a("softplus", f.softplus),
    _a("softsign", f.softsign, None, (-2.76, 2.76)),
    _a("tanh", f.tanh, 5.0 / 3.0, (-2.0, 2.0)),
    _a("sigmoid", f.sigmoid, 1.0, (-4.0, 4.0)),
    _a("logsigmoid", f.logsigmoid),
    _a("hardtanh", f.clamp("hardtanh", -1.0, 1.0), None, _clamp_limits(-1.0, 1.0)),
    _a("relu6", f.clamp("relu6", 0.0, 6.0)),
    _a("clamp", f.clamp("clamp", None, None)),
    _a("hardswish", f.hardswish),
    _a("hardsigmoid", f.hardsigmoid, None, (-3.0, 3.0)),
    _a("hardshrink", f.hardshrink),
    _a("softshrink", f.softshrink),
    _a("tanhshrink", f.tanhshrink),
    _a("sin", f.sine),
    _a("cos", f.cosine),
    _a("snake", f.snake),
    _a("square", f.square),
    _a("pow", f.power),
    _a("relu_squared", _s("relu_squared", lambda x: max(x, 0.0) ** 2, lambda x: 2.0 * max(x, 0.0), (0.0,))),
    _a("exp", f.exponential),
    _a("expm1", _s("expm1", lambda x: f.safe_exp(x) - 1.0, f.safe_exp, width=3.0)),
    _a("erf", _s("erf", math.erf, _erf_slope, width=1.2, closed=("erf", 0.0)), None, (-1.63, 1.63)),
    _a("arctan", _s("arctan", math.atan, lambda x: 1.0 / (1.0 + x * x), width=1.0), None, (-3.64, 3.64)),
    _a("asinh", _s("asinh", math.asinh, lambda x: 1.0 / math.sqrt(1.0 + x * x), width=1.0)),
    _a("sinh", _s("sinh", lambda x: 0.5 * (f.safe_exp(x) - f.safe_exp(-x)), _cosh, width=3.0)),
    _a("cosh", _s("cosh", _cosh, lambda x: 0.5 * (f.safe_exp(x) - f.safe_exp(-x)), width=3.0)),
    _a("log1p_relu", _s("log1p_relu", _log1p_relu, lambda x: 1.0 / (1.0 + x) if x > 0 else 0.0, (0.0,), 1.0)),
    _a("sign", _s("sign", lambda x: math.copysign(1.0, x) if x else 0.0, lambda x: 0.0, (0.0,), jumps=True)),
    _a("log", _s("log", math.log, lambda x: 1.0 / x, width=1.0, domain=_POSITIVE)),
    _a("log1p", _s("log1p", math.log1p, lambda x: 1.0 / (1.0 + x), width=1.0, domain=(-1.0, _INF))),
    _a("sqrt", _s("sqrt", math.sqrt, lambda x: 0.5 / math.sqrt(x), width=1.0, domain=_POSITIVE)),
    _a("rsqrt", _s("rsqrt", lambda x: x**-0.5, lambda x: -0.5 * x**-1.5, width=1.0, domain=_POSITIVE)),
    _a("reciprocal", _s("reciprocal", lambda x: 1.0 / x, lambda x: -1.0 / (x * x), width=1.0, domain=_POSITIVE)),
    _a("affine", f.affine, 1.0),
    _a("scale", f.affine, 1.0),
    _a("shift", f.affine, 1.0),
)

#: Other spellings, in lower case without underscores: torch modules, functions, tensor methods, common code.
_ALIASES: Mapping[str, str] = {
    "swish": "silu",
    "swishjit": "silu",
    "memoryefficientswish": "silu",
    "hswish": "hardswish",
    "hsigmoid": "hardsigmoid",
    "geluactivation": "gelu",
    "newgelu": "gelu_tanh",
    "newgeluactivation": "gelu_tanh",
    "gelunew": "gelu_tanh",
    "gelufast": "gelu_tanh",
    "gelupytorchtanh": "gelu_tanh",
    "pytorchgelutanh": "gelu_tanh",
    "fastgelu": "gelu_tanh",
    "gelutanh": "gelu_tanh",
    "quickgelu": "quick_gelu",
    "quickgeluactivation": "quick_gelu",
    "relusquared": "relu_squared",
    "relu2": "relu_squared",
    "squaredrelu": "relu_squared",
    "relusquaredactivation": "relu_squared",
    "logsigmoid": "logsigmoid",
    "atan": "arctan",
    "absolute": "abs",
    "sgn": "sign",
    "linear": "identity",
    "none": "identity",
    "clip": "clamp",
    "clampmin": "clamp",
    "clampmax": "clamp",
    "sine": "sin",
    "special expit": "sigmoid",
    "expit": "sigmoid",
    "arcsinh": "asinh",
}

#: Names with the arguments in them, as THEORY's table has them.
_FIXED: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "leaky_relu_0.01": ("leaky_relu", {"negative_slope": 0.01}),
    "leaky_relu_0.1": ("leaky_relu", {"negative_slope": 0.1}),
    "leaky_relu_0.2": ("leaky_relu", {"negative_slope": 0.2}),
    "prelu_0.25": ("prelu", {"negative_slope": 0.25}),
    "rrelu_eval": ("rrelu", {}),
    "threshold_0_0": ("threshold", {"threshold": 0.0, "value": 0.0}),
    "sin_30": ("sin", {"omega": 30.0}),
}


@lru_cache(maxsize=4096)
def canonical(name: str) -> tuple[str, Mapping[str, float]]:
    """The registry's name for a function and the arguments that the name itself fixes.

    Takes torch's module, function and method names (``LeakyReLU``, ``leaky_relu_``, ``torch.tanh``); an
    unknown name comes back as it is.
    """
    if name in ACTIVATIONS:
        return name, {}
    if name in _FIXED:
        return _FIXED[name]
    bare = name.rsplit(".", 1)[-1].rstrip("_").lower().replace("_", "").replace("-", "")
    if bare in _ALIASES:
        return _ALIASES[bare], {}
    for known in ACTIVATIONS:
        if known.replace("_", "") == bare:
            return known, {}
    return name, {}
