"""Elementwise expressions of one signal, written from several ops: x * sigmoid(x), exp(-x^2), x + relu(x) ...

Each such expression is one function of the last signal that is no elementwise function itself, and is given its true
moments as one. It gets the name of a known activation where it has the values of one, else a table of samples.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from initlint.facts import Node, Plain
from initlint.records import dataclass
from initlint.signal.curves import function_of
from initlint.signal.moments import NoRuleError
from initlint.signal.scene import number, numbers, text
from initlint.theory.activations import ACTIVATIONS

Dual = tuple[float, float]  # value and slope
Dualised = Callable[[float], Dual]

BINARY = frozenset({"add", "sub", "mul", "div", "extremum"})
#: Relative spread below which all elements of a constant are one number.
LEVEL = 1e-9
COMPARES: Mapping[str, Callable[[float, float], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
#: Longer chains than this are left alone: their tables would cost more than they are worth.
LONGEST = 32
#: Where two functions must agree to be called the same, and how well. The tanh and erf forms of GELU differ by 1e-4.
PROBES = (-4.0, -2.3, -1.1, -0.6, -0.2, 0.15, 0.5, 1.2, 2.1, 4.0)
AGREE = 2e-6
#: The inverse of a divisor is a function of its signal where it stays below so many times its value at one: the moments
#: of what has a pole there rest on the values around it, and those of an exponential on its tail.
STEEPEST = 1e3
#: Samples of a table, on either side of zero, in geometric steps.
NEAREST, FARTHEST, STEP = 1e-3, 60.0, 1.06


@dataclass(frozen=True, slots=True)
class Expression:
    """A function of node ``base``; ``straight``: it is linear in it."""

    base: int
    at: Dualised
    straight: bool
    length: int


def fuse_functions(nodes: Sequence[Node]) -> list[Node]:
    """Nodes that compose functions of one signal, as one ``activation`` of that signal each."""
    known: dict[int, Expression] = {}
    found, alone = list(nodes), _read_once(nodes)
    for node in nodes:
        made = _expression(node, nodes, known)
        if made is None:
            if node.op == "div" and len(node.inputs) == 2 and node.inputs[1] in alone:
                under = _inverted(found[node.inputs[1]], known)
                if under is not None:
                    found[under.index] = under
                    found[node.index] = replace(node, op="mul")
            for changed in _between(node, nodes, known, alone):
                found[changed.index] = changed
            continue
        known[node.index] = made
        if _needs(node, known) and not made.straight:
            function = _described(made.at)
            if function is not None:
                attrs, table = function
                found[node.index] = replace(
                    node, op="activation", inputs=(made.base,), attrs=attrs, table=table, parameters={}
                )
    return found


def _between(node: Node, nodes: Sequence[Node], known: Mapping[int, Expression], alone: frozenset[int]) -> list[Node]:
    """a + g(a) (b - a), as ``lerp`` has it, as a (1 - g(a)) + g(a) b: what is left of a is one function of it."""
    if node.op != "add" or len(node.inputs) != 2 or node.inputs[1] not in alone or number(node, "alpha", 1.0) != 1.0:
        return []
    start, product = node.inputs[0], nodes[node.inputs[1]]
    if product.op != "mul" or len(product.inputs) != 2:
        return []
    for index, weight in (product.inputs, product.inputs[::-1]):
        difference, first, gate = nodes[index], _inner(start, known), known.get(weight)
        apart = difference.op == "sub" and difference.inputs[1:] == (start,) and number(difference, "alpha", 1.0) == 1.0
        if not apart or index not in alone or gate is None or gate.straight or gate.base != first.base:
            continue
        rest = _described(_left(first.at, gate.at))
        if rest is not None:
            kept = replace(
                difference, op="activation", inputs=(first.base,), attrs=rest[0], table=rest[1], measured=None
            )
            passed = replace(product, inputs=(difference.inputs[0], weight), measured=None)
            return [kept, passed, replace(node, inputs=(index, product.index))]
    return []


def _left(f: Dualised, g: Dualised) -> Dualised:
    """f (1 - g)."""

    def at(x: float) -> Dual:
        (a, da), (b, db) = f(x), g(x)
        return a * (1.0 - b), da * (1.0 - b) - a * db

    return at


def _read_once(nodes: Sequence[Node]) -> frozenset[int]:
    """Nodes that one other node reads, and that inputs reach: functions of parameters are known as they are."""
    uses, fixed = [0] * len(nodes), set[int]()
    for node in nodes:
        for source in set(node.inputs):
            uses[source] += 1
        if node.op in ("parameter", "constant") or (node.inputs and fixed.issuperset(node.inputs)):
            fixed.add(node.index)
    return frozenset(index for index, count in enumerate(uses) if count == 1 and index not in fixed)


def _inverted(divisor: Node, known: Mapping[int, Expression]) -> Node | None:
    """One over a divisor that is a function of one signal and keeps away from zero, in place of the divisor."""
    inner = known.get(divisor.index)
    if inner is None or inner.straight:
        return None
    f = inner.at

    def at(x: float) -> Dual:
        y, dy = f(x)
        return 1.0 / y, -dy / (y * y)

    table = _table(at)
    values = table.get("y", ())
    if len(values) < 2 * _side() + 1 or max(map(abs, values)) > STEEPEST * max(abs(at(1.0)[0]), abs(at(-1.0)[0])):
        return None
    attrs: dict[str, Plain] = {"fn": "callable"} | ({"sign": 1} if min(values) >= 0.0 else {})
    return replace(
        divisor, op="activation", inputs=(inner.base,), attrs=attrs, table=table, parameters={}, measured=None
    )


def _needs(node: Node, known: Mapping[int, Expression]) -> bool:
    """Whether the node's own rule would be wrong: it combines functions of one signal."""
    if node.op == "activation":
        inner = known.get(node.inputs[0])
        return inner is not None and not inner.straight
    return node.op in BINARY or node.op == "where"


