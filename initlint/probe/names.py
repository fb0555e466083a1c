"""Names that pieces of Python syntax bind, read and change; pure ``ast``, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def bound(node: ast.stmt) -> set[str]:
    """Names that a statement binds in its own scope (also inside its ``if``, ``try``, ``with`` and loops)."""
    names: set[str] = set()
    for item in statements([node]):
        if isinstance(item, Definition):
            names.add(item.name)
        elif isinstance(item, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0] for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in item.names}
        elif isinstance(item, ast.Assign):
            for target in item.targets:
                names |= _stored(target)
        elif isinstance(item, (ast.AugAssign, ast.AnnAssign, ast.For, ast.AsyncFor)):
            names |= _stored(item.target)
        elif isinstance(item, (ast.With, ast.AsyncWith)):
            for with_item in item.items:
                if with_item.optional_vars is not None:
                    names |= _stored(with_item.optional_vars)
        names |= {e.target.id for e in _own_expressions(item) if isinstance(e, ast.NamedExpr)}
    return names


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of the compound statements in it, not entering definitions."""
    for node in body:
        yield node
        if not isinstance(node, Definition):
            for inner in _bodies(node):
                yield from statements(inner)


def used(*nodes: ast.AST) -> set[str]:
    """Names that are read anywhere inside, including in nested functions (more than strictly needed)."""
    return {
        item.id
        for node in nodes
        for item in ast.walk(node)
        if isinstance(item, ast.Name) and isinstance(item.ctx, (ast.Load, ast.Del))
    }


def root(node: ast.AST) -> str | None:
    """``a`` for ``a.b[c].d(...)``: the name at the root of a chain; ``None`` when it is no chain on a name."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call, ast.Starred)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def arguments_of(function: ast.FunctionDef) -> list[str]:
    """Names of the arguments of a definition, those that take the rest aside."""
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def called(call: ast.Call) -> str:
    """The last part of what is called: ``"Linear"`` of ``nn.Linear(...)`` and of ``layers()[0].Linear(...)``."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a function's body but those of functions and classes defined in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Definition | ast.Lambda):
            yield child
            yield from own_nodes(child)


def dotted(node: ast.AST) -> str:
    """``"torch.nn.Linear"`` for that expression; ``""`` when it is not a dotted name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def changed(node: ast.stmt) -> set[str]:
    """Names whose object a simple statement may change: ``a.b = 1``, ``a[0] = 1``, ``a.f()``, ``a += 1``."""
    names: set[str | None] = set()
    if isinstance(node, ast.Assign):
        names = {root(t) for target in node.targets for t in _targets(target) if not isinstance(t, ast.Name)}
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        names = {root(node.target)}
    elif isinstance(node, ast.Delete):
        names = {root(target) for target in node.targets}
    elif isinstance(node, ast.Expr):
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call):
            names = {root(call.func)} | {root(a) for a in (*call.args, *(k.value for k in call.keywords))}
    return {name for name in names if name is not None}


def definition_time(node: Definition) -> set[str]:
    """Names read when the ``def`` or ``class`` statement itself runs: decorators, defaults, bases, class body."""
    names = used(*node.decorator_list)
    if isinstance(node, ast.ClassDef):
        names |= used(*node.bases, *(keyword.value for keyword in node.keywords))
        local: set[str] = set()
        for item in node.body:
            names |= (definition_time(item) if isinstance(item, Definition) else used(item)) - local
            local |= bound(item)
        return names
    arguments = node.args
    names |= used(*arguments.defaults, *(default for default in arguments.kw_defaults if default is not None))
    annotations = [a.annotation for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    annotations += [a.annotation for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return names | used(*(a for a in (*annotations, node.returns) if a is not None))


def is_main_guard(node: ast.stmt) -> bool:
    """``if __name__ == "__main__":``"""
    return isinstance(node, ast.If) and any(
        isinstance(item, ast.Name) and item.id == "__name__" for item in ast.walk(node.test)
    )


def _bodies(node: ast.stmt) -> list[list[ast.stmt]]:
    found = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
    found += [handler.body for handler in getattr(node, "handlers", [])]
    found += [case.body for case in getattr(node, "cases", [])]
    return [body for body in found if isinstance(body, list)]


def _own_expressions(node: ast.stmt) -> Iterator[ast.AST]:
    """Everything inside a statement but its nested statements and definitions."""
    if isinstance(node, Definition):
        return
    for _, value in ast.iter_fields(node):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.expr):
                yield from ast.walk(item)


def _targets(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, (ast.Tuple, ast.List)):
        for item in node.elts:
            yield from _targets(item)
    elif isinstance(node, ast.Starred):
        yield from _targets(node.value)
    else:
        yield node


def _stored(node: ast.expr) -> set[str]:
    return {target.id for target in _targets(node) if isinstance(target, ast.Name)}
