"""Sequences that a constructor takes: how many items they need, and whether the items are numbers of repetitions.

Read from the code, one step into the methods, functions and classes that an item is handed to: ``range(depths[i])``,
``for depth, width in zip(depths, widths): self.stage(width, depth)``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from initlint.probe import conventions
from initlint.probe.names import arguments_of, dotted
from initlint.probe.paths import aliases, resolved
from initlint.records import dataclass

#: An item is followed into so many functions that it is handed to.
_DEPTH = 2
#: Wider stages than this show nothing that narrower ones do not.
_WIDEST = 256
_SAME_ITEMS = frozenset(("list", "tuple", "reversed", "sorted", "iter"))


@dataclass(slots=True)
class Items:
    """What the code says about one argument."""

    repeats: bool = False  # an item says how often something is repeated
    repeated: bool = False  # it is no sequence, but such a number itself
    length: int = 0  # so many are asked for by constant numbers
    offsets: dict[str, int] = field(default_factory=dict)  # walked over with others: by this many more items


def read(subject: Any) -> dict[str, Items]:
    """What the constructor of a class, or a function, asks of the sequences among its arguments."""
    tree, names = _tree(subject)
    if tree is None:
        return {}
    walk = _Walk(tree, names)
    found = {name: Items() for name in names}
    walk.lengths(found)
    for name, item in walk.repeated(subject, _DEPTH):
        found[name].repeats |= item
        found[name].repeated |= not item
    return found


def fitted(name: str, value: Any, items: Mapping[str, Items], known: Mapping[str, Any]) -> Any:
    """A guessed sequence of sizes, as long as the code and the arguments beside it need, of the kind that it needs.

    Args:
        known: other arguments, given or by default, whose lengths a sequence that is walked with them must have.
    """
    if not isinstance(value, (list, tuple)) or list(value) != conventions.STAGES or name not in items:
        return value
    own = items[name]
    length = max(len(value), own.length, *(_together(name, group, items, known) for group in own.offsets), 0)
    first = conventions.STAGES[0]
    sizes = [conventions.COUNT] * length if own.repeats else [min(first << n, _WIDEST) for n in range(length)]
    return type(value)(sizes)


def _together(name: str, group: str, items: Mapping[str, Items], known: Mapping[str, Any]) -> int:
    """The length that a sequence needs to be walked over with others."""
    members = {other: found for other, found in items.items() if group in found.offsets}
    given = [len(known[n]) - m.offsets[group] for n, m in members.items() if isinstance(known.get(n), (list, tuple))]
    asked = [m.length - m.offsets[group] for m in members.values() if m.length]
    least = len(conventions.STAGES) - min(member.offsets[group] for member in members.values())
    return max(min(given) if given else max(asked, default=least), 0) + items[name].offsets[group]


class _Walk:
    """The loops of one function, and which arguments their variables are items of."""

    def __init__(self, tree: ast.FunctionDef, names: list[str]) -> None:
        self.tree = tree
        self.names = set(names)
        self.items: dict[str, str] = {}  # loop variable -> the argument whose items it is
        self.bounds: dict[str, int] = {}  # loop variable -> constant end of its range
        self.groups: dict[str, dict[str, int]] = {}  # loop -> arguments walked over in it, with their offsets
        for node in ast.walk(tree):
            if isinstance(node, (ast.For, ast.comprehension)):
                self._loop(node.target, node.iter)

    def lengths(self, found: Mapping[str, Items]) -> None:
        """Fill in how many items are asked for, and which sequences are walked over together."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
                continue
            name = node.value.id
            if name not in self.names:
                continue
            number = _integer(node.slice)
            if number is not None:
                found[name].length = max(found[name].length, number + 1 if number >= 0 else -number)
                continue
            index, offset = _shifted(node.slice)
            if index in self.bounds:
                found[name].length = max(found[name].length, self.bounds[index] + offset)
            if index in self.groups:
                self._join(index, name, offset)
        for group, members in self.groups.items():
            for name, offset in members.items():
                found[name].offsets[group] = offset

    def repeated(self, subject: Any, depth: int) -> Iterator[tuple[str, bool]]:
        """Arguments that say how often something is repeated: (name, whether it is its items that do)."""
        for node in ast.walk(self.tree):
            for expression in self._counts(node, subject, depth):
                for part in ast.walk(expression):
                    if isinstance(part, ast.Subscript) and not isinstance(part.slice, ast.Slice):
                        name = dotted(part.value)
                        if name in self.names:
                            yield name, True
                    elif isinstance(part, ast.Name) and part.id in self.items:
                        yield self.items[part.id], True
                if isinstance(expression, ast.Name) and expression.id in self.names:
                    yield expression.id, False

    def _counts(self, node: ast.AST, subject: Any, depth: int) -> Iterator[ast.expr]:
        """Expressions in a node whose value is a number of repetitions."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for one, other in ((node.left, node.right), (node.right, node.left)):
                if isinstance(one, ast.List):
                    yield other
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "range":
                yield from (a for a in node.args if not _has_length(a))
            elif depth:
                yield from _handed_on(node, subject, depth)

    def _loop(self, target: ast.expr, source: ast.expr) -> None:
        if isinstance(source, ast.Name):
            if source.id in self.names and isinstance(target, ast.Name):
                self.items[target.id] = source.id
            return
        if isinstance(source, ast.Subscript) and isinstance(source.slice, ast.Slice):
            self._loop(target, source.value)
            return
        if not isinstance(source, ast.Call) or not isinstance(source.func, ast.Name):
            return
        function = source.func.id
        targets = target.elts if isinstance(target, ast.Tuple) else []
        if function in _SAME_ITEMS and source.args:
            self._loop(target, source.args[0])
        elif function == "enumerate" and len(targets) == 2 and source.args:
            self._loop(targets[1], source.args[0])
            if isinstance(targets[0], ast.Name) and isinstance(source.args[0], ast.Name):
                self._join(targets[0].id, source.args[0].id, 0)
        elif function == "zip":
            for one, argument in zip(targets, source.args, strict=False):
                self._loop(one, argument)
            for argument in source.args:
                self._join(f"line {source.lineno}", *_sliced(argument))
        elif function == "range" and isinstance(target, ast.Name) and source.args:
            end = source.args[-1] if len(source.args) < 3 else source.args[1]
            number = _integer(end)
            if number is not None:
                self.bounds[target.id] = max(number, self.bounds.get(target.id, 0))
            self.groups.setdefault(target.id, {})
            for call in ast.walk(end):  # ``range(len(widths) - 1)`` walks over one fewer than there are
                if _has_length(call) and isinstance(call, ast.Call) and isinstance(call.args[0], ast.Name):
                    self._join(target.id, call.args[0].id, max(-_shift_of(end), 0))

    def _join(self, group: str, name: str, offset: int) -> None:
        if name in self.names:
            members = self.groups.setdefault(group, {})
            members[name] = max(members.get(name, 0), offset)


def _handed_on(call: ast.Call, subject: Any, depth: int) -> Iterator[ast.expr]:
    """Arguments of a call that the called method, function or class takes for a number of repetitions."""
    target = _target(call, subject)
    tree, names = _tree(target)
    if tree is None or not names:
        return
    counted = {name for name, item in _Walk(tree, names).repeated(target, depth - 1) if not item}
    if not counted:
        return
    yield from (value for name, value in zip(names, call.args, strict=False) if name in counted)
    yield from (keyword.value for keyword in call.keywords if keyword.arg in counted)


def _target(call: ast.Call, subject: Any) -> Any:
    """The Python function or class that is called, if it is one of the project's."""
    function = conventions.constructor(subject) if isinstance(subject, type) else subject
    target = None
    if isinstance(call.func, ast.Name):
        target = getattr(inspect.unwrap(function), "__globals__", {}).get(call.func.id)
    elif isinstance(call.func, ast.Attribute) and dotted(call.func.value) == "self" and isinstance(subject, type):
        target = inspect.getattr_static(subject, call.func.attr, None)
    module = getattr(target, "__module__", None)
    own = isinstance(module, str) and module.partition(".")[0] not in ("torch", "builtins")
    return target if own and (isinstance(target, type) or inspect.isfunction(target)) else None