def _expression(node: Node, nodes: Sequence[Node], known: Mapping[int, Expression]) -> Expression | None:
    if not node.inputs or (node.shape is None and node.op in BINARY):
        return None
    if node.op in ("scale", "shift", "identity"):
        return _affine(node, known)
    if node.op == "activation":
        return _applied(node, known)
    if node.op in BINARY:
        return _combined(node, nodes, known)
    if node.op == "stop" and node.attrs.get("name") in COMPARES and "bound" in node.attrs:
        return _step(node, known)
    if node.op == "where" and "when" in node.attrs:
        return _by_value(node, nodes, known)
    return None


def _step(node: Node, known: Mapping[int, Expression]) -> Expression | None:
    """``x > 0`` as a number."""
    inner, holds, bound = _inner(node.inputs[0], known), COMPARES[text(node, "name")], number(node, "bound")
    if inner.length >= LONGEST:
        return None
    f = inner.at
    return Expression(inner.base, lambda x: (float(holds(f(x)[0], bound)), 0.0), False, inner.length + 1)


def _by_value(node: Node, nodes: Sequence[Node], known: Mapping[int, Expression]) -> Expression | None:
    """``torch.where(x > 0, f(x), g(x))``: two functions of one signal, or one and a number, chosen by its values."""
    place, steps = (int(value) for value in numbers(node.attrs.get("steps")))
    compared = node.inputs[place]
    for _ in range(steps):
        compared = nodes[compared].inputs[0]
    a, b = (_operand(index, nodes, known) for index in (node.inputs[0], node.inputs[-1]))
    c = _inner(compared, known)
    if a is None or b is None or {e.base for e in (a, b, c)} - {-1} != {c.base} or nodes[c.base].shape != node.shape:
        return None
    if a.length + b.length + c.length >= LONGEST:
        return None
    holds, bound, magnitude = COMPARES[text(node, "when")], number(node, "bound"), bool(node.attrs.get("magnitude"))

    def at(x: float) -> Dual:
        y = c.at(x)[0]
        return a.at(x) if holds(abs(y) if magnitude else y, bound) else b.at(x)

    return Expression(c.base, at, False, a.length + b.length + c.length + 1)


def _inner(index: int, known: Mapping[int, Expression]) -> Expression:
    return known.get(index) or Expression(index, lambda x: (x, 1.0), True, 0)


def _affine(node: Node, known: Mapping[int, Expression]) -> Expression | None:
    inner = _inner(node.inputs[0], known)
    if inner.length >= LONGEST:
        return None
    factor = number(node, "factor", 1.0) if node.op == "scale" else 1.0
    value = number(node, "value") if node.op == "shift" else 0.0
    f = inner.at

    def at(x: float) -> Dual:
        y, dy = f(x)
        return factor * y + value, factor * dy

    return Expression(inner.base, at, inner.straight, inner.length + 1)


def _applied(node: Node, known: Mapping[int, Expression]) -> Expression | None:
    try:
        function = function_of(node)
    except NoRuleError:
        return None
    inner = _inner(node.inputs[0], known)
    if inner.length >= LONGEST:
        return None
    f, value, slope = inner.at, function.value, function.slope

    def at(x: float) -> Dual:
        y, dy = f(x)
        return value(y), slope(y) * dy

    return Expression(inner.base, at, False, inner.length + 1)


def _combined(node: Node, nodes: Sequence[Node], known: Mapping[int, Expression]) -> Expression | None:
    """Two functions of one signal, or one and a single number."""
    left, right = node.inputs[0], node.inputs[-1]
    a, b = (_operand(at, nodes, known) for at in (left, right))
    if a is None or b is None:
        return None
    a, b = _gained(a, b.base, nodes, known) or a, _gained(b, a.base, nodes, known) or b
    bases = {e.base for e in (a, b) if e.base >= 0}
    if len(bases) != 1 or a.length + b.length >= LONGEST:
        return None
    base = bases.pop()
    if nodes[base].shape != node.shape and nodes[base].shape is not None:
        return None  # broadcast: not elementwise
    straight = node.op in ("add", "sub") and a.straight and b.straight
    straight = straight or (node.op in ("mul", "div") and a.straight and b.base < 0)
    at = _chosen(node, a.at, b.at) if node.op == "extremum" else _arithmetic(node, a.at, b.at)
    return Expression(base, at, straight, a.length + b.length + 1)


