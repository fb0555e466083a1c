"""The value and the slope of an expression of one parameter, at a value that all its elements share.

The probe notes what the forward makes of a parameter before a signal meets it, as a text such as
``clamp(exp(scale), max=100)``. With the value that the parameter starts with, the text says what factor it is at the
start and whether a gradient reaches the parameter at all.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping

from initlint.odds import sigmoid
from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Dual:
    """A value and its derivative by the parameter."""

    value: float
    slope: float

    @property
    def finite(self) -> bool:
        """Whether both are numbers."""
        return math.isfinite(self.value) and math.isfinite(self.slope)


_BINARY: Mapping[type[ast.operator], Callable[[Dual, Dual], Dual]] = {
    ast.Add: lambda a, b: Dual(a.value + b.value, a.slope + b.slope),
    ast.Sub: lambda a, b: Dual(a.value - b.value, a.slope - b.slope),
    ast.Mult: lambda a, b: _product(a, b),
    ast.Div: lambda a, b: _product(a, _power(b, -1.0)),
    ast.Pow: lambda a, b: _power(a, b.value) if b.slope == 0 else Dual(math.nan, math.nan),
}
_SPELLED: Mapping[str, type[ast.operator]] = {
    "add": ast.Add,
    "sub": ast.Sub,
    "mul": ast.Mult,
    "multiply": ast.Mult,
    "div": ast.Div,
    "truediv": ast.Div,
    "pow": ast.Pow,
}


def spelled(name: str) -> re.Pattern[str]:
    """A dotted name in the text of an expression, where it is no part of a longer one."""
    return re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w.])")


def at(text: str, name: str, value: float) -> Dual | None:
    """What the expression is where the parameter ``name`` has this value; ``None`` for one with other functions.

    The text is for readers and has no parentheses: compare ``value`` with what the node holds before relying on it.
    """
    mark = "_parameter_"
    try:
        tree = ast.parse(spelled(name).sub(mark, text), mode="eval")
        return _of(tree.body, {mark: Dual(value, 1.0)})
    except (SyntaxError, KeyError, TypeError, RecursionError):
        return None
    except (OverflowError, ValueError, ZeroDivisionError):
        return Dual(math.inf, math.inf)


def _of(node: ast.expr, names: Mapping[str, Dual]) -> Dual:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return Dual(float(node.value), 0.0)
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _of(node.operand, names)
        return Dual(-inner.value, -inner.slope)
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_of(node.left, names), _of(node.right, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in _SPELLED and len(node.args) == 2:
            return _BINARY[_SPELLED[node.func.id]](*(_of(arg, names) for arg in node.args))
        return _call(node.func.id, node, names)
    raise TypeError(ast.dump(node))


def _call(function: str, node: ast.Call, names: Mapping[str, Dual]) -> Dual:
    x = _of(node.args[0], names)
    if function in ("view", "reshape", "unsqueeze", "squeeze", "expand", "to", "float", "contiguous", "expand_as"):
        return x
    if function in ("clamp", "clip", "clamp_min", "clamp_max"):
        return _clamp(function, x, node, names)
    if function in ("softplus", "logsigmoid", "hardtanh", "threshold") and len(node.args) + len(node.keywords) > 1:
        raise TypeError(function)  # other slopes and bounds than the usual ones
    found = _UNARY[function]
    value, slope = found(x.value)
    return Dual(value, 0.0 if x.slope == 0 else slope * x.slope)


def _clamp(function: str, x: Dual, node: ast.Call, names: Mapping[str, Dual]) -> Dual:
    bounds = {"min": -math.inf, "max": math.inf}
    places = {"clamp_min": ("min",), "clamp_max": ("max",)}.get(function, ("min", "max"))
    given = [*zip(places, node.args[1:], strict=False), *((k.arg or "", k.value) for k in node.keywords)]
    for key, expr in given:
        if not (isinstance(expr, ast.Constant) and expr.value is None):
            bounds[key] = _of(expr, names).value
    inside = bounds["min"] <= x.value <= bounds["max"]
    return Dual(min(max(x.value, bounds["min"]), bounds["max"]), x.slope if inside else 0.0)


def _product(a: Dual, b: Dual) -> Dual:
    return Dual(a.value * b.value, a.slope * b.value + a.value * b.slope)


def _power(x: Dual, exponent: float) -> Dual:
    if x.value == 0 and exponent < 0:
        return Dual(math.inf, math.inf)
    if x.value == 0 and 0 < exponent < 1:
        return Dual(0.0, math.inf if x.slope else 0.0)
    if x.value < 0 and exponent != int(exponent):
        return Dual(math.nan, math.nan)
    slope = 0.0 if exponent == 0 else exponent * x.value ** (exponent - 1) * x.slope
    return Dual(x.value**exponent, slope)


def _exp(x: float) -> tuple[float, float]:
    # beyond float32
    value = math.exp(x) if x < 88.7 else math.inf
    return value, value


def _log(x: float) -> tuple[float, float]:
    return (math.log(x), 1 / x) if x > 0 else (-math.inf, math.inf) if x == 0 else (math.nan, math.nan)


def _root(exponent: float) -> Callable[[float], tuple[float, float]]:
    def function(x: float) -> tuple[float, float]:
        found = _power(Dual(x, 1.0), exponent)
        return found.value, found.slope

    return function


_UNARY: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "exp": _exp,
    "expm1": lambda x: (math.expm1(x), math.exp(x)),
    "log": _log,
    "log1p": lambda x: _log(1 + x),
    "sqrt": _root(0.5),
    "rsqrt": _root(-0.5),
    "reciprocal": _root(-1.0),
    "square": _root(2.0),
    "neg": lambda x: (-x, -1.0),
    "abs": lambda x: (abs(x), math.copysign(1.0, x)),
    "relu": lambda x: (max(0.0, x), float(x > 0)),
    "sigmoid": lambda x: (sigmoid(x), sigmoid(x) * (1 - sigmoid(x))),
    "tanh": lambda x: (math.tanh(x), 1 - math.tanh(x) ** 2),
    "softplus": lambda x: (math.log1p(math.exp(x)) if x < 30 else x, sigmoid(x)),
}
