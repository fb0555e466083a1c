"""What a statement should have reached and did not: its range in the finished model against what it wrote."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from initlint.facts import Site
from initlint.probe.provenance import Recorder
from initlint.probe.provenance_store import Store
from initlint.probe.sites import Noted, make_site, site, span
from initlint.probe.statements_conditions import Answer, Condition, Whole, unknown
from initlint.probe.statements_guards import Guards, Place
from initlint.probe.statements_match import Hits
from initlint.probe.statements_names import Names
from initlint.probe.statements_near import near_class, near_name
from initlint.probe.statements_ranges import PARTS, Item, Range, Ranges, loops_left, mentioned, tensor_at
from initlint.probe.statements_source import Candidate, Scope, Source, Test
from initlint.records import dataclass

#: Kinds of conditions that tell modules apart by their class or what it has.
_ON_MODULES = frozenset({"isinstance", "type", "class_name", "hasattr"})


@dataclass(frozen=True, slots=True)
class Missed:
    """Parameters that were not reached, with the reason and the place to mend."""

    names: tuple[str, ...] = ()
    why: str = ""
    at: Site | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a condition is asked about."""

    item: Item
    found: Range
    place: Place
    mode: str = ""  # "kin": where nothing passes, kin and slips of the pen do | "subclass": ``type(m) == T`` lets
    # subclasses through | "either": ``isinstance(m, A or B)`` lets both through


