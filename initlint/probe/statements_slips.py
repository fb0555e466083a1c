"""Conditions that do not test what they are plainly meant to: ``"a" or "b" in name``, ``("a" or "b") in name``.

A text or a class among the operands of ``or`` is true in itself, and so is the whole; ``("a" or "b")`` is ``"a"``. Such
a condition is read again as people say it (each text compared, each class in ``isinstance``), and both readings are
asked about the model's parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from initlint.records import dataclass

#: Tests on a text or an attribute whose first argument is what is looked for.
_METHODS = frozenset({"startswith", "endswith", "find", "count", "__contains__"})
_NEGATIVE = (ast.NotIn, ast.NotEq, ast.IsNot)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a condition does and what it is meant to do, as expressions that can be asked."""

    actual: ast.expr
    meant: ast.expr


def reading(expr: ast.expr, is_class: Callable[[ast.expr], bool]) -> Reading | None:
    """Both readings of a condition; ``None`` where they are one.

    Args:
        expr: the condition.
        is_class: whether an expression names a class (or a tuple of classes) of the file, not one that may be absent.
    """
    if not any(isinstance(node, ast.BoolOp) for node in ast.walk(expr)):
        return None
    actual, meant, differ = _read(expr, is_class)
    return Reading(actual, meant) if differ else None


def _read(expr: ast.expr, is_class: Callable[[ast.expr], bool]) -> tuple[ast.expr, ast.expr, bool]:
    if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.Not):
        actual, meant, differ = _read(expr.operand, is_class)
        return _at(ast.UnaryOp(ast.Not(), actual), expr), _at(ast.UnaryOp(ast.Not(), meant), expr), differ
    if isinstance(expr, ast.BoolOp):
        return _joined(expr, is_class)
    texts = _chosen(expr)
    if texts is None:
        return expr, expr, False
    joint, values = texts
    each = [_with(expr, value) for value in values]
    if any(item is None for item in each):
        return expr, expr, False
    known = [item for item in each if item is not None]
    taken = known[0] if isinstance(joint, ast.Or) else known[-1]  # what Python makes of ``"a" or "b"``
    every = isinstance(joint, ast.And) != _negative(expr)
    return taken, _at(ast.BoolOp(ast.And() if every else ast.Or(), known), expr), True


def _joined(expr: ast.BoolOp, is_class: Callable[[ast.expr], bool]) -> tuple[ast.expr, ast.expr, bool]:
    loose = [_is_text(value) or is_class(value) for value in expr.values]
    if not any(loose) or all(loose):
        parts = [_of_its_own(index, expr, is_class) for index in range(len(expr.values))]
        actual = _at(ast.BoolOp(expr.op, [part[0] for part in parts]), expr)
        meant = _at(ast.BoolOp(expr.op, [part[1] for part in parts]), expr)
        return actual, meant, any(part[2] for part in parts)
    rewritten = list(expr.values)
    for index, value in enumerate(expr.values):
        if loose[index]:
            found = _like_a_neighbour(value, index, expr.values, loose)
            if found is None or (isinstance(expr.op, ast.And) and not _asks_in(found, value)):
                return expr, expr, False
            rewritten[index] = found
    others = [value for value, bare in zip(expr.values, loose, strict=True) if not bare]
    if isinstance(expr.op, ast.And):
        alone = others[0] if len(others) == 1 else _at(ast.BoolOp(expr.op, others), expr)
        return alone, _at(ast.BoolOp(expr.op, rewritten), expr), True
    # "if it is neither A nor B" is said with ``or`` as well
    op = ast.And() if all(_negative(value) for value in others) else ast.Or()
    return _at(ast.Constant(True), expr), _at(ast.BoolOp(op, rewritten), expr), True


def _of_its_own(index: int, expr: ast.BoolOp, is_class: Callable[[ast.expr], bool]) -> tuple[ast.expr, ast.expr, bool]:
    """Both readings of one operand; in ``A or "b" and C`` the second is ``C``, and means ``"b"`` compared as in A."""
    value = expr.values[index]
    inner = value.values if isinstance(value, ast.BoolOp) and isinstance(expr.op, ast.Or) else []
    first = inner[0] if inner and isinstance(value, ast.BoolOp) and isinstance(value.op, ast.And) else None
    if first is not None and (_is_text(first) or is_class(first)):
        found = _like_a_neighbour(first, index, expr.values, [i == index for i in range(len(expr.values))])
        if found is not None:
            rest = inner[1] if len(inner) == 2 else _at(ast.BoolOp(ast.And(), inner[1:]), value)
            return rest, _at(ast.BoolOp(ast.And(), [found, *inner[1:]]), value), True
    return _read(value, is_class)


