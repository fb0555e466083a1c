"""Import a model's file in the child without running its training.

The statements that models need (see ``slicing``) are compiled one by one with their own line numbers
and executed in a real module, registered under its real name, with ``sys.path`` as Python would have
it and an empty command line. A missing import is replaced by a stand-in that says so when the model
turns out to need it.
"""

from __future__ import annotations
import __future__

import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from types import ModuleType
from typing import Any

from initlint.errors import ProbeError
from initlint.facts import STAND_IN
from initlint.probe import slicing, standins_einops
from initlint.probe.callsites import repository
from initlint.probe.distributions import remedy
from initlint.probe.names import Definition, bound, used
from initlint.probe.scan import Scan, parse_file, scan_tree
from initlint.probe.standins import Missing, relaxed_argparse
from initlint.records import dataclass

_FULL = "Name the class itself, or use --import full, which runs the whole file as Python would."
_FUTURE = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}


@dataclass(slots=True)
class Script:
    """A file that was imported, and what was left out."""

    path: str
    name: str  # module name
    root: str  # first entry of sys.path for it
    module: ModuleType | None = None
    scan: Scan | None = None
    skipped: tuple[slicing.Skipped, ...] = ()
    notes: list[str] = field(default_factory=list)
    stubs: dict[str, str] = field(default_factory=dict)  # bound name -> why it is a stand-in
    failed: dict[str, str] = field(default_factory=dict)  # definitions and values that did not work -> why
    unknown: str = ""  # a star import that failed: what it would have brought is not known
    provided: set[int] = field(default_factory=set)  # lines of skipped statements executed after all

    @property
    def namespace(self) -> dict[str, Any]:
        """The module's globals."""
        return {} if self.module is None else vars(self.module)

    def provide(self, name: str) -> bool:
        """Execute the skipped statements that bind ``name``, because the model needs it after all."""
        if self.scan is None or self.module is None:
            return False
        more = slicing.cut(self.scan, {name})
        run = [n for n in more.body if n.lineno in more.needed and not isinstance(n, Definition)]
        run = [n for n in run if n.lineno not in self.provided and bound(n) - set(self.namespace)]
        for node in run:
            self.provided.add(node.lineno)
            _execute([node], self.module, self.path, self.scan.tree)
        if name not in self.namespace:
            from initlint.probe.commandline import parsed

            options = parsed(name, self.path, self.scan.tree)
            if options is not None:  # of a main block, which is never run
                self.namespace[name] = options
                self.notes.append(f"{name} holds the defaults of the options that the file declares")
        return name in self.namespace


