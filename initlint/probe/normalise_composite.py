"""Activations written from primitives: ``x * sigmoid(1.702 * x)``, ``0.5 * x * (1 + tanh(...))``.

Where two elementwise functions of one signal meet in a sum or product, the whole is one function
of that signal. It is tabulated and compared with the known activations; what matches none becomes
``callable`` with its table. Treating the two operands as independent would be wrong by 18 % for
SiLU already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from initlint.facts import Node, Plain
from initlint.probe.normalise_edit import Editor
from initlint.theory import activations as theory

#: x -> (f(x), f'(x))
Function = Callable[[float], tuple[float, float]]

#: Known functions are compared on this grid; constants in user code have four digits or more.
GRID = tuple(i / 8 for i in range(-48, 49))
#: gelu and its tanh form differ by 5e-4, silu and quick_gelu by 0.1; printed constants leave about 1e-6.
SAME = 5e-5
#: A table of samples: dense where signals live, out to where any activation is linear or flat.
SAMPLES = tuple(i / 16 for i in range(-192, 193))
CANDIDATES: tuple[tuple[str, Mapping[str, float]], ...] = (
    ("relu", {}), ("silu", {}), ("gelu", {}), ("gelu_tanh", {}), ("quick_gelu", {}), ("mish", {}), ("relu_squared", {}),
    ("hardswish", {}), ("hardsigmoid", {}), ("tanh", {}), ("sigmoid", {}), ("softplus", {}), ("softsign", {}),
    ("square", {}), ("abs", {}), ("elu", {}), ("selu", {}), ("tanhshrink", {}), ("logsigmoid", {}), ("erf", {}),
    ("hardtanh", {}), ("relu6", {}), ("log1p_relu", {}),
)  # fmt: skip
_UNARY = frozenset(("activation", "scale", "shift", "identity"))


class Composites:
    """Finds and replaces elementwise sub-graphs, in execution order."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.functions: dict[int, Function] = {}  # of replaced nodes whose fn is "callable"

    def run(self) -> None:
        """Replace every meeting of two functions of one signal."""
        for node in list(self.editor.nodes):
            if node.op in ("add", "sub", "mul", "div") and len(node.inputs) == 2:
                self._meet(self.editor.nodes[node.index])
        for node in list(self.editor.nodes):
            self._square_of_relu(self.editor.nodes[node.index])

    def chain(self, index: int) -> list[int]:
        """The node and what it is an elementwise function of, nearest first."""
        found = [index]
        while True:
            node = self.editor.nodes[index]
            if node.op not in _UNARY or len(node.inputs) != 1:
                return found
            index = node.inputs[0]
            found.append(index)

    def _meet(self, node: Node) -> None:
        left, right = (self.chain(i) for i in node.inputs)
        common = next((i for i in left if i in right), None)
        if common is None or self.editor.nodes[common].op in ("parameter", "constant"):
            return
        steps = left[: left.index(common)], right[: right.index(common)]
        if not steps[0] and not steps[1] and node.op in ("sub", "div"):
            return
        if not self._same_shape(node, common) or self._mere_scaling(node, steps):
            return
        parts = [self.function(path) for path in steps]
        if parts[0] is None or parts[1] is None:
            return
        alpha = node.attrs.get("alpha", 1.0)
        function = combine(node.op, parts[0], parts[1], float(alpha) if isinstance(alpha, (int, float)) else 1.0)
        self._replace(node.index, common, function)

    def _same_shape(self, node: Node, common: int) -> bool:
        shape = self.editor.nodes[common].shape
        return shape is None or node.shape is None or shape == node.shape

    def _mere_scaling(self, node: Node, steps: tuple[list[int], list[int]]) -> bool:
        """A residual sum x + f(x) where f is a dropout or constant factor is no activation."""
        linear = all(self.editor.nodes[i].op in ("scale", "identity") for path in steps for i in path)
        return linear and node.op in ("add", "sub") and bool(steps[0] or steps[1])

    def function(self, path: list[int]) -> Function | None:
        """The function that the nodes of a path (nearest to the end first) apply."""
        result: Function = _identity
        for index in reversed(path):
            step = self._step(self.editor.nodes[index])
            if step is None:
                return None
            result = _compose(step, result)
        return result

    def _step(self, node: Node) -> Function | None:
        if node.index in self.functions:
            return self.functions[node.index]
        if node.op == "identity":
            return _identity
        if node.op == "scale":
            factor = float(node.attrs.get("factor", 1.0))  # type: ignore[arg-type]
            return lambda x: (factor * x, factor)
        if node.op == "shift":
            value = float(node.attrs.get("value", 0.0))  # type: ignore[arg-type]
            return lambda x: (x + value, 1.0)
        return known_function(node)

    def _replace(self, index: int, source: int, function: Function) -> None:
        """Make the node one activation of ``source``; take in constants that follow when that gives a known one."""
        table = tabulate(function)
        if table is None:
            return
        last, best = index, recognise(function)
        current, end = function, index
        while best is None:
            user = self.editor.sole_user(end)
            step = self._step(user) if user is not None and user.op in ("scale", "shift", "identity") else None
            if user is None or step is None:
                break
            current, end = _compose(step, current), user.index
            found = recognise(current)
            if found is not None:
                last, best = end, found
        attrs: dict[str, Plain] = {"fn": "callable", "expr": self._expression(index)}
        if best is not None:
            name, args = best
            if name in ("scale", "shift"):
                self.editor.replace(last, name, (source,), dict(args))
                return
            attrs = {"fn": name, **args}
        else:
            self.functions[index] = function
        label = str(attrs["fn"]) if best is not None else self.editor.nodes[last].label
        self.editor.replace(last, "activation", (source,), attrs, table={} if best else table, label=label)

    def _expression(self, index: int) -> str:
        node = self.editor.nodes[index]
        return f"{node.op}({', '.join(self.editor.nodes[i].label for i in node.inputs)})"

    def _square_of_relu(self, node: Node) -> None:
        """relu followed by a square is one activation with a name of its own."""
        if node.op != "activation" or node.attrs.get("fn") != "square" or len(node.inputs) != 1:
            return
        inner = self.editor.nodes[node.inputs[0]]
        if inner.op == "activation" and inner.attrs.get("fn") == "relu" and self.editor.sole_user(inner.index):
            self.editor.replace(node.index, "activation", inner.inputs, {"fn": "relu_squared"}, label="relu_squared")


