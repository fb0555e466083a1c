"""Statistics of small tensors, computed exactly in float64; and of those that hold one value, or values not finite."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from initlint.facts import Chunk, Histogram, TensorStats, Units
from initlint.probe.measure_matrix import gram_residual, singular_values, spectral_norms
from initlint.probe.measure_units import contents, digest_of, row_duplicates, units

#: Elements of the strided sample: the standard error of a kurtosis from it is sqrt(24/n) = 0.05.
SAMPLE = 1 << 13
#: Bins of a histogram; enough to tell normal, uniform and truncated apart by eye.
BINS = 24
#: Axis 0 is cut into so many equal parts when it divides: packed projections (2, 3) and gates (3, 4).
PARTS = (2, 3, 4)
#: A leading axis up to this is taken as a stack of experts, heads or relations.
EXPERTS = 64


def constant(values: torch.Tensor, value: float, groups: int) -> TensorStats:
    """All elements are equal: nothing else has to be read."""
    return _constant(tuple(values.shape), values.dtype, repr(value), groups)


@functools.lru_cache(maxsize=256)  # norms and biases of a model have few shapes
def _constant(shape: tuple[int, ...], dtype: torch.dtype, text: str, groups: int) -> TensorStats:
    value, count = float(text), math.prod(shape)
    rows = columns = last = None
    if len(shape) >= 2:
        rows, columns = (_constant_units(shape[axis], count // shape[axis], value) for axis in (0, 1))
        last = _constant_units(shape[-1], count // shape[-1], value) if len(shape) >= 3 else None
    part = Chunk(mean=value, second=value * value, minimum=value, maximum=value)
    square = len(shape) == 2 and shape[0] == shape[1]
    return TensorStats(
        count=count,
        mean=value,
        second=value * value,
        var=0.0,
        kurtosis=None,
        minimum=value,
        maximum=value,
        zeros=count if value == 0 else 0,
        subnormals=count if _is_subnormal(value, dtype) else 0,
        distinct=1,
        rows=rows,
        columns=columns,
        last=last,
        chunks={str(n): (part,) * n for n in parts_of(shape, groups)},
        experts=(part,) * shape[0] if is_stack(shape) else (),
        gram_residual=1.0 if len(shape) >= 2 and min(shape[0], count // shape[0]) >= 2 else None,
        diagonal=value if square else None,
        zero_slices=tuple(range(min(8, shape[0]))) if value == 0 and shape else (),
        histogram=None,
        digest=digest_of(shape, dtype, ("constant", value)),
    )


def _constant_units(count: int, length: int, value: float) -> Units:
    energy, total = length * value * value, length * value
    return Units(count, count - 1, count if value == 0 else 0, energy, energy, energy, 0.0, total, total * total)


def _is_subnormal(value: float, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and value != 0 and abs(value) < torch.finfo(dtype).tiny


def parts_of(shape: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """The numbers of equal parts that axis 0 is cut into."""
    if not shape:
        return ()
    wanted = (*PARTS, groups) if groups > 1 else PARTS
    return tuple(sorted({n for n in wanted if shape[0] % n == 0 and shape[0] > n}))


def is_stack(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and 2 <= shape[0] <= EXPERTS and shape[1] >= 2 and shape[2] >= 2


def non_finite(values: torch.Tensor) -> TensorStats:
    """Moments of the finite values; slices are not compared, for they hold non-finite values."""
    nans, infs = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    finite = values[torch.isfinite(values)]
    if finite.numel() == 0:
        stats = TensorStats(count=0, mean=0.0, second=0.0, var=0.0, kurtosis=None, minimum=0.0, maximum=0.0)
    else:
        x = finite.double()
        stats = _moments(x, float(x.min()), float(x.max()))
    raw = digest_of(tuple(values.shape), values.dtype, contents(values))
    return _replace(stats, nans=nans, infs=infs, digest=raw)


def _replace(stats: TensorStats, **changes: object) -> TensorStats:
    return dataclasses.replace(stats, **changes)  # type: ignore[arg-type]


def _moments(x: torch.Tensor, low: float, high: float) -> TensorStats:
    """The moments alone, of float64 values."""
    mean, second = float(x.mean()), float(torch.mean(x * x))
    centred = x - mean
    square = centred * centred
    var = float(square.mean())
    kurtosis = float(torch.mean(square * square)) / (var * var) if var > 0 and var * var > 0 else None
    return TensorStats(
        count=x.numel(),
        mean=mean,
        second=second,
        var=var,
        kurtosis=kurtosis,
        minimum=low,
        maximum=high,
        zeros=x.numel() - int(torch.count_nonzero(x)),
        distinct=distinct(x.flatten()),
    )


def distinct(x: torch.Tensor) -> int | None:
    """The number of distinct values when it is at most 3."""
    head = torch.unique(x[:256])
    if head.numel() > 3:
        return None
    found = head
    for _ in range(4):
        other = x[~torch.isin(x, found)]
        if other.numel() == 0:
            return int(found.numel())
        found = torch.unique(torch.cat((found, other[:256])))
        if found.numel() > 3:
            return None
    return None


def exact(values: torch.Tensor, groups: int) -> TensorStats:
    """Everything in float64; for small tensors, and for integers and float64 of any size."""
    shape = tuple(values.shape)
    x = values.double()
    stats = _moments(x, float(x.min()), float(x.max()))
    subnormal = 0
    if values.dtype.is_floating_point:
        magnitude = x.abs()
        subnormal = int(((magnitude > 0) & (magnitude < torch.finfo(values.dtype).tiny)).sum())
    changes: dict[str, object] = {
        "subnormals": subnormal,
        "chunks": {str(n): _chunks(x, n) for n in parts_of(shape, groups)},
        "histogram": histogram(x.flatten()[:: max(1, x.numel() // SAMPLE)], stats.minimum, stats.maximum),
        "digest": digest_of(shape, values.dtype, contents(values)),
    }
    if len(shape) >= 2:
        changes |= _exact_slices(x, values.dtype)
    elif shape:
        changes["zero_slices"] = tuple(int(i) for i in torch.nonzero(x == 0)[:8, 0])
    return _replace(stats, **changes)


def _exact_slices(x: torch.Tensor, dtype: torch.dtype) -> dict[str, object]:
    """What compares slices of a tensor of two or more axes."""
    matrix = x.flatten(1)
    rows = _units_of(matrix)
    low, high, residual = None, None, None
    if min(matrix.shape) >= 2:
        residual = gram_residual(matrix, dtype)
        low, high = singular_values(matrix)
        if high is None and dtype.is_floating_point:
            (high,) = spectral_norms([matrix])
    square = x.ndim == 2 and x.shape[0] == x.shape[1]
    return {
        "rows": rows,
        "columns": _units_of(x.transpose(0, 1).flatten(1)),
        "last": _units_of(x.transpose(0, -1).flatten(1)) if x.ndim >= 3 else None,
        "experts": _chunks(x, x.shape[0]) if is_stack(tuple(x.shape)) else (),
        "gram_residual": residual,
        "diagonal": float(torch.diagonal(x).mean()) if square else None,
        "singular_min": low,
        "spectral_norm": high,
        "zero_slices": tuple(int(i) for i in torch.nonzero(torch.all(matrix == 0, dim=1))[:8, 0]),
    }


def _units_of(matrix: torch.Tensor) -> Units:
    """``Units`` of the rows of a float64 matrix."""
    energies, totals = torch.sum(matrix * matrix, 1), torch.sum(matrix, 1)
    return units(energies, totals, row_duplicates(matrix, energies, totals))


def _chunks(x: torch.Tensor, n: int) -> tuple[Chunk, ...]:
    """Statistics of ``n`` equal parts of axis 0."""
    flat = x.reshape(n, -1)
    means, seconds = flat.mean(1).tolist(), torch.mean(flat * flat, 1).tolist()
    low, high = (v.tolist() for v in torch.aminmax(flat, dim=1))
    inner = (x.shape[0] // n, *x.shape[1:]) if x.shape[0] != n else tuple(x.shape[1:])
    residuals: list[float | None] = [None] * n
    if len(inner) >= 2 and min(inner[0], math.prod(inner[1:])) >= 2:
        residuals = [gram_residual(part.reshape(inner).flatten(1), torch.float32) for part in flat]
    return tuple(Chunk(*values) for values in zip(means, seconds, low, high, residuals, strict=True))


def histogram(x: torch.Tensor, low: float, high: float) -> Histogram | None:
    """Counts in equal bins from minimum to maximum."""
    if not low < high:
        return None
    counts = torch.histc(x, BINS, low, high)
    return Histogram(edges_of(low, high), tuple(int(c) for c in counts))


def edges_of(low: float, high: float) -> tuple[float, ...]:
    """The borders of the bins."""
    step = (high - low) / BINS
    return (*(low + step * i for i in range(BINS)), high)