def _tree(subject: Any) -> tuple[ast.FunctionDef | None, list[str]]:
    """The code of a function, or of the constructor of a class, and the arguments that callers give."""
    function = conventions.constructor(subject) if isinstance(subject, type) else subject
    tree = None if function is None else conventions.tree_of(function)
    if tree is None:
        return None, []
    names = arguments_of(tree)
    return resolved(tree, aliases(tree)), names[1:] if names[:1] == ["self"] else names


def _integer(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _integer(node.operand)
        return None if number is None else -number
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shifted(node: ast.expr) -> tuple[str, int]:
    """The variable of an index and what is added to it: ``i + 1``."""
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Name):
        return node.left.id, max(_shift_of(node), 0)
    return (node.id, 0) if isinstance(node, ast.Name) else ("", 0)


def _sliced(node: ast.expr) -> tuple[str, int]:
    """A name, and how many of its items a slice leaves out: ``sizes[1:]``, ``sizes[:-1]``."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice):
        return dotted(node), 0
    ends = (node.slice.lower, node.slice.upper)
    return dotted(node.value), max((abs(_integer(end) or 0) for end in ends if end is not None), default=0)


def _shift_of(node: ast.expr) -> int:
    """What a sum adds to its first term."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, (ast.Add, ast.Sub)):
        return 0
    number = _integer(node.right) or 0
    return number if isinstance(node.op, ast.Add) else -number


def _has_length(node: ast.AST) -> bool:
    """Whether a ``range`` ends at a length, which is no item: ``len(depths)``, ``len(depths) - 1``."""
    if isinstance(node, ast.BinOp):
        return _has_length(node.left)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and bool(node.args)
