"""Moments of a tensor as the run produced it: mean, second moment, correlations."""

from __future__ import annotations

import math
from typing import Any

import torch

from initlint.facts import Measured
from initlint.probe.traced import Meta, dtype_name

# Above this many elements float64 copies would cost as much as the op itself; float32 sums are then
# exact enough for moments (torch sums pairwise, in several lanes).
_DOUBLE = 1 << 15
# Larger outputs are thinned along their last axis: moments need thousands of values, not millions.
_LARGE = 1 << 22
# Up to so many samples all their products cost less than the sum over samples, which writes a tensor.
_FEW = 8


def describe(value: Any, batch: int | None, *, measure: bool) -> Meta:
    """Shape, dtype, kind and (with ``measure``) moments of anything that an op returned.

    Args:
        value: tensor, tuple, list, dict or other value.
        batch: number of samples in the run; correlation between samples is measured on tensors
            whose axis 0 has that size.
        measure: also take moments; off on meta tensors.
    """
    if isinstance(value, torch.Tensor):
        meta = Meta(shape=_shape(value), dtype=dtype_name(value.dtype))
        meta.batch = 0 if batch is not None and value.dim() > 0 and value.shape[0] == batch else None
        if measure and not under_vmap(value):
            meta.measured, meta.positions = _measured(value, meta.batch)
        return meta
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return Meta(value_kind="tuple", elements=tuple(describe(v, batch, measure=measure) for v in value))
    if isinstance(value, dict):
        return Meta(value_kind="tuple", elements=tuple(describe(v, batch, measure=measure) for v in value.values()))
    return Meta(value_kind="other")


def under_vmap(value: Any) -> bool:
    """Whether a tensor is one of ``vmap``'s, whose values nobody can read."""
    return isinstance(value, torch.Tensor) and bool(torch._C._functorch.is_batchedtensor(value))


def _shape(value: torch.Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(int(n) for n in value.shape)
    except (RuntimeError, TypeError):  # nested and ragged tensors
        return None


def _measured(value: torch.Tensor, batch: int | None) -> tuple[Measured | None, dict[int, float]]:
    x = as_real(value)
    if x is None or x.numel() == 0:
        return None, {}
    measured, by_axis = _moments(x, batch)
    if not measured.finite and x.dtype != torch.float64 and bool(torch.isfinite(x).all()):
        measured, by_axis = _moments(x.double(), batch)  # only the squares overflow
    return measured, by_axis


def _moments(x: torch.Tensor, batch: int | None) -> tuple[Measured, dict[int, float]]:
    flat = x.reshape(-1)
    mean = float(flat.mean())
    second = float(torch.dot(flat, flat) / flat.numel())
    if not (math.isfinite(mean) and math.isfinite(second)):
        return Measured(mean=mean, second=second, finite=False), {}
    correlation = between_samples(x, second) if batch == 0 else None
    by_axis = {axis: c for axis in _channel_axes(x) if (c := between_positions(x, axis, second)) is not None}
    return Measured(mean=mean, second=second, correlation=correlation), by_axis


def as_real(value: torch.Tensor) -> torch.Tensor | None:
    """A detached dense float tensor to take moments of, masks of zeros and ones too; ``None`` for other integers and
    odd layouts."""
    if value.device.type == "meta" or value.layout != torch.strided or value.is_quantized:
        return None
    x = value.detach()
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    if not x.is_floating_point() and not _is_mask(x):
        return None
    if x.numel() > _LARGE and x.dim() > 1:
        x = x[..., :: max(1, x.numel() // _LARGE)]
    return x.double() if x.numel() <= _DOUBLE else x.float()


def _is_mask(x: torch.Tensor) -> bool:
    """Whether integers are all zeros and ones: a comparison, or places made one-hot."""
    if x.dtype == torch.bool:
        return True
    if x.numel() == 0 or x.numel() > _LARGE:
        return False
    low, high = torch.aminmax(x)
    return int(low) == 0 and int(high) == 1


def between_samples(x: torch.Tensor, second: float) -> float | None:
    """c: mean over pairs of samples (axis 0) of <x, x'> / (n q); ``None`` without pairs or signal."""
    count = x.shape[0]
    if count < 2 or second <= 0.0:
        return None
    if count <= _FEW:
        rows = x.reshape(count, -1)
        total = float((rows @ rows.t()).sum() / rows.shape[1])
    else:
        total = float(x.sum(0).square().mean())
    return (total - count * second) / (count * (count - 1) * second)


def between_positions(x: torch.Tensor, channel: int, second: float) -> float | None:
    """c_s: cosine between positions of one sample, for channels on axis ``channel`` and samples on axis 0."""
    over = tuple(axis for axis in range(1, x.dim()) if axis != channel)
    positions = math.prod(x.shape[axis] for axis in over)
    if positions < 2 or second <= 0.0:
        return None
    total = float(x.sum(over).square().mean())
    return (total - positions * second) / (positions * (positions - 1) * second)


def _channel_axes(x: torch.Tensor) -> tuple[int, ...]:
    """Axes that may hold the channels: the second and the last, of tensors with positions."""
    if x.dim() < 3:
        return ()
    return (1, x.dim() - 1)
