"""Log-odds in initialisation code: whether a number is one, and what the line that wrote it computes."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

#: Beyond 1.5 in size the constant of a bias is a prior (0.18, or 0.82) and no small offset: 0.1 is -2.2 (CenterNet),
#: 0.01 is -4.6 (RetinaNet; Lin et al. 2017, 4.1).
PRIOR = 1.5
#: A prior is written with at most two digits: 0.01, 0.05, 0.025.
_DIGITS = 2
#: The record holds the number as Python computed it. Of 90 two-digit priors in a decade, chance hits one at 1e-6 in
#: 1 of 10,000 trials.
_EXACT = 1e-6
_LOGS: Mapping[str, Callable[[float], float]] = {"log": math.log, "log10": math.log10, "log2": math.log2}
#: The probability at which a line is tried; its log-odds are no other function's value there.
_TRIAL = 0.0137


def logit(p: float) -> float:
    """ln(p / (1 - p))."""
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    """The probability that log-odds stand for."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def decided(ratio: float, std: float, count: int) -> float:
    """How often the largest of so many softmax weights is this many times the next; scores are N(0, std^2).

    For the gap between the two largest of n standard normals, P(gap > g) = n times the integral of
    phi(z) Phi(z - g)^(n - 1).
    """
    if std <= 0 or count < 2:
        return 0.0
    gap, step, unit = math.log(ratio) / std, 0.02, NormalDist()
    places = (step * k for k in range(-400, 401))
    return min(1.0, count * step * sum(unit.pdf(z) * unit.cdf(z - gap) ** (count - 1) for z in places))


def prior_of(value: float, base: float = math.e) -> float | None:
    """The round probability below 1/2 whose log-odds (either sign) a number is; ``None`` for any other number."""
    natural = abs(value) * math.log(base)
    if not 0.1 < natural < 30:
        return None
    p = sigmoid(-natural)
    rounded = float(f"{p:.{_DIGITS}g}")
    return rounded if 0 < rounded < 0.5 and math.isclose(-logit(rounded), natural, rel_tol=_EXACT) else None


def form(text: str) -> tuple[int, str] | None:
    """Whether a line computes log-odds of one unknown p: (+1 for ln(p / (1 - p)), -1 for its negative, the logarithm).

    Any algebraic form of one variable is recognised, by its values.
    """
    try:
        tree = ast.parse(text.strip().rstrip(":"))
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Call, ast.BinOp, ast.UnaryOp)):
            continue
        used = {_logarithm(call) for call in ast.walk(node) if isinstance(call, ast.Call)} - {""}
        if len(used) != 1:
            continue
        function = used.pop()
        try:
            found = [_value(node, p) for p in (_TRIAL, 2 * _TRIAL)]
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            continue
        factor = 1.0 if function == "logit" else _LOGS[function](math.e)
        right = [logit(p) * factor for p in (_TRIAL, 2 * _TRIAL)]
        for sign in (1, -1):
            if all(math.isclose(a, sign * b, rel_tol=1e-9) for a, b in zip(found, right, strict=True)):
                return sign, function
    return None


def _logarithm(call: ast.Call) -> str:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name if name in _LOGS or name == "logit" else ""


def _value(node: ast.expr, p: float) -> float:
    """The value of an expression in which every name stands for p."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        return p
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inner = _value(node.operand, p)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, p), _value(node.right, p)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        name = _logarithm(node)
        inner = _value(node.args[0], p)
        if name:
            return logit(inner) if name == "logit" else _LOGS[name](inner)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("float", "tensor", "as_tensor", "Tensor", "item"):  # wrappers that keep a number
            return inner
    raise TypeError(type(node).__name__)
