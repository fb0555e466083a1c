"""Arguments that say where and how to compute: a device, a dtype. By annotation or use first, by their name second."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping

from torch import nn

from initlint.probe.inputs_arguments import Argument
from initlint.probe.inputs_source import forward_source
from initlint.probe.inputs_wants import Guess

_KINDS = ("device", "dtype")
_ANNOTATION = re.compile(r"^(?:torch\.)?(device|dtype)$")
_NAME = re.compile(r"(?:^|_)(device|dtype)$")


def settings(model: nn.Module, arguments: Iterable[Argument]) -> dict[str, str]:
    """The arguments that are a device or a dtype by their annotation or by what the forward does with them."""
    found: dict[str, str] = {}
    used = _used(forward_source(model))
    for argument in arguments:
        said = _ANNOTATION.match(argument.annotation)
        kind = said[1] if said else used.get(argument.name)
        if kind is not None:
            found[argument.name] = kind
    return found


def named_setting(name: str) -> Guess | None:
    """What the name alone says."""
    found = _NAME.search(name.lower())
    return setting(found[1]) if found else None


def setting(kind: str) -> Guess:
    """A device or a dtype as a guess."""
    return Guess("scalar", (), fill=kind)


def _used(function: ast.FunctionDef | None) -> Mapping[str, str]:
    """Names that are used as a device or as a dtype."""
    if function is None:
        return {}
    found: dict[str, str] = {}
    moved: set[str] = set()
    places: dict[str, int] = {}
    targets: dict[str, int] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            places[node.id] = places.get(node.id, 0) + 1
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg in _KINDS and isinstance(keyword.value, ast.Name):
                found[keyword.value.id] = keyword.arg
        called, first = _called(node), node.args[0] if node.args else None
        if isinstance(first, ast.Name) and called == "torch.device":
            found[first.id] = "device"
        if isinstance(first, ast.Name) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            moved.add(first.id)
            targets[first.id] = targets.get(first.id, 0) + 1
    for name in moved - found.keys():  # another tensor may be handed to ``to``; one that is nothing else is none
        if targets[name] == places[name]:
            said = _NAME.search(name.lower())
            found[name] = said[1] if said else "device"
    return found


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func) if isinstance(node.func, (ast.Attribute, ast.Name)) else ""
