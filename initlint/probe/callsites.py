"""Calls of a class or function found in the repository: Python, notebooks, fenced code in Markdown. Pure syntax."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import field

from initlint.probe.names import Definition, called, root, statements
from initlint.probe.scan import TORCH_PACKAGES, Scan, file_of, scan_tree
from initlint.records import dataclass

# A repository with more text than this is searched near the file only: a second of reading, at most.
_FILES = 3000
_FILE_BYTES = 1 << 20
_SITES = 12  # more call sites than this do not make better arguments
_SKIPPED = frozenset(
    [
        "__pycache__",
        "build",
        "dist",
        "site-packages",
        "node_modules",
        "venv",
        "env",
        "virtualenv",
        "wandb",
        "runs",
        "outputs",
    ]
)
_MARKS = (".git", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "environment.yml")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:python|py|pycon|python3)\b[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """A piece of code with what its names mean."""

    path: str
    tree: ast.Module
    offset: int = 0  # line of the piece's first line in the file, minus one

    def line(self, node: ast.expr) -> int:
        """The line of a node in the file."""
        return node.lineno + self.offset


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call, with the definitions around it (innermost first) to look names up in."""

    source: Source
    call: ast.Call
    around: tuple[Definition, ...] = field(default=())

    @property
    def line(self) -> int:
        """The line of the call in its file."""
        return self.source.line(self.call)


def find(name: str, path: str) -> list[CallSite]:
    """Calls of ``name`` (also as an attribute, ``models.Net(...)``) in the repository of a file, nearest first."""
    found: list[CallSite] = []
    for source in sources_with(name, path):
        found += list(_calls(source, name))
        if len(found) >= _SITES:
            return found[:_SITES]
    return found


def find_in(name: str, path: str) -> list[CallSite]:
    """Calls of ``name`` in one file."""
    return [site for source in _sources(path, read_text(path) or "") for site in _calls(source, name)][:_SITES]


def module_level(name: str, path: str) -> CallSite | None:
    """Where a name of a file's top level can be looked up after all of it; ``None`` where it is given no value."""
    end = ast.Call(ast.Name(name), [], [], lineno=1 << 30, col_offset=0)
    sites = (CallSite(source, end) for source in parsed(path, read_text(path) or "", 0))
    return next((site for site in sites if assigned(site, name) is not None), None)


def sources_with(name: str, path: str) -> Iterator[Source]:
    """The pieces of code in the repository of a file that may call ``name``, nearest first."""
    pattern = re.compile(rf"\b{re.escape(name)}\s*\(")
    for file in (path, *files_of(path, (".py", ".ipynb", ".md"))):
        text = read_text(file, _FILE_BYTES)
        if text is not None and pattern.search(text):
            yield from _sources(file, text)


def read_text(path: str, most: float = math.inf) -> str | None:
    """What a file of at most so many bytes holds; ``None`` for a larger one, and for one that cannot be read."""
    try:
        if os.path.getsize(path) > most:
            return None
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def repository(path: str) -> str:
    """The root of the project that a file belongs to: the nearest folder with project files, else the one that its
    package lies in, else its own."""
    folder = own = os.path.dirname(path)
    while os.path.isfile(os.path.join(own, "__init__.py")) and os.path.dirname(own) != own:
        own = os.path.dirname(own)
    for _ in range(8):
        if any(os.path.exists(os.path.join(folder, mark)) for mark in _MARKS):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    return own


def files_of(path: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """The other files of a repository that end so, nearest first; notebooks and Markdown last."""
    root = repository(path)
    files: list[str] = []
    for current, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in _SKIPPED)
        folders[:] = [n for n in folders if not os.path.isfile(os.path.join(current, n, "pyvenv.cfg"))]
        files += [os.path.join(current, n) for n in sorted(names) if n.endswith(suffixes)]
        if len(files) > _FILES:
            break
    own = os.path.dirname(path)

    def rank(file: str) -> tuple[int, int, str]:
        parts = os.path.relpath(file, root).lower().split(os.sep)
        kind = 0
        if any(part.startswith(("test", "example", "demo")) for part in parts):
            kind = 1
        kind = 2 if file.endswith(".ipynb") else 3 if file.endswith(".md") else kind
        return kind, len(os.path.relpath(file, own).split(os.sep)), file

    yield from (file for file in sorted(files, key=rank) if file != path)


