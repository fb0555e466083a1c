"""Where the numbers that a weight was drawn with are computed: followed from the draw through the user's source.

A draw names its bound, the bound is assigned in the line above from a count, or comes back from a helper, or was handed
over by whoever called the function. Nothing is run for this; where the source leaves a choice (two assignments,
two returns) the trail ends.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from initlint.facts import Computed, ParameterFacts, Site
from initlint.probe.names import called, own_nodes
from initlint.probe.provenance_words import words
from initlint.probe.sites import make_site
from initlint.probe.statements_names import Names, bound, parameters
from initlint.probe.statements_source import Function, Scope, Source
from initlint.records import dataclass

#: Calls whose arguments are sizes or shapes to allocate, no numbers that are drawn with.
_SIZES = words("""randn rand empty zeros ones randn_like rand_like empty_like zeros_like ones_like new_empty new_zeros
    new_ones Tensor FloatTensor HalfTensor DoubleTensor view reshape expand Size standard_normal random_sample""")
#: Draws whose first two arguments (after the tensor of a function with underscore) say what is drawn.
_DRAWS = words("""normal uniform normal_ uniform_ trunc_normal_ trunc_normal truncated_normal truncated_normal_
    constant_ fill_ xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ orthogonal_""")
_DRAWN = words("std mean a b low high loc scale from to gain val value stddev")
#: In-place methods: what they are called on is what they write.
_IN_PLACE = words("copy_ mul_ div_ add_ sub_ clamp_ erfinv_")
#: Functions of one number that are no counts themselves.
_PLAIN = words("""sqrt rsqrt float int abs max min pow log log2 exp calculate_gain tensor as_tensor Parameter from_numpy
    array to type astype half double cuda cpu clone contiguous detach t transpose requires_grad_""")
_ROOTS = words("sqrt rsqrt pow")
#: Attributes of torch's layers and tensors that are counts or shapes.
_COUNTS = words(
    "in_features out_features in_channels out_channels kernel_size groups shape embedding_dim num_embeddings"
)
#: How far a number is followed.
_DEEP = 8


@dataclass(frozen=True, slots=True)
class _Step:
    """An expression that a number comes from, and how the function around it was called."""

    expr: ast.expr
    scope: Scope
    source: Source
    call: ast.Call | None = None  # of the function around it
    caller: _Step | None = None  # where that call stands
    position: int | None = None  # of the tuple that the expression is, the element
    edge: str = ""  # how it was reached: "local" | "unpacked" | "attribute" | "argument" | "result"


@dataclass(frozen=True, slots=True)
class _Statement:
    """A simple statement of a file, and the function that it stands in."""

    node: ast.stmt
    scope: Scope


class Values:
    """Follows numbers through the source.

    Args:
        names: resolves names of functions.
        sources: the parsed files, by path.
        read: parses a file that is not among them; ``None`` where it cannot or may not be.
    """

    def __init__(self, names: Names, sources: dict[str, Source], read: Callable[[str], Source | None]) -> None:
        self._names = names
        self._sources: dict[str, Source | None] = dict(sources)
        self._read = read
        self._statements: dict[str, dict[int, list[_Statement]]] = {}
        self._ranks: dict[tuple[int, int, int | None], int] = {}
        self._known: dict[tuple[tuple[str, int, int | None], ...], Computed | None] = {}

    def of(self, parameter: ParameterFacts) -> Computed | None:
        """Where the numbers of the last write by user code are computed; ``None`` where nothing is."""
        write = next((w for w in reversed(parameter.writes) if w.site is not None and w.origin != "torch"), None)
        if write is None or len(parameter.shape) < 2:
            return None
        key = tuple((site.file, site.line, site.column) for site in write.stack[:_DEEP])
        if key not in self._known:
            self._known[key] = self._computed(write.stack[:_DEEP])
        return self._known[key]

    def _computed(self, stack: tuple[Site, ...]) -> Computed | None:
        start = self._start(stack)
        if start is None:
            return None
        formula, passed = self._formula(start)
        count = self._count(start)
        text = "\n".join(dict.fromkeys(_site(step).text for step in passed))
        found = Computed(None if formula is None else _site(formula), None if count is None else _site(count), text)
        return found if found.formula or found.count else None

    # -- from a place to an expression ----------------------------------------------------------

    def _source(self, path: str) -> Source | None:
        if path not in self._sources:
            self._sources[path] = self._read(path)
        return self._sources[path]

    def _start(self, stack: tuple[Site, ...]) -> _Step | None:
        """The expression of the innermost frame, with the calls of the frames around it."""
        if not stack:
            return None
        site = stack[0]
        source = self._source(site.file)
        found = None if source is None else self._statement(source, site)
        if source is None or found is None:
            return None
        expr = getattr(found.node, "value", None)
        if not isinstance(expr, ast.expr):
            return None
        return _Step(expr, found.scope, source, *self._caller(stack))

    def _caller(self, stack: tuple[Site, ...]) -> tuple[ast.Call | None, _Step | None]:
        """The call in the second frame that runs the function of the first."""
        if len(stack) < 2:
            return None, None
        inner, outer = stack[0], stack[1]
        source = self._source(outer.file)
        found = None if source is None else self._statement(source, outer)
        if source is None or found is None:
            return None, None
        parts = inner.function.split(".")
        wanted = parts[-2] if parts[-1] == "__init__" and len(parts) > 1 else parts[-1]
        calls = [
            node
            for node in ast.walk(found.node)
            if isinstance(node, ast.Call) and node.lineno == outer.line and called(node) == wanted
        ]
        if len(calls) != 1:
            return None, None
        return calls[0], _Step(calls[0], found.scope, source, *self._caller(stack[1:]))

    def _statement(self, source: Source, site: Site) -> _Statement | None:
        if source.path not in self._statements:
            self._statements[source.path] = _index(source)
        found = self._statements[source.path].get(site.line, [])
        return found[0] if len(found) == 1 else None

    # -- from an expression to those that its numbers come from -----------------------------------

    def _inputs(self, step: _Step, node: ast.expr) -> list[_Step]:
        """What a name, an attribute of ``self`` or a call of the user's stands for, where that is one expression."""
        if isinstance(node, ast.Name):
            return self._of_name(step, node.id)
        if isinstance(node, ast.Attribute):
            return self._of_attribute(step, node)
        if isinstance(node, ast.Call):
            return self._of_call(step, node)
        return []

    def _of_name(self, step: _Step, name: str) -> list[_Step]:
        scope: Scope | None = step.scope
        while scope is not None:
            inside = scope is step.scope
            call, caller = (step.call, step.caller) if inside else (None, None)
            if name in scope.unpacked:
                given = scope.unpacked[name]
                single = len(given) == 1 and name not in scope.assigned
                expr, position = given[0]
                known = single and isinstance(expr, ast.Call) and self._function(step, expr) is not None
                return [_Step(expr, scope, step.source, call, caller, position, "unpacked")] if known else []
            if name in scope.assigned:
                assigned = scope.assigned[name]
                found = [_Step(expr, scope, step.source, call, caller, None, "local") for expr in assigned]
                return (_filled(found[0], name) or found) if len(found) == 1 else []
            if name in scope.loops:
                return []
            if name in parameters(scope):
                handed = None if call is None or caller is None else bound(name, scope, call)
                if handed is None or caller is None:
                    return []
                return [_Step(handed, caller.scope, caller.source, caller.call, caller.caller, None, "argument")]
            scope = scope.parent
        return []

    def _of_attribute(self, step: _Step, node: ast.Attribute) -> list[_Step]:
        """An attribute that is computed once: ``self.std = 1 / math.sqrt(n)``. Widths stand for themselves."""
        owner = self._names.owner(step.scope)
        if owner is None or not isinstance(node.value, ast.Name) or node.value.id != owner[1]:
            return []
        given = step.source.attributes.get((owner[0], node.attr), [])
        found = [_Step(expr, scope, step.source, edge="attribute") for scope, expr in given]
        return found if len(found) == 1 and any(map(_computes, self._relevant(found[0]))) else []

    def _of_call(self, step: _Step, node: ast.Call) -> list[_Step]:
        found = self._function(step, node)
        if found is None:
            return []
        scope, source = found
        results = _results(scope.node) if scope.node is not None else []
        if len(results) != 1:
            return []
        expr, position = results[0], step.position if step.expr is node else None
        if isinstance(expr, ast.Tuple) and position is not None:
            if position >= len(expr.elts) or any(isinstance(item, ast.Starred) for item in expr.elts):
                return []
            expr, position = expr.elts[position], None
        return [_Step(expr, scope, source, node, step, position, "result")]

    def _function(self, step: _Step, node: ast.Call) -> tuple[Scope, Source] | None:
        """The function of the user's that a call runs."""
        owner = self._names.owner(step.scope)
        if (
            owner is not None
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in (owner[1], owner[0])
        ):
            own = [s for s in step.source.scopes if s.cls == owner[0] and s.name == f"{owner[0]}.{node.func.attr}"]
            return (own[0], step.source) if len(own) == 1 else None
        if isinstance(node.func, ast.Name):
            local = [s for s in step.source.scopes if _function_name(s) == node.func.id and not s.cls]
            if len(local) == 1 and node.func.id not in step.source.imports:
                return local[0], step.source
        if not isinstance(node.func, ast.Name | ast.Attribute):
            return None
        values = self._names.values(node.func, step.scope, step.source)
        code = getattr(values[0], "__code__", None) if len(values) == 1 else None
        source = None if code is None else self._source(code.co_filename)
        if code is None or source is None:
            return None
        found = [s for s in source.scopes if s.first_line == code.co_firstlineno and _function_name(s) == code.co_name]
        return (found[0], source) if len(found) == 1 else None

    # -- questions --------------------------------------------------------------------------------

    def _formula(self, start: _Step) -> tuple[_Step | None, list[_Step]]:
        """The first expression on the way that computes with a root, a power or a quotient; and all before it."""
        todo, seen, passed = [start], {id(start.expr)}, list[_Step]()
        for _ in range(_DEEP):
            following: list[_Step] = []
            for step in todo:
                passed.append(step)
                if any(_computes(node) for node in self._relevant(step)):
                    return step, passed
                for node in self._relevant(step):
                    for found in self._inputs(step, node) if isinstance(node, ast.expr) else ():
                        if id(found.expr) not in seen:
                            seen.add(id(found.expr))
                            following.append(found)
            todo = following
        return None, passed

    def _count(self, start: _Step) -> _Step | None:
        """The expression that counts inputs or outputs, where one alone does."""
        if not self._counts(start):
            return None
        step = start
        for _ in range(_DEEP):
            if any(self._counted(step, node) == 2 for node in self._relevant(step)):
                return step
            ranked: dict[int, tuple[int, _Step]] = {}
            for node in self._relevant(step):
                for found in self._inputs(step, node):
                    rank, known = self._counts(found), ranked.get(id(found.expr))
                    if known is not None and known[1].position != found.position:  # several elements of one tuple
                        rank, found = max(rank, known[0]), replace(found, position=None)
                    ranked[id(found.expr)] = (rank, found)
            best = max((rank for rank, _ in ranked.values()), default=0)
            onward = [found for rank, found in ranked.values() if rank == best]
            if not best or len(onward) != 1 or not self._telling(onward[0], best):
                return step
            step = onward[0]
        return step

    def _telling(self, step: _Step, rank: int) -> bool:
        """Whether an expression decides what is counted; ``hidden = 4 * dim`` is the width of a layer as well.

        What a constructor is given is the model's business, not that of the formula.
        """
        if step.edge == "argument":
            return not step.scope.name.endswith("__init__") or not isinstance(step.expr, ast.Name)
        return rank == 2 or step.edge == "result" or any(map(_computes, self._relevant(step)))

    def _counts(self, step: _Step, depth: int = 0) -> int:
        """2 where shapes or sizes are read on the way, 1 where numbers of unknown meaning are, else 0."""
        key = (id(step.expr), id(step.call), step.position)
        if key in self._ranks:
            return self._ranks[key]
        self._ranks[key] = best = 0
        for node in self._relevant(step):
            best = max(best, self._counted(step, node))
            if best < 2 and depth < _DEEP:
                best = max([best, *(self._counts(found, depth + 1) for found in self._inputs(step, node))])
            if best == 2:
                break
        self._ranks[key] = best
        return best

    def _counted(self, step: _Step, node: ast.expr) -> int:
        """How plainly an expression is itself a count: 2 for one read from a shape, 1 for a number of some name."""
        if isinstance(node, ast.Subscript):
            return 2
        if isinstance(node, ast.Attribute):
            if node.attr in _COUNTS:
                return 2
            return 0 if _root(node) in step.source.imported or self._inputs(step, node) else 1
        if isinstance(node, ast.Call):
            known = called(node) in _PLAIN | _SIZES | _DRAWS | _IN_PLACE
            return 0 if known or self._function(step, node) is not None else 2
        if isinstance(node, ast.Name):
            if node.id in step.scope.unpacked and not self._inputs(step, node):
                return 2
            return 0 if self._inputs(step, node) or node.id in step.source.imported else 1
        return 0

    def _relevant(self, step: _Step) -> list[ast.expr]:
        """The parts of an expression that numbers come from: no sizes, no indices, not the tensor that is written."""
        expr = step.expr
        if isinstance(expr, ast.Tuple) and step.position is not None and step.position < len(expr.elts):
            expr = expr.elts[step.position]
        return list(self._visit(step, expr))

    def _visit(self, step: _Step, node: ast.AST) -> Iterator[ast.expr]:
        if isinstance(node, ast.Call):
            yield from self._visit_call(step, node)
            return
        if isinstance(node, ast.Attribute | ast.Subscript):
            yield node
            if any(isinstance(part, ast.Call) for part in ast.walk(node.value)):
                yield from self._visit(step, node.value)
            return
        if isinstance(node, ast.expr):
            yield node
        for child in ast.iter_child_nodes(node):
            yield from self._visit(step, child)

    def _visit_call(self, step: _Step, node: ast.Call) -> Iterator[ast.expr]:
        name = called(node)
        yield node
        if name in _SIZES and name not in ("view", "reshape", "expand"):
            return
        if self._function(step, node) is not None:
            return  # its arguments count where the function reads them
        value = node.func.value if isinstance(node.func, ast.Attribute) else None
        of_module = value is not None and _root(value) in step.source.imported and not _has_call(value)
        if value is not None and not of_module and (_has_call(value) or name not in _DRAWS | _IN_PLACE):
            yield from self._visit(step, value)
        if name in _SIZES:
            return
        args = node.args
        keywords = [item.value for item in node.keywords]
        if name in _DRAWS:
            first = 1 if name.endswith("_") and (of_module or value is None) else 0
            args = args[first : first + 2]
            keywords = [item.value for item in node.keywords if item.arg in _DRAWN]
        for item in (*args, *keywords):
            yield from self._visit(step, item)