def _gained(e: Expression, base: int, nodes: Sequence[Node], known: Mapping[int, Expression]) -> Expression | None:
    """A function of x times a parameter of one value as one of node ``base``, where x is: x sigmoid(beta x)."""
    product = nodes[e.base] if e.base >= 0 and base >= 0 else None
    if product is None or product.op != "mul" or len(set(product.inputs)) != 2:
        return None
    for source, gain in (product.inputs, product.inputs[::-1]):
        factor, inner = _level(nodes[gain]), _inner(source, known)
        if factor is not None and inner.base == base:
            return _composed(e, inner, factor)
    return None


def _composed(e: Expression, inner: Expression, factor: float) -> Expression:
    f, g = e.at, inner.at

    def at(x: float) -> Dual:
        y, dy = g(x)
        value, slope = f(factor * y)
        return value, factor * slope * dy

    return Expression(inner.base, at, e.straight and inner.straight, e.length + inner.length + 1)


def _level(node: Node) -> float | None:
    """The one value of all elements of a constant or parameter."""
    if node.op not in ("constant", "parameter") or node.attrs.get("random"):
        return None
    mean, second = number(node, "mean", float("nan")), number(node, "second", float("nan"))
    return mean if abs(second - mean * mean) <= LEVEL * second else None  # (not of NaN)


def _operand(index: int, nodes: Sequence[Node], known: Mapping[int, Expression]) -> Expression | None:
    """An operand as an expression; a constant of one value and a parameter of one element are numbers (base -1)."""
    node = nodes[index]
    if node.op in ("parameter", "constant"):
        value = number(node, "mean", float("nan"))
        alike = node.op == "constant" and _level(node) is not None
        if not alike and (node.shape is None or math.prod(node.shape) != 1):
            return None
        return Expression(-1, lambda x: (value, 0.0), True, 0) if math.isfinite(value) else None
    return _inner(index, known)


def _chosen(node: Node, f: Dualised, g: Dualised) -> Dualised:
    """The greater or lesser of two functions."""
    sign = -1.0 if text(node, "fn", "max") == "min" else 1.0

    def at(x: float) -> Dual:
        one, other = f(x), g(x)
        return one if sign * one[0] >= sign * other[0] else other

    return at


def _arithmetic(node: Node, f: Dualised, g: Dualised) -> Dualised:
    op, alpha = node.op, number(node, "alpha", 1.0)
    sign = -alpha if op == "sub" else alpha

    def add(x: float) -> Dual:
        (a, da), (b, db) = f(x), g(x)
        return a + sign * b, da + sign * db

    def mul(x: float) -> Dual:
        (a, da), (b, db) = f(x), g(x)
        return a * b, a * db + b * da

    def div(x: float) -> Dual:
        (a, da), (b, db) = f(x), g(x)
        return a / b, (da * b - a * db) / (b * b)

    return mul if op == "mul" else div if op == "div" else add


def _described(at: Dualised) -> tuple[dict[str, Plain], dict[str, tuple[float, ...]]] | None:
    """``fn`` of a known activation with these values, or ``callable`` with a table."""
    try:
        probes = tuple(at(x)[0] for x in PROBES)
    except (ArithmeticError, ValueError):
        return None
    if not all(math.isfinite(y) for y in probes):
        return None
    name = _named(probes)
    if name is not None:
        return {"fn": name}, {}
    table = _table(at)
    return ({"fn": "callable"}, table) if table else None


def _named(probes: tuple[float, ...]) -> str | None:
    for name, values in _signatures().items():
        if all(abs(y - z) <= AGREE * max(1.0, abs(y)) for y, z in zip(probes, values, strict=True)):
            return name
    return None


@lru_cache(maxsize=1)
def _signatures() -> Mapping[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for name, activation in ACTIVATIONS.items():
        try:
            values = tuple(activation.value(x) for x in PROBES)
        except (ArithmeticError, ValueError):
            continue
        if all(isinstance(y, float) and math.isfinite(y) for y in values) and values not in found.values():
            found[name] = values
    return found


def _side() -> int:
    return math.ceil(math.log(FARTHEST / NEAREST) / math.log(STEP)) + 1


def _table(at: Dualised) -> dict[str, tuple[float, ...]]:
    count = _side()
    side = [NEAREST * STEP**k for k in range(count)]
    rows = []
    for x in (*(-x for x in reversed(side)), 0.0, *side):
        try:
            y, dy = at(x)
        except (ArithmeticError, ValueError):
            continue
        if math.isfinite(y) and math.isfinite(dy) and abs(y) < 1e60:
            rows.append((x, y, dy))
    if len(rows) < count - 1:
        return {}
    xs, ys, dys = zip(*rows, strict=True)
    return {"x": xs, "y": ys, "dy": dys}
