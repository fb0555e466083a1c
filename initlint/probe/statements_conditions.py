"""Conditions as predicates over modules, parameters and their names, with three-valued answers."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import field
from typing import Any

import torch

from initlint.probe.provenance_words import words
from initlint.records import dataclass

#: Three-valued: does this subject satisfy the condition?
Answer = bool | None
Predicate = Callable[[Any], Answer]


@dataclass(slots=True)
class Condition:
    """A condition as a predicate over modules, parameters or (``value``) nothing in particular."""

    kind: str  # "isinstance" | "type" | "name" | "class_name" | "hasattr" | "value" | "other"
    test: Predicate
    values: list[str] = field(default_factory=list)
    subject: str = ""  # "module" | "parameter" | "module_name" | "parameter_name" | ""
    classes: tuple[type, ...] = ()  # of a test on classes
    parts: tuple[Condition, ...] = ()  # of ``a or b``
    text: str = ""
    opposite: Condition | None = None  # of which this is the negation


def unknown(_: Any) -> Answer:
    """The predicate of a condition that cannot be evaluated."""
    return None


def text_condition(kind: str, test: Callable[[str], bool], values: list[str]) -> Condition:
    """A test on a class name, or on the name of a parameter or module."""
    if kind == "class_name":
        return Condition("class_name", lambda module: test(type(module).__name__), values, "module")
    # Names are relative to the module that the loop runs over: any trailing part of the path may be it.
    return Condition("name", lambda name: any(test(part) for part in _tails(name)), values, kind)


class Whole(str):
    """A name as the loop sees it, to be tested as it stands."""


def _tails(name: str) -> list[str]:
    if isinstance(name, Whole):
        return [str(name)]
    parts = name.split(".")
    return [".".join(parts[index:]) for index in range(len(parts))]


def string_test(method: str, name: str, value: str) -> bool:
    """``endswith``, ``startswith``, ``__contains__`` or ``__eq__``."""
    if method == "__contains__":
        return value in name
    if method == "__eq__":
        return name == value
    return bool(getattr(name, method)(value))


def instances(classes: tuple[type, ...] | None) -> Condition:
    """``isinstance(x, classes)``; ``None`` for classes that cannot be told."""
    if classes is None:
        return Condition("isinstance", unknown)
    tensors = bool(classes) and all(issubclass(cls, torch.Tensor) for cls in classes)
    names = [cls.__name__ for cls in classes]
    subject = "parameter" if tensors else "module"
    return Condition("isinstance", lambda item: isinstance(item, classes), names, subject, classes)


def exact_types(classes: tuple[type, ...] | None) -> Condition:
    """``type(x) in classes``."""
    if classes is None:
        return Condition("type", unknown)
    names = [cls.__name__ for cls in classes]
    return Condition("type", lambda item: type(item) in classes, names, "module", classes)


def has_attribute(name: str) -> Condition:
    """``hasattr(m, name)``, without computing properties: a parametrized weight changes state when read."""

    def test(module: Any) -> Answer:
        tables = (module._parameters, module._buffers, module._modules, vars(module))
        return any(name in table for table in tables) or hasattr(type(module), name)

    return Condition("hasattr", test, [name], "module")


def classes_of(value: Any) -> tuple[type, ...] | None:
    """The classes in a value (nested tuples allowed), ``None`` when it holds anything else."""
    found: list[type] = []
    for item in value if isinstance(value, tuple | list | set | frozenset) else (value,):
        inner = (item,) if isinstance(item, type) else classes_of(item) if isinstance(item, tuple) else None
        if inner is None:
            return None
        found += inner
    return tuple(found)


def negated(condition: Condition) -> Condition:
    """The opposite condition."""
    if condition.opposite is not None:
        return condition.opposite
    test = condition.test

    def opposite(subject: Any) -> Answer:
        answer = test(subject)
        return None if answer is None else not answer

    return Condition(
        condition.kind, opposite, condition.values, condition.subject, text=condition.text, opposite=condition
    )


def joined(parts: list[Condition], *, every: bool) -> Condition:
    """Conditions joined by ``and`` or ``or``; they can be counted when all are about the same subjects."""
    subjects = {part.subject for part in parts if part.subject}
    kinds = [part.kind for part in parts if part.subject] + [part.kind for part in parts if part.kind != "other"]
    values = [value for part in parts for value in part.values]
    kind = kinds[0] if kinds else "other"
    if every and any(part.kind == "value" and part.test(None) is False for part in parts):
        return Condition("value", lambda _: False, values)  # an option that is off, whatever the model holds
    if len(subjects) > 1:
        return Condition(kind, unknown, values)

    def test(subject: Any) -> Answer:
        answers = [part.test(subject) for part in parts]
        if every:
            return False if False in answers else None if None in answers else True
        return True if True in answers else None if None in answers else False

    classes = tuple(cls for part in parts for cls in part.classes)
    return Condition(kind, test, values, next(iter(subjects), ""), classes, () if every else tuple(parts))


def ordered(left: Any, op: ast.cmpop, right: Any) -> bool:
    """The comparison of two known values."""
    try:
        match op:
            case ast.Eq():
                return bool(left == right)
            case ast.NotEq():
                return bool(left != right)
            case ast.Gt():
                return bool(left > right)
            case ast.GtE():
                return bool(left >= right)
            case ast.Lt():
                return bool(left < right)
            case ast.LtE():
                return bool(left <= right)
            case ast.Is():
                return left is right
            case ast.IsNot():
                return left is not right
            case ast.In():
                return bool(left in right)
            case _:
                return bool(left not in right)
    except TypeError:
        return False


def is_type(node: ast.expr) -> bool:
    """``type(x)`` or ``x.__class__``."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def method_of(node: ast.expr) -> str:
    """``find`` of ``name.find("Conv")``."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def loop_kind(iterable: ast.expr, position: int | None) -> str:
    """What the first of two loop variables over ``named_parameters()`` and the like is: ``parameter_name`` ..."""
    if position not in (0, None) or not isinstance(iterable, ast.Call):
        return ""
    if isinstance(iterable.func, ast.Name) and iterable.args:
        return loop_kind(iterable.args[0], position)  # list(...), sorted(...)
    method = method_of(iterable)
    if method == "items" and isinstance(iterable.func, ast.Attribute):
        method = method_of(iterable.func.value)  # state_dict().items()
    if method in ("named_parameters", "state_dict"):
        return "parameter_name"
    return "module_name" if method in ("named_modules", "named_children") else ""


#: Methods of texts that keep the letters (tests on the result are done on the name as it is).
NEUTRAL = words("strip lstrip rstrip __str__")
#: Methods of texts that change case, with what they do.
CASES: dict[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper, "casefold": str.casefold}
