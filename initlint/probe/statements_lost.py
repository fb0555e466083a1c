"""Values that are computed from a parameter and given to a name that nothing reads again.

``for p in self.parameters(): p = torch.randn_like(p)`` binds a local name and leaves the parameter alone;
``state["fc.weight"] = ...`` changes a dictionary that must be loaded to have an effect.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from initlint.probe.names import own_nodes
from initlint.probe.provenance_words import words

#: Methods that hand out a model's parameters, by name or not.
_PARAMETERS = words("parameters named_parameters")
#: Attributes of a tensor that give (a view of) the tensor itself.
_SAME = words("data weight bias")
#: What may be done with a state dict without handing it on.
_LOOKS = words("items keys values get")


def lost_values(
    node: ast.FunctionDef | ast.AsyncFunctionDef, *, returned: bool = False
) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Pairs of target and value of the assignments in a function that have no effect.

    ``returned``: those of which nothing but the function's result is made, which has no effect where nobody reads it;
    the target is then the parameter that the name stood for before.
    """
    inside = list(own_nodes(node))
    handed = {id(item.value) for item in inside if isinstance(item, ast.Return) and isinstance(item.value, ast.Name)}
    loads: dict[str, list[ast.Name]] = {}
    for item in inside:
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load):
            loads.setdefault(item.id, []).append(item)
    tensors = _tensors(inside)
    states = {name for name, value in _assignments(inside) if _method(value) == "state_dict"}
    handed_on = {name for name in states if not _only_looked_at(name, inside)}
    for item in inside:
        if not isinstance(item, ast.Assign) or len(item.targets) != 1:
            continue
        target = item.targets[0]
        if isinstance(target, ast.Name) and target.id in tensors and _computes(item.value):
            end = (item.end_lineno or 0, item.end_col_offset or 0)
            later = [load for load in loads.get(target.id, ()) if (load.lineno, load.col_offset) >= end]
            later = [load for load in later if not _bound_anew(load, item, inside)]
            if bool(later) == returned and all(id(load) in handed for load in later):
                yield (_stood_for(target, inside) if returned else target), item.value
        elif (
            not returned
            and isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Name)
            and target.value.id in states - handed_on
        ):
            yield target, item.value


def _assignments(inside: list[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for item in inside:
        if isinstance(item, ast.Assign):
            yield from ((target.id, item.value) for target in item.targets if isinstance(target, ast.Name))


def _tensors(inside: list[ast.AST]) -> set[str]:
    """Names that stand for parameters: of loops over them, of ``w = layer.weight.data``, ``getattr(m, "weight")``."""
    found = {name for name, value in _assignments(inside) if _of_layer(value)}
    for item in inside:
        if isinstance(item, ast.For):
            found.update(name for name, _ in looped(item))
    return found


def looped(loop: ast.For) -> Iterator[tuple[str, ast.expr]]:
    """Names that a loop binds to parameters, each with the expression whose parameters they are.

    ``p`` and ``self.body`` of ``for n, p in self.body.named_parameters()``; both names of a loop over a ``zip``.
    """
    pairs = [(loop.target, loop.iter)]
    while pairs:
        target, iterable = pairs.pop()
        called = iterable.func.id if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name) else ""
        if isinstance(iterable, ast.Call) and isinstance(target, ast.Tuple) and called in ("zip", "enumerate"):
            targets = target.elts if called == "zip" else target.elts[1:]
            pairs += list(zip(targets, iterable.args, strict=False))
        elif isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Attribute):
            last = target.elts[-1] if isinstance(target, ast.Tuple) else target
            if iterable.func.attr in _PARAMETERS and isinstance(last, ast.Name):
                yield last.id, iterable.func.value


def _bound_anew(load: ast.Name, item: ast.Assign, inside: list[ast.AST]) -> bool:
    """Whether another loop gives the name a new value before it is read there."""
    for loop in inside:
        if isinstance(loop, ast.For) and any(name == load.id for name, _ in looped(loop)):
            within = [set(map(id, ast.walk(part))) for part in loop.body]
            if any(id(load) in part for part in within) and not any(id(item) in part for part in within):
                return True
    return False


def _of_layer(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "getattr":
        name = value.args[1] if len(value.args) > 1 else None
        return isinstance(name, ast.Constant) and name.value in _SAME
    return isinstance(value, ast.Attribute) and value.attr in _SAME


def _stood_for(name: ast.Name, inside: list[ast.AST]) -> ast.expr:
    """``m.weight`` for a name that was ``getattr(m, "weight", None)``."""
    for other, value in _assignments(inside):
        if other == name.id and isinstance(value, ast.Call) and _of_layer(value):
            said = value.args[1]
            attr = str(said.value) if isinstance(said, ast.Constant) else ""
            return ast.copy_location(ast.Attribute(value.args[0], attr, ast.Load()), name)
        if other == name.id and isinstance(value, ast.Attribute) and _of_layer(value):
            return value
    return name


def conditions(node: ast.AST, inner: ast.AST) -> Iterator[ast.expr]:
    """The conditions under which a part of a function runs, the innermost first."""
    for child in ast.iter_child_nodes(node):
        if child is inner or any(part is inner for part in ast.walk(child)):
            yield from conditions(child, inner)
            if isinstance(node, ast.If) and child in node.body:
                yield node.test


def _method(node: ast.expr) -> str:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def _computes(value: ast.expr) -> bool:
    """Whether an expression computes a new tensor; a function with a trailing underscore changes the old one."""
    calls = [node.func for node in ast.walk(value) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return (bool(calls) or isinstance(value, ast.BinOp)) and not any(name.endswith("_") for name in names)


def _only_looked_at(name: str, inside: list[ast.AST]) -> bool:
    """Whether a dictionary is nowhere handed to anything: not loaded, returned, passed or kept."""
    allowed: set[int] = set()
    for item in inside:
        holder: ast.AST | None = None
        if isinstance(item, ast.Subscript) or (isinstance(item, ast.Attribute) and item.attr in _LOOKS):
            holder = item.value
        elif isinstance(item, ast.For | ast.comprehension):
            holder = item.iter
        elif isinstance(item, ast.Compare):
            allowed.update(map(id, item.comparators))
        if holder is not None:
            allowed.add(id(holder))
    uses = [item for item in inside if isinstance(item, ast.Name) and item.id == name]
    return all(isinstance(use.ctx, ast.Store) or id(use) in allowed for use in uses)
