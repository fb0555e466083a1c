"""Arithmetic in configuration: ``0.02 / sqrt(2 * n_layer)``. Nothing but numbers, given names and a few functions."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from initlint.errors import ConfigError

_BINARY: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "sqrt": math.sqrt,
    "log": math.log,
    "exp": math.exp,
    "abs": abs,
    "min": min,
    "max": max,
}
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
#: Longer texts and larger exponents are no formula of an initialisation; the limits keep evaluation instant.
_LONGEST, _LARGEST_EXPONENT = 200, 64.0


def evaluate(text: str | float, names: Mapping[str, float]) -> float:
    """The value of an arithmetic expression.

    Raises:
        ConfigError: it is no arithmetic, uses an unknown name, or has no value (division by zero).
    """
    if isinstance(text, (int, float)):
        return float(text)
    try:
        if len(text) > _LONGEST:
            raise ValueError("too long")
        value = float(_value(ast.parse(text.strip(), mode="eval").body, names))
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError) as error:
        raise ConfigError(f"`{text}` has no value: {error}", _hint(names)) from None
    if not math.isfinite(value):
        raise ConfigError(f"`{text}` is {value}", _hint(names))
    return value


def names_in(text: str | float) -> frozenset[str]:
    """The names that an expression uses, functions and constants left out. Raises ConfigError for no arithmetic."""
    if not isinstance(text, str):
        return frozenset()
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise ConfigError(f"`{text}` is no arithmetic expression", _hint({})) from None
    # of ``model.config.depth`` the whole, not its beginnings
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {
        _dotted(node)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in inside
    }
    return frozenset(found - {""} - _FUNCTIONS.keys() - _CONSTANTS.keys())


def _dotted(node: ast.expr) -> str:
    """``model.config.depth`` as text; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


def _value(node: ast.expr, names: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("true and false are no numbers")
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            if name not in names and name not in _CONSTANTS:
                raise ValueError(f"unknown name `{name}`")
            return names[name] if name in names else _CONSTANTS[name]
        case ast.Attribute():
            dotted = _dotted(node)
            if dotted not in names:
                raise ValueError(f"unknown name `{dotted}`" if dotted else "only names have attributes")
            return names[dotted]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left, names), _value(right, names)
            if isinstance(op, ast.Pow) and abs(b) > _LARGEST_EXPONENT:
                raise ValueError("the exponent is too large")
            result = _BINARY[type(op)](a, b)
            if isinstance(result, complex):
                raise ValueError("the result is not real")
            return result
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if name in _FUNCTIONS:
            return float(_FUNCTIONS[name](*(_value(arg, names) for arg in args)))
    raise ValueError("only numbers, names, + - * / // % ** and " + ", ".join(_FUNCTIONS) + " are allowed")


def _hint(names: Mapping[str, float]) -> str:
    return (
        f"Names: {', '.join(sorted({*names, *_CONSTANTS}))}." if names else 'For example: "0.02 / sqrt(2 * n_layer)".'
    )