class Misses:
    """Answers for one model.

    Args:
        model: the built model.
        recorder: its record.
        names: resolves names of the source.
        guards: compiles conditions.
        ranges: resolves variables.
    """

    def __init__(self, model: nn.Module, recorder: Recorder, names: Names, guards: Guards, ranges: Ranges) -> None:
        self._recorder = recorder
        self._names = names
        self._guards = guards
        self._ranges = ranges
        self._modules = tuple(model.modules())
        self._compiled: dict[tuple[int, int], Condition] = {}  # by expression and scope
        self._passed: dict[tuple[int, int], bool] = {}  # by condition and range: whether anything passes
        self._near: dict[tuple[int, int], bool] = {}
        self._within: dict[tuple[int, int], bool] = {}  # by two conditions: whether one takes more than the other
        self._mentioned: dict[tuple[int, int], frozenset[str]] = {}  # by expression and scope: what it is about
        self._known: dict[int, tuple[Range, list[str]] | None] = {}  # by candidate
        self._by_tensor: dict[int, str] = {}
        for name, tensor in model.named_parameters(remove_duplicate=False):
            self._by_tensor.setdefault(id(tensor), name)

    def of(self, candidate: Candidate, source: Source, hits: Hits, written: Iterable[str]) -> Missed:
        """What the loop or ``apply`` around a statement did not reach."""
        resolved = None if candidate.result_unused else self._resolved(candidate, source)
        resolved = resolved or self._cut_short(candidate, source)
        if resolved is None:
            return Missed()
        found, attributes = resolved
        done = set(written)
        if candidate.idle is not None:
            names = [name for name in self._selected(candidate, source, found, attributes) if name not in done]
            return Missed(tuple(names), "idle", _site(candidate.idle, candidate.scope, source))
        leaving = [] if found.loop is None else list(loops_left(found.loop))
        at_once = next((node for node, first in leaving if first), None)
        if leaving and at_once is None and hits.runs():
            return Missed()  # left on a condition: how far it went is its author's decision
        selected = self._selected(candidate, source, found, attributes)
        left = {name: item for name, item in selected.items() if name not in done}
        if leaving and at_once is None:  # on a condition that held before there was anything to initialise
            return Missed(tuple(left), "left", _site(leaving[0][0], *found.place)) if left and found.place else Missed()
        if not left:
            return self._let_through(candidate, source, resolved, done)
        if at_once is not None and found.place is not None:
            return Missed(tuple(left), "cut", _site(at_once, *found.place))
        if found.shallow:
            return self._deeper(left, found)
        return self._early(left, candidate, source, hits, found)

    def _cut_short(self, candidate: Candidate, source: Source) -> tuple[Range, list[str]] | None:
        """The range of a loop that is left in its first round, over what a function makes and hands on."""
        if candidate.target is None or candidate.result_unused:
            return None
        found = self._ranges.of_made(candidate.target, candidate.scope, source)
        loop = found[0].loop if found is not None else None
        return found if loop is not None and any(first for _, first in loops_left(loop)) else None

    def _let_through(
        self, candidate: Candidate, source: Source, resolved: tuple[Range, list[str]], done: set[str]
    ) -> Missed:
        """What the conditions should let through and do not."""
        own = next((test.expr for test in candidate.tests if test.positive), None)
        if own is None:
            return Missed()
        place = Place(candidate.scope, source)
        kinds = {self._condition(expr, place).kind for expr in _parts(own)}
        modes = [("subclass", "type")] if "type" in kinds else []
        if any(self._guards.either(expr, place) for expr in _parts(own)):
            modes.append(("either", "or"))
        if any(not test.positive for test in (*candidate.tests, *candidate.exits)):
            modes.append(("alone", "shadowed"))
        for mode, why in modes:
            names = [name for name in self._selected(candidate, source, *resolved, mode=mode) if name not in done]
            if names:
                return Missed(tuple(names), why, _site(own, candidate.scope, source))
        return Missed()

    def selected(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """The parameters of the finished model that a statement selects, where its range is known."""
        resolved = self._resolved(candidate, source)
        return () if resolved is None else tuple(self._selected(candidate, source, *resolved))

    def answer(self, expr: ast.expr, item: Item, found: Range, place: Place) -> Answer:
        """Whether a condition lets one value of a variable through."""
        return self._answer(expr, _Asked(item, found, place), positive=True)

    def passing(
        self,
        candidate: Candidate,
        source: Source,
        names: Iterable[str],
        read: tuple[ast.expr, ast.expr],
        *,
        came: bool,
    ) -> tuple[str, ...] | None:
        """Which of these parameters a statement would write, one of its conditions read as another one.

        ``None`` where its range is not known. ``came``: that condition was asked about all of these, so that those
        before it held.
        """
        resolved = self._resolved(candidate, source)
        if resolved is None:
            return None
        found, attributes = resolved
        place = Place(candidate.scope, source)
        tests = [(test, place) for test in (*candidate.tests, *candidate.exits)]
        if came:
            tests = [(test, where) for test, where in tests if _begins(test.expr) >= _begins(read[0])]
        else:
            tests += [(test, Place(scope, file)) for test, scope, file in found.tests]
        tests = [(replace(test, expr=read[1]) if test.expr is read[0] else test, where) for test, where in tests]
        wanted, passed = set(names), {}
        for item in found.items:
            tensor = tensor_at(item, attributes)
            name = None if tensor is None else self._by_tensor.get(id(tensor))
            if name in wanted and all(self._holds(test, _Asked(item, found, where)) for test, where in tests):
                passed[name] = item
        return tuple(passed)

    def written_by(self, candidate: Candidate, source: Source) -> tuple[Range, dict[str, Item]] | None:
        """What a statement could write, by the name of the parameter, whatever the conditions around it."""
        resolved = self._resolved(candidate, source)
        if resolved is None:
            return None
        found, attributes = resolved
        known: dict[str, Item] = {}
        for item in found.items:
            tensor = tensor_at(item, attributes)
            name = None if tensor is None else self._by_tensor.get(id(tensor))
            if name is not None:
                known.setdefault(name, item)
        return found, known

    def name_of(self, tensor: torch.Tensor) -> str | None:
        """The name of a parameter of the model."""
        return self._by_tensor.get(id(tensor))

    @staticmethod
    def in_parts(candidate: Candidate) -> bool:
        """Whether the target is a variable over the parts of a parameter."""
        target = candidate.target
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        loop = candidate.scope.loops.get(target.id) if isinstance(target, ast.Name) else None
        node = loop[0] if loop is not None else None
        while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            node = node.args[0]  # enumerate(...), zip(...)
        node = candidate.scope.only(node) if node is not None else None
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARTS

    def idle(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """Texts of the tests around a statement that no name (as the loop sees it) or no module passes."""
        resolved = self._resolved(candidate, source)
        if resolved is None:
            return ()
        found = []
        for test in candidate.tests:
            for expr in _parts(test.expr) if test.positive else ():
                condition = self._condition(expr, Place(candidate.scope, source))
                if condition.subject != "parameter" and not self._passes(condition, resolved[0]):
                    found.append(source.segment(test.expr))
        return tuple(found)

    def kin(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """For conditions that nothing passes: what passes where kin and slips of the pen count."""
        resolved = self._resolved(candidate, source)
        return () if resolved is None else tuple(self._selected(candidate, source, *resolved, mode="kin"))

    def _resolved(self, candidate: Candidate, source: Source) -> tuple[Range, list[str]] | None:
        if candidate.target is None:
            return None
        if id(candidate) not in self._known:
            found = self._ranges.of_target(candidate.target, candidate.scope, source)
            self._known[id(candidate)] = found and (self._of_owners(candidate, source, found[0]), found[1])
        return self._known[id(candidate)]

    def _of_owners(self, candidate: Candidate, source: Source, found: Range) -> Range:
        """What is left of a range when conditions on the owners are known.

        ``if module is self: for name, p in module.named_parameters()`` sees the names of the whole model only, although
        ``apply`` passes every module.
        """
        if all(item.owner is None for item in found.items):
            return found
        place = Place(candidate.scope, source)
        own = [expr for test in candidate.tests if test.positive for expr in _parts(test.expr)]
        own = [
            expr
            for expr in own
            if self._names_in(expr, candidate.scope) & found.variables and self._on_owner(expr, place)
        ]
        kept = [item for item in found.items if all(self._whole(expr, item, found, place) for expr in own)]
        return replace(found, items=tuple(kept)) if kept and len(kept) < len(found.items) else found

    def _on_owner(self, expr: ast.expr, place: Place) -> bool:
        """``module is self``, ``isinstance(module, Decoder)``."""
        if isinstance(expr, ast.Compare) and len(expr.ops) == 1 and isinstance(expr.ops[0], ast.Is | ast.IsNot):
            return True
        condition = self._condition(expr, place)
        return condition.kind == "isinstance" and condition.subject == "module" and not self._guards.either(expr, place)

    def _whole(self, expr: ast.expr, item: Item, found: Range, place: Place) -> bool:
        return self._answer(expr, _Asked(item, found, place), positive=True) is not False

    def _condition(self, expr: ast.expr, place: Place) -> Condition:
        """A condition of the source, compiled once."""
        key = id(expr), id(place.scope)
        if key not in self._compiled:
            (self._compiled[key],) = self._guards.conditions([Test(expr, True)], place)
        return self._compiled[key]

    def _names_in(self, expr: ast.expr, scope: Scope) -> frozenset[str]:
        key = id(expr), id(scope)
        if key not in self._mentioned:
            self._mentioned[key] = frozenset(mentioned(expr, scope))
        return self._mentioned[key]

    def _passes(self, condition: Condition, found: Range) -> bool:
        """Whether any name of a range, or any module of the model, passes a condition."""
        key = id(condition), id(found)
        if key not in self._passed:
            if condition.subject in ("parameter_name", "module_name"):
                self._passed[key] = any(condition.test(Whole(item.name)) for item in found.items)
            else:
                self._passed[key] = condition.subject != "module" or any(map(condition.test, self._modules))
        return self._passed[key]

    # -- what is selected ------------------------------------------------------------------------

    def _selected(
        self, candidate: Candidate, source: Source, found: Range, attributes: list[str], mode: str = ""
    ) -> dict[str, Item]:
        """The parameters that a statement is for; ``mode`` "alone": those that an earlier, wider branch takes."""
        tests = [(test, Place(candidate.scope, source)) for test in (*candidate.tests, *candidate.exits)]
        own = [expr for test in candidate.tests if test.positive for expr in _parts(test.expr)]
        tests += [(test, Place(scope, file)) for test, scope, file in found.tests]
        if mode in ("", "alone", "kin") and not all(self._may_pass(test, place, found, mode) for test, place in tests):
            return {}
        selected: dict[str, Item] = {}
        for item in found.items:
            tensor = tensor_at(item, attributes)
            name = None if tensor is None else self._by_tensor.get(id(tensor))
            if name is None or name in selected:
                continue
            unsure, taken = False, mode != "alone"
            for test, place in tests:
                asked = _Asked(item, found, place, mode)
                answer = self._holds(test, asked)
                if answer is False and mode == "alone" and self._wider(test, own, asked):
                    taken = True
                elif answer is False:
                    break
                unsure = unsure or answer is None
            else:
                if unsure:
                    return {}
                if taken:
                    selected[name] = item
        return selected

    def _wider(self, test: Test, own: list[ast.expr], asked: _Asked) -> bool:
        """Whether an earlier branch takes an item by a plain test that is wider than one of the statement's own.

        A wider branch below a narrower one, or one that tells other things apart, leaves out by design.
        """
        plain = isinstance(test.expr, ast.Call | ast.Compare) or (
            isinstance(test.expr, ast.BoolOp) and isinstance(test.expr.op, ast.Or)
        )
        earlier = self._condition(test.expr, asked.place)
        if test.positive or not plain or any(part.kind not in _ON_MODULES for part in earlier.parts):
            return False
        later = [self._condition(expr, asked.place) for expr in own if _begins(expr) > _begins(test.expr)]
        if earlier.kind == "name":
            return any(self._longer(condition, earlier, asked) for condition in later)
        module = _module(asked.item)
        if module is None or earlier.kind not in _ON_MODULES:
            return False
        return any(self._narrower(condition, earlier, module) for condition in later)

    def _longer(self, later: Condition, earlier: Condition, asked: _Asked) -> bool:
        """Whether a test on a name asks for more than an earlier one does: ``"weight_hh" in n``, after ``"weight"``."""
        if later.kind != "name" or later.subject != earlier.subject or not later.test(Whole(asked.item.name)):
            return False
        if not all(any(short in text for short in earlier.values) for text in later.values):
            return False
        return self._within_range(later, earlier, [Whole(item.name) for item in asked.found.items])

    def _narrower(self, later: Condition, earlier: Condition, module: nn.Module) -> bool:
        """Whether a test lets nothing like this module through but what an earlier one takes."""
        if later.kind not in _ON_MODULES or not later.test(module):
            return False
        if earlier.kind == "isinstance" and later.kind in ("isinstance", "type") and later.classes:
            meant = [cls for cls in later.classes if isinstance(module, cls)]
            # a class that two lists share is named out of habit in the second
            single = len(later.classes) == 1 or later.kind == "type"
            return bool(meant) and all(
                any(issubclass(cls, base) and (single or cls is not base) for base in earlier.classes) for cls in meant
            )
        return self._within_range(later, earlier, self._modules)

    def _within_range(self, later: Condition, earlier: Condition, subjects: Sequence[Any]) -> bool:
        """Whether an earlier test takes all that a later one would, and more."""
        key = id(earlier), id(later)
        if key not in self._within:
            own = {index for index, item in enumerate(subjects) if later.test(item)}
            taken = {index for index, item in enumerate(subjects) if earlier.test(item)}
            self._within[key] = own < taken
        return self._within[key]

    def _may_pass(self, test: Test, place: Place, found: Range, mode: str) -> bool:
        """Whether anything at all passes a condition; settles most branches without asking every module."""
        for expr in _parts(test.expr) if test.positive else ():
            if not isinstance(expr, ast.BoolOp | ast.UnaryOp):
                condition = self._condition(expr, place)
                if condition.subject in ("", "parameter") or self._passes(condition, found):
                    continue
                if mode != "kin" or not self._comes_near(condition, found):
                    return False
        return True

    def _comes_near(self, condition: Condition, found: Range) -> bool:
        """Whether any name of a range, or any module of the model, nearly passes a condition that nothing passes."""
        key = id(condition), id(found)
        if key not in self._near:
            if condition.subject == "module":
                one_each = {type(module): module for module in self._modules}  # classes decide, but for attributes
                some = self._modules if condition.kind == "hasattr" else one_each.values()
                self._near[key] = any(near_class(condition, module) for module in some)
            else:
                self._near[key] = any(near_name(condition, item.name) for item in found.items)
        return self._near[key]

    def _holds(self, test: Test, asked: _Asked) -> Answer:
        """Whether a condition lets an item through; ``None`` where that cannot be told."""
        answer = self._answer(test.expr, asked, positive=test.positive)
        return answer if answer is None or test.positive else not answer

    def _answer(self, expr: ast.expr, asked: _Asked, *, positive: bool) -> Answer:
        if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.Not):
            inner = self._answer(expr.operand, asked, positive=not positive)
            return None if inner is None else not inner
        if isinstance(expr, ast.BoolOp):
            answers = [self._answer(value, asked, positive=positive) for value in expr.values]
            decisive = isinstance(expr.op, ast.Or)
            if any(answer is decisive for answer in answers):
                return decisive
            return None if None in answers else not decisive
        special = self._special(expr, asked)
        if special is not None:
            return special
        condition = self._condition(expr, asked.place)
        return self._evaluate(condition, expr, asked, positive=positive)

    def _evaluate(self, condition: Condition, expr: ast.expr, asked: _Asked, *, positive: bool) -> Answer:
        item, found = asked.item, asked.found
        if condition.test is unknown:
            return None
        module = _module(item)
        widened = asked.mode == "kin" and positive
        if condition.kind == "value":
            idle = widened and condition.test(None) is False
            return self._guards.nearly_equal(expr, asked.place) if idle else condition.test(None)
        if condition.subject in ("parameter_name", "module_name"):
            idle = widened and not self._passes(condition, found)
            return near_name(condition, item.name) if idle else condition.test(Whole(item.name))
        if not self._names_in(expr, asked.place.scope) & found.variables:
            return None  # a condition on something else
        if condition.subject == "module" and module is not None:
            idle = widened and not self._passes(condition, found)
            if asked.mode == "subclass" and condition.kind == "type":
                return isinstance(module, condition.classes)
            if asked.mode == "either" and condition.kind == "isinstance":
                return isinstance(module, self._guards.either(expr, asked.place) or condition.classes)
            return near_class(condition, module) if idle else condition.test(module)
        if condition.subject == "parameter" and isinstance(item.value, torch.Tensor):
            return condition.test(item.value)
        return None

    def _special(self, expr: ast.expr, asked: _Asked) -> Answer:
        """``m.bias is not None``, ``p.requires_grad``, ``m is not self.head``."""
        item, found = asked.item, asked.found
        if isinstance(expr, ast.Attribute) and expr.attr == "requires_grad" and isinstance(item.value, torch.Tensor):
            return bool(item.value.requires_grad) if _is_variable(expr.value, found) else None
        if not isinstance(expr, ast.Compare) or len(expr.ops) != 1:
            return None
        left, right, op = expr.left, expr.comparators[0], expr.ops[0]
        if not isinstance(op, ast.Is | ast.IsNot):
            return None
        equal: Answer = None
        if isinstance(right, ast.Constant) and right.value is None and isinstance(left, ast.Attribute):
            if _is_variable(left.value, found) and isinstance(item.value, nn.Module):
                equal = getattr(item.value, left.attr, None) is None
        elif _is_variable(left, found):
            other = self._ranges.modules(right, asked.place.scope, asked.place.source)
            if other is not None and len(other.items) == 1:
                # of a parameter and the module that it was asked of, the one that is a module is meant
                mine = item.value if item.owner is None or isinstance(item.value, nn.Module) else item.owner.value
                equal = other.items[0].value is mine
        return equal if equal is None or isinstance(op, ast.Is) else not equal

    # -- why it was not reached ------------------------------------------------------------------

    def _deeper(self, left: dict[str, Item], found: Range) -> Missed:
        """Modules under the direct children, other than in parts of a library."""
        names = [
            name
            for name, item in left.items()
            if item.between and all(_container(module) or self._names.of_user(module) for module in item.between)
        ]
        if found.loop is None or found.place is None or not names:
            return Missed()
        return Missed(tuple(names), "children", _site(found.loop, *found.place))

    def _early(self, left: dict[str, Item], candidate: Candidate, source: Source, hits: Hits, found: Range) -> Missed:
        """What was registered after the statement had run for the last time."""
        if found.applied:
            last = max(found.applied, key=lambda call: call.order)
            later = [name for name, item in left.items() if self._registered(item) > last.order]
            why = self._why_early(left, later)
            return Missed(tuple(later), why, _caller_of(last.frames)) if later and last.frames else Missed()
        if found.loop is None or found.place is None:
            return Missed()
        scope, file = found.place
        where = _site(found.loop, scope, file)
        if hits.events:
            order = max(event.order for event in hits.events)
            later = [name for name, item in left.items() if self._registered(item) > order]
            called = _call_of(scope, hits)
            return Missed(tuple(later), self._why_early(left, later), called or where) if later else Missed()
        later = [name for name, item in left.items() if self._after(item, scope, file, found.loop.lineno)]
        return Missed(tuple(later), "early", where) if later else Missed()

    def _store(self, item: Item) -> Store | None:
        tensor = _first_tensor(item)
        return None if tensor is None else self._recorder.log.find_safely(tensor)

    def _registered(self, item: Item) -> int:
        """When the parameters of an item came into the world; 0 when that was not seen."""
        store = self._store(item)
        if store is None:
            return 0
        if self._lazy(item) and store.events:  # it got its memory when the model ran
            return store.events[0].order
        return min((entry.order for entry in store.registrations), default=0)

    def _lazy(self, item: Item) -> bool:
        """Whether an item had no memory when it was registered."""
        tensor = _first_tensor(item)
        known = self._recorder.lazy.get(id(tensor))
        return known is not None and known() is tensor

    def _why_early(self, left: dict[str, Item], later: list[str]) -> str:
        return "lazy" if all(self._lazy(left[name]) for name in later) else "early"

    def _after(self, item: Item, scope: Scope, source: Source, line: int) -> bool:
        """Whether an item was made further down in the same function."""
        store = self._store(item)
        for entry in store.registrations[:1] if store is not None else ():
            for code, lasti in entry.frames:
                if code.co_filename == source.path and code.co_firstlineno == scope.first_line:
                    where = span((code, lasti))
                    return where is not None and where[0] > line
        return False


def _caller_of(frames: tuple[Noted, ...]) -> Site:
    """The call to be moved: the one in a constructor, where ``apply`` stands in a function of its own."""
    return site(next((frame for frame in frames if frame[0].co_name == "__init__"), frames[0]))


def _module(item: Item) -> nn.Module | None:
    """The module that a condition on a variable is about: a parameter's is the one that it was asked of."""
    if isinstance(item.value, nn.Module) or item.owner is None:
        return item.value if isinstance(item.value, nn.Module) else None
    return item.owner.value if isinstance(item.owner.value, nn.Module) else None


def _begins(expr: ast.expr) -> tuple[int, int]:
    return expr.lineno, expr.col_offset


def _parts(expr: ast.expr) -> list[ast.expr]:
    """What must hold together: the parts of ``a and b``."""
    return expr.values if isinstance(expr, ast.BoolOp) and isinstance(expr.op, ast.And) else [expr]


def _call_of(scope: Scope, hits: Hits) -> Site | None:
    """Where the function of a loop was called, when it has a caller of the user's."""
    frames: tuple[Noted, ...] = hits.events[-1].frames
    for inner, outer in pairwise(frames):
        if inner[0].co_firstlineno == scope.first_line and inner[0].co_name != "__init__":
            return site(outer)
    return None


def _is_variable(node: ast.expr, found: Range) -> bool:
    return isinstance(node, ast.Name) and node.id in found.variables


def _first_tensor(item: Item) -> torch.Tensor | None:
    return item.value if isinstance(item.value, torch.Tensor) else next(iter(item.value.parameters()), None)


def _container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def _site(node: ast.AST, scope: Scope, source: Source) -> Site:
    first: Any = node
    last = first.iter if isinstance(node, ast.For | ast.AsyncFor) else first
    where = first.lineno, last.end_lineno or first.lineno, first.col_offset, last.end_col_offset or 0
    return make_site(source.path, where, scope.name)