def locate(path: str) -> tuple[str, str]:
    """The module name that a file is imported under, and the folder to put first on ``sys.path``.

    A file in a package (folders with ``__init__.py``) gets its full dotted name; one that imports
    relatively without being in one is treated as if its folders were packages.
    """
    folder, stem = os.path.dirname(path), os.path.splitext(os.path.basename(path))[0]
    parts = [] if stem == "__init__" else [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.basename(folder).isidentifier():
        folder, name = os.path.split(folder)
        parts.insert(0, name)
    if len(parts) < 2:
        level = _relative_level(path)
        folder = os.path.dirname(path)
        parts = parts or [stem]
        for _ in range(level):
            if os.path.basename(folder).isidentifier():
                folder, name = os.path.split(folder)
                parts.insert(0, name)
    name = ".".join(parts)
    if len(parts) == 1 and (name in sys.modules or name in sys.stdlib_module_names):
        name = f"{name}_"  # a file called types.py must not replace the library's
    return name, folder


def load(path: str, roots: Callable[[Scan], Iterable[str]] | None, cwd: str, *, full: bool = False) -> Script:
    """Import the file; ``roots`` says which names are wanted, ``full`` runs it as Python would.

    Raises:
        ProbeError: the file cannot be read or parsed, or a statement that the models need fails.
    """
    tree = _parse(path)
    name, root = locate(path)
    script = Script(path, name, root, scan=scan_tree(path, tree))
    _prepare(root, cwd, path)
    finders = [_TargetFinder(script, roots, full), *([] if full else [_ProjectFinder(script, _project(path, root))])]
    sys.meta_path[:0] = finders
    sys.meta_path.append(standins_einops.Finder(script.notes))
    with relaxed_argparse(path, script.notes):
        try:
            script.module = importlib.import_module(name)
        except ProbeError:
            raise
        except BaseException as error:
            raise explain(error, path, "importing it") from error
        finally:
            sys.meta_path.remove(finders[0])  # the others stay: models import when they are built, too
    return script


def load_module(name: str, cwd: str) -> Script:
    """Import a module by its dotted name, as it stands.

    Raises:
        ProbeError: there is no such module, or importing it fails.
    """
    sys.path.insert(0, cwd)
    sys.argv[:] = [name]
    notes: list[str] = []
    sys.meta_path.append(standins_einops.Finder(notes))
    with relaxed_argparse(name, notes):
        try:
            module = importlib.import_module(name)
        except BaseException as error:
            raise explain(error, getattr(error, "filename", None) or name, "importing it") from error
    path = getattr(module, "__file__", None) or name
    return Script(path, name, cwd, module=module, notes=notes)


def explain(error: BaseException, path: str, doing: str) -> ProbeError:
    """One sentence for an exception of user code, with the user's line where it was raised."""
    if isinstance(error, ProbeError):
        return error
    if isinstance(error, SyntaxError):
        line = f":{error.lineno}" if error.lineno else ""
        place = f"{os.path.basename(error.filename or path)}{line}"
        return ProbeError(
            f"{place}: syntax error: {error.msg}", "Correct the syntax; Python cannot import the file either."
        )
    place = _place(error, path)
    where = f" (line {place})" if place else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return ProbeError(
            f"{doing} needs the module {error.name}, which is not installed here{where}",
            remedy(error.name, ""),
        )
    if isinstance(error, SystemExit):
        hint = "Name the model class or a factory function." if doing.startswith("importing") else ""
        return ProbeError(f"{doing} called sys.exit({error.code!r}){where}", hint)
    if isinstance(error, KeyboardInterrupt):
        return ProbeError(f"{doing} was interrupted{where}")
    text = " ".join(str(error).split())[:300]
    return ProbeError(
        f"{doing} raised {type(error).__name__}: {text}{where}"
        if text
        else f"{doing} raised {type(error).__name__}{where}"
    )


class _TargetFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads exactly the target's module, sliced; everything else is left to Python."""

    def __init__(self, script: Script, roots: Callable[[Scan], Iterable[str]] | None, full: bool) -> None:
        self.script = script
        self.roots = roots
        self.full = full

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.script.name:
            return None
        spec = importlib.util.spec_from_file_location(fullname, self.script.path, loader=self)
        if spec is not None and os.path.basename(self.script.path) == "__init__.py":
            spec.submodule_search_locations = [os.path.dirname(self.script.path)]
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def get_filename(self, _: str) -> str:
        return self.script.path

    def get_source(self, _: str) -> str:
        with open(self.script.path, "rb") as file:
            return importlib.util.decode_source(file.read())

    def exec_module(self, module: ModuleType) -> None:
        script = self.script
        script.module = module
        assert script.scan is not None
        tree = script.scan.tree
        if self.full or self.roots is None:
            _execute(tree.body, module, script.path, tree)
            return
        piece = slicing.cut(script.scan, self.roots(script.scan))
        script.skipped = piece.skipped
        for node in piece.body:
            self.step(node, module, piece)

    def step(self, node: ast.stmt, module: ModuleType, piece: slicing.Slice) -> None:
        """Execute one statement; an import may fail, and so may a definition that no model needs."""
        script = self.script
        assert script.scan is not None
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.bring(node, module)
            return
        node = self.undecorated(node)
        try:
            _execute([node], module, script.path, script.scan.tree)
        except (Exception, SystemExit) as error:
            wanted = node.lineno in piece.needed
            if isinstance(node, Definition) and wanted and len(piece.wanted) == 1:
                raise
            # Its users fail later with this reason; the file's other models go on.
            reason = self.reason(node, error)
            names = bound(node)
            for name in names:
                script.failed[name] = reason.message
                script.stubs[name] = reason.message
                if wanted or not piece.wanted:  # of another module, nobody knows what is wanted
                    setattr(module, name, Missing(name, reason.message, reason))
            if not isinstance(node, Definition):
                note = f"{reason.message}; models that need it are not analysed"
                script.notes += [note] if note not in script.notes else []

    def undecorated(self, node: ast.stmt) -> ast.stmt:
        """A definition without the decorators that come from what could not be imported (registries, mostly)."""
        if not isinstance(node, Definition):
            return node
        lost = [d for d in node.decorator_list if _root_of(d) in self.script.stubs]
        if not lost:
            return node
        names = ", ".join(ast.unparse(d) for d in lost)
        self.script.notes.append(f"line {node.lineno}: {node.name} is defined without @{names}, which is missing here")
        result = copy.copy(node)
        result.decorator_list = [d for d in node.decorator_list if d not in lost]
        return result

    def reason(self, node: ast.stmt, error: BaseException) -> ProbeError:
        """Why a statement failed: because one that it depends on failed, or its own exception."""
        script = self.script
        first = next((script.failed[name] for name in sorted(used(node)) if name in script.failed), None)
        if first is not None and not isinstance(node, Definition):
            return ProbeError(first, _FULL)
        if isinstance(node, Definition):
            return explain(error, script.path, "defining it")
        text = ast.unparse(node).splitlines()[0]
        found = explain(error, script.path, f"`{text if len(text) <= 60 else text[:57] + '...'}`")
        return ProbeError(found.message, found.hint or _FULL)

    def bring(self, node: ast.Import | ast.ImportFrom, module: ModuleType) -> None:
        """Execute an import name by name, with a stand-in for what cannot be imported."""
        script = self.script
        assert script.scan is not None
        try:
            _execute([node], module, script.path, script.scan.tree)
            return
        except (Exception, SystemExit) as error:
            first = error
            if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                origin = "." * node.level + (node.module or "")
                script.unknown = f"all of {origin} (line {node.lineno})"
                script.notes.append(f"line {node.lineno}: {origin} could not be imported: {_words(error)}")
                return
        for alias in node.names:
            single = ast.copy_location(_with_names(node, alias), node)
            try:
                _execute([single], module, script.path, script.scan.tree)
            except (Exception, SystemExit) as error:
                first = error
                name = alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name)
                origin = (
                    alias.name
                    if isinstance(node, ast.Import)
                    else f"{'.' * node.level}{node.module or ''}.{alias.name}"
                )
                reason = _words(first)
                script.stubs[name] = reason
                script.notes.append(f"line {node.lineno}: {origin.lstrip('.')} {STAND_IN}: {reason}")
                setattr(module, name, Missing(origin.lstrip("."), reason))


