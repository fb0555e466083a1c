"""What a variable of the user's source ranges over: the modules of a loop or of ``apply``, or parameters of modules.

Evaluated on the finished model: the difference to what a statement wrote is what it did not reach.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from initlint.probe.provenance_words import words
from initlint.probe.statements_names import Names, bound, parameters, static
from initlint.probe.statements_source import Call, Scope, Source, Test
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.provenance_patches import Applied

#: Functions of Python that hand on what they iterate over.
_WRAPPERS = words("list tuple sorted reversed iter set")
_MODULES = words("modules named_modules")
_CHILDREN = words("children named_children")
_PARAMETERS = words("parameters named_parameters")
#: Methods that cut a parameter into views of its parts.
PARTS = words("chunk split unbind tensor_split")
#: Attributes and methods that give the tensor itself or a view of all of it.
_VIEWS = words("data detach view reshape t T")
#: Layers of names: a helper that calls a helper that loops. Deeper nesting is not followed.
_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Item:
    """A value of the variable."""

    value: Any  # module or tensor
    name: str  # as the loop sees it: relative to the module that is walked through
    owner: Item | None = None  # for a parameter: the module of ``m.named_parameters()``
    between: tuple[nn.Module, ...] | None = ()  # ``None``: walked; else the modules between it and the walk's root


@dataclass(frozen=True, slots=True)
class Range:
    """All values that a variable takes, or would take if its loop descended."""

    items: tuple[Item, ...]
    variables: frozenset[str]  # names that stand for the item (and its owner) on the way
    tests: tuple[tuple[Test, Scope, Source], ...] = ()  # conditions on the way: around the call of a helper
    loop: ast.For | ast.AsyncFor | None = None  # the innermost loop whose variable it is
    place: tuple[Scope, Source] | None = None  # where that loop stands
    applied: tuple[Applied, ...] = ()  # or the calls of ``apply``
    shallow: bool = False  # the loop visits direct children only


@dataclass(slots=True)
class Ranges:
    """Resolves variables of one model's source.

    Args:
        names: resolves names of the source.
        applied: calls of ``apply``, by file and first line of the function that was passed.
        paths: id of a module of the model -> its qualified name.
    """

    names: Names
    applied: dict[tuple[str, int], list[Applied]]
    paths: dict[int, str]
    _walks: dict[tuple[int, bool], list[Item]] = field(default_factory=dict)
    _made: bool = False  # whether a local variable is followed to where its value goes

    def of_target(self, target: ast.expr, scope: Scope, source: Source) -> tuple[Range, list[str]] | None:
        """The range of the variable that a target starts with, and the attributes from there to the tensor."""
        attributes: list[str] = []
        node = target
        for _ in range(64):
            if isinstance(node, ast.Subscript):
                counted = self._counted(node, scope, source) if attributes else None
                if counted is not None:
                    return counted, attributes[::-1]
                node = node.value
            elif isinstance(node, ast.Attribute):
                if node.attr not in _VIEWS:
                    attributes.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS:
                node = node.func.value
            elif isinstance(node, ast.Name):
                holder = _holder(node.id, scope)
                values = holder.assigned.get(node.id, []) if holder is not None else []
                if len(values) == 1 and holder is not None and node.id not in holder.loops:
                    node, scope = values[0], holder
                    continue
                found = self._variable(node.id, scope, source)
                return None if found is None else (found, attributes[::-1])
            else:
                return None
        return None

    def of_made(self, target: ast.expr, scope: Scope, source: Source) -> tuple[Range, list[str]] | None:
        """As ``of_target``, of what a function makes itself: by the attribute or the model that it becomes."""
        self._made = True
        try:
            return self.of_target(target, scope, source)
        finally:
            self._made = False

    def modules(self, node: ast.expr, scope: Scope, source: Source) -> Owners | None:
        """The modules that an expression stands for, where that can be told."""
        return self._modules(node, scope, source, 0)

    def of_condition(self, expr: ast.expr, scope: Scope, source: Source) -> Range | None:
        """The range of the first variable in a condition that has one; names of modules go with their modules."""
        names = mentioned(expr, scope)
        for name in names:
            holder = _holder(name, scope)
            partners = [name]
            if holder is not None and name in holder.loops:
                iterable = holder.loops[name][0]
                partners += [other for other, (own, _) in holder.loops.items() if own is iterable and other != name]
            for partner in partners:
                found = self._variable(partner, scope, source)
                if found is not None and found.items:
                    return replace(found, variables=found.variables | frozenset(names))
        return None

    # -- variables -------------------------------------------------------------------------------

    def _variable(self, name: str, scope: Scope, source: Source, depth: int = 0) -> Range | None:
        holder = _holder(name, scope)
        if holder is None or depth > _DEPTH:
            return None
        if name in holder.loops:
            iterable, position = holder.loops[name]
            return self._loop(name, iterable, position, holder, source, depth)
        return self._argument(name, holder, source, depth) if name in parameters(holder) else None

    def _argument(self, name: str, scope: Scope, source: Source, depth: int) -> Range | None:
        """A function's parameter: what ``apply`` passes, or what its callers do."""
        given = [item for item in parameters(scope) if not (scope.cls and item == _self(scope))]
        calls = self.applied.get((source.path, scope.first_line), [])
        if calls and given[:1] == [name]:
            items = [item for call in calls for item in self._under(call.module())]
            return Range(_distinct(items), frozenset({name}), applied=tuple(calls)) if items else None
        sites = self.names.call_sites(scope, source)
        again = [site for site in sites if self._descends(name, scope, site)]
        if again:
            return self._recursion(name, scope, [site for site in sites if site not in again], depth)
        ranges: list[Range] = []
        for call, caller in sites:
            expr = bound(name, scope, call.node)
            if not isinstance(expr, ast.Name):
                return None
            found = self._variable(expr.id, call.scope, caller, depth + 1)
            if found is None:
                return None
            tests = tuple((test, call.scope, caller) for test in call.tests)
            ranges.append(replace(found, variables=found.variables | {name}, tests=(*found.tests, *tests)))
        return ranges[0] if len(ranges) == 1 else None

    def _descends(self, name: str, scope: Scope, site: tuple[Call, Source]) -> bool:
        """Whether a function calls itself for every child of what it was given: ``for c in m.children(): f(c)``."""
        call, _ = site
        expr = bound(name, scope, call.node)
        if call.scope is not scope or call.tests or not isinstance(expr, ast.Name) or expr.id not in scope.loops:
            return False
        iterable, position = scope.loops[expr.id]
        function = iterable.func if isinstance(iterable, ast.Call) else None
        wanted = {None: "children", 1: "named_children"}.get(position)
        if not isinstance(function, ast.Attribute) or function.attr != wanted:
            return False
        return isinstance(function.value, ast.Name) and function.value.id == name

    def _recursion(self, name: str, scope: Scope, sites: list[tuple[Call, Source]], depth: int) -> Range | None:
        """All modules under those that a function which descends by itself is called with from outside."""
        items: list[Item] = []
        for call, caller in sites:
            expr = bound(name, scope, call.node)
            owners = None if expr is None or call.tests else self._modules(expr, call.scope, caller, depth + 1)
            if owners is None:
                return None
            items += [item for owner in owners.items for item in self._under(owner.value)]
        return Range(_distinct(items), frozenset({name})) if items else None

    def _counted(self, node: ast.Subscript, scope: Scope, source: Source) -> Range | None:
        """``self.layers[i]`` with ``i`` counted in a loop: the entries of the container."""
        if not isinstance(node.slice, ast.Name) or node.slice.id not in scope.loops:
            return None
        owners = self._modules(node.value, scope, source, 0)
        items = [
            Item(child, key)
            for owner in (owners.items if owners is not None else ())
            if _container(owner.value)
            for key, child in owner.value._modules.items()
            if child is not None
        ]
        loop = _statement_of(scope.loops[node.slice.id][0], scope)
        return Range(tuple(items), frozenset({node.slice.id}), loop=loop, place=(scope, source)) if items else None

    def _loop(
        self, name: str, iterable: ast.expr, position: int | None, scope: Scope, source: Source, depth: int
    ) -> Range | None:
        node = iterable
        while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            if node.func.id == "enumerate" and position == 1:
                position = None
            elif node.func.id not in _WRAPPERS:
                return None
            node = node.args[0]
        loop = _statement_of(iterable, scope)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return self._method(name, node, node.func, position, scope, source, loop, depth)
        if position is not None:
            return None
        owners = self._modules(node, scope, source, depth)
        outer = owners.outer if owners is not None else None
        items: list[Item] = []
        for owner in owners.items if owners is not None else ():
            if _container(owner.value):
                items += [Item(child, key) for key, child in owner.value._modules.items() if child is not None]
            elif isinstance(owner.value, nn.ParameterList | nn.ParameterDict):
                held = owner if outer is not None else None
                items += [Item(value, key, held) for key, value in owner.value._parameters.items() if value is not None]
        held_by = tuple(item for item in items if item.owner is not None)
        if outer is not None and held_by:  # conditions on what holds them are asked of the holder
            variables = outer.variables | {name}
            return Range(held_by, variables, outer.tests, loop, (scope, source), outer.applied)
        return Range(tuple(items), frozenset({name}), loop=loop, place=(scope, source)) if items else None

    def _method(
        self,
        name: str,
        call: ast.Call,
        function: ast.Attribute,
        position: int | None,
        scope: Scope,
        source: Source,
        loop: ast.For | ast.AsyncFor | None,
        depth: int,
    ) -> Range | None:
        method, subject = function.attr, function.value
        if method in PARTS:
            found = self.of_target(subject, scope, source) if depth <= _DEPTH else None
            return found[0] if found is not None and not found[1] else None
        if method in ("values", "items"):
            if isinstance(subject, ast.Attribute) and subject.attr == "_modules":
                subject, method = subject.value, "named_children" if method == "items" else "children"
            else:
                method = "container_items" if method == "items" else "container"
        if (method.startswith("named_") or method.endswith("_items")) != (position is not None) or position == 0:
            return None
        owners = self._modules(subject, scope, source, depth)
        return None if owners is None else self._walk(name, method, call, owners, loop, (scope, source))

    def _walk(
        self,
        name: str,
        method: str,
        call: ast.Call,
        owners: Owners,
        loop: ast.For | ast.AsyncFor | None,
        place: tuple[Scope, Source],
    ) -> Range | None:
        outer = owners.outer
        variables = frozenset({name}) | (outer.variables if outer is not None else frozenset())
        tests = outer.tests if outer is not None else ()
        items: list[Item] = []
        for owner in owners.items:
            if method in _MODULES:
                items += self._under(owner.value)
            elif method in _CHILDREN:
                items += self._under(owner.value, descending=True)
            elif method in _PARAMETERS:
                deep = not any(keyword.arg == "recurse" for keyword in call.keywords)
                items += [
                    Item(tensor, key, owner if outer is not None else None)
                    for key, tensor in owner.value.named_parameters(recurse=deep)
                ]
            elif method.startswith("container") and _container(owner.value):
                items += [Item(child, key) for key, child in owner.value._modules.items() if child is not None]
            else:
                return None
        applied = outer.applied if outer is not None else ()
        shallow = method in _CHILDREN
        return Range(_distinct(items), variables, tests, loop, place, applied, shallow) if items else None

    def _under(self, module: Any, *, descending: bool = False) -> list[Item]:
        """All modules under one, itself included; with ``descending`` each tells what lies between."""
        if not isinstance(module, nn.Module) or id(module) not in self.paths:
            return []
        key = id(module), descending
        if key not in self._walks:
            self._walks[key] = [
                Item(child, name, None, _between(module, name) if descending else ())
                for name, child in module.named_modules()
                if not descending or child is not module
            ]
        return self._walks[key]

    # -- modules ---------------------------------------------------------------------------------

    def _modules(self, node: ast.expr, scope: Scope, source: Source, depth: int) -> Owners | None:
        """The modules that an expression stands for: ``self``, ``self.encoder``, a variable of a loop."""
        if isinstance(node, ast.Attribute):
            inner = self._modules(node.value, scope, source, depth)
            if inner is None or inner.outer is not None:
                return None
            found = [item.value._modules.get(node.attr) for item in inner.items]
            return _owners([Item(child, node.attr) for child in found if id(child) in self.paths])
        if not isinstance(node, ast.Name) or depth > _DEPTH:
            return None
        owner = self.names.owner(scope)
        holder = _holder(node.id, scope)
        if owner is not None and node.id == owner[1] and holder is not None and _self(holder) == node.id:
            return _owners([Item(module, "") for module in self.names.instances(source.path, owner[0])])
        if holder is None:
            return None
        values = holder.assigned.get(node.id, [])
        if len(values) == 1 and node.id not in holder.loops:
            known = self._modules(values[0], holder, source, depth + 1)
            return known or (self._handed_on(node.id, values[0], holder, source) if self._made else None)
        found_range = self._variable(node.id, scope, source, depth + 1)
        if found_range is not None and all(isinstance(item.value, nn.Module) for item in found_range.items):
            return Owners(found_range.items, found_range)
        return self._passed(node.id, holder, source, depth)

    def _handed_on(self, name: str, value: ast.expr, scope: Scope, source: Source) -> Owners | None:
        """What a local variable becomes: ``self.body = net``, ``return net`` in a method that gives ``self.body``.

        Or the one module of the model that is of the class that makes it, in a function that returns it.
        """
        returned = any(
            isinstance(node, ast.Return) and isinstance(node.value, ast.Name) and node.value.id == name
            for node in (ast.walk(scope.node) if scope.node is not None else ())
        )
        own = getattr(scope.node, "name", "") if returned else ""
        found: list[Item] = []
        for file in self.names.sources.values():
            for (cls, attribute), values in file.attributes.items():
                for where, given in values:
                    same = where is scope and isinstance(given, ast.Name) and given.id == name
                    if same or (own and _called(given) == own and (file is source or not scope.cls)):
                        owners = self.names.instances(file.path, cls)
                        found += [Item(owner._modules.get(attribute), attribute) for owner in owners]
        found = [item for item in found if id(item.value) in self.paths]
        if found or not returned or not isinstance(value, ast.Call):
            return _owners(found)
        made = self.names.values(value.func, scope, source)
        root = next((module for module in self._roots() if made == [type(module)]), None)
        return None if root is None else _owners([Item(root, "")])

    def _roots(self) -> Iterator[nn.Module]:
        """The model itself, where it is of a class of the user's."""
        for group in self.names.modules_of_user():
            yield from (module for module in group if self.paths.get(id(module)) == "")

    def _passed(self, name: str, scope: Scope, source: Source, depth: int) -> Owners | None:
        """A module that the callers of a function pass: ``init_weights(self)``."""
        if name not in parameters(scope):
            return None
        found: list[Item] = []
        for call, caller in self.names.call_sites(scope, source):
            expr = bound(name, scope, call.node)
            owners = None if expr is None else self._modules(expr, call.scope, caller, depth + 1)
            if owners is None or owners.outer is not None:
                return None
            found += owners.items
        return _owners(found)


