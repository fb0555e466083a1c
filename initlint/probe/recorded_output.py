"""What a forward returns: tensors inside tuples, dicts, dataclasses, model outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

_DEPTH = 6


def map_output(value: Any, node: Callable[[torch.Tensor], Any]) -> Any:
    """The structure of a result with tensors replaced by their nodes; other leaves by themselves.

    Dicts, dataclasses and model outputs become dicts; unknown objects are opened only when the
    result holds no tensor otherwise (a cache beside the logits is not an output of the model).
    """
    counted: list[torch.Tensor] = []

    def counting(tensor: torch.Tensor) -> Any:
        counted.append(tensor)
        return node(tensor)

    mapped = _map(value, counting, _DEPTH, objects=False)
    return mapped if counted else _map(value, node, _DEPTH, objects=True)


def _map(value: Any, node: Callable[[torch.Tensor], Any], depth: int, *, objects: bool) -> Any:
    if isinstance(value, torch.Tensor):
        return node(value)
    if depth == 0 or value is None or isinstance(value, (bool, int, float, str)):
        return value if isinstance(value, (bool, int, float, str, type(None))) else None
    if isinstance(value, Mapping):
        return {str(k): _map(v, node, depth - 1, objects=objects) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_map(v, node, depth - 1, objects=objects) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        return {k: _map(v, node, depth - 1, objects=objects) for k, v in fields.items()}
    if objects and hasattr(value, "__dict__"):
        return {k: _map(v, node, depth - 1, objects=objects) for k, v in vars(value).items()}
    return None
