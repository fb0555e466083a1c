"""Shapes that a forward asserts: ``assert x.shape[1:] == (self.channels, self.size, self.size)``.

Read from the source: equalities between sizes of an argument and numbers, attributes of the model, or names of both
(``b, c, h, w = x.shape``) in assertions of the forward's body.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from initlint.probe.inputs_source import forward_source
from initlint.probe.inputs_wants import Guess, tokens
from initlint.probe.names import arguments_of, dotted
from initlint.records import dataclass

_LARGEST = 1 << 16
# Parts within parts that an argument is followed into.
_DEPTH = 4
# What a tensor of so many axes is, where only its shape is known.
_RANKS = {2: "features", 3: "tokens", 4: "image", 5: "volume"}
#: Sides of images of no stated size.
_SIDE = 32


@dataclass(frozen=True, slots=True)
class Stated:
    """What assertions say of an argument's shape: sizes by axis (from the end, where negative), number of axes."""

    sizes: tuple[tuple[int, int], ...] = ()
    axes: int | None = None

    def fitted(self, guess: Guess) -> Guess | None:
        """The guess with the stated sizes, ``None`` where it has not the axes for them."""
        rank = len(guess.shape)
        if (self.axes is not None and rank != self.axes) or any(not -rank <= axis < rank for axis, _ in self.sizes):
            return None
        shape = list(guess.shape)
        for axis, size in self.sizes:
            shape[axis] = size
        return guess.resized(tuple(shape))

    def alone(self, batch: int) -> Guess | None:
        """A guess where nothing else is known of the argument."""
        if self.axes not in _RANKS:
            return None
        middle = {3: (tokens(batch), 16), 4: (3, _SIDE, _SIDE), 5: (3, 8, _SIDE, _SIDE)}.get(self.axes, (16,))
        return self.fitted(Guess(_RANKS[self.axes], (batch, *middle)))


def stated_shapes(model: nn.Module, depth: int = _DEPTH) -> dict[str, Stated]:
    """The shapes that the assertions in a forward's body state, by argument, or in that of a part which it is handed
    to as it is."""
    function = forward_source(model)
    if function is None:
        return {}
    reader = _Reader(model, arguments_of(function))
    for statement in function.body:
        reader.read(statement)
    found = reader.found
    for name, part in _handed(model, function, set(reader.arguments) - found.keys()) if depth > 0 else ():
        inner = forward_source(part)
        first = arguments_of(inner)[1:2] if inner is not None else []
        stated = stated_shapes(part, depth - 1)
        if first and first[0] in stated:
            found.setdefault(name, stated[first[0]])
    return found


