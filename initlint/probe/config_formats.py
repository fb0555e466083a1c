"""Reads configurations in the formats that projects keep them in."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from initlint.probe.callsites import read_text, repository
from initlint.probe.configs import Section
from initlint.probe.paths import Path

SUFFIXES = (".yaml", ".yml", ".json", ".toml")
#: A configuration that people write is no longer; what is, are data and lists of names.
BYTES = 1 << 16
# References may refer to references, and mappings hold mappings, so deep.
_DEPTH = 6
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


@functools.lru_cache(maxsize=256)
def parse(file: str, text: str) -> tuple[Mapping[str, Any], ...]:
    """The mappings at the top of a file; none where it is not well formed, or its format's package is not installed."""
    found: list[Any] = []
    with contextlib.suppress(Exception):  # whatever a parser says of a file that need not be a configuration
        if file.endswith(".json"):
            found = [json.loads(text)]
        elif file.endswith(".toml"):
            found = [tomllib.loads(text)]
        else:
            found = list(importlib.import_module("yaml").safe_load_all(text))
    return tuple(_referred(tree, tree) for tree in found if isinstance(tree, dict))


def load(name: str, beside: str) -> Section | None:
    """The configuration of a file that code in another file opens by name: from where that lies, or from the root."""
    if not name.endswith(SUFFIXES):
        return None
    for folder in (os.path.dirname(beside), repository(beside)):
        file = os.path.join(folder, name)
        text = read_text(file, BYTES)
        trees = parse(file, text) if text is not None else ()
        if trees:
            made: Section = section(trees[0])
            return made
    return None


def has(values: Mapping[str, Any], path: Path) -> bool:
    """Whether there is an entry at a path."""
    inner: Any = values
    for name in path:
        if not isinstance(inner, Mapping) or name not in inner:
            return False
        inner = inner[name]
    return True


def section(values: Any) -> Any:
    """The same, to be read by key and by attribute."""
    if isinstance(values, Mapping):
        return Section({name: section(value) for name, value in values.items()})
    return [section(value) for value in values] if isinstance(values, list) else values


def _referred(value: Any, root: Mapping[str, Any], depth: int = _DEPTH) -> Any:
    """The values with ``${model.width}`` replaced by what stands there (OmegaConf)."""
    if isinstance(value, dict):
        return {str(name): _referred(inner, root, depth) for name, inner in value.items()}
    if isinstance(value, list):
        return [_referred(inner, root, depth) for inner in value]
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not depth or not has(root, tuple(match[1].split("."))):
        return value
    return _referred(functools.reduce(lambda tree, name: tree[name], match[1].split("."), root), root, depth - 1)
