"""Configurations that a project keeps in files: YAML, JSON, TOML, and Python that only gives values to names.

Nothing of them is run. A file counts where it holds the entries that the code asks for; which is read nearest first.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from initlint.probe.callsites import CallSite, Source, files_of, parsed, read_text
from initlint.probe.config_formats import BYTES, SUFFIXES, has, parse, section
from initlint.probe.configs import Section
from initlint.probe.evaluate import Evaluator, Unknown
from initlint.probe.names import Definition, called, statements
from initlint.probe.paths import Path, path_of
from initlint.probe.provenance_words import words
from initlint.records import dataclass

# A search that has read so many files with half of the words stops: a second of work, at most.
_FILES = 64
_DEPTH = 6
# What makes an object of named entries: of Python, argparse, EasyDict, yacs, ml_collections, addict, python-box.
_MAKERS = words("dict Namespace SimpleNamespace edict EasyDict ConfigDict CfgNode CN DotDict AttrDict Box")


@dataclass(frozen=True, slots=True)
class Found:
    """Entries that files give, and these: the one with most of the entries first."""

    paths: tuple[str, ...]
    values: Mapping[str, Any]
    fits: int  # how many of the entries asked for it has


def entries_for(wanted: Collection[Path], path: str) -> Found | None:
    """The configuration that has most of the entries that are read: at least half, and two where more than one are.

    Args:
        wanted: paths below the configuration.
        path: the file that reads them.
    """
    least = max(min(2, len(wanted)), (len(wanted) + 1) // 2)
    best: Found | None = None
    for file, tree in _trees({p[-1] for p in wanted}, path):
        for part in _mappings(tree):
            fits = sum(has(part, p) for p in wanted)
            if fits >= least and (best is None or fits > best.fits):
                best = Found((file,), section(part), fits)
        if best is not None and best.fits == len(wanted):
            break
    return best and _completed(best, wanted, path)


def _completed(found: Found, wanted: Collection[Path], path: str) -> Found:
    """With what the files around it give of the rest: one for the environment, one for the algorithm."""
    folder, values, paths = os.path.dirname(found.paths[0]), found.values, found.paths
    for file, tree in _trees({p[-1] for p in wanted if not has(values, p)}, path):
        near = os.path.commonpath([folder, os.path.dirname(file)]) in (folder, os.path.dirname(file))
        rest = {p[0]: tree[p[0]] for p in wanted if not has(values, p) and has(tree, p)}
        if rest and file not in paths and near and not file.endswith(".py"):
            values, paths = joined(values, section(rest)), (*paths, file)
    return Found(paths, values, found.fits)


def arguments_for(name: str, required: Sequence[str], optional: Collection[str], path: str) -> Found | None:
    """The entries of the same names as the arguments of a class, where one part of a file has all that are required.

    A single name fits by chance: it must stand in a part that names the class (``type: Net``, ``_target_: net.Net``).
    """
    best: Found | None = None
    known = {*required, *optional}
    for file, tree in _trees(set(required), path):
        for part in _mappings(tree):
            named = any(isinstance(v, str) and v.rpartition(".")[2] == name for v in part.values())
            if not all(n in part for n in required) or (len(required) < 2 and not named):
                continue
            values = {n: v for n, v in part.items() if n in known}
            fits = len(values) + (len(known) if named else 0)
            if best is None or fits > best.fits:
                best = Found((file,), section(values), fits)
    return best


def joined(values: Mapping[str, Any], others: Mapping[str, Any]) -> Section:
    """The values, with others where they have none."""
    both = Section({**others, **values})
    for name, value in both.items():
        if isinstance(value, Mapping) and isinstance(others.get(name), Mapping):
            both[name] = joined(value, others[name])
    return both


def _mappings(tree: Any, depth: int = _DEPTH) -> Iterator[Mapping[str, Any]]:
    """The tree and the mappings in it, the outer ones first."""
    level = [tree]
    for _ in range(depth):
        yield from (part for part in level if isinstance(part, Mapping))
        inner = [part.values() if isinstance(part, Mapping) else part for part in level]
        level = [v for values in inner for v in values if isinstance(v, (Mapping, list))]


def _trees(names: Collection[str], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(file, configuration) of those near a file that hold at least half of the words."""
    near = 0
    for file in itertools.chain(files_of(path, SUFFIXES), (path,), files_of(path, (".py",))):
        text = read_text(file, BYTES)
        if text is None or 2 * sum(name in text for name in names) < len(names):
            continue
        near += 1
        if near > _FILES:
            return
        yield from ((file, tree) for tree in _read(file, text))


def _read(file: str, text: str) -> Iterator[Mapping[str, Any]]:
    if not file.endswith(".py"):
        yield from parse(file, text)
        return
    with contextlib.suppress(RecursionError):
        yield from (tree for source in parsed(file, text) for tree in _of_python(source) if tree)


def _of_python(source: Source) -> Iterator[Mapping[str, Any]]:
    """Dictionaries that names are given, and trees that are built entry by entry: ``cfg.MODEL.WIDTH = 64``."""
    scopes: list[list[ast.stmt]] = [source.tree.body]
    scopes += [node.body for node in ast.walk(source.tree) if isinstance(node, Definition)]
    for body in scopes:
        grown: dict[str, dict[str, Any]] = {}
        for node in statements(body):
            if not isinstance(node, ast.Assign) or len(node.targets) != 1:
                continue
            target, place = node.targets[0], path_of(node.targets[0])
            site = CallSite(source, ast.Call(node.value, [], [], lineno=node.lineno, col_offset=0))
            if isinstance(target, ast.Name):
                tree = _entries(node.value, site)
                if tree:
                    yield tree
            elif len(place) > 1 and place[0] != "self":
                with contextlib.suppress(Unknown):
                    _put(grown.setdefault(place[0], {}), place[1:], _value(node.value, site))
        yield from grown.values()


def _entries(node: ast.expr, site: CallSite) -> dict[str, Any]:
    """The entries of a dictionary, or of a call that makes one, whose values can be told."""
    pairs: list[tuple[Any, ast.expr]] = []
    if isinstance(node, ast.Dict):
        pairs = [(k.value, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
    elif isinstance(node, ast.Call) and called(node) in _MAKERS:
        pairs = [(k.arg, k.value) for k in node.keywords if k.arg is not None]
        if len(node.args) == 1:
            return _entries(node.args[0], site)
    found = {}
    for name, value in pairs:
        with contextlib.suppress(Unknown):
            found[str(name)] = _value(value, site)
    return found


def _value(node: ast.expr, site: CallSite) -> Any:
    inner = _entries(node, site)
    if inner:
        return inner
    if isinstance(node, ast.Call) and called(node) in _MAKERS:  # an empty one, filled by what follows
        raise Unknown
    value = Evaluator(site, {}, "").value(node)
    if isinstance(value, (bool, int, float, str, list, tuple, type(None))):
        return value
    raise Unknown


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree[path[-1]] = value
