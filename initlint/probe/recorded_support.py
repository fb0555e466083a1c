"""Small questions that recording asks about models, results and tensors."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import suppress
from types import MethodType
from typing import Any

import torch
from torch import fx, nn

from initlint.probe.recorded_storage import Path


def attributes_of(root: nn.Module) -> dict[int, tuple[str, torch.Tensor]]:
    """Parameters and buffers by ``id``: (first qualified name, tensor)."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for prefix, module in root.named_modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    found.setdefault(id(tensor), (f"{prefix}.{name}" if prefix else name, tensor))
    return found


def paths_of(value: Any) -> list[tuple[Path, torch.Tensor]]:
    """Tensors of a result with the keys that lead to them (dict entries by position and key alike)."""
    if isinstance(value, torch.Tensor):
        return [((), value)]
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return [((i, *path), t) for i, item in enumerate(value) for path, t in paths_of(item)]
    if isinstance(value, Mapping):
        return [((str(k), *path), t) for k, item in value.items() for path, t in paths_of(item)]
    return []


def holds_modules(value: Any, depth: int = 3) -> bool:
    """Whether there is a module with parameters among nested arguments."""
    if isinstance(value, nn.Module):
        return next(iter(value.parameters()), None) is not None
    if isinstance(value, (tuple, list)) and depth:
        return any(holds_modules(item, depth - 1) for item in value)
    if isinstance(value, Mapping) and depth:
        return any(holds_modules(item, depth - 1) for item in value.values())
    return False


def written_share(target: Any, args: Any) -> float | None:
    """Share of x that ``x[index] = y`` writes."""
    if target is not operator.setitem or not isinstance(args[0], torch.Tensor):
        return None
    with suppress(Exception):  # an index that cannot be read back as a view: the share stays unknown
        return float(args[0].detach()[args[1]].numel() / max(1, args[0].numel()))
    return None


def custom_function(tensor: torch.Tensor) -> str:
    """Name of the custom ``autograd.Function`` that made the tensor, "" for ordinary tensors."""
    grad_fn: Any = tensor.grad_fn if tensor.requires_grad and not tensor.is_leaf else None
    if not isinstance(grad_fn, torch.autograd.function.BackwardCFunction):
        return ""
    cls = getattr(grad_fn, "_forward_cls", type(grad_fn))
    return "" if cls.__module__.startswith("torch.") else cls.__qualname__


def is_apply(node: fx.Node) -> bool:
    """Whether the node is a whole call of a custom ``autograd.Function``."""
    return isinstance(node.target, MethodType) and node.target.__name__ == "apply"
