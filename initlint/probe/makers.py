"""Functions of a file that make models of one of its classes, and may be called in its stead.

A class that cannot be built by itself is often built by a function beside it (``resnet18(num_classes)``), and one whose
weights a function draws after the construction (``define_D(...)``) is trained with those. Only functions that do no
more than that are called: none that trains, reads files or downloads, itself or in what it calls.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import field

from initlint.probe import downloads
from initlint.probe import scan as scanning
from initlint.probe.names import arguments_of, dotted, statements
from initlint.probe.scan import Scan
from initlint.records import dataclass

#: Functions are followed through so many calls.
_DEPTH = 3
_READS = scanning.LOADING | scanning.TRAINING | frozenset(("load", "load_url", "load_state_dict_from_url", "download"))
_READS |= frozenset(("hf_hub_download", "read_csv", "read_text", "loadtxt", "urlopen", "system", "run"))
# Packages whose functions neither train nor read by other names than those above.
_HARMLESS = frozenset(("torch", "numpy", "math", "functools", "copy", "collections", "itertools", "einops"))
# Functions under these are programs.
_PROGRAMS = frozenset(("main", "command", "group"))


@dataclass(frozen=True, slots=True)
class Maker:
    """A function that returns a model of a class."""

    name: str
    lines: range  # of its definition
    options: dict[str, str] = field(default_factory=dict)  # what its arguments must be for the class to be made


def makers_of(scan: Scan, cls: str) -> Iterator[Maker]:
    """The public functions of a file that return models of a class and may be called, in its order.

    Without those that need no arguments, which are looked at for themselves.
    """
    for name, function in scan.makers.items():
        if (
            name.startswith("_")
            or name in scan.factories
            or scan.definitions.get(name) is not function
            or cls not in made(scan, function)
        ):
            continue
        if _only_makes(scan, function, _DEPTH):
            end = function.end_lineno or function.lineno
            yield Maker(name, range(function.lineno, end + 1), _options(function, cls))


def made(scan: Scan, function: ast.FunctionDef, depth: int = _DEPTH) -> set[str]:
    """The classes of the file whose instances a function returns."""
    local: dict[str, set[str]] = {}

    def of(node: ast.expr | None) -> set[str]:
        node = scanning.passed_on(scan, node)
        if isinstance(node, ast.Name):
            return local.get(node.id, set())
        if isinstance(node, ast.IfExp):
            return of(node.body) | of(node.orelse)
        if not isinstance(node, ast.Call):
            return set()
        name = dotted(node.func)
        if name in scan.classes:
            return {name}
        if name in scan.makers and depth:
            return made(scan, scan.makers[name], depth - 1)
        return of(node.func.value) if isinstance(node.func, ast.Attribute) else set()

    found: set[str] = set()
    for node in statements(function.body):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    local[target.id] = local.get(target.id, set()) | of(node.value)
        elif isinstance(node, ast.Return):
            found |= of(node.value)
    return found


def _options(function: ast.FunctionDef, cls: str) -> dict[str, str]:
    """Arguments that a branch compares with a text before it makes the class: ``if kind == "unet": net = UNet()``."""
    names = arguments_of(function)
    for node in ast.walk(function):
        if isinstance(node, ast.If) and any(dotted(c.func) == cls for part in node.body for c in scanning.calls(part)):
            test = node.test
            if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
                name, value = dotted(test.left), test.comparators[0]
                if name in names and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return {name: value.value}
    return {}


def _only_makes(scan: Scan, function: ast.FunctionDef, depth: int) -> bool:
    """Whether neither a function nor what it calls does what only training, reading and downloading do."""
    if any(scanning.last_name(d.func if isinstance(d, ast.Call) else d) in _PROGRAMS for d in function.decorator_list):
        return False
    own = {node.name for node in ast.walk(function) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}
    own |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for call in _calls(function, _asking(function)):
        if scanning.last_name(call.func) in _READS:
            return False
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if not name or name in own or name in scan.classes or hasattr(builtins, name):
            continue
        if not _known(scan, name, depth):
            return False
    return not any(
        isinstance(node, ast.While | ast.AsyncFor | ast.Yield | ast.YieldFrom) for node in ast.walk(function)
    )


def _known(scan: Scan, name: str, depth: int) -> bool:
    """Whether a called name is that of a harmless package, of a class, or of a function that only makes things."""
    origin = scan.imports.get(name, "")
    if origin.partition(".")[0] in _HARMLESS:
        return True
    node, where = scan.definitions.get(name), scan
    if node is None and not origin:  # perhaps of ``from helpers import *``
        origin = scan.imports.get("*", "").removesuffix("*") + name
    if node is None and origin:
        place = scanning.file_of(origin, scan.path)
        other = scanning.scan(place[0]) if place is not None and place[1] else None
        if place is None or other is None:
            return False
        node, where = other.definitions.get(place[1]), other
    if isinstance(node, ast.ClassDef):
        return True
    return isinstance(node, ast.FunctionDef) and depth > 0 and _only_makes(where, node, depth - 1)


def _asking(function: ast.FunctionDef) -> set[str]:
    """Arguments that ask for trained weights, which they are never given."""
    return {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg) and downloads.may_ask(a.arg)}


def _calls(node: ast.AST, asking: set[str]) -> Iterator[ast.Call]:
    """The calls of a function, without those for trained weights."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and dotted(child.test) in asking:
            for other in child.orelse:
                yield from _calls(other, asking)
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _calls(child, asking)
