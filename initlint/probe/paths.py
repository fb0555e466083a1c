"""Expressions that read an entry of something by constant names, as paths: ``cfg.model["width"]``."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]


def path_of(node: ast.AST) -> Path:
    """``("cfg", "model", "width")`` for ``cfg.model["width"]``; empty for other expressions."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if not isinstance(node.slice.value, str):
                return ()
            parts.append(node.slice.value)
        else:
            break
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def aliases(tree: ast.FunctionDef) -> dict[Path, ast.expr]:
    """Names that only stand for an argument, or for an entry of one: ``self.cfg = cfg``, ``m = cfg["model"]``."""
    arguments = {a.arg for a in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)} - {"self"}
    given: dict[Path, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for place in node.targets:
                given.setdefault(path_of(place), []).append(node.value)
    found: dict[Path, ast.expr] = {}
    for target, values in given.items():
        source = path_of(values[0])
        known = bool(source) and (source[0] in arguments or any(source[:n] in given for n in range(1, len(source) + 1)))
        if len(values) == 1 and known and target and target[0] not in arguments and target != source:
            found[target] = values[0]
    return found


def resolved(tree: ast.FunctionDef, known: Mapping[Path, ast.expr]) -> ast.FunctionDef:
    """A copy of the function with the names that stand for something replaced by it."""
    result = copy.deepcopy(tree)
    for _ in range(3):  # a name that stands for a name
        result = _Replaced(known).visit(result)
    return result


class _Replaced(ast.NodeTransformer):
    def __init__(self, known: Mapping[Path, ast.expr]) -> None:
        self.known = known

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            value = self.known.get(path_of(node))
            if value is not None:
                return copy.deepcopy(value)
        return self.generic_visit(node)
