"""Finds the statements in a source file that look like an initialisation, with what surrounds them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import field

from initlint.facts import Site
from initlint.probe.provenance_words import words
from initlint.probe.sites import make_site
from initlint.probe.statements_fresh import FRESH, OUT_OF_PLACE, made_anew
from initlint.probe.statements_lost import conditions, lost_values
from initlint.records import dataclass

#: Public functions of ``torch.nn.init``; libraries keep the names for their own versions.
INIT_FUNCTIONS = frozenset(
    f"{name}{tail}"
    for name in words("""uniform normal trunc_normal constant ones zeros eye dirac xavier_uniform xavier_normal
    kaiming_uniform kaiming_normal orthogonal sparse""")
    for tail in ("_", "")
) - {"uniform", "normal", "constant", "ones", "zeros", "eye"}
#: Bare names that only mean an init function when they come from an ``init`` module.
_AMBIGUOUS = frozenset({"uniform", "normal", "constant", "eye", "dirac", "sparse", "orthogonal"})
#: In-place tensor methods that set values whatever was there.
_SETTING = words(
    "normal_ uniform_ zero_ fill_ copy_ exponential_ log_normal_ cauchy_ bernoulli_ random_ fill_diagonal_"
)
#: In-place methods that change values: an init only on something that is plainly a parameter.
_CHANGING = words("mul_ div_ add_ sub_ clamp_ clip_ masked_fill_ index_fill_ neg_ abs_")
#: Class methods that return a new module; called on a module that there is, they leave it as it is.
MAKES_MODULE = "from_pretrained"
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Mult: "mul", ast.Div: "div", ast.Add: "add", ast.Sub: "sub"}
#: What makes or resets a stream of random numbers from a given seed in NumPy and ``random``; torch's are recorded.
_SEEDING = words("seed RandomState default_rng Random SeedSequence PCG64 Philox MT19937")

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(slots=True)
class Scope:
    """A function (or the module) and what encloses it."""

    name: str  # qualified as Python does: "Model._init_weights", "weight_init.<locals>.foo"
    node: Function | None
    parent: Scope | None = None
    cls: str = ""  # qualified name of the class whose method it is
    assigned: dict[str, list[ast.expr]] = field(default_factory=dict)  # local name -> what it was assigned
    loops: dict[str, tuple[ast.expr, int | None]] = field(default_factory=dict)  # loop variable -> iterable, position
    unpacked: dict[str, list[tuple[ast.expr, int]]] = field(default_factory=dict)  # ``a, b = f()``: value, position

    @property
    def first_line(self) -> int:
        """As ``co_firstlineno``: the first decorator's line when there is one."""
        if self.node is None:
            return 1
        decorators: list[ast.expr] = getattr(self.node, "decorator_list", [])
        return min([self.node.lineno, *(item.lineno for item in decorators)])

    def only(self, expr: ast.expr) -> ast.expr:
        """What a local name stands for, where it is assigned once; the expression itself otherwise."""
        values = self.assigned.get(expr.id, []) if isinstance(expr, ast.Name) else []
        return values[0] if len(values) == 1 else expr


@dataclass(frozen=True, slots=True)
class Test:
    """A condition around a statement and which way it was taken."""

    expr: ast.expr
    positive: bool
    chain: bool = False  # an earlier test of the same if/elif chain


@dataclass(slots=True)
class Candidate:
    """A statement that looks like an initialisation."""

    op: str
    target: ast.expr | None  # None for ``pass``
    node: ast.AST  # the call, or the assignment
    scope: Scope
    tests: tuple[Test, ...]  # innermost first
    statement: ast.AST | None = None  # for ``p.data *= 2``: the whole statement
    result_unused: bool = False  # an out-of-place function whose result is thrown away
    exits: tuple[Test, ...] = ()  # conditions under which the code before it went on: ``if frozen: continue``
    idle: ast.expr | None = None  # why it never runs: ``w.zero_`` without a call, a generator that nothing consumes
    value: ast.expr | None = None  # what an assignment assigns
    own: bool = False  # a function of the user's that returns a new tensor, whose result is thrown away


