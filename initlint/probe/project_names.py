"""What names of a project's other files stand for, as far as syntax tells: constants, and what functions return."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator

from initlint.probe.callsites import CallSite, Source, files_of, parsed, read_text
from initlint.probe.names import Definition, own_nodes

_END = 1 << 30


@functools.lru_cache(maxsize=256)  # each name of each call site may ask for the same few
def module_of(name: str, path: str) -> Source | None:
    """The file of the project that ``config.defaults`` of ``config.defaults.WIDTH`` is; ``None`` for other packages."""
    module = name.rpartition(".")[0]
    if not module:
        return None
    place = os.sep + os.path.join(*module.split("."))
    for file in (path, *files_of(path, (".py",))):
        if file.endswith((place + ".py", os.path.join(place, "__init__.py"))):
            return next(parsed(file, read_text(file) or ""), None)
    return None


def at_end(source: Source) -> CallSite:
    """Where names of a file's top level are looked up after all of it."""
    return CallSite(source, ast.Call(ast.Name("_"), [], [], lineno=_END, col_offset=0))


def definition(source: Source, name: str) -> Definition | None:
    """A function or class of a file's top level."""
    return next((n for n in source.tree.body if isinstance(n, Definition) and n.name == name), None)


def returned(source: Source, function: ast.FunctionDef) -> tuple[CallSite, ast.expr] | None:
    """What a function with one ``return`` returns where it is called without arguments, and where to look names up."""
    ends = [n for n in own_nodes(function) if isinstance(n, ast.Return)]
    arguments = function.args
    optional = len(arguments.args) + len(arguments.posonlyargs) == len(arguments.defaults)
    if len(ends) != 1 or ends[0].value is None or not optional or None in arguments.kw_defaults:
        return None
    place = ast.Call(ast.Name("_"), [], [], lineno=ends[0].lineno, col_offset=0)
    return CallSite(source, place, (function,)), ends[0].value


def keeps_all(cls: ast.ClassDef) -> bool:
    """Whether a class keeps whatever it is given by name: ``self.__dict__.update(kwargs)``, or ``setattr`` for each."""
    made = next((n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if made is None or made.args.kwarg is None or len(made.args.args) != 1:
        return False
    return any(_keeps(call, made.args.kwarg.arg) for call in _calls(made))


def _calls(function: ast.FunctionDef) -> Iterator[ast.Call]:
    return (n for n in own_nodes(function) if isinstance(n, ast.Call))


def _keeps(call: ast.Call, rest: str) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id == "setattr"
    whole = any(isinstance(a, ast.Name) and a.id == rest for a in (*call.args, *(k.value for k in call.keywords)))
    return isinstance(call.func, ast.Attribute) and call.func.attr == "update" and whole
