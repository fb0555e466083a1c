"""Targets as people type them: files, folders, ``file::Name``, ``package.module:factory(size="tiny")``.

Pure syntax and the file system; nothing is imported or run. Arguments of a call are literals only,
read with ``ast``.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from initlint.errors import UsageError
from initlint.records import dataclass

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FORMS = 'Targets are: model.py, a folder, model.py::Name, package.module:factory, package.module:factory(size="tiny").'


@dataclass(frozen=True, slots=True)
class Call:
    """An attribute and, when it was called, its literal arguments: ``Net(depth=4)``."""

    name: str  # dotted: "Net", "models.Net"
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    called: bool = False
    texts: tuple[tuple[str, str], ...] = ()  # (name or position, source text) of each argument


@dataclass(frozen=True, slots=True)
class Target:
    """What to analyse. ``path`` is absolute; a module target has ``module`` instead."""

    text: str  # as typed, or as found in a folder
    kind: str  # "file" | "folder" | "module"
    path: str = ""
    module: str = ""
    call: str = ""  # source of the named attribute or call, "" for the whole file: "Net(depth=4)"
    found: bool = False  # found while walking a folder, not named by the user
    covered: tuple[tuple[str, str], ...] = ()  # class -> who contains it, known from other files of the folder

    @property
    def name(self) -> str:
        """The attribute that was named (without arguments), or ``""``."""
        return self.call.split("(", 1)[0].strip()

    @property
    def named(self) -> bool:
        """Whether the user named exactly one model."""
        return bool(self.call)

    def identity(self, directory: str, name: str = "") -> str:
        """The stable id of a model of this target: ``path.py::Name``, relative to ``directory``."""
        call = self.call or name
        base = relative(self.path, directory) if self.path else self.module
        separator = "::" if self.path else ":"
        return f"{base}{separator}{call}" if call else base


def parse(text: str, cwd: str = "") -> Target:
    """Parse one target.

    Raises:
        UsageError: no such file, not a target, or arguments that are not literals.
    """
    directory = os.path.abspath(cwd or os.getcwd())
    text = text.strip()
    if not text:
        raise UsageError("An empty target.", _FORMS)
    place, attribute = _split(text)
    if attribute:
        parse_call(attribute, text)
    path = os.path.normpath(os.path.join(directory, os.path.expanduser(place)))
    if os.path.isdir(path) and (os.sep in place or "/" in place or not _importable(place, directory) or not attribute):
        if attribute:
            raise UsageError(f"{place} is a folder and has no attribute {attribute!r}.", _FORMS)
        return Target(text, "folder", path)
    if os.path.isfile(path):
        if not path.endswith(".py"):
            raise UsageError(f"{place} is not a Python file.", _FORMS)
        return Target(text, "file", path, call=attribute)
    if place.endswith(".py") or "/" in place or os.sep in place or not _DOTTED.fullmatch(place):
        raise UsageError(f"No such file or folder: {place}", _suggest(path, place))
    if not attribute and "." not in place and not _importable(place, directory):
        raise UsageError(f"No such file, folder or module: {place}", _suggest(path, place))
    return Target(text, "module", module=place, call=attribute)


def parse_call(text: str, target: str = "") -> Call:
    """Parse ``Name``, ``pkg.Name`` or ``Name(1, key="value")``.

    Raises:
        UsageError: anything else, or an argument that is not a literal.
    """
    shown = target or text
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        hint = "For a line number, name the class instead: model.py::Name." if text.isdigit() else _FORMS
        raise UsageError(f"Cannot read {text!r} in the target {shown!r}.", hint) from None
    called = isinstance(node, ast.Call)
    head = node.func if isinstance(node, ast.Call) else node
    name = ast.unparse(head)
    if not _DOTTED.fullmatch(name):
        hint = "For a line number, name the class instead: model.py::Name." if text.isdigit() else _FORMS
        raise UsageError(f"{text!r} in the target {shown!r} is neither a name nor a call of a name.", hint)
    if not isinstance(node, ast.Call):
        return Call(name)
    args: list[Any] = []
    kwargs: list[tuple[str, Any]] = []
    texts: list[tuple[str, str]] = []
    for position, value in enumerate(node.args):
        args.append(_literal(value, shown))
        texts.append((str(position), ast.unparse(value)))
    for keyword in node.keywords:
        if keyword.arg is None:
            raise UsageError(f"** is not possible in the target {shown!r}.", "Name each argument with a literal value.")
        kwargs.append((keyword.arg, _literal(keyword.value, shown)))
        texts.append((keyword.arg, ast.unparse(keyword.value)))
    return Call(name, tuple(args), tuple(kwargs), called, tuple(texts))


def parse_all(texts: Sequence[str], cwd: str = "") -> tuple[Target, ...]:
    """Parse several targets; the same one twice is analysed once.

    Raises:
        UsageError: the first malformed one.
    """
    targets: dict[tuple[str, str, str], Target] = {}
    for text in texts:
        target = parse(text, cwd)
        targets.setdefault((target.path, target.module, target.call), target)
    return tuple(targets.values())


def with_call(target: Target, call: str) -> Target:
    """The same file or module, naming one attribute."""
    return replace(target, call=call)


def relative(path: str, directory: str) -> str:
    """``path`` relative to ``directory`` in POSIX style; absolute when it lies on another drive."""
    try:
        return os.path.relpath(path, directory).replace(os.sep, "/")
    except ValueError:
        return path.replace(os.sep, "/")


def _split(text: str) -> tuple[str, str]:
    """Split the place from the attribute at ``::`` or ``:``; a drive letter is no separator."""
    start = 2 if re.match(r"[A-Za-z]:[\\/]", text) else 0
    end = text.find("(")
    head = text if end < 0 else text[:end]
    colon = head.find(":", start)
    if colon < 0:
        return text, ""
    attribute = text[colon:].lstrip(":").strip()
    if not attribute:
        raise UsageError(f"Nothing follows the colon in {text!r}.", _FORMS)
    return text[:colon], attribute


def _literal(node: ast.expr, target: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UsageError(
            f"The argument {ast.unparse(node)!r} in the target {target!r} is not a literal.",
            "Write a small factory function in the file and name that instead.",
        ) from None


def _importable(name: str, directory: str) -> bool:
    """Whether a dotted name looks like a module: seen from ``directory`` or installed. Nothing is imported."""
    if not _DOTTED.fullmatch(name):
        return False
    first = name.split(".")[0]
    if os.path.isfile(os.path.join(directory, first + ".py")):
        return True
    if os.path.isfile(os.path.join(directory, first, "__init__.py")):
        return True
    import importlib.util

    try:
        return importlib.util.find_spec(first) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _suggest(path: str, shown: str) -> str:
    """The nearest existing name for one that does not exist."""
    folder, name = os.path.split(path)
    while folder and not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder, name = os.path.split(folder)
    try:
        entries = [e for e in os.listdir(folder) if e.endswith(".py") or os.path.isdir(os.path.join(folder, e))]
    except OSError:
        return _FORMS
    close = difflib.get_close_matches(name, entries, n=1)
    if not close:
        return _FORMS
    prefix = os.path.relpath(os.path.join(folder, close[0]), os.path.dirname(path))
    suggestion = os.path.normpath(os.path.join(os.path.dirname(shown), prefix)).replace(os.sep, "/")
    return f"Did you mean {suggestion}?"