@dataclass(frozen=True, slots=True)
class Owners:
    """Modules that something is asked of; ``outer`` where they are themselves the values of a variable."""

    items: tuple[Item, ...]
    outer: Range | None = None


def _owners(items: list[Item]) -> Owners | None:
    return Owners(tuple(items)) if items else None


def _holder(name: str, scope: Scope) -> Scope | None:
    """The function that binds a name."""
    inner: Scope | None = scope
    while inner is not None and inner.node is not None:
        if name in inner.loops or name in inner.assigned or name in parameters(inner):
            return inner
        inner = inner.parent
    return None


def _called(node: ast.expr) -> str:
    """``make`` of ``self.make(3)`` and of ``make(3)``."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def mentioned(expr: ast.expr, scope: Scope) -> list[str]:
    """The variables that a condition is about, those included that its own are computed from."""
    found: dict[str, None] = {}
    waiting: list[tuple[ast.expr, int]] = [(expr, 0)]
    while waiting:
        node, depth = waiting.pop()
        for item in ast.walk(node):
            if not isinstance(item, ast.Name) or item.id in found:
                continue
            found[item.id] = None
            holder = _holder(item.id, scope)
            values = holder.assigned.get(item.id, []) if holder is not None and item.id not in holder.loops else []
            if len(values) == 1 and depth < _DEPTH:
                waiting.append((values[0], depth + 1))
    return list(found)


def _self(scope: Scope) -> str:
    names = parameters(scope)
    return "" if static(scope) or not names else names[0]


def _statement_of(iterable: ast.expr, scope: Scope) -> ast.For | ast.AsyncFor | None:
    for node in ast.walk(scope.node) if scope.node is not None else ():
        if isinstance(node, ast.For | ast.AsyncFor) and node.iter is iterable:
            return node
    return None


def _between(root: nn.Module, name: str) -> tuple[nn.Module, ...]:
    """The modules on the way from one to another under it, both left out."""
    found: list[nn.Module] = []
    module = root
    for part in name.split(".")[:-1]:
        child = module._modules.get(part)
        if child is None:
            break
        found.append(child)
        module = child
    return tuple(found)


def _container(module: Any) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def _distinct(items: list[Item]) -> tuple[Item, ...]:
    seen: dict[tuple[int, int], Item] = {}
    for item in items:
        seen.setdefault((id(item.value), id(item.owner.value) if item.owner is not None else 0), item)
    return tuple(seen.values())


def tensor_at(item: Item, attributes: list[str]) -> torch.Tensor | None:
    """The parameter that a target means for one value of its variable."""
    value: Any = item.value
    for attribute in attributes:
        if not isinstance(value, nn.Module):
            return None
        value = value._modules.get(attribute, value._parameters.get(attribute))
    return value if isinstance(value, nn.Parameter) else None


def loops_left(loop: ast.For | ast.AsyncFor) -> Iterator[tuple[ast.stmt, bool]]:
    """Statements that end a loop before its last value, and whether they do so at the first."""
    yield from _leaving(loop.body, at_once=True)


def _leaving(body: list[ast.stmt], *, at_once: bool, inner: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    for node in body:
        if isinstance(node, ast.Return) or (isinstance(node, ast.Break) and not inner):
            yield node, at_once
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            nested = inner or isinstance(node, ast.For | ast.AsyncFor | ast.While)
            kept = at_once and isinstance(node, ast.With | ast.AsyncWith)
            for _, value in ast.iter_fields(node):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    yield from _leaving(value, at_once=kept, inner=nested)
                elif isinstance(value, list):
                    for handler in value:
                        if isinstance(handler, ast.ExceptHandler | ast.match_case):
                            yield from _leaving(handler.body, at_once=False, inner=nested)
