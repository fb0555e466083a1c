"""The tables ``inputs`` and ``arguments`` of the configuration, as the probe wants them: by target id or class name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from initlint.config import Config
from initlint.errors import ConfigError, UsageError
from initlint.facts import Plain

_FORM = """Write x = "float32[1,3,32,32]", or shape = [[1, 3, 32, 32]], or a list of specs."""


def specs_for(config: Config) -> dict[str, tuple[str, ...]]:
    """The texts of input specs (as after ``--input``) for each target.

    Raises:
        ConfigError: a table is not understood.
    """
    return {_identity(target, config): _specs(target, value) for target, value in config.inputs.items()}


def arguments_for(config: Config) -> dict[str, Mapping[str, Plain]]:
    """The constructor arguments for each target.

    Raises:
        ConfigError: an entry is no table.
    """
    tables: dict[str, Mapping[str, Plain]] = {}
    for target, value in config.arguments.items():
        if not isinstance(value, dict):
            raise ConfigError(f"arguments.{target!r} is no table", "Write name = value in it.")
        tables[_identity(target, config)] = value
    return tables


def _specs(target: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(f"inputs.{target!r}: {value!r} is no list of specs", _FORM)
    shapes = value.get("shape")
    if shapes is not None:
        many = shapes if shapes and isinstance(shapes[0], list) else [shapes]
        kinds = value.get("dtype", "float32")
        dtypes = kinds if isinstance(kinds, list) else [kinds] * len(many)
        if set(value) <= {"shape", "dtype"} and len(dtypes) == len(many):
            return tuple(f"{kind}[{','.join(map(str, shape))}]" for kind, shape in zip(dtypes, many, strict=True))
        raise ConfigError(f"inputs.{target!r}: {value!r} is not understood", _FORM)
    specs = []
    for name, item in value.items():
        if isinstance(item, list) and all(isinstance(size, int) for size in item):
            specs.append(f"{name}: float32[{','.join(map(str, item))}]")
        elif isinstance(item, str):
            specs.append(f"{name}: {item}")
        else:
            raise ConfigError(f"inputs.{target!r}.{name}: {item!r} is no spec", _FORM)
    return tuple(specs)


def _identity(text: str, config: Config) -> str:
    """The id that the probe gives to what the configuration calls ``text``; class names stay as they are."""
    from initlint.probe.target import parse

    try:
        return parse(text, str(config.root)).identity(os.getcwd())
    except UsageError:
        return text
