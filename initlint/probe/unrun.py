"""Init functions that the code applies to a model outside of its constructor, where no build of the class runs them.

``model.apply(init_weights)`` in a script and ``init_weights(self.net)`` in a trainer, in the file of the model, are
found by syntax: a call of a function that calls ``torch.nn.init``, on something that was made from the class. Nothing
is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from initlint.probe import scan as scanning
from initlint.probe.names import Definition, called, dotted, statements
from initlint.probe.scan import Scan
from initlint.probe.target import relative
from initlint.records import dataclass

#: Names are followed through so many assignments to the class that they were made from.
_DEPTH = 4
#: Methods of a tensor that draw it anew.
_DRAWS = frozenset(("normal_", "uniform_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_normal_"))


@dataclass(frozen=True, slots=True)
class Unrun:
    """A call that initialises a model of the class after its construction."""

    file: str
    line: int
    text: str
    function: str  # the init function
    applied: bool  # by ``model.apply``

    def notes(self, cls: str, target: str) -> tuple[str, str]:
        """What a reader is told, and how the model can be checked as it is trained."""
        given = f"model.apply({self.function})" if self.applied else f"{self.function}(model)"
        factory = f"def build(): model = {cls}(...); {given}; return model"
        return (
            f"{self.file}:{self.line}: not run, values are those before it: {self.text}",
            f"initlint '{target}::build' checks it as trained, with {factory}",
        )


def unrun(cls: str, path: str, directory: str) -> tuple[Unrun, ...]:
    """The calls that initialise models of a class in the file that defines it.

    Others that import the class are not searched: each of them would be one more file on which what is known of the
    model depends, so that an edit of any script had all models beside it analysed anew.
    """
    scan = scanning.scan(path)
    return () if scan is None else tuple(_of_file(scan, cls, directory))


def _of_file(scan: Scan, cls: str, directory: str) -> Iterator[Unrun]:
    for scope, call in _calls(scan.tree, scan.tree):
        applied = isinstance(call.func, ast.Attribute) and call.func.attr == "apply"
        function, model = (call.args[0] if call.args else None, None) if applied else (call.func, None)
        if applied and isinstance(call.func, ast.Attribute):
            model = call.func.value
        elif call.args:
            model = call.args[0]
        if function is None or model is None or not _initialises(scan, function):
            continue
        if _made_from(model, cls, scope, call.lineno, _DEPTH):
            text = " ".join(ast.unparse(call).split())
            yield Unrun(relative(scan.path, directory), call.lineno, text, dotted(function), applied)


def _calls(node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Calls outside of module classes, each with the class, the function or the file whose names it reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield scope, child
        inner = scope
        if isinstance(child, ast.ClassDef) or (isinstance(child, Definition) and not isinstance(scope, ast.ClassDef)):
            inner = child
        yield from _calls(child, inner)


def _initialises(scan: Scan, function: ast.expr, depth: int = _DEPTH) -> bool:
    """Whether a name is that of a function, here or in a file of the project, that calls ``torch.nn.init``.

    Or that hands what it is given to one that does: ``init_net(net)``, which moves it and calls ``init_weights(net)``.
    """
    name = dotted(function)
    node, where = scan.definitions.get(name), scan
    if node is None and name:
        place = scanning.file_of(scan.canonical(function), scan.path)
        other = scanning.scan(place[0]) if place is not None else None
        if place is None or other is None:
            return False
        node, where = other.definitions.get(place[1]), other
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    if any(_draws(where, call) for call in scanning.calls(node)):
        return True
    given = {a.arg for a in (*node.args.posonlyargs, *node.args.args)} if depth else set()
    inner = [
        c.func for c in scanning.calls(node) if isinstance(c.func, ast.Name) and c.args and dotted(c.args[0]) in given
    ]
    own = [
        name for name in inner if isinstance(where.definitions.get(name.id), ast.FunctionDef) and name.id != node.name
    ]
    return any(_initialises(where, name, depth - 1) for name in own)


def _draws(scan: Scan, call: ast.Call) -> bool:
    return scan.canonical(call.func).startswith("torch.nn.init.") or called(call) in _DRAWS


def _made_from(node: ast.AST, cls: str, scope: ast.AST, before: int, depth: int) -> bool:
    """Whether an expression is made by a call of the class, or from what is (a whole of several parts)."""
    if any(isinstance(part, ast.Call) and called(part) == cls for part in ast.walk(node)):
        return True
    if depth == 0:
        return False
    names = {dotted(part) for part in ast.walk(node) if isinstance(part, (ast.Name, ast.Attribute))} - {""}
    for statement in _statements(scope):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            continue
        named = any(dotted(target) in names for target in statement.targets)
        if named and statement.lineno < before and _made_from(statement.value, cls, scope, statement.lineno, depth - 1):
            return True
    return False


def _statements(scope: ast.AST) -> Iterator[ast.AST]:
    """The statements that give the names of a scope their values; a class's attributes get theirs in its methods."""
    if isinstance(scope, ast.ClassDef):
        return ast.walk(scope)
    return statements(getattr(scope, "body", []))
