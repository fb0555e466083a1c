"""Conditions that can never hold: on an attribute that no object of the class has, on a tensor taken for a module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import field

import torch
from torch import nn

from initlint.probe.names import dotted
from initlint.probe.statements_missed import Misses
from initlint.probe.statements_names import Names, bound, parameters
from initlint.probe.statements_ranges import Ranges
from initlint.probe.statements_source import Call, Candidate, Source
from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Handed:
    """A call that hands a tensor to a function that asks for the attributes of a module."""

    call: Call
    caller: Source
    test: ast.expr
    names: tuple[str, ...]  # the parameters that were handed over


@dataclass(slots=True)
class Impossible:
    """Answers for one model.

    Args:
        names: resolves names of the source.
        ranges: resolves variables.
        misses: tells what a statement selects.
        paths: id of a module of the model -> its qualified name.
    """

    names: Names
    ranges: Ranges
    misses: Misses
    paths: dict[int, str]
    _kept: list[Candidate] = field(default_factory=list)  # their ids are keys elsewhere

    def handed(self, candidate: Candidate, source: Source) -> Iterator[Handed]:
        """``helper(m.weight)`` where the helper begins with ``if hasattr(m, "weight")``: it does nothing.

        A tensor has neither the attributes of a layer nor its class.
        """
        root, path = _path(candidate.target)
        if not path or candidate.scope.cls or root not in parameters(candidate.scope):
            return
        test = next((t.expr for t in candidate.tests if t.positive and _asks(t.expr, root, path[0])), None)
        if test is None:
            return
        for call, caller in self.names.call_sites(candidate.scope, source):
            expr = bound(root, candidate.scope, call.node)
            # ``helper(m.bias)`` was to set the bias; a plain variable over parameters is a weight as good as any
            meant = expr.attr if isinstance(expr, ast.Attribute) else "weight"
            if not isinstance(expr, ast.Attribute | ast.Name) or path[0] != meant:
                continue
            stand_in = Candidate(candidate.op, expr, call.node, call.scope, call.tests)
            self._kept.append(stand_in)
            names = self.misses.selected(stand_in, caller)
            if names:
                yield Handed(call, caller, test, names)

    def absent(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """``if hasattr(self, "fc"): init(self.fc.weight)`` in a class that never gets an ``fc``: its other layers.

        Only of the very class that the method belongs to: a base class may ask for what some subclasses have.
        """
        root, path = _path(candidate.target)
        owner = self.names.owner(candidate.scope)
        if len(path) < 2 or owner is None or root != owner[1]:
            return ()
        if not any(t.positive and _asks(t.expr, root, path[0]) for t in candidate.tests):
            return ()
        instances = [
            m
            for m in self.names.instances(source.path, owner[0])
            if type(m).__qualname__ == owner[0].rpartition(":")[2]
        ]
        if not instances or any(_has(m, path[0]) for m in instances) or self._set_somewhere(path[0]):
            return ()
        found = []
        for instance in instances:
            for key, child in instance._modules.items():
                tensor = child._parameters.get(path[1]) if child is not None else None
                if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and not isinstance(child, nn.Embedding):
                    found.append(f"{self.paths[id(instance)]}.{key}.{path[1]}".lstrip("."))
        return tuple(found)

    def _set_somewhere(self, name: str) -> bool:
        """Whether any file assigns an attribute of that name, or names it as a text other than to ask for it."""
        asked = re.compile(rf"\b(hasattr|getattr)\(\s*[\w.]+\s*,\s*['\"]{name}['\"]")
        given = re.compile(rf"\.{name}\s*(:[^=\n]+)?=(?!=)|['\"]{name}['\"]")
        return any(given.search(asked.sub("", source.text)) for source in self.names.sources.values())


def _path(target: ast.expr | None) -> tuple[str, list[str]]:
    """``m`` and ``["weight"]`` of ``m.weight.data``."""
    root, *path = dotted(target).split(".") if target is not None else [""]
    return root, [part for part in path if part != "data"]


def _asks(expr: ast.expr, root: str, attribute: str) -> bool:
    """``hasattr(m, "weight")``, ``getattr(m, "weight", None) is not None``; alone or with other conditions."""
    if isinstance(expr, ast.BoolOp) and isinstance(expr.op, ast.And):
        return any(_asks(value, root, attribute) for value in expr.values)
    if isinstance(expr, ast.Compare) and len(expr.ops) == 1 and isinstance(expr.ops[0], ast.IsNot):
        expr = expr.left
    if not isinstance(expr, ast.Call) or not isinstance(expr.func, ast.Name) or len(expr.args) < 2:
        return False
    subject, name = expr.args[:2]
    same = isinstance(subject, ast.Name) and subject.id == root
    wanted = isinstance(name, ast.Constant) and name.value == attribute
    return expr.func.id in ("hasattr", "getattr") and same and wanted


def _has(module: torch.nn.Module, name: str) -> bool:
    tables = (module._parameters, module._buffers, module._modules, vars(module))
    return any(name in table for table in tables) or hasattr(type(module), name)