def _index(source: Source) -> dict[int, list[_Statement]]:
    """Simple statements by each line that they span."""
    scopes = {id(scope.node): scope for scope in source.scopes}
    found: dict[int, list[_Statement]] = {}

    def walk(body: list[Any], scope: Scope) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                walk(node.body, scopes.get(id(node), scope))
                continue
            inner = [item for name in ("body", "orelse", "finalbody") for item in getattr(node, name, [])]
            inner += [item for handler in getattr(node, "handlers", []) for item in handler.body]
            inner += [item for case in getattr(node, "cases", []) for item in case.body]
            if inner:
                walk(inner, scope)
                continue
            statement = _Statement(node, scope)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found.setdefault(line, []).append(statement)

    module = next((scope for scope in source.scopes if scope.node is None), None)
    if module is not None and source.tree is not None:
        walk(source.tree.body, module)
    return found


def _filled(step: _Step, name: str) -> list[_Step]:
    """The one draw that fills memory allocated under a name: ``w = torch.empty(n)``, ``w.normal_(0, std)``."""
    if not isinstance(step.expr, ast.Call) or called(step.expr) not in _SIZES:
        return []
    draws = [
        candidate.node
        for candidate in step.source.candidates
        if candidate.scope is step.scope and isinstance(candidate.target, ast.Name) and candidate.target.id == name
    ]
    calls = [node for node in draws if isinstance(node, ast.Call) and called(node) in _DRAWS]
    return [replace(step, expr=calls[0])] if len(calls) == 1 else []


def _results(node: Function) -> list[ast.expr]:
    """What a function returns, each return once."""
    if isinstance(node, ast.Lambda):
        return [node.body]
    return [item.value for item in own_nodes(node) if isinstance(item, ast.Return) and item.value is not None]


def _computes(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Div | ast.Pow)
    return isinstance(node, ast.Call) and called(node) in _ROOTS


def _site(step: _Step) -> Site:
    expr = step.expr
    where = (expr.lineno, expr.end_lineno or expr.lineno, expr.col_offset, expr.end_col_offset or 0)
    return make_site(step.source.path, where, step.scope.name)


def _function_name(scope: Scope) -> str:
    return scope.node.name if isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef) else ""


def _has_call(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