@dataclass(slots=True)
class Call:
    """Any call in the file, to find out who calls what."""

    node: ast.Call
    scope: Scope
    tests: tuple[Test, ...]


@dataclass(slots=True)
class Source:
    """What one file holds."""

    path: str
    text: str
    scopes: list[Scope] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    references: dict[str, list[tuple[Scope, ast.expr, tuple[Test, ...]]]] = field(
        default_factory=dict
    )  # name or attribute -> uses
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)  # local name -> module, attribute ("" for none)
    imported: frozenset[str] = frozenset()  # local names that are modules or come from an import
    mentions: list[tuple[Scope, ast.expr]] = field(default_factory=list)  # ``self.reset`` as a statement: no call
    returned: set[int] = field(default_factory=set)  # ids of expressions that a return statement hands out
    multiplied: list[tuple[Scope, ast.BinOp]] = field(default_factory=list)  # ``[layer] * n``
    seedings: list[tuple[Scope, ast.Call]] = field(default_factory=list)  # ``RandomState(0)``, ``seed(0)``
    attributes: dict[tuple[str, str], list[tuple[Scope, ast.expr]]] = field(
        default_factory=dict
    )  # class and attribute -> what its methods assign to ``self.attribute``
    branches: list[tuple[Scope, ast.If]] = field(default_factory=list)  # in source order
    tree: ast.Module | None = None

    _lines: list[bytes] = field(default_factory=list)

    def segment(self, node: ast.expr) -> str:
        """Source of an expression on one line. (``ast.get_source_segment`` splits the whole file each time.)"""
        if not self._lines:
            self._lines = self.text.encode().splitlines()
        last = (node.end_lineno or node.lineno) - 1
        lines = self._lines[node.lineno - 1 : last + 1]
        if not lines:
            return ""
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return " ".join(b" ".join(lines).decode(errors="replace").split())


def read(path: str, text: str) -> Source | None:
    """Parse a file; ``None`` when it is no valid Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    source = Source(path, text, imports=_bindings(tree), imported=frozenset(_imports(tree)), tree=tree)
    _Walker(source).run(tree)
    return source


def _bindings(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """What each imported name stands for, wherever in the file it is imported."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0],
                    "",
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


