"""Which top-level statements of a file its models need, so that importing it does not train.

Kept: imports, definitions, and the assignments and calls on which the wanted names depend,
transitively by name. Loops, ``__main__`` blocks and training calls are never kept; the one loop that
is kept walks a model's own parameters or modules and does nothing but initialise them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from initlint.probe.names import Definition, bound, changed, definition_time, is_main_guard, root, statements, used
from initlint.probe.scan import Scan, calls, last_name, loads, trains
from initlint.records import dataclass

# What nn.Module itself offers to walk over its parts, and to change them.
_WALKS = frozenset(
    ["parameters", "named_parameters", "modules", "named_modules", "children", "named_children", "buffers"]
)
# Methods of command-line parsers that end the program or talk, and make no value.
_ENDING = frozenset(["error", "exit", "print_help", "print_usage"])
_OWN_METHODS = frozenset(
    ["apply", "to", "cpu", "half", "float", "double", "bfloat16", "train", "eval", "requires_grad_", "cuda"]
)
# Calls that make a class, and do nothing else.
_CLASSES = frozenset(
    ["collections.namedtuple", "typing.NamedTuple", "typing.TypedDict", "dataclasses.make_dataclass", "enum.Enum"]
)
# Methods that Python or nn.Module calls by themselves, from construction and forward.
_ENTRY = frozenset(["forward", "reset_parameters", "extra_repr", "setup"])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A top-level statement that is not executed."""

    line: int
    kind: str  # "loop" | "main" | "statement"
    binds: frozenset[str]
    changes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Slice:
    """The statements to execute, in order, and the others."""

    body: tuple[ast.stmt, ...]
    needed: frozenset[int]  # lines of the statements that must succeed
    skipped: tuple[Skipped, ...]
    wanted: frozenset[str]  # all names that the roots depend on


def cut(scan: Scan, roots: Iterable[str]) -> Slice:
    """The slice of a file for the models (and other names) in ``roots``."""
    return _Slicer(scan).cut(set(roots))


def is_light(scan: Scan, name: str) -> bool:
    """Whether making a module-level instance needs nothing that loads data, downloads or trains."""
    piece = cut(scan, [name])
    called = _called(piece) & piece.wanted
    for node in piece.body:
        if node.lineno in piece.needed and not isinstance(node, (*_DEFINITIONS, ast.Import, ast.ImportFrom)):
            if trains(node) or loads(node) or _calls_foreign(scan, node):
                return False
        elif isinstance(node, ast.FunctionDef) and node.name in called and (trains(node) or loads(node)):
            return False
    return True


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _called(piece: Slice) -> set[str]:
    simple = [n for n in piece.body if n.lineno in piece.needed and not isinstance(n, _DEFINITIONS)]
    return {last_name(call.func) for node in simple for call in calls(node)}


def _calls_foreign(scan: Scan, node: ast.stmt) -> bool:
    """Whether a statement calls something of another package that is neither torch nor plain computing."""
    for call in calls(node):
        name = scan.canonical(call.func)
        top = name.split(".")[0]
        imported = (root(call.func) or "") in scan.imports
        if imported and top not in _HARMLESS and not top.startswith("torch") and not scan.is_maker(name):
            return True
        if name.startswith(("torchvision.datasets", "torch.utils.data", "torch.hub", "torch.load")):
            return True
    return False


_HARMLESS = frozenset(
    [
        "argparse",
        "optparse",
        "json",
        "math",
        "os",
        "pathlib",
        "numpy",
        "np",
        "types",
        "functools",
        "itertools",
        "collections",
        "dataclasses",
        "typing",
        "copy",
        "random",
        "einops",
        "enum",
        "string",
        "re",
        "operator",
        "datetime",
        "time",
        "sys",
    ]
)


