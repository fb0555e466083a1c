"""Inputs that the model itself scales down: bytes of an image divided by 255. They are made as large as it expects."""

from __future__ import annotations

import operator

from torch import fx

# Ops between an input and its division that change no values.
_CASTS = frozenset(["float", "double", "half", "to", "type", "contiguous", "permute", "clone"])
# Below this a factor is a design (1/sqrt(d), a temperature), not a unit; images hold bytes.
_SMALLEST = 64.0


def divisors(graph: fx.Graph) -> dict[str, float]:
    """For each input that all of its readers divide by one large constant, that constant."""
    found: dict[str, float] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            factors = {_factor(user, source) for user, source in _readers(node)}
            factor = next(iter(factors), None) if len(factors) == 1 else None
            if factor is not None and factor >= _SMALLEST:
                found[str(node.target)] = factor
    return found


def _readers(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """The ops that read an input's values, and the node through which."""
    found: list[tuple[fx.Node, fx.Node]] = []
    for user in node.users:
        if user.op == "call_method" and user.target in _CASTS:
            found += _readers(user)
        elif user.op != "output":
            found.append((user, node))
    return found


def _factor(user: fx.Node, source: fx.Node) -> float | None:
    """What ``user`` divides ``source`` by."""
    name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", "")
    if len(user.args) < 2 or user.args[0] is not source or not isinstance(user.args[1], (int, float)):
        return None
    if name in ("truediv", "div", "true_divide", "divide", "itruediv", "div_"):
        return float(user.args[1])
    if (user.target is operator.mul or name in ("mul", "multiply", "mul_")) and user.args[1]:
        return 1.0 / float(user.args[1])
    return None
