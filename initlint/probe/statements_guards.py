"""Conditions around init statements, evaluated against the model's actual modules and names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from initlint.facts import Guard
from initlint.probe.statements_conditions import (
    CASES,
    NEUTRAL,
    Condition,
    classes_of,
    exact_types,
    has_attribute,
    instances,
    is_type,
    joined,
    loop_kind,
    method_of,
    negated,
    ordered,
    string_test,
    text_condition,
    unknown,
)
from initlint.probe.statements_names import UNKNOWN, Names
from initlint.probe.statements_near import near
from initlint.probe.statements_source import Scope, Source, Test
from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands; ``bindings`` fixes values of parameters at one call site."""

    scope: Scope
    source: Source
    bindings: dict[str, Any] = field(default_factory=dict)


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
        self._inside: set[int] = set()  # the assignments that are being followed

    def of(self, tests: Iterable[Test], place: Place) -> tuple[Guard, ...]:
        """Facts of conditions, innermost first."""
        found: list[Guard] = []
        earlier: list[Condition] = []  # the branches of an if/elif chain that were not taken
        for test in reversed(tuple(tests)):
            condition = self._compile(test.expr, place)
            if not test.positive:
                condition = negated(condition)
            if test.chain:
                earlier.append(condition)
                continue
            text = place.source.segment(test.expr)
            matched = self._count(condition, earlier)
            earlier = []
            shown = text if test.positive else f"not ({text})"
            line = getattr(test.expr, "lineno", None)
            found.append(Guard(condition.kind, shown, tuple(dict.fromkeys(condition.values)), matched, line))
        return tuple(reversed(found))

    def conditions(self, tests: Iterable[Test], place: Place) -> list[Condition]:
        """The conditions themselves, innermost first, negated where the other branch was taken."""
        found = []
        for test in tests:
            condition = self._compile(test.expr, place)
            found.append(condition if test.positive else negated(condition))
        return found

    def unmatched_names(self, expr: ast.expr, place: Place) -> list[Guard]:
        """Names in ``"a" in name or "b" in name`` that match nothing although others do."""
        condition = self._compile(expr, place)
        counts = [(part, self._count(part, [])) for part in condition.parts if part.kind == "name"]
        if not any(count for _, count in counts):
            return []
        line = getattr(expr, "lineno", None)
        return [Guard(part.kind, part.text, tuple(part.values), 0, line) for part, count in counts if count == 0]

    def never(self, expr: ast.expr, place: Place) -> Guard | None:
        """The condition, where it is one on names that none has."""
        condition = self._compile(expr, place)
        if condition.kind != "name" or self._count(condition, []) != 0:
            return None
        return Guard("name", condition.text, tuple(condition.values), 0, getattr(expr, "lineno", None))

    def nearly_equal(self, expr: ast.expr, place: Place) -> bool:
        """Whether a comparison of texts fails by a difference of case or one mistyped letter."""
        if not isinstance(expr, ast.Compare) or len(expr.ops) != 1 or not isinstance(expr.ops[0], ast.Eq):
            return False
        sides = self._all(expr.left, place), self._all(expr.comparators[0], place)
        return any(
            isinstance(one, str) and isinstance(other, str) and one != other and near(one, other) and near(other, one)
            for one in sides[0]
            for other in sides[1]
        )

    def either(self, expr: ast.expr, place: Place) -> tuple[type, ...]:
        """All classes of ``isinstance(m, A or B)``, which tests the first alone."""
        classes = expr.args[1] if isinstance(expr, ast.Call) and len(expr.args) == 2 else None
        if not isinstance(classes, ast.BoolOp):
            return ()
        found = [classes_of(self._resolve(value, place)) for value in classes.values]
        return tuple(cls for group in found for cls in group or ())

    def _count(self, condition: Condition, earlier: list[Condition]) -> int | None:
        """How many subjects satisfy a condition and none of the earlier branches; ``None`` when not decidable."""
        if condition.kind == "value":
            answer = condition.test(None)
            return None if answer is None else int(answer)
        if not condition.subject:
            return None
        same = [other for other in earlier if other.subject == condition.subject]
        count = 0
        for subject in self._subjects.of(condition.subject):
            answers = [condition.test(subject), *(other.test(subject) for other in same)]
            if any(answer is None for answer in answers):
                return None
            count += all(answers)
        return count

    # -- compiling -----------------------------------------------------------------------------

    def _compile(self, expr: ast.expr, place: Place) -> Condition:
        if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.Not):
            return negated(self._compile(expr.operand, place))
        if isinstance(expr, ast.BoolOp):
            parts = [self._compile(value, place) for value in expr.values]
            return joined(parts, every=isinstance(expr.op, ast.And))
        found = None
        if isinstance(expr, ast.Call):
            found = self._call(expr, place)
        elif isinstance(expr, ast.Compare) and len(expr.ops) == 1:
            found = self._compare(expr, place)
        elif isinstance(expr, ast.Name):
            found = self._assigned(expr, place)
        found = found or self._value(expr, place)
        return replace(found, text=place.source.segment(expr))

    @contextmanager
    def _following(self, value: ast.expr) -> Iterator[None]:
        self._inside.add(id(value))
        try:
            yield
        finally:
            self._inside.discard(id(value))

    def _assigned(self, expr: ast.Name, place: Place) -> Condition | None:
        """``scaled = "a" in name`` used as a condition later."""
        values = place.scope.assigned.get(expr.id, [])
        if len(values) != 1 or isinstance(values[0], ast.Name | ast.Constant) or id(values[0]) in self._inside:
            return None
        with self._following(values[0]):  # ``names = names or default()`` asks for itself
            found = self._compile(values[0], place)
        return found if found.subject else None

    def _call(self, expr: ast.Call, place: Place) -> Condition | None:
        function, args = expr.func, expr.args
        if self._asks_for_lazy(expr, place):
            return Condition("value", lambda _: False)  # of the finished model, which has run
        if isinstance(function, ast.Name):
            if function.id == "isinstance" and len(args) == 2:
                return instances(classes_of(self._resolve(args[1], place)))
            if function.id == "hasattr" and len(args) == 2:
                name = self._resolve(args[1], place)
                return has_attribute(name) if isinstance(name, str) else None
            if function.id in ("any", "all") and len(args) == 1:
                return self._any(args[0], function.id == "all", place)
        elif isinstance(function, ast.Attribute):
            if function.attr in ("endswith", "startswith", "__contains__"):
                return self._string(function.attr, function.value, args[:1], place)
            if function.attr in ("match", "search", "fullmatch") and len(args) == 2:
                return self._pattern(function.attr, args, place)
        return None

    def _asks_for_lazy(self, expr: ast.expr, place: Place) -> bool:
        """``is_lazy(p)``, ``any(is_lazy(p) for p in ...)``, ``m.has_uninitialized_params()``."""
        if not isinstance(expr, ast.Call):
            return False
        function, args = expr.func, expr.args
        if isinstance(function, ast.Name) and function.id == "any" and len(args) == 1:
            each = args[0]
            return isinstance(each, ast.GeneratorExp | ast.ListComp) and self._asks_for_lazy(each.elt, place)
        return method_of(expr) == "has_uninitialized_params" or self._resolve(function, place) is is_lazy

    def _pattern(self, method: str, args: list[ast.expr], place: Place) -> Condition | None:
        """``re.search(pattern, name)``."""
        pattern = self._resolve(args[0], place)
        kind, change = self._text(args[1], place)
        if not isinstance(pattern, str) or not kind:
            return None
        return text_condition(kind, lambda text: bool(getattr(re, method)(pattern, change(text))), [pattern])

    def _any(self, expr: ast.expr, every: bool, place: Place) -> Condition | None:
        """``any(key in name for key in ("a", "b"))``."""
        if not isinstance(expr, ast.GeneratorExp | ast.ListComp) or len(expr.generators) != 1:
            return None
        generator = expr.generators[0]
        values = self._resolve(generator.iter, place)
        if not isinstance(generator.target, ast.Name) or not isinstance(values, tuple | list):
            return None
        parts = [
            self._compile(expr.elt, replace(place, bindings={**place.bindings, generator.target.id: value}))
            for value in values
        ]
        return joined(parts, every=every) if parts else None

    def _compare(self, expr: ast.Compare, place: Place) -> Condition | None:
        left, op, right = expr.left, expr.ops[0], expr.comparators[0]
        negative = isinstance(op, ast.NotEq | ast.NotIn | ast.IsNot)
        found: Condition | None = None
        if is_type(left) or is_type(right):
            found = exact_types(classes_of(self._resolve(right if is_type(left) else left, place)))
        elif method_of(left) in ("find", "count"):
            found, negative = self._found(left, op, right, place), False
        elif isinstance(op, ast.In | ast.NotIn):
            if self._text(right, place)[0]:
                found = self._string("__contains__", right, [left], place)
            elif self._text(left, place)[0]:
                found = self._string("__eq__", left, [right], place)
        elif isinstance(op, ast.Eq | ast.NotEq):
            subject, other = (left, right) if self._text(left, place)[0] else (right, left)
            found = self._string("__eq__", subject, [other], place)
        if found is None:
            found, negative = _dimensions(left, op, right), False
        return negated(found) if found is not None and negative else found

    def _found(self, call: ast.expr, op: ast.cmpop, right: ast.expr, place: Place) -> Condition | None:
        """``name.find("Conv") != -1``, ``name.count("bias") > 0``."""
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return None
        kind, change = self._text(call.func.value, place)
        text = self._resolve(call.args[0], place) if call.args else UNKNOWN
        bound = self._resolve(right, place)
        if not kind or not isinstance(text, str) or not isinstance(bound, int):
            return None
        method = call.func.attr
        return text_condition(kind, lambda name: ordered(getattr(change(name), method)(text), op, bound), [text])

    def _string(self, method: str, subject: ast.expr, args: list[ast.expr], place: Place) -> Condition | None:
        kind, change = self._text(subject, place)
        wanted = self._resolve(args[0], place) if args else UNKNOWN
        values = wanted if isinstance(wanted, tuple | list | set | frozenset) else (wanted,)
        if not kind or not all(isinstance(value, str) for value in values):
            return None
        return text_condition(
            kind, lambda name: any(string_test(method, change(name), value) for value in values), list(values)
        )

    def _value(self, expr: ast.expr, place: Place) -> Condition:
        """A condition on plain values: an option of the constructor, an attribute of the model."""
        answers = self._plain(expr, place)
        if answers is None:
            return Condition("other", unknown)
        texts = [node.value for node in ast.walk(expr) if isinstance(node, ast.Constant)]
        return Condition("value", lambda _: any(answers), [text for text in texts if isinstance(text, str)])

    def _plain(self, expr: ast.expr, place: Place) -> list[bool] | None:
        if isinstance(expr, ast.Compare) and len(expr.ops) == 1:
            lefts, rights = self._all(expr.left, place), self._all(expr.comparators[0], place)
            pairs = [(a, b) for a in lefts for b in rights]
            if not pairs or any(a is UNKNOWN or b is UNKNOWN for a, b in pairs):
                return None
            return [ordered(a, expr.ops[0], b) for a, b in pairs]
        if isinstance(expr, ast.Name | ast.Attribute | ast.Constant):
            values = self._all(expr, place)
            if any(value is UNKNOWN or not isinstance(value, bool | int | float | str | None) for value in values):
                return None
            return [bool(value) for value in values]
        return None

    # -- names ---------------------------------------------------------------------------------

    def _all(self, expr: ast.expr, place: Place) -> list[Any]:
        if isinstance(expr, ast.Name) and expr.id in place.bindings:
            return [place.bindings[expr.id]]
        if isinstance(expr, ast.Name) and expr.id in place.scope.loops:
            return self._looped(*place.scope.loops[expr.id], place)
        return self._names.values(expr, place.scope, place.source)

    def _looped(self, iterable: ast.expr, position: int | None, place: Place) -> list[Any]:
        """The texts that a loop runs over, where they are known: ``for head in self.heads``."""
        keyed = isinstance(iterable, ast.Call) and not iterable.args and method_of(iterable) in ("keys", "items")
        if keyed and isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Attribute):
            position = None if method_of(iterable) == "keys" else position
            iterable = iterable.func.value
        elif isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name) and len(iterable.args) == 1:
            iterable = iterable.args[0] if iterable.func.id in ("sorted", "list", "tuple", "set") else iterable
        values = self._resolve(iterable, place)
        plain = isinstance(values, dict | list | tuple | set | frozenset) and position in (None, 0)
        texts = list(values) if plain and (isinstance(values, dict) or position is None) else []
        return texts if texts and all(isinstance(text, str) for text in texts) else [UNKNOWN]

    def _resolve(self, expr: ast.expr, place: Place) -> Any:
        values = self._all(expr, place)
        return values[0] if len(values) == 1 else UNKNOWN

    def _text(self, expr: ast.expr, place: Place) -> tuple[str, Any]:
        """Kind of a text (``class_name``, ``parameter_name``, ``module_name`` or "") and what is done to it first."""
        change: Any = str
        while method_of(expr) in CASES or method_of(expr) in NEUTRAL:
            change = CASES.get(method_of(expr), change)
            assert isinstance(expr, ast.Call)
            assert isinstance(expr.func, ast.Attribute)
            expr = expr.func.value
        if isinstance(expr, ast.Attribute):
            return ("class_name" if expr.attr in ("__name__", "__qualname__") and is_type(expr.value) else ""), change
        inner: Scope | None = place.scope if isinstance(expr, ast.Name) else None
        while inner is not None and isinstance(expr, ast.Name):
            if expr.id in inner.loops:
                return loop_kind(*inner.loops[expr.id]), change
            values = inner.assigned.get(expr.id, ())
            if len(values) == 1 and id(values[0]) not in self._inside:
                with self._following(values[0]):  # ``name = name.lower()``
                    kind, first = self._text(values[0], replace(place, scope=inner))
                return kind, first if change is str else change
            inner = inner.parent
        return "", change


def _dimensions(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition | None:
    """``p.dim() > 1``, ``p.ndim >= 2``, ``len(p.shape) == 1`` on a loop variable over the parameters."""
    text = ast.unparse(left)
    if not re.fullmatch(r"\w+\.(dim\(\)|ndim)|len\(\w+\.(shape|size\(\))\)", text):
        return None
    if not isinstance(right, ast.Constant) or not isinstance(right.value, int):
        return None
    bound = right.value
    return Condition("other", lambda tensor: ordered(tensor.dim(), op, bound), [], "parameter")