def _sources(path: str, text: str) -> Iterator[Source]:
    if path.endswith(".ipynb"):
        yield from _notebook(path, text)
        return
    if path.endswith(".md"):
        for match in _FENCE.finditer(text):
            code = textwrap.dedent(match.group(1))
            yield from parsed(path, _plain(code), text.count("\n", 0, match.start(1)))
        return
    yield from parsed(path, text, 0)


def _notebook(path: str, text: str) -> Iterator[Source]:
    """All code cells as one piece, since later cells use names of earlier ones."""
    try:
        cells = json.loads(text).get("cells", [])
    except (ValueError, AttributeError):
        return
    lines: list[str] = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            code = "".join(source) if isinstance(source, list) else str(source)
            code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())
            if _parses(code):
                lines.append(code)
    yield from parsed(path, "\n".join(lines), 0)


def _plain(code: str) -> str:
    """Code of an interactive session without its prompts and outputs."""
    if ">>> " not in code:
        return code
    return "\n".join(line[4:] for line in code.splitlines() if line.startswith((">>> ", "... ")))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    return True


def parsed(path: str, code: str, offset: int = 0) -> Iterator[Source]:
    """The code as a piece; nothing where it is no Python."""
    try:
        yield Source(path, ast.parse(code), offset)
    except (SyntaxError, ValueError, RecursionError):
        return


def _calls(source: Source, name: str) -> Iterator[CallSite]:
    sites = [site for site in every(source) if called(site.call) == name]
    # Calls at module level and in plain functions say more than calls inside other models.
    yield from sorted(sites, key=lambda site: any(isinstance(d, ast.ClassDef) for d in site.around))


def every(source: Source) -> Iterator[CallSite]:
    """All calls in a piece of code, in the order of the tree."""

    def visit(node: ast.AST, around: tuple[Definition, ...]) -> Iterator[CallSite]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield CallSite(source, child, around)
            yield from visit(child, (child, *around) if isinstance(child, Definition) else around)

    yield from visit(source.tree, ())


def means(site: CallSite, path: str) -> bool:
    """Whether the called name can be the one defined in ``path``: not when another class of that name is meant."""
    if os.path.samefile(site.source.path, path):
        return True
    scan = scan_of(site.source)
    name = called(site.call)
    if isinstance(site.call.func, ast.Name):
        if name in scan.definitions:
            return False
        origin = scan.imports.get(name)
        if origin is not None:
            place = file_of(origin, site.source.path)
            return place is None or os.path.samefile(place[0], path) or place[1] != name or _reexports(place[0], path)
    elif isinstance(site.call.func, ast.Attribute) and root(site.call.func) in scan.imports:
        origin = scan.canonical(site.call.func.value)
        if origin.partition(".")[0] in TORCH_PACKAGES:  # ``torchvision.models.resnet18``
            return False
        place = file_of(origin, site.source.path) if origin else None
        if place is not None and not place[1]:
            return os.path.samefile(place[0], path) or _reexports(place[0], path)
    return True


def takes_rest(site: CallSite, name: str) -> bool:
    """Whether a name holds the further keywords of the function around the call, of which there need not be any."""
    functions = [d for d in site.around if not isinstance(d, ast.ClassDef)]
    rest = functions[0].args.kwarg if functions else None
    return rest is not None and rest.arg == name and _last_value(functions[0].body, name, site.call.lineno) is None


def _reexports(file: str, path: str) -> bool:
    """Whether a package's ``__init__`` may hand on names of ``path``, which lies below it."""
    return os.path.basename(file) == "__init__.py" and path.startswith(os.path.dirname(file) + os.sep)


_scans: dict[int, tuple[Source, Scan]] = {}


def scan_of(source: Source) -> Scan:
    """What the imports and definitions of a piece of code mean (kept: several sites share one piece)."""
    key = id(source)
    if key not in _scans:
        _scans[key] = (source, scan_tree(source.path, source.tree))
    return _scans[key][1]


