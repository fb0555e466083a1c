"""Options that the repository's scripts declare: what a model reads from ``args`` that nobody parses here."""

from __future__ import annotations

import argparse
import ast
import contextlib
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from initlint.probe.callsites import CallSite, Source, default_of, option_names, sources_with
from initlint.probe.evaluate import Evaluator, Unknown
from initlint.probe.names import called
from initlint.records import dataclass

#: Scripts with options beyond this many are not compared: repositories keep one or two for each task.
_SCRIPTS = 24
_DECLARES = frozenset({"add_argument", "add_option"})
_TYPES: Mapping[str, Callable[[Any], Any]] = {"int": int, "float": float, "str": str}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one script, with their defaults: those that have one."""

    path: str
    values: Mapping[str, Any]
    declared: frozenset[str]


def options_for(names: Collection[str], path: str) -> Options | None:
    """The script near a file whose options are most of the names: at least half, and more than any nearer one.

    A script that shares a few names with a model by chance (``seed``, ``lr``) is another model's.
    """
    best: Options | None = None
    for source in itertools.islice(sources_with("add_argument", path), _SCRIPTS):
        found = _options(source)
        shared = len(found.declared & set(names))
        if 2 * shared >= len(names) and (best is None or shared > len(best.declared & set(names))):
            best = found
    return best


def parsed(name: str, path: str, tree: ast.Module) -> argparse.Namespace | None:
    """What a file's ``name = parser.parse_args()`` would hold, from what the file declares; nothing is run."""
    assigned = any(
        isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        and isinstance(node.value, ast.Call)
        and called(node.value) == "parse_args"
        for node in ast.walk(tree)
    )
    if not assigned:
        return None
    options = _options(Source(path, tree))
    return argparse.Namespace(**{**dict.fromkeys(sorted(options.declared)), **options.values})


def _options(source: Source) -> Options:
    values: dict[str, Any] = {}
    declared: set[str] = set()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or called(node) not in _DECLARES:
            continue
        name = next(iter(option_names(node)), "")
        if not name or name in declared:
            continue
        declared.add(name)
        with contextlib.suppress(Unknown, ValueError, TypeError):
            values[name] = _default(node, source)
    return Options(source.path, values, frozenset(declared))


def _default(node: ast.Call, source: Source) -> Any:
    expression = default_of(node)
    value = None if expression is None else Evaluator(CallSite(source, node), {}, "").value(expression)
    if value is None:  # which is no size
        raise Unknown
    convert = next((k.value for k in node.keywords if k.arg == "type"), None)
    if isinstance(value, str) and isinstance(convert, ast.Name) and convert.id in _TYPES:
        return _TYPES[convert.id](value)  # argparse converts defaults that are texts
    return value
