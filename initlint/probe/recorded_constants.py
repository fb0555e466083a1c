"""Constant tensors that a forward can reach: plain attributes of modules, and globals beside their classes."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

# How deep to look into lists, dicts and objects kept as attributes.
_DEPTH = 4
# Containers longer than this hold data, not constants of a forward.
_LONG = 10_000


def reachable_tensors(root: nn.Module) -> dict[int, tuple[str, torch.Tensor]]:
    """Tensors that exist before the run and are no parameters or buffers, by ``id``.

    The name is the dotted path of a plain attribute of a module (``get_attr`` can follow it), ""
    for tensors inside containers, objects and global variables.
    """
    found: dict[int, tuple[str, torch.Tensor]] = {}
    seen: set[int] = set()
    scopes: set[str] = set()
    for prefix, module in root.named_modules():
        scopes.add(type(module).__module__)
        for name, value in vars(module).items():
            if name.startswith("_") and name in _INTERNAL:
                continue
            path = f"{prefix}.{name}" if prefix else name
            for tensor in _inside(value, _DEPTH, seen):
                found.setdefault(id(tensor), (path if tensor is value else "", tensor))
    for scope in sorted(scopes):
        if scope.startswith("torch."):
            continue
        for value in list(vars(sys.modules.get(scope, sys)).values() if scope in sys.modules else ()):
            if isinstance(value, (torch.Tensor, list, tuple, dict)):
                for tensor in _inside(value, 2, seen):
                    found.setdefault(id(tensor), ("", tensor))
    return found


_CACHE = type(functools.lru_cache(vars))
_INTERNAL = frozenset(vars(nn.Module()))


def _inside(value: Any, depth: int, seen: set[int]) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    if depth == 0 or isinstance(value, (str, bytes, int, float, bool, type, nn.Module)) or value is None:
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        items = list(value.values()) if len(value) <= _LONG else []
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = list(value) if len(value) <= _LONG else []
    elif callable(value):
        cells = getattr(value, "__closure__", None) or ()
        items = [cell.cell_contents for cell in cells if _filled(cell)]
        items.extend(vars(value).values() if hasattr(value, "func") else ())
    else:
        items = list(getattr(value, "__dict__", {}).values())
    for item in items:
        yield from _inside(item, depth - 1, seen)


def memoised(tensor: torch.Tensor) -> bool:
    """Whether a ``functools.lru_cache`` holds the tensor as a result, or in a tuple of them: it was made in an earlier
    call."""
    holders = gc.get_referrers(tensor)
    return any(isinstance(held, _CACHE) or (type(held) is tuple and _returned(held)) for held in holders)


def _returned(values: tuple[Any, ...]) -> bool:
    """Whether a cache holds a tuple, and not as a key, which its dictionary holds too."""
    holders = gc.get_referrers(values)
    if not any(isinstance(held, _CACHE) for held in holders):
        return False
    return not any(key is values for held in holders if isinstance(held, dict) for key in held)


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
