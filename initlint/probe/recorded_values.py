"""Moments of a tensor as the run produced it: mean, second moment, correlations."""

from __future__ import annotations

import math
from typing import Any

import torch

from initlint.facts import Measured
from initlint.probe.traced import Meta, dtype_name

# Above this many elements float64 copies would cost more than the op itself; float32 sums of
# squares are then taken, which is exact enough for moments (pairwise summation).
_DOUBLE = 1 << 20
# Larger outputs are thinned along their last axis: moments need thousands of values, not millions.
_LARGE = 1 << 22


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
        if measure:
            meta.measured, meta.positions = _measured(value, meta.batch)
        return meta
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return Meta(value_kind="tuple", elements=tuple(describe(v, batch, measure=measure) for v in value))
    if isinstance(value, dict):
        return Meta(value_kind="tuple", elements=tuple(describe(v, batch, measure=measure) for v in value.values()))
    return Meta(value_kind="other")


def _shape(value: torch.Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(int(n) for n in value.shape)
    except (RuntimeError, TypeError):  # nested and ragged tensors
        return None


def _measured(value: torch.Tensor, batch: int | None) -> tuple[Measured | None, dict[int, float]]:
    x = as_real(value)
    if x is None or x.numel() == 0:
        return None, {}
    mean = float(x.mean())
    second = float(torch.dot(x.reshape(-1), x.reshape(-1)) / x.numel())
    if not (math.isfinite(mean) and math.isfinite(second)):
        return Measured(mean=mean, second=second, finite=bool(torch.isfinite(x).all())), {}
    correlation = between_samples(x, second) if batch == 0 else None
    by_axis = {axis: c for axis in _channel_axes(x) if (c := between_positions(x, axis, second)) is not None}
    return Measured(mean=mean, second=second, correlation=correlation), by_axis


def as_real(value: torch.Tensor) -> torch.Tensor | None:
    """A detached dense float tensor to take moments of; ``None`` for integers, booleans, odd layouts."""
    if value.device.type == "meta" or value.layout != torch.strided or value.is_quantized:
        return None
    x = value.detach()
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    if not x.is_floating_point():
        return None
    if x.numel() > _LARGE and x.dim() > 1:
        x = x[..., :: max(1, x.numel() // _LARGE)]
    return x.double() if x.numel() <= _DOUBLE else x.float()


def between_samples(x: torch.Tensor, second: float) -> float | None:
    """c: mean over pairs of samples (axis 0) of <x, x'> / (n q); ``None`` without pairs or signal."""
    samples = x.shape[0]
    if samples < 2 or second <= 0.0:
        return None
    return _off_diagonal(x.reshape(samples, -1), samples, second)


def between_positions(x: torch.Tensor, channel: int, second: float) -> float | None:
    """c_s: cosine between positions of one sample, for channels on axis ``channel`` and samples on axis 0."""
    moved = x.movedim(channel, -1).reshape(x.shape[0], -1, x.shape[channel])
    positions = moved.shape[1]
    if positions < 2 or second <= 0.0:
        return None
    total = moved.sum(1).square().sum(1).mean() / moved.shape[2]
    return float((total - positions * second) / (positions * (positions - 1) * second))


def _off_diagonal(rows: torch.Tensor, count: int, second: float) -> float:
    total = float(rows.sum(0).square().mean())
    return (total - count * second) / (count * (count - 1) * second)


def _channel_axes(x: torch.Tensor) -> tuple[int, ...]:
    """Axes that may hold the channels: the second and the last, of tensors with positions."""
    if x.dim() < 3:
        return ()
    return (1, x.dim() - 1)
