"""Statistics of a tensor's actual values, from one pass over its memory in cache-sized blocks.

``measure`` returns ``TensorStats`` (see ``initlint.facts``). Small tensors are measured exactly in
float64. Large ones are read once: every block is brought into the cache by its first reduction and
read from there by the others, and the per-row results are combined in float64. What would need
further passes (kurtosis, histogram, subnormals) then comes from an evenly strided sample; mean,
second moment, extremes, rows, duplicates and digest always from every element.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from initlint.facts import Chunk, Histogram, TensorStats, Units
from initlint.probe.measure_matrix import block_gram_residual, gram_residual, singular_values
from initlint.probe.measure_scan import Scan, boundaries
from initlint.probe.measure_units import digest_of, row_duplicates, units

#: Up to this many elements everything is computed exactly: float64 copies stay below 1 MB.
EXACT_LIMIT = 1 << 16
#: Elements of the strided sample: the standard error of a kurtosis from it is sqrt(24/n) = 0.05.
SAMPLE = 1 << 13
#: Bins of a histogram; enough to tell normal, uniform and truncated apart by eye.
BINS = 24
#: Axis 0 is cut into so many equal parts when it divides: packed projections (2, 3) and gates (3, 4).
PARTS = (2, 3, 4)
#: A leading axis up to this is taken as a stack of experts, heads or relations.
EXPERTS = 64


def measure(tensor: torch.Tensor, groups: int = 1) -> TensorStats | None:
    """Statistics of ``tensor``; ``None`` when it holds no values (meta, lazy, quantised).

    Args:
        tensor: any real or complex tensor; complex values are measured as pairs of reals.
        groups: groups of the convolution that uses it, to cut axis 0 into as many parts.
    """
    values = _readable(tensor)
    if values is None:
        return None
    shape = tuple(values.shape)
    if values.numel() == 0:
        return TensorStats(count=0, mean=0.0, second=0.0, var=0.0, kurtosis=None, minimum=0.0, maximum=0.0)
    if values.numel() > EXACT_LIMIT and values.dtype in _BLOCKWISE:
        return _measure_blocks(values, groups)
    low, high = (float(v) for v in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        return _measure_non_finite(values)
    if low == high:
        return _constant(values, low, groups)
    return _measure_exact(values, shape, groups)


_BLOCKWISE = (torch.float32, torch.float16, torch.bfloat16)


def _readable(tensor: torch.Tensor) -> torch.Tensor | None:
    """The values as a dense contiguous real tensor on the CPU, without a copy where possible."""
    if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)) or tensor.is_meta or tensor.is_quantized:
        return None
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


def _constant(values: torch.Tensor, value: float, groups: int) -> TensorStats:
    """All elements are equal: nothing else has to be read."""
    shape, count = tuple(values.shape), values.numel()
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
        subnormals=count if _is_subnormal(value, values.dtype) else 0,
        distinct=1,
        rows=rows,
        columns=columns,
        last=last,
        chunks={str(n): (part,) * n for n in _parts(shape, groups)},
        experts=(part,) * shape[0] if _is_stack(shape) else (),
        gram_residual=1.0 if len(shape) >= 2 and min(shape[0], count // shape[0]) >= 2 else None,
        diagonal=value if square else None,
        zero_slices=tuple(range(min(8, shape[0]))) if value == 0 and shape else (),
        histogram=None,
        digest=digest_of(values, ("constant", value)),
    )


def _constant_units(count: int, length: int, value: float) -> Units:
    energy, total = length * value * value, length * value
    return Units(count, count - 1, count if value == 0 else 0, energy, energy, energy, 0.0, total, total * total)


def _is_subnormal(value: float, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and value != 0 and abs(value) < torch.finfo(dtype).tiny


def _parts(shape: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """The numbers of equal parts that axis 0 is cut into."""
    if not shape:
        return ()
    wanted = (*PARTS, groups) if groups > 1 else PARTS
    return tuple(sorted({n for n in wanted if shape[0] % n == 0 and shape[0] > n}))


def _is_stack(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and 2 <= shape[0] <= EXPERTS and shape[1] >= 2 and shape[2] >= 2


def _measure_non_finite(values: torch.Tensor) -> TensorStats:
    """Moments of the finite values; slices are not compared, for they hold non-finite values."""
    nans, infs = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    finite = values[torch.isfinite(values)]
    if finite.numel() == 0:
        stats = TensorStats(count=0, mean=0.0, second=0.0, var=0.0, kurtosis=None, minimum=0.0, maximum=0.0)
    else:
        x = finite.double()
        stats = _moments(x, float(x.min()), float(x.max()))
    raw = digest_of(values, ())
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
        distinct=_distinct(x.flatten()),
    )


def _distinct(x: torch.Tensor) -> int | None:
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


def _measure_exact(values: torch.Tensor, shape: tuple[int, ...], groups: int) -> TensorStats:
    """Everything in float64; for small tensors, and for integers and float64 of any size."""
    x = values.double()
    stats = _moments(x, float(x.min()), float(x.max()))
    subnormal = 0
    if values.dtype.is_floating_point:
        magnitude = x.abs()
        subnormal = int(((magnitude > 0) & (magnitude < torch.finfo(values.dtype).tiny)).sum())
    changes: dict[str, object] = {
        "subnormals": subnormal,
        "chunks": {str(n): _chunks(x, n) for n in _parts(shape, groups)},
        "histogram": _histogram(x.flatten()[:: max(1, x.numel() // SAMPLE)], stats.minimum, stats.maximum),
        "digest": digest_of(values, ()),
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
    square = x.ndim == 2 and x.shape[0] == x.shape[1]
    return {
        "rows": rows,
        "columns": _units_of(x.transpose(0, 1).flatten(1)),
        "last": _units_of(x.transpose(0, -1).flatten(1)) if x.ndim >= 3 else None,
        "experts": _chunks(x, x.shape[0]) if _is_stack(tuple(x.shape)) else (),
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


def _histogram(x: torch.Tensor, low: float, high: float) -> Histogram | None:
    """Counts in equal bins from minimum to maximum."""
    if not low < high:
        return None
    counts = torch.histc(x, BINS, low, high)
    step = (high - low) / BINS
    edges = (*(low + step * i for i in range(BINS)), high)
    return Histogram(edges, tuple(int(c) for c in counts))


def _measure_blocks(values: torch.Tensor, groups: int) -> TensorStats:
    """One pass over a large floating-point tensor."""
    shape = tuple(values.shape)
    matrix = values.reshape(1, -1) if len(shape) < 2 else values.reshape(shape[0], -1)
    if matrix.shape[0] == 1:  # one long row: any equal cut will do
        width = math.gcd(matrix.shape[1], 1 << 10)
        matrix = matrix.reshape(-1, width)
    rows, columns = matrix.shape
    natural = len(shape) >= 2 and rows == shape[0]
    parts = _parts(shape, groups) if natural else ()
    experts = shape[0] if natural and _is_stack(shape) else 0
    scan = Scan(matrix, boundaries(rows, columns, (*parts, experts) if experts else parts))
    low, high = scan.range()
    if not (math.isfinite(low) and math.isfinite(high)):
        return _measure_non_finite(values)
    if low == high:
        return _constant(values, low, groups)
    stats = _large_moments(values, scan, low, high)
    changes: dict[str, object] = {"digest": digest_of(values, scan.signature())}
    if natural:
        changes |= _large_slices(values, matrix, scan)
        changes["chunks"] = {str(n): scan.chunks(n, matrix) for n in parts}
        changes["experts"] = scan.chunks(experts, matrix, shape[1:]) if experts else ()
    return _replace(stats, **changes)


def _large_moments(values: torch.Tensor, scan: Scan, low: float, high: float) -> TensorStats:
    """Moments of a large tensor: exact to second order, fourth order and zeros from a sample."""
    count = values.numel()
    mean, second = float(scan.totals.sum()) / count, float(scan.energies.sum()) / count
    flat = values.reshape(-1)
    sample = flat[:: max(1, count // SAMPLE)].double()
    centred = sample - sample.mean()
    square = centred * centred
    var = float(square.mean())
    tiny = torch.finfo(values.dtype).tiny
    least = float(sample.abs().min())
    subnormals = int(((sample != 0) & (sample.abs() < tiny)).sum()) * count // sample.numel() if least < tiny else 0
    if least == 0:
        zeros = count - int(torch.count_nonzero(flat))
    else:  # whole rows of zeros are known exactly; a stray zero elsewhere is not counted
        zeros = int((scan.energies == 0).sum()) * scan.columns if scan.least_energy == 0 else 0
    # Most tensors have more than three values among their first few.
    few = len(set(sample[:16].tolist())) <= 3 and _distinct(sample) is not None
    return TensorStats(
        count=count,
        mean=mean,
        second=second,
        var=max(0.0, second - mean * mean),
        kurtosis=float(torch.dot(square, square)) / sample.numel() / (var * var) if var * var > 0 else None,
        minimum=low,
        maximum=high,
        zeros=zeros,
        subnormals=subnormals,
        distinct=_distinct(flat) if few else None,
        histogram=_histogram(sample, low, high),
    )


def _large_slices(values: torch.Tensor, matrix: torch.Tensor, scan: Scan) -> dict[str, object]:
    """What compares slices of a large tensor of two or more axes."""
    energies, totals = scan.energies, scan.totals
    # Plus zero, for -0.0 and 0.0 are equal.
    rows = units(energies, totals, row_duplicates(matrix, energies, matrix[:, 0].double() + 0.0))
    columns = last = None
    if scan.column_energies is not None and scan.column_totals is not None:
        columns = _axis_units(values, 1, scan)
        last = _axis_units(values, values.ndim - 1, scan) if values.ndim >= 3 else None
    square = values.ndim == 2 and values.shape[0] == values.shape[1]
    return {
        "rows": rows,
        "columns": columns,
        "last": last,
        "gram_residual": block_gram_residual(matrix, energies, scan.column_energies, few=scan.few(0, scan.rows)),
        "diagonal": float(torch.diagonal(values).double().mean()) if square else None,
        "zero_slices": tuple(torch.nonzero(energies == 0)[:8, 0].tolist()) if scan.least_energy == 0 else (),
    }


def _axis_units(values: torch.Tensor, axis: int, scan: Scan) -> Units:
    """``Units`` along a later axis, folded from the sums by column."""
    assert scan.column_energies is not None
    assert scan.column_totals is not None
    inner = tuple(values.shape[1:])
    other = [i for i in range(len(inner)) if i != axis - 1]
    energies, totals = scan.column_energies.reshape(inner), scan.column_totals.reshape(inner)
    if other:
        energies, totals = energies.sum(other), totals.sum(other)
    # Equal slices agree on every part of them: a few elements rule duplicates out, exactly.
    few = values[tuple(slice(None) if i == axis else slice(0, 8) for i in range(values.ndim))]
    few = few.transpose(0, axis).flatten(1).double()
    candidates = row_duplicates(few, torch.sum(few * few, 1), few.sum(1))
    if candidates:
        full = values.transpose(0, axis).flatten(1)
        candidates = row_duplicates(full, torch.sum(full * full, 1), full.sum(1))
    return units(energies, totals, candidates)
