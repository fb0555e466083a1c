"""Options that the repository's scripts declare: what a model reads from ``args`` that nobody parses here."""

from __future__ import annotations

import argparse
import ast
import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from initlint.probe.callsites import CallSite, Source, files_with
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
    for count, (file, source) in enumerate(files_with("add_argument", path)):
        if count >= _SCRIPTS:
            break
        found = _options(file, source)
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
    options = _options(path, Source(path, tree))
    return argparse.Namespace(**{**dict.fromkeys(sorted(options.declared)), **options.values})


def _options(path: str, source: Source) -> Options:
    values: dict[str, Any] = {}
    declared: set[str] = set()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or called(node) not in _DECLARES:
            continue
        keywords = {k.arg: k.value for k in node.keywords if k.arg}
        name = _name(node, keywords)
        if not name or name in declared:
            continue
        declared.add(name)
        with contextlib.suppress(Unknown, ValueError, TypeError):
            values[name] = _default(node, keywords, source)
    return Options(path, values, frozenset(declared))


def _name(node: ast.Call, keywords: Mapping[str, ast.expr]) -> str:
    """The attribute of the namespace: ``dest``, else the first long flag, as argparse has it."""
    if isinstance(dest := keywords.get("dest"), ast.Constant):
        return str(dest.value)
    flags = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    chosen = next((flag for flag in flags if flag.startswith("--")), flags[0] if flags else "")
    return chosen.lstrip("-").replace("-", "_")


def _default(node: ast.Call, keywords: Mapping[str, ast.expr], source: Source) -> Any:
    action = keywords.get("action")
    if "default" not in keywords:
        if isinstance(action, ast.Constant) and action.value in ("store_true", "store_false"):
            return action.value == "store_false"
        raise Unknown  # None, which is no size
    value = Evaluator(CallSite(source, node), {}, "").value(keywords["default"])
    convert = keywords.get("type")
    if isinstance(value, str) and isinstance(convert, ast.Name) and convert.id in _TYPES:
        return _TYPES[convert.id](value)  # argparse converts defaults that are texts
    if value is None:
        raise Unknown
    return value