def assigned(site: CallSite, name: str) -> ast.expr | None:
    """The expression that a name was last given before the call: locally, as a default, or at module level."""
    for definition in site.around:
        if isinstance(definition, ast.ClassDef):
            continue
        value = _last_value(definition.body, name, site.call.lineno)
        if value is not None:
            return value
        arguments = definition.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = dict(zip([a.arg for a in positional][::-1], arguments.defaults[::-1], strict=False))
        defaults |= {
            a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None
        }
        if name in defaults:
            return _typer_default(defaults[name])
        if any(argument.arg == name for argument in (*positional, *arguments.kwonlyargs)):
            return _declared_default(definition.decorator_list, name)
    before = site.call.lineno if not site.around else 1 << 30
    return _last_value(site.source.tree.body, name, before)


def option_default(site: CallSite, name: str) -> ast.expr | None:
    """The default of a command-line option: ``add_argument("--name", default=...)``, or of a flag."""
    return _declared_default([site.source.tree], name)


def _declared_default(where: Sequence[ast.AST], name: str) -> ast.expr | None:
    """The default of the option ``name`` among declarations of argparse, optparse and click."""
    for node in (inner for outer in where for inner in ast.walk(outer)):
        if not isinstance(node, ast.Call) or called(node) not in ("add_argument", "add_option", "option", "argument"):
            continue
        if name in option_names(node):
            return default_of(node)
    return None


def option_names(node: ast.Call) -> list[str]:
    """What a declared option may be called where it is read: ``dest``, else its flags, the long ones first."""
    dest = next((k.value for k in node.keywords if k.arg == "dest"), None)
    if isinstance(dest, ast.Constant):
        return [str(dest.value)]
    flags = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    flags.sort(key=lambda flag: not flag.startswith("--"))
    return [flag.lstrip("-").replace("-", "_") for flag in flags]


def default_of(node: ast.Call) -> ast.expr | None:
    """The default of a declared option; that of a flag goes by its action."""
    keywords = {k.arg: k.value for k in node.keywords}
    action = keywords.get("action")
    if "default" not in keywords and isinstance(action, ast.Constant) and action.value in ("store_true", "store_false"):
        return ast.Constant(action.value == "store_false")
    return keywords.get("default")


def _typer_default(node: ast.expr) -> ast.expr:
    """``3`` for ``typer.Option(3, help=...)``; any other default as it is."""
    if isinstance(node, ast.Call) and called(node) in ("Option", "Argument"):
        given = next((k.value for k in node.keywords if k.arg == "default"), node.args[0] if node.args else None)
        return node if given is None else given
    return node


def opened(site: CallSite, name: str) -> ast.expr | None:
    """What ``with open(path) as name`` opens."""
    for node in ast.walk(site.source.tree):
        for item in node.items if isinstance(node, ast.With) else ():
            if isinstance(item.optional_vars, ast.Name) and item.optional_vars.id == name:
                return item.context_expr
    return None


def loop_source(site: CallSite, name: str) -> ast.expr | None:
    """What a loop around the call walks over to give ``name`` its values; ``None`` when no loop does."""
    for node in ast.walk(site.around[0] if site.around else site.source.tree):
        if isinstance(node, (ast.For, ast.AsyncFor)) and isinstance(node.target, ast.Name) and node.target.id == name:
            inside = node.lineno <= site.call.lineno <= (node.end_lineno or node.lineno)
            if inside:
                return node.iter
    return None


def entries(site: CallSite, name: str) -> list[tuple[ast.expr, ast.expr]]:
    """Keys and values that straight code puts into a module-level container: ``name[key] = value``."""
    found: list[tuple[ast.expr, ast.expr]] = []
    for node in site.source.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0]
            if isinstance(target.value, ast.Name) and target.value.id == name:
                found.append((target.slice, node.value))
    return found


def _last_value(body: list[ast.stmt], name: str, before: int) -> ast.expr | None:
    """The last simple assignment to a name before a line (straight code; loops may have changed it)."""
    value: ast.expr | None = None
    for node in statements(body):
        if node.lineno >= before:
            continue
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    value = node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    for one, expression in zip(target.elts, node.value.elts, strict=False):
                        if isinstance(one, ast.Name) and one.id == name:
                            value = expression
                elif isinstance(target, ast.Tuple) and not any(isinstance(one, ast.Starred) for one in target.elts):
                    for index, one in enumerate(target.elts):
                        if isinstance(one, ast.Name) and one.id == name:
                            value = ast.Subscript(node.value, ast.Constant(index))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            value = node.value or value
    return value