class _Walker:
    """Walks a tree in source order with the scope and the conditions at hand."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._passes: list[Candidate] = []
        self._handed_back: list[tuple[str, Candidate]] = []  # functions and what their result is made of
        self._statement_calls: list[tuple[ast.Call, Scope, tuple[Test, ...], tuple[Test, ...]]] = []
        self._exits: tuple[Test, ...] = ()
        self._idle: ast.expr | None = None

    def run(self, tree: ast.Module) -> None:
        scope = Scope("<module>", None)
        self._source.scopes.append(scope)
        self._block(tree.body, scope, (), "", "")
        applied = {id(arg) for call in self._source.calls if _applies(call.node) for arg in call.node.args}
        for name, candidate in self._handed_back:
            uses = [node for _, node, _ in self._source.references.get(name, ())]
            if uses and all(id(node) in applied for node in uses):  # ``apply`` throws results away
                self._source.candidates.append(candidate)
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for call, where, tests, exits in self._statement_calls:
            target = made_anew(call, functions)
            if target is not None and parameter_like(target, strict=True):
                name = getattr(call.func, "id", "")
                self._source.candidates.append(
                    Candidate(name, target, call, where, tests, None, True, own=True, exits=exits)
                )

    def _block(self, body: list[ast.stmt], scope: Scope, tests: tuple[Test, ...], prefix: str, cls: str) -> None:
        before = self._exits
        for statement in body:
            self._statement(statement, scope, tests, prefix, cls)
            if isinstance(statement, ast.If):
                self._exits = (*_exits(statement), *self._exits)
        self._exits = before

    def _statement(self, node: ast.stmt, scope: Scope, tests: tuple[Test, ...], prefix: str, cls: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = Scope(prefix + node.name, node, scope, cls)
            self._source.scopes.append(inner)
            for expr in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
                self._expression(expr, scope, tests)
            outside, self._exits = self._exits, ()
            self._block(node.body, inner, (), f"{prefix}{node.name}.<locals>.", "")
            self._exits = outside
            self._source.candidates += [
                Candidate("assign", target, value, inner, (), result_unused=True) for target, value in lost_values(node)
            ]
            self._handed_back += [
                (node.name, Candidate("assign", target, value, inner, around, result_unused=True))
                for target, value in lost_values(node, returned=True)
                for around in [tuple(Test(expr, True) for expr in conditions(node, value))]
            ]
        elif isinstance(node, ast.ClassDef):
            name = prefix + node.name
            for expr in (*node.bases, *node.decorator_list):
                self._expression(expr, scope, tests)
            self._block(node.body, scope, tests, f"{name}.", name)
        elif isinstance(node, ast.If):
            self._if(node, scope, tests, prefix, cls)
        elif isinstance(node, ast.For | ast.AsyncFor):
            _loop_names(node.target, node.iter, scope)
            self._expression(node.iter, scope, tests)
            self._block(node.body, scope, tests, prefix, cls)
            self._block(node.orelse, scope, tests, prefix, cls)
        else:
            self._plain(node, scope, tests, prefix, cls)

    def _plain(self, node: ast.stmt, scope: Scope, tests: tuple[Test, ...], prefix: str, cls: str) -> None:
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            self._assignment(node, scope, tests)
        if isinstance(node, ast.Expr):
            self._thrown_away(node, scope, tests)
            self._nothing_done(node.value, scope, tests)
            self._idle = node.value if isinstance(node.value, ast.GeneratorExp) else None
        if isinstance(node, ast.Return) and node.value is not None:
            self._source.returned.add(id(node.value))
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child, scope, tests, prefix, cls)
            elif isinstance(child, ast.expr):
                self._expression(child, scope, tests)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                self._block(child.body, scope, tests, prefix, cls)
            elif isinstance(child, ast.withitem):
                self._expression(child.context_expr, scope, tests)
            elif isinstance(child, ast.keyword):
                self._expression(child.value, scope, tests)
        self._idle = None

    def _nothing_done(self, node: ast.expr, scope: Scope, tests: tuple[Test, ...]) -> None:
        """``self.reset`` and ``w.zero_`` without parentheses; ``map(init, modules)``, which nobody consumes."""
        if isinstance(node, ast.Attribute) and node.attr in _SETTING and parameter_like(node.value, strict=True):
            self._idle = node
            self._add(node.attr, node.value, node, scope, tests)
            self._idle = None
        elif isinstance(node, ast.Name | ast.Attribute):
            self._source.mentions.append((scope, node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "map" and node.args:
            self._source.mentions.append((scope, node.args[0]))

    def _if(self, node: ast.If, scope: Scope, tests: tuple[Test, ...], prefix: str, cls: str) -> None:
        self._source.branches.append((scope, node))
        self._expression(node.test, scope, tests)
        before = len(self._source.candidates)
        inside = (Test(node.test, True), *tests)
        self._block(node.body, scope, inside, prefix, cls)
        alone = len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
        self._block(node.orelse, scope, (Test(node.test, False, chain=alone), *tests), prefix, cls)
        for body, branch in ((node.body, inside), (node.orelse, (Test(node.test, False), *tests))):
            if len(body) == 1 and isinstance(body[0], ast.Pass):
                self._passes.append(Candidate("pass", None, body[0], scope, branch))
        if not any(test.chain for test in tests[:1]):
            self._settle_passes(before)

    def _settle_passes(self, before: int) -> None:
        """A branch that does nothing matters when another branch of the chain initialises."""
        if len(self._source.candidates) > before:
            self._source.candidates += self._passes
        self._passes.clear()

    def _assignment(
        self, node: ast.Assign | ast.AugAssign | ast.AnnAssign, scope: Scope, tests: tuple[Test, ...]
    ) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and node.value is not None and not isinstance(node, ast.AugAssign):
                scope.assigned.setdefault(target.id, []).append(node.value)
            elif isinstance(target, ast.Tuple) and node.value is not None:
                for position, item in enumerate(target.elts):
                    if isinstance(item, ast.Name):
                        scope.unpacked.setdefault(item.id, []).append((node.value, position))
            elif _of_self(target, scope) and isinstance(target, ast.Attribute) and node.value is not None:
                self._source.attributes.setdefault((scope.cls, target.attr), []).append((scope, node.value))
            if isinstance(target, ast.Name | ast.Tuple):
                continue
            if isinstance(target, ast.Attribute) and target.attr == "data":
                self._add("copy_", target.value, target, scope, tests, node)
            elif isinstance(target, ast.Subscript) and parameter_like(target.value, strict=True):
                self._add("setitem", target.value, target, scope, tests, node)

    def _thrown_away(self, node: ast.Expr, scope: Scope, tests: tuple[Test, ...]) -> None:
        call = node.value
        if isinstance(call, ast.BinOp) and type(call.op) in _ARITHMETIC:
            side = next((side for side in (call.left, call.right) if parameter_like(side, strict=True)), None)
            if side is not None:  # ``self.weight * 0.1`` for ``self.weight.data *= 0.1``
                self._add(_ARITHMETIC[type(call.op)], side, call, scope, tests, result_unused=True)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            self._statement_calls.append((call, scope, tests, self._exits))
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return
        copied = _copied(call.func.value)
        if copied is not None and call.func.attr in _SETTING | _CHANGING and parameter_like(copied, strict=True):
            self._add(call.func.attr, copied, call, scope, tests)  # ``self.weight.clone().zero_()``
        if call.func.attr == MAKES_MODULE and _root(call.func.value) not in self._source.imported:
            weight = ast.copy_location(ast.Attribute(call.func.value, "weight", ast.Load()), call.func.value)
            self._add(MAKES_MODULE, weight, call, scope, tests, result_unused=True)
        if call.func.attr not in OUT_OF_PLACE | FRESH or any(keyword.arg == "out" for keyword in call.keywords):
            return
        of_module = _root(call.func.value) in self._source.imported and _is_module(call.func.value)
        target = _first(call) if of_module else call.func.value  # ``torch.mul(w, 2)`` and ``w.mul(2)``
        if target is not None and parameter_like(target, strict=True):
            self._add(call.func.attr, target, call, scope, tests, result_unused=True)

    def _expression(self, node: ast.expr, scope: Scope, tests: tuple[Test, ...]) -> None:
        if isinstance(node, ast.Lambda):
            inner = Scope(f"{'' if scope.node is None else scope.name + '.<locals>.'}<lambda>", node, scope)
            self._source.scopes.append(inner)
            self._expression(node.body, inner, ())
            return
        if isinstance(node, ast.IfExp):
            self._expression(node.test, scope, tests)
            self._expression(node.body, scope, (Test(node.test, True), *tests))
            self._expression(node.orelse, scope, (Test(node.test, False), *tests))
            return
        if isinstance(node, ast.BoolOp):
            seen: list[Test] = []
            for value in node.values:
                self._expression(value, scope, (*seen, *tests))
                seen.insert(0, Test(value, isinstance(node.op, ast.And)))
            return
        if isinstance(node, ast.Name | ast.Attribute):
            key = node.id if isinstance(node, ast.Name) else node.attr
            self._source.references.setdefault(key, []).append((scope, node, tests))
        if isinstance(node, ast.Call):
            self._source.calls.append(Call(node, scope, tests))
            self._call(node, scope, tests)
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _SEEDING and node.args:
                self._source.seedings.append((scope, node))
        if isinstance(node, ast.BinOp) and any(
            isinstance(node.op, ast.Mult) and isinstance(side, ast.List) and side.elts
            for side in (node.left, node.right)
        ):
            self._source.multiplied.append((scope, node))
        for generator in getattr(node, "generators", []):
            _loop_names(generator.target, generator.iter, scope)
        conditions = [test for generator in getattr(node, "generators", []) for test in generator.ifs]
        tests = (*(Test(test, True) for test in reversed(conditions)), *tests)
        for child in ast.walk(node) if isinstance(node, ast.comprehension) else ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, scope, tests)
            elif isinstance(child, ast.keyword):
                self._expression(child.value, scope, tests)
            elif isinstance(child, ast.comprehension):
                for part in (child.target, child.iter, *child.ifs):
                    self._expression(part, scope, tests)

    def _call(self, node: ast.Call, scope: Scope, tests: tuple[Test, ...]) -> None:
        function = node.func
        if isinstance(function, ast.Attribute):
            root = _root(function.value)
            name = function.attr
            of_init = self._init_module(function.value) and name in INIT_FUNCTIONS | _AMBIGUOUS
            of_module = root in self._source.imported and name in INIT_FUNCTIONS and _is_module(function.value)
            changing = name in _CHANGING and parameter_like(function.value, strict=True)
            if of_init or of_module:
                self._add(name, _first(node), node, scope, tests)
            elif changing or (name in _SETTING and parameter_like(function.value)):
                self._add(name, function.value, node, scope, tests)
        elif isinstance(function, ast.Name) and function.id in INIT_FUNCTIONS and node.args:
            self._add(function.id, _first(node), node, scope, tests)

    def _init_module(self, value: ast.expr) -> bool:
        """Whether an expression reads like the module ``torch.nn.init``."""
        last = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
        return last == "init" and _root(value) in self._source.imported

    def _add(
        self,
        op: str,
        target: ast.expr | None,
        node: ast.AST,
        scope: Scope,
        tests: tuple[Test, ...],
        statement: ast.AST | None = None,
        *,
        result_unused: bool = False,
    ) -> None:
        whole = statement if isinstance(statement, ast.AugAssign) else None
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        self._source.candidates.append(
            Candidate(op, target, node, scope, tests, whole, result_unused, self._exits, self._idle, value)
        )


def _of_self(target: ast.expr, scope: Scope) -> bool:
    """Whether a method assigns to an attribute of its instance."""
    first = scope.node.args.args[:1] if scope.node is not None and scope.cls else []
    return (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and any(item.arg == target.value.id for item in first)
    )


def _exits(node: ast.If) -> tuple[Test, ...]:
    """What holds after an ``if`` of which some branches leave the block: ``if isinstance(m, T): continue``."""
    if _leaves(node.body):
        rest = _exits(node.orelse[0]) if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If) else ()
        return (*rest, Test(node.test, False))
    return (Test(node.test, True),) if _leaves(node.orelse) else ()


def _leaves(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Return | ast.Continue | ast.Break | ast.Raise)


def _loop_names(target: ast.expr, iterable: ast.expr, scope: Scope) -> None:
    if isinstance(target, ast.Name):
        scope.loops[target.id] = (iterable, None)
    elif isinstance(target, ast.Tuple):
        for position, item in enumerate(target.elts):
            if isinstance(item, ast.Name):
                scope.loops[item.id] = (iterable, position)


def _copied(node: ast.expr) -> ast.expr | None:
    """What ``w.detach().clone()`` is a copy of; ``None`` where nothing is copied."""
    copied = False
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
        copied = copied or node.func.attr == "clone"
        node = node.func.value
    return node if copied else None


def _first(node: ast.Call) -> ast.expr | None:
    if node.args:
        return node.args[0]
    return next((keyword.value for keyword in node.keywords if keyword.arg == "tensor"), None)


def _applies(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "apply"


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_module(node.value))


def parameter_like(node: ast.expr, *, strict: bool = False) -> bool:
    """Whether an expression could name a parameter: ``m.weight``, ``self.bias.data``, ``p.data[0]``.

    ``strict`` asks for ``.data``, or an attribute of an attribute or of a plain name other than a
    single local variable.
    """
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr == "data" or isinstance(node.value, ast.Attribute | ast.Subscript | ast.Name)
    if isinstance(node, ast.Call):
        return False
    return isinstance(node, ast.Name) and not strict


def site_at(node: ast.AST, source: Source, scope: Scope) -> Site:
    """Where a piece of syntax stands."""
    where = (
        getattr(node, "lineno", 1),
        getattr(node, "end_lineno", 1),
        getattr(node, "col_offset", 0),
        getattr(node, "end_col_offset", 0),
    )
    return make_site(source.path, where, scope.name)
