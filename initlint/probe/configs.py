"""Which entries of a configuration the code reads: ``cfg.model.width``, ``cfg["width"]``, here and in what it is
handed on to; and a configuration made of them by convention.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch

from initlint.probe import conventions
from initlint.probe.conventions import NOTHING, Usage
from initlint.probe.names import arguments_of
from initlint.probe.paths import Path, aliases, path_of, resolved

#: How far a configuration is followed into classes that it is handed to.
_DEPTH = 4
# Entries of configurations that are called are layers; others would be methods of another kind of object.
_CALLED = re.compile("act|norm|layer|cls|class")
_NUMBERS = re.compile(r"\d+(\D\d+)*")
_METHODS = frozenset(dir(dict))


class Section(dict[str, Any]):
    """A configuration that may be read by key and by attribute, as those of OmegaConf and of many projects."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


# What a reader of an error sees: "'configuration' object is not callable".
Section.__name__ = Section.__qualname__ = "configuration"


def entries(subject: Any, depth: int = _DEPTH) -> dict[str, dict[Path, Usage]]:
    """For each argument of a class or function, the entries that are read from it and how they are used."""
    return _entries(subject, depth) if isinstance(subject, Hashable) else {}


@functools.lru_cache(maxsize=4096)  # classes that hand a configuration on to one another meet by many ways
def _entries(subject: Any, depth: int) -> dict[str, dict[Path, Usage]]:
    function = conventions.constructor(subject) if isinstance(subject, type) else subject
    tree = conventions.tree_of(function)
    if tree is None:
        return {}
    names = arguments_of(tree)
    known = aliases(tree)
    trees = [resolved(tree, known)]
    if isinstance(subject, type):  # what is kept under a name of its own is read in other methods, too
        own = {path: value for path, value in known.items() if path[0] == "self"}
        methods = [
            conventions.tree_of(m) for n, m in vars(subject).items() if inspect.isfunction(m) and n != "__init__"
        ]
        trees += [resolved(method, own) for method in methods if method is not None and own]
    return _read(trees, names, function, depth)


def _read(
    trees: Sequence[ast.FunctionDef], names: Sequence[str], function: Any, depth: int
) -> dict[str, dict[Path, Usage]]:
    nodes = [node for tree in trees for node in ast.walk(tree)]
    found: dict[str, dict[Path, Usage]] = {name: {} for name in names}
    whole: set[int] = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    # Parts of longer paths; ``cfg.shape[0]`` is no path, it looks into the entry.
    inner = {id(node.value) for node in nodes if isinstance(node, (ast.Attribute, ast.Subscript)) and path_of(node)}
    for node in nodes:
        path = conventions.of_entries(path_of(node))
        if len(path) < 2 or path[0] not in found or id(node) in inner:
            continue
        if id(node) in whole and path[-1] in _METHODS:  # ``cfg.get("width", 64)`` has its own default
            continue
        found[path[0]].setdefault(path[1:], Usage())
    _describe(nodes, found)
    if depth:
        for argument, path, usages in _handed_on(nodes, function, names, depth):
            for rest, usage in usages.items():
                found[argument].setdefault((*path, *rest), usage)
    return {name: _leaves(paths) for name, paths in found.items()}


def made(paths: Mapping[Path, Usage], owner: str = "", known: Mapping[str, Any] | None = None) -> Any:
    """A configuration with these entries, by convention; ``NOTHING`` where one of them has none.

    Args:
        owner: name of the argument.
        known: values of entries at its top, which win over conventions.
    """
    result = Section()
    for path, usage in paths.items():
        if usage.called >= 0 and not _CALLED.search(path[-1].lower()):
            return NOTHING  # a method: no configuration
        value = (known or {}).get(path[0], NOTHING) if len(path) == 1 else NOTHING
        if isinstance(value, str) and usage.iterated and _NUMBERS.fullmatch(value):
            value = [int(n) for n in re.findall(r"\d+", value)]  # "2+4" of a command line, which the script splits
        if value is NOTHING and (owner, *path)[-2].endswith("space"):
            value = _of_space(path[-1])
        if value is NOTHING:
            value, _ = conventions.value_for(path[-1], inspect.Parameter.empty, usage, {})
        if value is NOTHING:
            return NOTHING
        place = result
        for name in path[:-1]:
            place = place.setdefault(name, Section())
        place[path[-1]] = value
    return result


def _of_space(name: str) -> Any:
    """What an environment's space of observations or actions offers beside its shape (Gym's API)."""
    bounds = {"low": -1.0, "high": 1.0}
    if name in bounds:
        return torch.full(conventions.FLAT_SHAPE, bounds[name]).numpy()
    return 8 if name == "n" else NOTHING


def _describe(nodes: Sequence[ast.AST], found: Mapping[str, Mapping[Path, Usage]]) -> None:
    """Fill the usages: how each entry is used where it is read."""
    known = {".".join((name, *path)): usage for name, paths in found.items() for path, usage in paths.items()}
    for node in nodes:
        for name, usage in conventions.roles(node, known):
            usage(known[name])


def _handed_on(
    nodes: Sequence[ast.AST], function: Any, names: Sequence[str], depth: int
) -> Iterator[tuple[str, Path, Mapping[Path, Usage]]]:
    """(argument, path, entries read there) of what is passed whole to another class or function of the module."""
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        target = _called(call.func, namespace)
        module = getattr(target, "__module__", None)  # None: of objects made in C, as bound methods of tensors
        if not callable(target) or not isinstance(module, str) or module.startswith("torch"):
            continue
        for key, value in _bound(target, call):
            path = path_of(value)
            if path and path[0] in names:
                inside = entries(target, depth - 1).get(key, {})
                if inside:
                    yield path[0], path[1:], inside


def _called(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """What a call names: ``Block``, or ``networks.define`` of a module of the project."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        module = namespace.get(node.value.id)
        return vars(module).get(node.attr) if isinstance(module, ModuleType) else None
    return namespace.get(node.id) if isinstance(node, ast.Name) else None


def _bound(target: Any, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """(parameter, expression) of a call's arguments."""
    try:
        parameters = [p.name for p in inspect.signature(target).parameters.values()]
    except (TypeError, ValueError):
        return
    yield from zip(parameters, call.args, strict=False)
    yield from ((k.arg, k.value) for k in call.keywords if k.arg is not None)


def _leaves(paths: Mapping[Path, Usage]) -> dict[Path, Usage]:
    """Entries that hold no others."""
    return {p: u for p, u in paths.items() if not any(other[: len(p)] == p and other != p for other in paths)}