class _ProjectFinder(importlib.abc.MetaPathFinder):
    """Loads the other modules of the project so that what is missing here only matters where it is needed."""

    def __init__(self, script: Script, folder: str) -> None:
        self.script = script
        self.folder = os.path.join(folder, "")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        if not spec.origin.startswith(self.folder) or "site-packages" in spec.origin:
            return None
        spec.loader = _ProjectLoader(fullname, spec.origin, self.script)
        return spec


class _ProjectLoader(importlib.machinery.SourceFileLoader):
    """Runs a module as Python does and, where a statement fails, again with stand-ins for what is missing.

    Any exception will do: a package that is installed but broken (no GPU, another build of torch) raises what it likes.
    """

    def __init__(self, fullname: str, path: str, script: Script) -> None:
        super().__init__(fullname, path)
        self.script = script

    def exec_module(self, module: ModuleType) -> None:
        before = dict(vars(module))
        try:
            super().exec_module(module)
        except (Exception, SystemExit):
            tree = parse_file(self.path)
            if tree is None:
                raise
            vars(module).clear()
            vars(module).update(before)
            part = Script(self.path, module.__name__, self.script.root, module, scan_tree(self.path, tree))
            finder = _TargetFinder(part, None, full=False)
            everything = slicing.Slice(tuple(tree.body), frozenset(), (), frozenset())
            for node in tree.body:
                finder.step(node, module, everything)
            # What is said of this file is said with its name; lines alone would be taken for the target's.
            place = os.path.basename(self.path)
            self.script.notes += [f"{place}, {n}" if n.startswith("line ") else n for n in part.notes]


def _root_of(node: ast.expr) -> str:
    """``"MODELS"`` for ``MODELS.register_module(name="x")``."""
    while isinstance(node, (ast.Attribute, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _words(error: BaseException) -> str:
    """The message of an exception in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _with_names(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.Import | ast.ImportFrom:
    if isinstance(node, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(node.module, [alias], node.level)


def _execute(body: Sequence[ast.stmt], module: ModuleType, path: str, tree: ast.Module) -> None:
    """Compile statements of a file, keeping file name, lines and ``__future__`` flags, and run them."""
    piece = ast.Module(list(body), [])
    code = compile(piece, path, "exec", flags=_future_flags(tree), dont_inherit=True)
    exec(code, vars(module))


def _future_flags(tree: ast.Module) -> int:
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                flags |= _FUTURE.get(alias.name, 0)
    return flags


def _parse(path: str) -> ast.Module:
    tree = parse_file(path)
    if tree is not None:
        return tree
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read(), path)
    except OSError as error:
        raise ProbeError(f"{os.path.basename(path)} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise explain(error, path, "parsing it") from error


def _prepare(root: str, cwd: str, path: str) -> None:
    """``sys.path`` as ``python file.py`` would have it, then the project's folders, then the working directory."""
    sys.path.insert(0, root)
    for folder in [*_ancestors(path), cwd]:
        if folder not in sys.path:
            sys.path.append(folder)


def _project(path: str, root: str) -> str:
    """The folder of the modules that belong to a file's project: its repository, or what holds its packages."""
    return min(repository(path), root, key=len)


def _ancestors(path: str) -> list[str]:
    """The folders above a file up to the project's root: scripts in sub-folders import from there."""
    found: list[str] = []
    folder = os.path.dirname(path)
    for _ in range(6):
        found.append(folder)
        marks = (".git", "pyproject.toml", "setup.py", "setup.cfg")
        if any(os.path.exists(os.path.join(folder, mark)) for mark in marks):
            source = os.path.join(folder, "src")
            return [*found, source] if os.path.isdir(source) else found
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    return found[:1]  # no project root: only the file's own folder


def _relative_level(path: str) -> int:
    tree = parse_file(path)
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] if tree else []
    return max(levels, default=0)


def _place(error: BaseException, path: str) -> str:
    """``model.py:12`` of the innermost frame in user code: the target's file, else any outside of libraries."""
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    own = [frame for frame in frames if frame[0] == path]
    other = [
        f
        for f in frames
        if "site-packages" not in f[0] and "initlint" not in f[0] and os.path.isabs(f[0]) and "/lib/python" not in f[0]
    ]
    for found in (own, other):
        if found:
            file, line = found[-1]
            return f"{os.path.basename(file)}:{line}"
    return ""
