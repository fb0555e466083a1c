"""Conditions around init statements, evaluated against the model's actual modules and names."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from initlint.facts import Guard
from initlint.probe.statements_names import UNKNOWN, Names
from initlint.probe.statements_source import Scope, Source, Test

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


@dataclass(frozen=True, slots=True)
class Subjects:
    """What conditions are evaluated on."""

    modules: tuple[torch.nn.Module, ...]
    parameters: tuple[torch.Tensor, ...]
    module_names: tuple[str, ...]
    parameter_names: tuple[str, ...]

    def of(self, subject: str) -> tuple[Any, ...]:
        """The subjects that a condition of this kind ranges over."""
        return {
            "module": self.modules,
            "parameter": self.parameters,
            "module_name": self.module_names,
            "parameter_name": self.parameter_names,
        }.get(subject, ())


def subjects_of(model: torch.nn.Module) -> Subjects:
    """The subjects of a model."""
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return Subjects(tuple(modules.values()), tuple(parameters.values()), tuple(modules), tuple(parameters))


class Guards:
    """Makes facts of the conditions around a statement."""

    def __init__(self, names: Names, subjects: Subjects) -> None:
        self._names = names
        self._subjects = subjects

    def of(
        self, tests: Iterable[Test], scope: Scope, source: Source, bindings: dict[str, Any] | None = None
    ) -> tuple[Guard, ...]:
        """Facts of conditions, innermost first; ``bindings`` fixes values of parameters at one call site."""
        found: list[Guard] = []
        earlier: list[Condition] = []
        for test in reversed(tuple(tests)):
            condition = self._compile(test.expr, scope, source, bindings or {})
            if not test.positive:
                condition = _negated(condition)
            if test.chain:
                earlier.append(condition)
                continue
            text = source.segment(test.expr)
            matched = self._count(condition, earlier)
            earlier = []
            found.append(
                Guard(
                    condition.kind,
                    text if test.positive else f"not ({text})",
                    tuple(dict.fromkeys(condition.values)),
                    matched,
                    getattr(test.expr, "lineno", None),
                )
            )
        return tuple(reversed(found))

    def conditions(
        self, tests: Iterable[Test], scope: Scope, source: Source, bindings: dict[str, Any]
    ) -> list[Condition]:
        """The conditions themselves, innermost first, negated where the other branch was taken."""
        found = []
        for test in tests:
            condition = self._compile(test.expr, scope, source, bindings)
            found.append(condition if test.positive else _negated(condition))
        return found

    def unmatched_names(self, expr: ast.expr, scope: Scope, source: Source) -> list[Guard]:
        """Names in ``"a" in name or "b" in name`` that match nothing although others do."""
        condition = self._compile(expr, scope, source, {})
        counts = [(part, self._count(part, [])) for part in condition.parts if part.kind == "name"]
        if not any(count for _, count in counts):
            return []
        line = getattr(expr, "lineno", None)
        return [Guard(part.kind, part.text, tuple(part.values), 0, line) for part, count in counts if count == 0]

    def _count(self, condition: Condition, earlier: list[Condition]) -> int | None:
        """How many subjects satisfy a condition and none of the earlier branches; ``None`` when not decidable."""
        if condition.kind == "value":
            answer = condition.test(None)
            return None if answer is None else int(answer)
        subjects = self._subjects.of(condition.subject)
        if not condition.subject:
            return None
        same = [other for other in earlier if other.subject == condition.subject]
        count = 0
        for subject in subjects:
            answers = [condition.test(subject), *(other.test(subject) for other in same)]
            if any(answer is None for answer in answers):
                return None
            count += all(answers)
        return count

    # -- compiling -----------------------------------------------------------------------------

    def _compile(self, expr: ast.expr, scope: Scope, source: Source, bindings: dict[str, Any]) -> Condition:
        if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.Not):
            return _negated(self._compile(expr.operand, scope, source, bindings))
        if isinstance(expr, ast.BoolOp):
            parts = [self._compile(value, scope, source, bindings) for value in expr.values]
            return _joined(parts, isinstance(expr.op, ast.And))
        if isinstance(expr, ast.Call):
            found = self._call(expr, scope, source, bindings)
        elif isinstance(expr, ast.Compare) and len(expr.ops) == 1:
            found = self._compare(expr, scope, source, bindings)
        else:
            found = None
        found = found or self._value(expr, scope, source, bindings)
        found.text = source.segment(expr)
        return found

    def _call(self, expr: ast.Call, scope: Scope, source: Source, bindings: dict[str, Any]) -> Condition | None:
        function = expr.func
        if isinstance(function, ast.Name) and function.id == "isinstance" and len(expr.args) == 2:
            classes = _classes(self._resolve(expr.args[1], scope, source, bindings))
            return _instances(classes) if classes is not None else Condition("isinstance", _unknown)
        if isinstance(function, ast.Name) and function.id == "hasattr" and len(expr.args) == 2:
            name = self._resolve(expr.args[1], scope, source, bindings)
            if isinstance(name, str):
                return Condition("hasattr", lambda module: getattr(module, name, None) is not None, [name], "module")
        if isinstance(function, ast.Attribute) and function.attr in ("endswith", "startswith", "__contains__"):
            return self._string(function.attr, function.value, expr.args[:1], scope, source, bindings)
        if isinstance(function, ast.Attribute) and function.attr in ("match", "search", "fullmatch"):
            if len(expr.args) == 2:
                pattern = self._resolve(expr.args[0], scope, source, bindings)
                kind = self._kind(expr.args[1], scope, source)
                if isinstance(pattern, str) and kind:
                    return _text_condition(
                        kind, lambda text: bool(getattr(re, function.attr)(pattern, text)), [pattern]
                    )
        if isinstance(function, ast.Name) and function.id in ("any", "all") and len(expr.args) == 1:
            return self._any(expr.args[0], function.id == "all", scope, source, bindings)
        return None

    def _any(
        self, expr: ast.expr, every: bool, scope: Scope, source: Source, bindings: dict[str, Any]
    ) -> Condition | None:
        """``any(key in name for key in ("a", "b"))``."""
        if not isinstance(expr, ast.GeneratorExp | ast.ListComp) or len(expr.generators) != 1:
            return None
        generator = expr.generators[0]
        values = self._resolve(generator.iter, scope, source, bindings)
        if not isinstance(generator.target, ast.Name) or not isinstance(values, tuple | list):
            return None
        parts = [self._compile(expr.elt, scope, source, {**bindings, generator.target.id: value}) for value in values]
        return _joined(parts, every) if parts else None

    def _compare(self, expr: ast.Compare, scope: Scope, source: Source, bindings: dict[str, Any]) -> Condition | None:
        left, op, right = expr.left, expr.ops[0], expr.comparators[0]
        negative = isinstance(op, ast.NotEq | ast.NotIn | ast.IsNot)
        found: Condition | None = None
        if _is_type(left) or _is_type(right):
            wanted = self._resolve(right if _is_type(left) else left, scope, source, bindings)
            found = _types(wanted)
        elif (
            isinstance(left, ast.Call) and isinstance(left.func, ast.Attribute) and left.func.attr in ("find", "count")
        ):
            found = self._found(left, op, right, scope, source, bindings)
            negative = False
        elif isinstance(op, ast.In | ast.NotIn):
            if self._kind(right, scope, source):
                found = self._string("__contains__", right, [left], scope, source, bindings)
            elif self._kind(left, scope, source):
                found = self._string("__eq__", left, [right], scope, source, bindings)
        elif isinstance(op, ast.Eq | ast.NotEq):
            subject, other = (left, right) if self._kind(left, scope, source) else (right, left)
            if self._kind(subject, scope, source):
                found = self._string("__eq__", subject, [other], scope, source, bindings)
        if found is None:
            found, negative = self._dimensions(left, op, right), False
        return _negated(found) if found is not None and negative else found

    def _found(
        self, call: ast.Call, op: ast.cmpop, right: ast.expr, scope: Scope, source: Source, bindings: dict[str, Any]
    ) -> Condition | None:
        """``name.find("Conv") != -1``, ``name.count("bias") > 0``."""
        assert isinstance(call.func, ast.Attribute)
        kind = self._kind(call.func.value, scope, source)
        text = self._resolve(call.args[0], scope, source, bindings) if call.args else UNKNOWN
        bound = self._resolve(right, scope, source, bindings)
        if not kind or not isinstance(text, str) or not isinstance(bound, int):
            return None
        method = call.func.attr
        return _text_condition(kind, lambda name: _ordered(getattr(name, method)(text), op, bound), [text])

    def _string(
        self,
        method: str,
        subject: ast.expr,
        args: list[ast.expr],
        scope: Scope,
        source: Source,
        bindings: dict[str, Any],
    ) -> Condition | None:
        kind = self._kind(subject, scope, source)
        wanted = self._resolve(args[0], scope, source, bindings) if args else UNKNOWN
        if not kind or wanted is UNKNOWN:
            return None
        values = wanted if isinstance(wanted, tuple | list | set | frozenset) else (wanted,)
        if not all(isinstance(value, str) for value in values):
            return None
        return _text_condition(
            kind, lambda name: any(_string_test(method, name, value) for value in values), list(values)
        )

    def _dimensions(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition | None:
        """``p.dim() > 1``, ``p.ndim >= 2``, ``len(p.shape) == 1``."""
        text = ast.unparse(left)
        if not re.fullmatch(r"[\w.]+\.(dim\(\)|ndim)|len\([\w.]+\.(shape|size\(\))\)", text):
            return None
        if not isinstance(right, ast.Constant) or not isinstance(right.value, int) or not _on_parameter(text):
            return None
        bound = right.value
        return Condition("other", lambda tensor: _ordered(tensor.dim(), op, bound), [], "parameter")

    def _value(self, expr: ast.expr, scope: Scope, source: Source, bindings: dict[str, Any]) -> Condition:
        """A condition on plain values: an option of the constructor, an attribute of the model."""
        answers = self._plain(expr, scope, source, bindings)
        if answers is None:
            return Condition("other", _unknown)
        values = [
            node.value for node in ast.walk(expr) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        return Condition("value", lambda _: any(answers), list(values))

    def _plain(self, expr: ast.expr, scope: Scope, source: Source, bindings: dict[str, Any]) -> list[bool] | None:
        if isinstance(expr, ast.Compare) and len(expr.ops) == 1:
            lefts = self._all(expr.left, scope, source, bindings)
            rights = self._all(expr.comparators[0], scope, source, bindings)
            pairs = [(a, b) for a in lefts for b in rights]
            if not pairs or any(a is UNKNOWN or b is UNKNOWN for a, b in pairs):
                return None
            return [_ordered(a, expr.ops[0], b) for a, b in pairs]
        if isinstance(expr, ast.Name | ast.Attribute | ast.Constant):
            values = self._all(expr, scope, source, bindings)
            if any(value is UNKNOWN or not isinstance(value, bool | int | float | str | None) for value in values):
                return None
            return [bool(value) for value in values]
        return None

    # -- names ---------------------------------------------------------------------------------

    def _all(self, expr: ast.expr, scope: Scope, source: Source, bindings: dict[str, Any]) -> list[Any]:
        if isinstance(expr, ast.Name) and expr.id in bindings:
            return [bindings[expr.id]]
        return self._names.values(expr, scope, source)

    def _resolve(self, expr: ast.expr, scope: Scope, source: Source, bindings: dict[str, Any]) -> Any:
        values = self._all(expr, scope, source, bindings)
        return values[0] if len(values) == 1 else UNKNOWN

    def _kind(self, expr: ast.expr, scope: Scope, source: Source) -> str:
        """``class_name``, ``parameter_name`` or ``module_name`` when the expression is such a text."""
        while (
            isinstance(expr, ast.Call)
            and isinstance(expr.func, ast.Attribute)
            and expr.func.attr in ("lower", "upper", "strip", "casefold")
        ):
            expr = expr.func.value
        if isinstance(expr, ast.Attribute):
            return "class_name" if expr.attr in ("__name__", "__qualname__") and _is_type(expr.value) else ""
        if not isinstance(expr, ast.Name):
            return ""
        inner: Scope | None = scope
        while inner is not None:
            if expr.id in inner.loops:
                return _loop_kind(*inner.loops[expr.id])
            if len(inner.assigned.get(expr.id, ())) == 1:
                return self._kind(inner.assigned[expr.id][0], inner, source)
            inner = inner.parent
        return ""


def _loop_kind(iterable: ast.expr, position: int | None) -> str:
    """What the first of two loop variables over ``named_parameters()`` and the like is."""
    if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name) and iterable.args:
        return _loop_kind(iterable.args[0], position)  # list(...), sorted(...)
    if not isinstance(iterable, ast.Call) or not isinstance(iterable.func, ast.Attribute) or position not in (0, None):
        return ""
    method = iterable.func.attr
    if method == "items" and isinstance(iterable.func.value, ast.Call):
        method = getattr(iterable.func.value.func, "attr", "")
    if method in ("named_parameters", "state_dict"):
        return "parameter_name"
    return "module_name" if method in ("named_modules", "named_children") else ""


def _text_condition(kind: str, test: Callable[[str], bool], values: list[str]) -> Condition:
    if kind == "class_name":
        return Condition("class_name", lambda module: test(type(module).__name__), values, "module")
    # Names are relative to the module that the loop runs over: any trailing part of the path may be it.
    return Condition("name", lambda name: any(test(part) for part in _tails(name)), values, kind)


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[index:]) for index in range(len(parts))]


def _string_test(method: str, name: str, value: str) -> bool:
    if method == "__contains__":
        return value in name
    if method == "__eq__":
        return name == value
    return bool(getattr(name, method)(value))


def _method(node: ast.expr) -> str:
    """``find`` of ``name.find("Conv")``."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def _is_type(node: ast.expr) -> bool:
    """``type(x)`` or ``x.__class__``."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1
    return isinstance(node, ast.Attribute) and node.attr == "__class__"


def _on_parameter(text: str) -> bool:
    return not re.search(r"\.(weight|bias)\b", text)


def _classes(value: Any) -> tuple[type, ...] | None:
    items = value if isinstance(value, tuple | list | set | frozenset) else (value,)
    found: list[type] = []
    for item in items:
        if isinstance(item, tuple):
            inner = _classes(item)
            if inner is None:
                return None
            found += inner
        elif isinstance(item, type):
            found.append(item)
        else:
            return None
    return tuple(found)


def _instances(classes: tuple[type, ...]) -> Condition:
    subject = (
        "module"
        if all(issubclass(cls, torch.nn.Module) or not issubclass(cls, torch.Tensor) for cls in classes)
        else "parameter"
    )
    names = [cls.__name__ for cls in classes]
    return Condition("isinstance", lambda item: isinstance(item, classes), names, subject, classes)


def _types(wanted: Any) -> Condition:
    classes = _classes(wanted)
    if classes is None:
        return Condition("type", _unknown)
    names = [cls.__name__ for cls in classes]
    return Condition("type", lambda item: type(item) in classes, names, "module", classes)


def _negated(condition: Condition) -> Condition:
    test = condition.test

    def negated(subject: Any) -> Answer:
        answer = test(subject)
        return None if answer is None else not answer

    return Condition(condition.kind, negated, condition.values, condition.subject, text=condition.text)


def _joined(parts: list[Condition], every: bool) -> Condition:
    """Conditions joined by ``and`` or ``or``; they are counted when all are about the same subjects."""
    subjects = {part.subject for part in parts if part.subject}
    kinds = [part.kind for part in parts if part.kind != "other"]
    values = [value for part in parts for value in part.values]
    kind = kinds[0] if kinds else "other"
    if len(subjects) > 1:
        return Condition(kind, _unknown, values)

    def joined(subject: Any) -> Answer:
        answers = [part.test(subject) for part in parts]
        if every:
            return False if False in answers else None if None in answers else True
        return True if True in answers else None if None in answers else False

    classes = tuple(cls for part in parts for cls in part.classes)
    subject = subjects.pop() if subjects else ""
    return Condition(kind, joined, values, subject, classes, () if every else tuple(parts))


def _ordered(left: Any, op: ast.cmpop, right: Any) -> bool:
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


def _unknown(_: Any) -> Answer:
    return None
