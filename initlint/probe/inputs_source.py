"""The source of a forward, as far as it can be had."""

from __future__ import annotations

import ast
import inspect

from torch import nn

from initlint.probe.conventions import tree_of
from initlint.probe.names import arguments_of
from initlint.probe.paths import path_of


def forward_source(model: nn.Module) -> ast.FunctionDef | None:
    """The definition of the forward that runs, ``None`` without a source."""
    return tree_of(inspect.unwrap(getattr(model.forward, "__func__", model.forward)))


def unpacked(model: nn.Module) -> dict[str, int]:
    """Arguments that the forward takes apart into so many names as they come: ``slow, fast = x``."""
    function = forward_source(model)
    if function is None:
        return {}
    names = set(arguments_of(function))
    found: dict[str, int] = {}
    for statement in function.body:
        if not isinstance(statement, ast.Assign):
            continue
        source, (target, *more) = statement.value, statement.targets
        into = target.elts if isinstance(target, (ast.Tuple, ast.List)) and not more else []
        if into and isinstance(source, ast.Name) and source.id in names and all(isinstance(n, ast.Name) for n in into):
            found.setdefault(source.id, len(into))
        written = [item for one in statement.targets for item in ast.walk(one)]
        names -= {item.id for item in written if isinstance(item, ast.Name)}  # from here on it is something else
    return found


def keyed(model: nn.Module) -> dict[str, list[str]]:
    """Arguments of which the forward reads nothing but entries by their names, and these: ``batch["image"]``."""
    function = forward_source(model)
    if function is None:
        return {}
    inside = {id(node.value) for node in _by_name(function)}
    others = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and id(n) not in inside}
    found = entries(model)
    return {name: found[name] for name in arguments_of(function) if name in found and name not in others}


def entries(model: nn.Module) -> dict[str, list[str]]:
    """What the forward takes out of its variables by name, whether it is there or not: ``kwargs["labels"]``."""
    function = forward_source(model)
    found: dict[str, dict[str, None]] = {}
    for node in _by_name(function) if function is not None else ():
        if isinstance(node.ctx, ast.Load):
            owner, key = path_of(node)
            found.setdefault(owner, {}).setdefault(key)
    return {owner: list(keys) for owner, keys in found.items()}


def _by_name(function: ast.FunctionDef) -> list[ast.Subscript]:
    return [node for node in ast.walk(function) if isinstance(node, ast.Subscript) and _is_entry(node)]


def _is_entry(node: ast.Subscript) -> bool:
    return isinstance(node.value, ast.Name) and bool(path_of(node))
