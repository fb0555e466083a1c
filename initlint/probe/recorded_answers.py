"""Canned answers to data-dependent questions about meta tensors, so that a run without values goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

NO_ANSWER = object()

# Positive small numbers keep loops short and divisions finite.
_SCALARS: Mapping[str, Any] = {"item": 1, "__bool__": True, "__int__": 1, "__float__": 1.0, "__index__": 1}


def answer(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """An invented result for a question that a meta tensor cannot answer, else ``NO_ANSWER``.

    Args:
        name: ``__name__`` of the torch function.
    """
    tensor = args[0] if args else None
    if not isinstance(tensor, torch.Tensor) or tensor.device.type != "meta":
        return NO_ANSWER
    if name in _SCALARS:
        return bool(_SCALARS[name]) if tensor.dtype == torch.bool else _SCALARS[name]
    if name == "tolist":
        return torch.ones(tuple(tensor.shape), dtype=tensor.dtype, device="cpu").tolist()
    if name in ("equal", "allclose", "is_nonzero"):
        return True
    if name == "__contains__":
        return False
    return _selection(name, tensor, args, kwargs)


def _selection(name: str, tensor: torch.Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Selections whose size depends on values: one element is selected."""
    axes = max(1, tensor.dim())
    one = torch.empty(1, dtype=torch.long, device="meta")
    if name in ("nonzero", "argwhere"):
        if kwargs.get("as_tuple"):
            return tuple(one.clone() for _ in range(axes))
        return torch.empty(1, axes, dtype=torch.long, device="meta")
    if name == "where" and len(args) == 1 and not kwargs:
        return tuple(one.clone() for _ in range(axes))
    if name == "masked_select":
        return torch.empty(1, dtype=tensor.dtype, device="meta")
    index = args[1] if len(args) > 1 else None
    if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
        if name == "__getitem__":
            return torch.empty((1, *tensor.shape[index.dim() :]), dtype=tensor.dtype, device="meta")
        if name == "__setitem__":
            return None
    return NO_ANSWER
