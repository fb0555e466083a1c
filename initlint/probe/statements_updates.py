"""Statements that move a parameter from where it is: merged adapters, running averages. They are no initialisation."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import torch
from torch import nn

from initlint.probe.statements_names import Names
from initlint.probe.statements_source import Candidate, Scope, Source

#: In-place methods that add to what a tensor holds.
_ADDING = frozenset({"add_", "sub_"})
#: How many assignments a local name is followed through.
_DEEP = 4


def is_update(candidate: Candidate, source: Source, names: Names) -> bool:
    """Whether a statement adds to its target what is worked out from other tensors of the model.

    ``weight.data += lora_B @ lora_A`` is one; ``bias.data += 1`` and ``weight.data += 0.01 * torch.randn(n)`` are not.
    """
    return any(_from_model(part, candidate.scope, source, names) for part in _added(candidate))


def _added(candidate: Candidate) -> Iterator[ast.expr]:
    """What a statement adds to its target."""
    node, whole, value = candidate.node, candidate.statement, candidate.value
    if isinstance(whole, ast.AugAssign):
        if isinstance(whole.op, ast.Add | ast.Sub):
            yield whole.value
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _ADDING:
            yield from node.args
        if node.func.attr == "copy_" and node.args:
            value = node.args[0]
    if value is None or candidate.target is None:
        return
    own = _bare(candidate.target)
    for part in ast.walk(value):
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add | ast.Sub):
            sides = (part.left, part.right)
            yield from (other for side, other in (sides, sides[::-1]) if _bare(side) == own)


def _bare(expr: ast.expr) -> str:
    """The source of a tensor without ``.data``."""
    while isinstance(expr, ast.Attribute) and expr.attr == "data":
        expr = expr.value
    return ast.unparse(expr)


def _from_model(expr: ast.expr, scope: Scope, source: Source, names: Names, depth: int = 0) -> bool:
    """Whether a value is made from a tensor of the model, or by a method of it."""
    owner = names.owner(scope)
    modules = [] if owner is None else names.instances(source.path, owner[0])
    for part in ast.walk(expr):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and owner is not None:
            if _is_name(part.func.value, owner[1]):  # ``self.delta()``
                return True
        elif isinstance(part, ast.Attribute) and owner is not None and _leads_to_tensor(part, owner[1], modules):
            return True
        elif isinstance(part, ast.Name) and depth < _DEEP:
            assigned = scope.assigned.get(part.id, ())
            if any(_from_model(value, scope, source, names, depth + 1) for value in assigned):
                return True
    return False


def _leads_to_tensor(expr: ast.Attribute, instance: str, modules: list[nn.Module]) -> bool:
    """Whether ``self.a.b`` is a tensor in any of the modules, looked up without running a property."""
    path: list[str] = []
    base: ast.expr = expr
    while isinstance(base, ast.Attribute):
        path.insert(0, base.attr)
        base = base.value
    return _is_name(base, instance) and any(_tensor_at(module, path) for module in modules)


def _tensor_at(module: nn.Module, path: list[str]) -> bool:
    found: object = module
    for name in path:
        if not isinstance(found, nn.Module):
            return False
        held = (found._parameters, found._buffers, found._modules, vars(found))
        found = next((some[name] for some in held if name in some), None)
    return isinstance(found, torch.Tensor)


def _is_name(expr: ast.expr, name: str) -> bool:
    return isinstance(expr, ast.Name) and expr.id == name