def _like_a_neighbour(
    value: ast.expr, index: int, values: Sequence[ast.expr], loose: Sequence[bool]
) -> ast.expr | None:
    """A loose operand put into the comparison that it belongs to: the one before it, else the one after it."""
    before = [values[i] for i in range(index - 1, -1, -1) if not loose[i]]
    after = [values[i] for i in range(index + 1, len(values)) if not loose[i]]
    for neighbour in (*before[:1], *after[:1]):
        found = _with(neighbour, value)
        if found is not None:
            return found
    return None


def _with(comparison: ast.expr, value: ast.expr) -> ast.expr | None:
    """The same comparison with another text or class; ``None`` where it compares no such thing."""
    if isinstance(comparison, ast.UnaryOp) and isinstance(comparison.op, ast.Not):
        inner = _with(comparison.operand, value)
        return None if inner is None else _at(ast.UnaryOp(ast.Not(), inner), comparison)
    text = _is_text(value)
    if isinstance(comparison, ast.Call):
        return _called_with(comparison, value, text=text)
    if not isinstance(comparison, ast.Compare) or len(comparison.ops) != 1:
        return None
    left, op, right = comparison.left, comparison.ops[0], comparison.comparators[0]
    if isinstance(left, ast.Call):  # ``name.find("a") != -1``
        called = _called_with(left, value, text=text)
        if called is not None:
            return _at(ast.Compare(called, [op], [right]), comparison)
    if isinstance(op, ast.In | ast.NotIn):
        if text and _literal(left) and not _literal(right):
            return _at(ast.Compare(value, [op], [right]), comparison)
        if _literal(right) != text or (text and _literal(left)) or not (text or _asks_type(left)):
            return None
        several = isinstance(value, ast.Tuple | ast.List)
        same: ast.cmpop = ast.Eq() if isinstance(op, ast.In) else ast.NotEq()
        return _at(ast.Compare(left, [op if several else same], [value]), comparison)
    if not isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot):
        return None
    if isinstance(value, ast.Tuple | ast.List):
        listed: ast.cmpop = ast.NotIn() if isinstance(op, _NEGATIVE) else ast.In()
        fits = _literal(right) == text and (text or _asks_type(left))
        return _at(ast.Compare(left, [listed], [value]), comparison) if fits else None
    if text and _literal(left) != _literal(right):
        sides = (value, right) if _literal(left) else (left, value)
        return _at(ast.Compare(sides[0], [op], [sides[1]]), comparison)
    # a class is compared with ``type(m)``, whose other side is a class as well
    return None if text or not _asks_type(left) else _at(ast.Compare(left, [op], [value]), comparison)


def _called_with(call: ast.Call, value: ast.expr, *, text: bool) -> ast.expr | None:
    """``isinstance(m, B)`` of ``isinstance(m, A)``, ``name.endswith("b")`` of ``name.endswith("a")``."""
    function, args = call.func, list(call.args)
    if isinstance(function, ast.Name) and len(args) == 2 and function.id in ("isinstance", "hasattr"):
        if text != (function.id == "hasattr"):
            return None
        return _at(ast.Call(function, [args[0], value], []), call)
    looks = isinstance(function, ast.Attribute) and function.attr in _METHODS and args and text
    return _at(ast.Call(function, [value, *args[1:]], call.keywords), call) if looks and _literal(args[0]) else None


def _chosen(expr: ast.expr) -> tuple[ast.boolop, list[ast.expr]] | None:
    """The texts of ``("a" or "b") in name``, ``name == ("a" or "b")``, ``name.endswith("a" or "b")``."""
    inside = expr.operand if isinstance(expr, ast.UnaryOp) else expr
    places: list[ast.expr] = []
    if isinstance(inside, ast.Compare) and len(inside.ops) == 1:
        left = inside.left
        places = [left, inside.comparators[0], *(left.args[:1] if isinstance(left, ast.Call) else ())]
    elif isinstance(inside, ast.Call):
        places = inside.args[:2]
    found = [node for node in places if isinstance(node, ast.BoolOp) and all(map(_is_text, node.values))]
    return (found[0].op, found[0].values) if len(found) == 1 else None


def _is_text(node: ast.expr) -> bool:
    """A text that is not empty, or a list of such: what stands in for a comparison by mistake."""
    if isinstance(node, ast.Tuple | ast.List):
        return bool(node.elts) and all(_is_text(item) for item in node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


def _literal(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        return all(map(_is_text, node.values))
    return _is_text(node)


def _asks_in(found: ast.expr, value: ast.expr) -> bool:
    return isinstance(found, ast.Compare) and found.left is value


def _asks_type(node: ast.expr) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"
    return called or (isinstance(node, ast.Attribute) and node.attr == "__class__")


def _negative(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    if not isinstance(node, ast.Compare):
        return False
    if isinstance(node.left, ast.Call) and isinstance(node.left.func, ast.Attribute):  # ``name.find("a") == -1``
        return isinstance(node.ops[0], ast.Eq | ast.Lt)
    return isinstance(node.ops[0], _NEGATIVE)


def _at(node: ast.expr, like: ast.expr) -> ast.expr:
    return ast.copy_location(node, like)
