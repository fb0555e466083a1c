"""Which functions ran during the build, as far as the record and the source tell."""

from __future__ import annotations

import ast
from typing import Any

from initlint.facts import Site
from initlint.probe.provenance_patches import Applied
from initlint.probe.sites import make_site, site
from initlint.probe.statements_guards import Guards, Place
from initlint.probe.statements_names import parameters
from initlint.probe.statements_source import Candidate, Scope, Source, Test, parameter_like

#: What a model runs after it is built: statements in there initialise nothing.
_RUN_TIME = frozenset({"forward", "__call__"})


class Reach:
    """Functions that were seen in a recorded stack, passed to ``apply``, or are used by such functions."""

    def __init__(
        self,
        codes: list[Any],
        sources: dict[str, Source],
        guards: Guards,
        classes: set[str],
        lines: list[frozenset[str]],
        applied: dict[tuple[str, int], list[Applied]],
    ) -> None:
        self._sources = sources
        self._applied = applied  # calls of ``apply``, by file and first line of the function that was passed
        self._idle = {id(node) for source in sources.values() for _, node in source.mentions}
        self._guards = guards
        self._classes = classes  # "file:qualified name" of the classes that the model is made of
        self._lines = lines  # for each class of a module of the model: itself and its bases, likewise
        self._files = {key.rpartition(":")[0] for key in classes}
        seen = {(code.co_filename, code.co_firstlineno, code.co_name) for code in codes}
        self._reached: set[int] = set()
        self._named: dict[str, list[tuple[Scope, Source]]] = {}
        for source in sources.values():
            for scope in source.scopes:
                name = scope.name.rpartition(".")[2]
                if scope.node is None or (source.path, scope.first_line, name) in seen:
                    self._reached.add(id(scope))
                if scope.node is not None:
                    self._named.setdefault(name, []).append((scope, source))
        self._spread()

    def reached(self, scope: Scope) -> bool:
        """Whether the function was seen running, or what was seen running must have used it."""
        return id(scope) in self._reached

    def referenced(self, scope: Scope, source: Source) -> bool:
        """Whether anything in the user's files mentions the function, its own body apart."""
        if scope.node is None or isinstance(scope.node, ast.Lambda):
            return True
        name = scope.node.name
        for other in self._sources.values():
            for user, node, _ in other.references.get(name, ()):
                if _inside(user, scope) or self._of_another(node, user, other, scope, source):
                    continue
                if other is source or isinstance(node, ast.Attribute) or not scope.cls:
                    return True
        outer = scope.parent
        return outer is not None and outer.node is not None and self.referenced(outer, source)

    def named(self, scope: Scope, source: Source) -> Site | None:
        """Where a function that never ran is named but not called: ``self.reset``, or ``apply(factory)``."""
        if scope.node is None or isinstance(scope.node, ast.Lambda):
            return None
        for other in self._sources.values():
            for user, node in other.mentions:
                name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
                if self._of_another(node, user, other, scope, source):
                    continue
                if name == scope.node.name and (isinstance(node, ast.Attribute) or not scope.cls):
                    where = node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0
                    return make_site(other.path, where, user.name)
        calls = self._applied.get((source.path, scope.parent.first_line), []) if scope.parent is not None else []
        return site(calls[0].frames[0]) if calls and calls[0].frames else None

    def relevant(self, candidate: Candidate, source: Source) -> bool:
        """Whether a statement that did not run says anything about this model."""
        scope = candidate.scope
        if _main_guard(candidate.tests) or _runs_later(scope):
            return False
        if candidate.result_unused:
            return False
        if scope.node is None:
            return False  # module level: ran when imported, on something else
        owner = _class_of(scope)
        if owner:
            return f"{source.path}:{owner}" in self._classes
        if self.reached(scope):
            return True
        plain = candidate.target is None or parameter_like(candidate.target)
        unused = not self.referenced(scope, source) or self.named(scope, source) is not None
        return plain and source.path in self._files and unused

    def _spread(self) -> None:
        """Add functions that reached functions use, unless a condition that is known to be false forbids it."""
        pending = True
        while pending:
            pending = False
            for name, owners in self._named.items():
                for scope, source in owners:
                    if id(scope) not in self._reached and self._used(name, scope, source):
                        self._reached.add(id(scope))
                        pending = True

    def _used(self, name: str, scope: Scope, source: Source) -> bool:
        if isinstance(scope.node, ast.Lambda):
            return False
        owner = _class_of(scope)
        if owner and f"{source.path}:{owner}" not in self._classes:
            return False  # a method of a class that the model has no instance of: only its name is alike
        for other in self._sources.values():
            for user, node, tests in other.references.get(name, ()):
                if id(user) not in self._reached or _inside(user, scope) or user.node is None or _runs_later(user):
                    continue
                if id(node) in self._idle or (id(node) in other.returned and self._thrown_away(user, other)):
                    continue
                if scope.cls and not isinstance(node, ast.Attribute):
                    continue
                if self._of_another(node, user, other, scope, source):
                    continue
                if not scope.cls and other is not source and isinstance(node, ast.Attribute):
                    continue
                if not self._forbidden(tests, user, other):
                    return True
        return False

    def _of_another(self, node: ast.expr, user: Scope, file: Source, scope: Scope, source: Source) -> bool:
        """Whether ``self.reset`` of one class means a method of its own, and not that of this unrelated class."""
        if not scope.cls or not isinstance(node, ast.Attribute):
            return False
        outer: Scope | None = user
        while outer is not None and not outer.cls:
            outer = outer.parent
        first = parameters(outer)[:1] if outer is not None else []
        called = isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
        inherited = called and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
        if outer is None or not (inherited or (isinstance(node.value, ast.Name) and [node.value.id] == first)):
            return False
        both = {f"{file.path}:{outer.cls}", f"{source.path}:{scope.cls}"}
        return not any(both <= line for line in self._lines)

    def _thrown_away(self, factory: Scope, source: Source) -> bool:
        """Whether a function was given to ``apply``, which ignores what it returns, and is called by nobody else."""
        if (source.path, factory.first_line) not in self._applied or not isinstance(factory.node, ast.FunctionDef):
            return False
        name = factory.node.name
        calls = [call.node.func for other in self._sources.values() for call in other.calls]
        return all(
            (call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")) != name for call in calls
        )

    def _forbidden(self, tests: tuple[Test, ...], scope: Scope, source: Source) -> bool:
        return any(guard.matched == 0 for guard in self._guards.of(tests, Place(scope, source)))


def _inside(scope: Scope, outer: Scope) -> bool:
    inner: Scope | None = scope
    while inner is not None:
        if inner is outer:
            return True
        inner = inner.parent
    return False


def _class_of(scope: Scope) -> str:
    inner: Scope | None = scope
    while inner is not None:
        if inner.cls:
            return inner.cls
        inner = inner.parent
    return ""


def _runs_later(scope: Scope) -> bool:
    inner: Scope | None = scope
    while inner is not None:
        if inner.cls and inner.name.rpartition(".")[2] in _RUN_TIME:
            return True
        inner = inner.parent
    return False


def _main_guard(tests: tuple[Test, ...]) -> bool:
    """``if __name__ == "__main__"``."""
    return any(isinstance(node, ast.Name) and node.id == "__name__" for test in tests for node in ast.walk(test.expr))