def _handed(model: nn.Module, function: ast.FunctionDef, names: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """The modules that arguments are given to, alone: ``self.encoder(x)``; of a sequence its first."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords:
            continue
        given, path = node.args[0], dotted(node.func).split(".")
        part: Any = model if len(path) == 2 and path[0] == arguments_of(function)[0] else None
        part = getattr(part, path[-1], None)
        while isinstance(part, nn.Sequential) and len(part):
            part = part[0]
        if isinstance(given, ast.Name) and given.id in names and isinstance(part, nn.Module):
            yield given.id, part


@dataclass(frozen=True, slots=True)
class _Part:
    """Sizes of an argument in an expression: of one axis, of a row of axes, or how many axes there are."""

    name: str
    kind: str  # "axis" | "row" | "count"
    start: int = 0
    open_ended: bool = True  # of a row: whether it goes to the last axis


class _Reader:
    """Reads statements in their order; names stand for what they were last given."""

    def __init__(self, model: nn.Module, arguments: list[str]) -> None:
        self.model = model
        self.itself, *rest = arguments or [""]
        self.arguments = set(rest)
        self.names: dict[str, ast.expr | _Part] = {}
        self.found: dict[str, Stated] = {}

    def read(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self._assign(statement.targets[0], statement.value)
        elif isinstance(statement, ast.Assert):
            for left, right in _equalities(statement.test):
                self._equal(left, right)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            part = self._part(value)
            self.names[target.id] = value if part is None else part
            if target.id in self.arguments:
                self.arguments.discard(target.id)  # from here on it is something else
            return
        if not isinstance(target, (ast.Tuple, ast.List)):
            return
        if any(not isinstance(t, ast.Name) for t in target.elts):
            return
        names = [t.id for t in target.elts if isinstance(t, ast.Name)]
        for name, given in zip(names, self._spread(value, len(names)), strict=False):
            self.arguments.discard(name)
            self.names[name] = given

    def _spread(self, value: ast.expr, count: int) -> list[ast.expr | _Part]:
        """What each of ``count`` names gets: ``x.shape`` alone, or ``*x.shape`` among others."""
        values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else [ast.Starred(value)]
        found: list[ast.expr | _Part] = []
        for item in values:
            if not isinstance(item, ast.Starred):
                found.append(item)
                continue
            part, many = self._part(item.value), count - len(values) + 1
            if part is None or part.kind != "row" or not part.open_ended:
                return []
            found += [_Part(part.name, "axis", part.start + i) for i in range(many)]
            self._note(part.name, axes=part.start + many)
        return found

    def _equal(self, left: ast.expr, right: ast.expr) -> None:
        for one, other in ((left, right), (right, left)):
            part, value = self._part(one), self._value(other)
            if part is None or value is None:
                continue
            if part.kind == "row" and isinstance(value, tuple):
                self._note(part.name, {part.start + i: v for i, v in enumerate(value)})
                if part.open_ended:
                    self._note(part.name, axes=len(value) + part.start if part.start >= 0 else None)
            elif part.kind == "axis" and isinstance(value, int):
                self._note(part.name, {part.start: value})
            elif part.kind == "count" and isinstance(value, int):
                self._note(part.name, axes=value)

    def _note(self, name: str, sizes: dict[int, int] | None = None, axes: int | None = None) -> None:
        before = self.found.get(name, Stated())
        if all(0 < size <= _LARGEST for size in (sizes or {}).values()):
            known = {**dict(before.sizes), **(sizes or {})}
            self.found[name] = replace(before, sizes=tuple(known.items()), axes=axes or before.axes)

    def _part(self, node: ast.expr) -> _Part | None:
        """The sizes that an expression takes of an argument."""
        if isinstance(node, ast.Name):
            held = self.names.get(node.id)
            return held if isinstance(held, _Part) else None
        if isinstance(node, ast.Call):
            return self._called(node)
        if isinstance(node, ast.Attribute) and self._argument(node.value):
            name = ast.unparse(node.value)
            return {"shape": _Part(name, "row"), "ndim": _Part(name, "count")}.get(node.attr)
        if isinstance(node, ast.Subscript):
            return self._taken(self._part(node.value), node.slice)
        return None

    def _called(self, node: ast.Call) -> _Part | None:
        function, first = node.func, node.args[0] if len(node.args) == 1 and not node.keywords else None
        if isinstance(function, ast.Attribute) and self._argument(function.value):
            row = _Part(ast.unparse(function.value), "row")
            if function.attr == "size":
                return self._taken(row, first) if first is not None else row if not node.args else None
            return replace(row, kind="count") if function.attr in ("dim", "ndimension") and not node.args else None
        if first is None or ast.unparse(function) not in ("tuple", "list", "len", "torch.Size"):
            return None
        part = self._part(first)
        if part is None or ast.unparse(function) != "len":
            return part
        return replace(part, kind="count") if part.kind == "row" and part.start == 0 and part.open_ended else None

    def _taken(self, part: _Part | None, index: ast.expr) -> _Part | None:
        """One axis of a row, or a row from an axis on."""
        if part is None or part.kind != "row":
            return None
        if isinstance(index, ast.Slice):
            start = 0 if index.lower is None else self._value(index.lower)
            if not isinstance(start, int) or index.step is not None or (start < 0 and part.start):
                return None
            return _Part(part.name, "row", part.start + start, part.open_ended and index.upper is None)
        at = self._value(index)
        if not isinstance(at, int) or (at < 0 and not part.open_ended):
            return None
        return _Part(part.name, "axis", at if at < 0 else part.start + at)

    def _argument(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self.arguments

    def _value(self, node: ast.expr, deep: int = 4) -> int | tuple[int, ...] | None:
        """A number, or a row of numbers: literals and attributes of the model."""
        if isinstance(node, ast.Constant):
            return _whole(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self._value(node.operand, deep)
            return -inner if isinstance(inner, int) else None
        if isinstance(node, ast.Name):
            held = self.names.get(node.id)
            return self._value(held, deep - 1) if isinstance(held, ast.expr) and deep else None
        if isinstance(node, (ast.Tuple, ast.List)):
            parts = [self._value(item, deep) for item in node.elts]
            numbers = tuple(p for p in parts if isinstance(p, int))
            return numbers if len(numbers) == len(parts) else None
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tuple", "list", "torch.Size"):
            return self._value(node.args[0], deep) if len(node.args) == 1 and not node.keywords else None
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            row, at = self._value(node.value, deep), self._value(node.slice, deep)
            fits = isinstance(row, tuple) and isinstance(at, int) and -len(row) <= at < len(row)
            return row[at] if fits and isinstance(row, tuple) and isinstance(at, int) else None
        return _whole(self._attribute(node)) if isinstance(node, ast.Attribute) else None

    def _attribute(self, node: ast.expr) -> Any:
        """The value of ``self.config.size``; ``None`` for anything else."""
        if isinstance(node, ast.Name):
            return self.model if node.id == self.itself else None
        if not isinstance(node, ast.Attribute):
            return None
        owner = self._attribute(node.value)
        try:
            return None if owner is None else getattr(owner, node.attr, None)
        except Exception:  # a property of user code may raise anything
            return None


def _equalities(test: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The pairs that an assertion says are equal; in a chain each with each."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for value in test.values:
            yield from _equalities(value)
    elif isinstance(test, ast.Compare) and all(isinstance(op, ast.Eq) for op in test.ops):
        terms = [test.left, *test.comparators]
        yield from ((one, other) for i, one in enumerate(terms) for other in terms[i + 1 :])


def _whole(value: Any) -> int | tuple[int, ...] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, (tuple, list)) and value and all(isinstance(v, int) and v is not True for v in value):
        return tuple(value)
    return None
