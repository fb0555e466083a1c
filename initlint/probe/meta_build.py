"""Building a model without its memory: large tensors on the meta device, small ones real.

``torch.device("meta")`` alone loses the values of position tables, masks and schedules, and fails where a
constructor reads a number back (``torch.linspace(0, rate, depth).tolist()``). Here tensors of up to ``SMALL``
elements are real, so that those values are known and such constructors work; only what is large is meta.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._device import _device_constructors

#: Up to so many elements tensors are real: 256 KB of float32, 40 MB for the small tensors of a 100-layer model.
SMALL = 1 << 16
#: A constructor that makes more than this, 16 TiB, makes no model: it would go on for ever. The largest published
#: models have 10^12 parameters, 4 TB in float32.
ENDLESS = 1 << 44


class MixedDevicesError(BaseException):
    """A small real tensor was to be written from a meta tensor; no ``Exception``, so that user code lets it pass."""


class MostlyMeta(TorchFunctionMode):
    """While active, tensors made without a device are meta when large and real when small."""

    def __init__(self) -> None:
        super().__init__()
        self._made = 0  # bytes
        self._factories = frozenset(_device_constructors())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._factories and kwargs.get("device") is None:
            return self._make(func, args, kwargs)
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            if not _is_mixture(args, kwargs):
                raise
            target = args[0] if args else None
            real_target = isinstance(target, torch.Tensor) and not target.is_meta
            if (writes(func) and real_target) or kwargs.get("out") is not None:
                raise MixedDevicesError(str(error)) from error
            return func(*_to_meta(args), **_to_meta(kwargs))

    def _make(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor):
            return func(*args, **kwargs)  # their values exist already
        try:
            with torch._C.DisableTorchFunction():
                shape = func(*args, **{**kwargs, "device": "meta"})
        except Exception:  # what cannot be made on meta is made for real
            return func(*args, **kwargs)
        size = shape.numel()
        self._made += size * shape.element_size()
        if self._made > ENDLESS:
            raise MemoryError("it makes tensors of more than 16 TiB")
        return func(*args, **(kwargs if size <= SMALL else {**kwargs, "device": "meta"}))


def writes(func: Any) -> bool:
    """Whether a torch function changes its first argument."""
    name = getattr(func, "__name__", "")
    return name in ("__setitem__", "__set__") or name.startswith("__i") or (name.endswith("_") and name[-2:] != "__")


def emptied(model: nn.Module) -> dict[str, torch.Tensor]:
    """Move what is real of a model to meta; returns the values by parameter and buffer name. Ties are kept."""
    values: dict[str, torch.Tensor] = {}
    twins: dict[int, torch.Tensor] = {}
    for prefix, module in model.named_modules():
        for entries in (module._parameters, module._buffers):
            for local, tensor in entries.items():
                if tensor is not None and not _has_no_values(tensor):
                    values[f"{prefix}.{local}" if prefix else local] = tensor
                    entries[local] = _twin(tensor, twins)
        for local, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and not _has_no_values(value):
                vars(module)[local] = _twin(value, twins)
    return values


def _has_no_values(tensor: torch.Tensor) -> bool:
    return bool(torch.nn.parameter.is_lazy(tensor)) or tensor.is_meta


def _twin(tensor: torch.Tensor, twins: dict[int, torch.Tensor]) -> torch.Tensor:
    found = twins.get(id(tensor))
    if found is None:
        found = tensor.detach().to("meta")
        if isinstance(tensor, nn.Parameter):
            found = nn.Parameter(found, requires_grad=tensor.requires_grad)
        twins[id(tensor)] = found
    return found


def _is_mixture(args: Any, kwargs: Any) -> bool:
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    return len({tensor.is_meta for tensor in tensors}) == 2


def _to_meta(values: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), values)
