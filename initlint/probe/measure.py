"""Statistics of a tensor's actual values, from one pass over its memory in cache-sized blocks.

``measure_all`` returns ``TensorStats`` (see ``initlint.facts``). Small tensors are measured exactly in
float64. Large ones are read once: every block is brought into the cache by its first reduction and
read from there by the others, and the per-row results are combined in float64. What would need
further passes (kurtosis, histogram, subnormals) then comes from an evenly strided sample; mean,
second moment, extremes, rows, duplicates and digest always from every element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from initlint.facts import TensorStats
from initlint.probe import measure_exact
from initlint.probe.measure_blocks import measure_blocks

#: Up to this many elements everything is computed exactly: as many as a matrix has whose singular values are taken.
EXACT_LIMIT = 1 << 12
#: So many tensors of one shape are measured together, and so many elements, for they may be copies.
BATCH, BATCH_ELEMENTS = 32, 1 << 25

#: The same for a single slice of axis 0, which no pass cuts by its axes: tables of positions (1, n, dim), and few.
SINGLE_LIMIT = 1 << 16

_BLOCKWISE = (torch.float32, torch.float16, torch.bfloat16)


def measure(tensor: torch.Tensor, groups: int = 1) -> TensorStats | None:
    """Statistics of ``tensor``; ``None`` when it holds no values (meta, lazy, quantised).

    Args:
        tensor: any real or complex tensor; complex values are measured as pairs of reals.
        groups: groups of the convolution that uses it, to cut axis 0 into as many parts.
    """
    return measure_all([(tensor, groups)])[0]


def measure_all(tensors: Sequence[tuple[torch.Tensor | None, int]]) -> list[TensorStats | None]:
    """Statistics of many tensors, each with its groups; those of one shape share most of the work."""
    alike: dict[object, list[int]] = {}
    for index, (tensor, groups) in enumerate(tensors):
        if tensor is not None and _has_values(tensor):
            alike.setdefault((tensor.shape, tensor.dtype, groups), []).append(index)
    found: list[TensorStats | None] = [None] * len(tensors)
    for indices in alike.values():
        for some in _batches(indices, tensors):
            batch = [_readable(tensors[index][0]) for index in some]
            for index, stats in zip(some, _measured(batch, tensors[some[0]][1]), strict=True):
                found[index] = stats
    return found


def _batches(indices: list[int], tensors: Sequence[tuple[torch.Tensor | None, int]]) -> Iterator[list[int]]:
    first = tensors[indices[0]][0]
    size = max(1, min(BATCH, BATCH_ELEMENTS // max(1, first.numel() if first is not None else 1)))
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _has_values(tensor: torch.Tensor) -> bool:
    lazy = isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))
    return not (lazy or tensor.is_meta or tensor.is_quantized)


def _readable(tensor: torch.Tensor | None) -> torch.Tensor:
    """The values as a dense contiguous real tensor on the CPU, without a copy where possible."""
    assert tensor is not None
    values = tensor.detach()
    if values.layout != torch.strided:
        values = values.to_dense()
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    if values.dtype.is_floating_point and values.dtype.itemsize == 1:
        values = values.float()  # eight-bit floats have no reductions on the CPU
    return values.cpu().contiguous()


def _measured(batch: list[torch.Tensor], groups: int) -> list[TensorStats]:
    """Statistics of tensors of one shape and type."""
    count = batch[0].numel()
    if count == 0:
        empty = TensorStats(count=0, mean=0.0, second=0.0, var=0.0, kurtosis=None, minimum=0.0, maximum=0.0)
        return [empty] * len(batch)
    single = batch[0].ndim > 2 and batch[0].shape[0] == 1
    if count > (SINGLE_LIMIT if single else EXACT_LIMIT) and batch[0].dtype in _BLOCKWISE:
        return measure_blocks(batch, groups)
    return [_small(values, groups) for values in batch]


def _small(values: torch.Tensor, groups: int) -> TensorStats:
    low, high = (float(v) for v in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        return measure_exact.non_finite(values)
    if low == high:
        return measure_exact.constant(values, low, groups)
    return measure_exact.exact(values, groups)