def _identity(x: float) -> tuple[float, float]:
    return x, 1.0


def _compose(outer: Function, inner: Function) -> Function:
    def composed(x: float) -> tuple[float, float]:
        y, dy = inner(x)
        z, dz = outer(y)
        return z, dz * dy

    return composed


def combine(op: str, first: Function, second: Function, alpha: float) -> Function:
    """The sum, difference, product or quotient of two functions, with its derivative."""

    def combined(x: float) -> tuple[float, float]:
        (a, da), (b, db) = first(x), second(x)
        if op == "mul":
            return a * b, da * b + a * db
        if op == "div":
            return a / b, (da * b - a * db) / (b * b)
        sign = alpha if op == "add" else -alpha
        return a + sign * b, da + sign * db

    return combined


def known_function(node: Node) -> Function | None:
    """The function of an ``activation`` node, ``None`` when the theory does not know it."""
    fn = str(node.attrs.get("fn"))
    if fn == "callable":
        if not node.table:
            return None
        bound = theory.table(node.table["x"], node.table["y"], node.table["dy"])
    else:
        arguments = {k: v for k, v in node.attrs.items() if isinstance(v, (int, float)) and k != "fn"}
        try:
            bound = theory.bind(fn, arguments)
        except Exception:  # not in the registry: the composite then stays in its parts
            return None
    return lambda x: (bound.value(x), bound.slope(x))


def tabulate(function: Function) -> dict[str, tuple[float, ...]] | None:
    """Samples of a function; ``None`` when it is not finite where signals live."""
    xs, ys, dys = [], [], []
    for x in SAMPLES:
        try:
            y, dy = function(x)
        except (ValueError, ZeroDivisionError, OverflowError):
            continue
        if math.isfinite(y) and math.isfinite(dy) and abs(y) < 1e30:
            xs.append(x)
            ys.append(y)
            dys.append(dy)
    if len(xs) < 32:
        return None
    return {"x": tuple(xs), "y": tuple(ys), "dy": tuple(dys)}


def recognise(function: Function) -> tuple[str, dict[str, Any]] | None:
    """The known function that this is, with its arguments."""
    try:
        values = [function(x)[0] for x in GRID]
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    linear = _linear(values)
    if linear is not None:
        return linear
    for name, args in (*CANDIDATES, *_parametric(function)):
        bound = theory.bind(name, args)
        if all(abs(bound.value(x) - y) <= SAME * (1 + abs(y)) for x, y in zip(GRID, values, strict=True)):
            return name, dict(args)
    return None


def _linear(values: list[float]) -> tuple[str, dict[str, Any]] | None:
    """Constant factors and shifts."""
    ratios = [(y, x) for x, y in zip(GRID, values, strict=True)]
    slope = (values[-1] - values[0]) / (GRID[-1] - GRID[0])
    if all(abs(y - slope * x) <= 1e-9 * (1 + abs(y)) for y, x in ratios):
        return "scale", {"factor": slope}
    offset = values[len(values) // 2]
    if abs(slope - 1) < 1e-9 and all(abs(y - x - offset) <= 1e-9 * (1 + abs(y)) for y, x in ratios):
        return "shift", {"value": offset}
    return None


def _parametric(function: Function) -> list[tuple[str, Mapping[str, float]]]:
    """Candidates whose argument can be read off the function."""
    found: list[tuple[str, Mapping[str, float]]] = []
    slope = function(-1.0)[1]
    if math.isfinite(slope):
        found.append(("leaky_relu", {"negative_slope": slope}))
    floor = function(-6.0)[0]
    if -6.0 < floor < 0.0:
        found.append(("elu", {"alpha": -floor / (1 - math.exp(-6.0))}))
    return found