class _Slicer:
    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.body = [node for node in scan.tree.body if not is_main_guard(node)]
        self.wanted: set[str] = set()
        self.variables = self._variables()

    def _variables(self) -> set[str]:
        """Names bound by assignment (what imports and definitions bind is not changed by calls on it)."""
        names: set[str] = set()
        for node in statements(self.body):
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                names |= bound(node)
        return names

    def cut(self, roots: set[str]) -> Slice:
        self.wanted = set(roots)
        for entry in ("example_inputs",):
            if entry in self.scan.definitions:
                self.wanted.add(entry)
        while True:
            before = len(self.wanted)
            for node in self.body:
                self._grow(node)
            if len(self.wanted) == before:
                break
        body: list[ast.stmt] = []
        needed: set[int] = set()
        skipped = [
            Skipped(n.lineno, "main", frozenset(bound(n)), frozenset()) for n in self.scan.tree.body if is_main_guard(n)
        ]
        for node in self.body:
            kept = self._keep(node)
            if kept is None:
                skipped.append(self._skip(node))
                continue
            body.append(kept)
            if self._is_needed(node):
                needed.add(node.lineno)
        return Slice(tuple(body), frozenset(needed), tuple(skipped), frozenset(self.wanted))

    def _skip(self, node: ast.stmt) -> Skipped:
        kind = "loop" if isinstance(node, (ast.For, ast.While, ast.AsyncFor)) else "statement"
        changes = {name for inner in statements([node]) for name in changed(inner)}
        return Skipped(node.lineno, kind, frozenset(bound(node)), frozenset(changes & self.wanted & self.variables))

    def _is_needed(self, node: ast.stmt) -> bool:
        if isinstance(node, Definition):
            return node.name in self.wanted
        return not isinstance(node, (ast.Import, ast.ImportFrom))

    def _grow(self, node: ast.stmt) -> None:
        """Add the names that a statement needs, when it is kept."""
        if isinstance(node, Definition):
            if node.name in self.wanted:
                self.wanted |= self._needs(node)
        elif isinstance(node, (ast.If, ast.Try, ast.With)) or type(node).__name__ in ("TryStar", "Match"):
            if self._keep(node) is None:
                return
            if isinstance(node, ast.If):
                self.wanted |= used(node.test)
            if isinstance(node, ast.With):
                self.wanted |= used(*(item.context_expr for item in node.items))
            for inner in _direct(node):
                self._grow(inner)
        elif not isinstance(node, (ast.Import, ast.ImportFrom)) and self._wants_simple(node):
            self.wanted |= used(node)

    def _needs(self, node: Definition) -> set[str]:
        """Names that a wanted function, or the construction and forward of a wanted class, may read."""
        if not isinstance(node, ast.ClassDef):
            return used(node)
        methods = {m.name: m for m in node.body if isinstance(m, (ast.FunctionDef, ast.AsyncFunctionDef))}
        foreign = not all(self.scan.canonical(b).startswith("torch.nn") or self._own(b) for b in node.bases)
        reached = {m for m in methods if m in _ENTRY or (m.startswith("__") or (foreign and m.startswith("_")))}
        while True:
            mentioned = {i.attr for m in reached for i in ast.walk(methods[m]) if isinstance(i, ast.Attribute)}
            more = {name for name in mentioned if name in methods} - reached
            if not more:
                break
            reached |= more
        return definition_time(node) | used(*(methods[m] for m in reached))

    def _own(self, base: ast.expr) -> bool:
        return self.scan.canonical(base) in self.scan.definitions

    def _keep(self, node: ast.stmt) -> ast.stmt | None:
        """The statement with its unneeded inner statements removed; ``None`` when nothing of it is needed."""
        if isinstance(node, (Definition, ast.Import, ast.ImportFrom)):
            return node
        if isinstance(node, ast.If):
            body, orelse = self._inner(node.body), self._inner(node.orelse)
            if not body and not orelse:
                return None
            return ast.copy_location(ast.If(node.test, body or [_pass(node)], orelse), node)
        if isinstance(node, ast.Try):
            body = self._inner(node.body)
            if not body:
                return None
            handlers = [
                ast.copy_location(ast.ExceptHandler(h.type, h.name, self._inner(h.body) or [_pass(h)]), h)
                for h in node.handlers
            ]
            final = self._inner(node.finalbody)
            if not handlers and not final:
                final = [_pass(node)]
            return ast.copy_location(ast.Try(body, handlers, self._inner(node.orelse) if handlers else [], final), node)
        if isinstance(node, ast.With):
            body = self._inner(node.body)
            return ast.copy_location(ast.With(node.items, body), node) if body else None
        return node if self._wants_simple(node) else None

    def _inner(self, body: list[ast.stmt]) -> list[ast.stmt]:
        return [kept for node in body if (kept := self._keep(node)) is not None]

    def _wants_simple(self, node: ast.stmt) -> bool:
        if isinstance(node, (ast.For, ast.AsyncFor)):
            return self._is_init_loop(node)
        if isinstance(node, (ast.While, ast.Return, ast.Raise, ast.Assert, ast.Delete, ast.Pass)):
            return False
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            if isinstance(node, ast.AnnAssign) and node.value is None:
                return False
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(self.scan.canonical(t.value) == "os.environ" for t in targets if isinstance(t, ast.Subscript)):
                return True
            if (bound(node) | (changed(node) & self.variables)) & self.wanted:
                return True
            return isinstance(node, ast.Assign) and (isinstance(node.value, ast.Constant) or self._is_class(node.value))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._wants_call(node.value)
        return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

    def _is_class(self, value: ast.expr) -> bool:
        """Whether an assignment defines a class: ``Args = namedtuple("Args", "width depth")``."""
        return isinstance(value, ast.Call) and self.scan.canonical(value.func) in _CLASSES

    def _wants_call(self, call: ast.Call) -> bool:
        """Whether a top-level call belongs to making the wanted names."""
        name = self.scan.canonical(call.func)
        if name.startswith(("sys.path.", "torch.set_default_", "os.environ.")):
            return True
        receiver = root(call.func)
        if receiver in self.variables:
            return receiver in self.wanted and self._changes_receiver(call, receiver or "")
        subjects = {root(a) for a in (*call.args, *(k.value for k in call.keywords))} & self.wanted & self.variables
        return bool(subjects & set(self.scan.instances)) and self._initialises(call)

    def _changes_receiver(self, call: ast.Call, receiver: str) -> bool:
        method = last_name(call.func)
        if receiver not in self.scan.instances:
            return not trains(call) and method not in _ENDING
        direct = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
        if direct and method in _OWN_METHODS:
            return True
        if method.endswith("_") and not method.endswith("__"):
            return True  # in-place tensor methods end in an underscore
        if not direct:
            return method == "apply"
        return any(self._method_initialises(node, method) for node in self.scan.classes.values())

    def _method_initialises(self, node: ast.ClassDef, method: str) -> bool:
        return any(isinstance(m, ast.FunctionDef) and m.name == method and self.initialising(m) for m in node.body)

    def _initialises(self, call: ast.Call) -> bool:
        name = self.scan.canonical(call.func)
        if name.startswith("torch.nn.init."):
            return True
        own = self.scan.definitions.get(name)
        return isinstance(own, ast.FunctionDef) and self.initialising(own)

    def initialising(self, node: ast.AST) -> bool:
        """Whether code writes parameters as initialisation does, and nothing in it trains or loads."""
        if trains(node) or loads(node):
            return False
        for call in calls(node):
            method = last_name(call.func)
            if self.scan.canonical(call.func).startswith("torch.nn.init."):
                return True
            if isinstance(call.func, ast.Attribute) and method.endswith("_") and not method.endswith("__"):
                return True
        return any(isinstance(item, ast.Attribute) and item.attr == "data" for item in ast.walk(node))

    def _is_init_loop(self, node: ast.For | ast.AsyncFor) -> bool:
        source = node.iter
        if isinstance(source, ast.Call) and last_name(source.func) == "enumerate" and source.args:
            source = source.args[0]
        if not isinstance(source, ast.Call) or last_name(source.func) not in _WALKS:
            return False
        owner = root(source)
        return owner in self.scan.instances and owner in self.wanted and self.initialising(node)


def _direct(node: ast.stmt) -> list[ast.stmt]:
    """The statements directly inside a compound statement, of all its branches."""
    found: list[ast.stmt] = []
    for name in ("body", "orelse", "finalbody"):
        found += getattr(node, name, [])
    for handler in getattr(node, "handlers", []):
        found += handler.body
    return found


def _pass(near: ast.AST) -> ast.stmt:
    return ast.copy_location(ast.Pass(), near)
