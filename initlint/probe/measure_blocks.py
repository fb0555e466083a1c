"""Statistics of large floating-point tensors of one shape.

Each is read in one pass (``measure_scan``). What the passes leave, a few numbers for each row, is worked out for all
tensors at once: between two passes a small operation finds its own code gone from the caches and takes 10 us and more,
and a single matrix would need a hundred of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from initlint.facts import Chunk, Histogram, TensorStats, Units
from initlint.probe import measure_exact
from initlint.probe.measure_exact import BINS, SAMPLE, distinct, edges_of, is_stack, parts_of
from initlint.probe.measure_matrix import block_gram_residual, spectral_norms, unequal
from initlint.probe.measure_scan import FEW, Scan, boundaries
from initlint.probe.measure_units import digest_of, may_repeat, row_duplicates, units_of_all
from initlint.records import dataclass

#: Neighbours that are sampled together: 64 bytes of float32.
RUN = 16
#: Up to this many elements zeros are counted always, not only where the sample has one: 10 us.
COUNTED = 1 << 16


@dataclass(frozen=True, slots=True)
class Layout:
    """How tensors of a shape are read: as matrices of so many rows and columns."""

    shape: tuple[int, ...]
    rows: int
    columns: int
    natural: bool  # the rows are slices of axis 0; a single long row is cut anyhow
    parts: tuple[int, ...]
    experts: int

    @classmethod
    def of(cls, shape: tuple[int, ...], groups: int) -> Layout:
        """The layout for a shape of more than one element."""
        count = math.prod(shape)
        rows = shape[0] if len(shape) >= 2 else 1
        if rows == 1:  # one long row: any equal cut will do
            rows = count // math.gcd(count, 1 << 10)
        natural = len(shape) >= 2 and rows == shape[0]
        experts = shape[0] if natural and is_stack(shape) else 0
        return cls(shape, rows, count // rows, natural, parts_of(shape, groups) if natural else (), experts)

    def scan(self, batch: Sequence[torch.Tensor]) -> Scan:
        """Read the tensors."""
        cuts = (*self.parts, self.experts) if self.experts else self.parts
        matrices = [values.reshape(self.rows, self.columns) for values in batch]
        tall = self.natural and self.rows > self.columns
        return Scan(matrices, boundaries(self.rows, self.columns, cuts), tall=tall)


def measure_blocks(batch: Sequence[torch.Tensor], groups: int) -> list[TensorStats]:
    """One pass over each of the tensors, which have one shape and type."""
    layout = Layout.of(tuple(batch[0].shape), groups)
    scan = layout.scan(batch)
    found = [_special(values, scan.range(index), groups) for index, values in enumerate(batch)]
    usual = [index for index, stats in enumerate(found) if stats is None]
    if len(usual) < len(batch):  # their sums are of no use, and would trouble those of the others
        scan = layout.scan([batch[index] for index in usual]) if usual else scan
    if usual:
        for index, stats in zip(usual, _usual([batch[index] for index in usual], scan, layout), strict=True):
            found[index] = stats
    return [stats for stats in found if stats is not None]


def _special(values: torch.Tensor, ends: tuple[float, float], groups: int) -> TensorStats | None:
    """The statistics where values are not finite or all equal, else ``None``."""
    if not all(map(math.isfinite, ends)):
        return measure_exact.non_finite(values)
    return measure_exact.constant(values, ends[0], groups) if ends[0] == ends[1] else None


def _usual(batch: list[torch.Tensor], scan: Scan, layout: Layout) -> list[TensorStats]:
    duplicates = [0] * len(batch)
    if layout.natural:
        firsts = torch.stack([matrix[:, 0] for matrix in scan.matrices]).double() + 0.0  # -0.0 and 0.0 are equal
        for index in may_repeat(scan.energies, firsts):
            duplicates[index] = row_duplicates(scan.matrices[index], scan.energies[index], firsts[index])
    rows = units_of_all(scan.energies, scan.totals.double(), duplicates)
    slices = _slices(batch, scan, layout, rows) if layout.natural else [{} for _ in batch]
    return _moments(batch, scan, layout, rows, slices)


def _moments(
    batch: list[torch.Tensor], scan: Scan, layout: Layout, rows: list[Units], slices: list[dict[str, Any]]
) -> list[TensorStats]:
    """Moments: exact to second order, fourth order and zeros from a sample."""
    count, kind = batch[0].numel(), batch[0].dtype
    raw = torch.stack([_sample(values.reshape(-1)) for values in batch]).float()
    sample = raw.double()
    square = (sample - sample.mean(1, keepdim=True)).square_()
    least = raw.abs().amin(1).double()
    table = torch.stack((square.mean(1), square.square().mean(1), least), 1).tolist()
    heads = raw[:, :16].tolist()
    ranges = [scan.range(index) for index in range(len(batch))]
    histograms, signatures = _histograms(raw, ranges), scan.signatures()
    found = []
    for i, (var, fourth, lowest) in enumerate(table):
        flat = batch[i].reshape(-1)
        subnormals, tiny = 0, torch.finfo(kind).tiny
        if lowest < tiny:
            subnormals = int(((sample[i] != 0) & (sample[i].abs() < tiny)).sum()) * count // sample.shape[1]
        mean, second = (total * layout.rows / count for total in (rows[i].total_mean, rows[i].energy_mean))
        # whole rows of zeros are known exactly; a stray zero elsewhere is not counted
        counted = lowest == 0 or count <= COUNTED
        zeros = count - int(torch.count_nonzero(flat)) if counted else rows[i].zeros * layout.columns
        # Most tensors have more than three values among their first few.
        few = len(set(heads[i])) <= 3 and distinct(sample[i]) is not None
        found.append(
            TensorStats(
                count=count,
                mean=mean,
                second=second,
                var=max(0.0, second - mean * mean),
                kurtosis=fourth / (var * var) if var * var > 0 else None,
                minimum=ranges[i][0],
                maximum=ranges[i][1],
                zeros=zeros,
                subnormals=subnormals,
                distinct=distinct(flat) if few else None,
                histogram=histograms[i],
                digest=digest_of(layout.shape, kind, signatures[i]),
                **slices[i],
            )
        )
    return found


def _sample(flat: torch.Tensor) -> torch.Tensor:
    """Evenly strided runs of ``RUN`` values, a line of the cache each, for memory is read by the line.

    The stride is an odd number of lines, which shares no factor with the usual numbers of columns.
    """
    step = flat.numel() // SAMPLE
    if step <= RUN:  # all of it is read anyhow
        return flat[:: max(1, step)]
    return flat[: flat.numel() // RUN * RUN].view(-1, RUN)[:: step | 1].reshape(-1)


def _histograms(sample: torch.Tensor, ranges: list[tuple[float, float]]) -> list[Histogram]:
    """Counts in equal bins from each row's minimum to its maximum."""
    ends = torch.tensor(ranges, dtype=torch.float64)
    factor = (BINS / (ends[:, 1:] - ends[:, :1])).float()
    bins = ((sample - ends[:, :1].float()) * factor).int().clamp_(0, BINS - 1)
    bins += torch.arange(0, BINS * len(ranges), BINS, dtype=torch.int32)[:, None]
    counts = torch.bincount(bins.view(-1), minlength=BINS * len(ranges)).view(-1, BINS).tolist()
    return [Histogram(edges_of(*ends), tuple(line)) for ends, line in zip(ranges, counts, strict=True)]


def _slices(batch: list[torch.Tensor], scan: Scan, layout: Layout, rows: list[Units]) -> list[dict[str, Any]]:
    """What compares slices, for tensors of two or more axes."""
    shape, by_column = layout.shape, scan.by_column
    nothing: list[Any] = [None] * len(batch)
    columns = nothing if by_column is None else _axis_units(batch, 1, by_column)
    last = nothing if by_column is None or len(shape) < 3 else _axis_units(batch, len(shape) - 1, by_column)
    diagonals = nothing
    if len(shape) == 2 and shape[0] == shape[1]:
        diagonals = torch.stack([torch.diagonal(values) for values in batch]).double().mean(1).tolist()
    few = _leads(scan, 1)
    norms = spectral_norms(scan.matrices)
    chunks = _chunks(scan, layout)
    experts = _experts(scan, layout) if layout.experts else [()] * len(batch)
    return [
        {
            "rows": rows[i],
            "columns": columns[i],
            "last": last[i],
            "gram_residual": block_gram_residual(
                scan.matrices[i], scan.energies[i], None if by_column is None else by_column[1, i], few=few[i][0]
            ),
            "diagonal": diagonals[i],
            "spectral_norm": norms[i],
            "zero_slices": tuple(torch.nonzero(scan.energies[i] == 0)[:8, 0].tolist()) if rows[i].zeros else (),
            "chunks": chunks[i],
            "experts": experts[i],
        }
        for i in range(len(batch))
    ]


def _axis_units(batch: list[torch.Tensor], axis: int, sums: torch.Tensor) -> list[Units]:
    """``Units`` along a later axis, folded from the sums by column: totals and energies of each tensor."""
    shape = batch[0].shape
    other = [i + 1 for i in range(1, len(shape)) if i != axis]
    folded = sums.reshape(2, len(batch), *shape[1:])
    totals, energies = folded.sum(other) if other else folded
    # Equal slices agree on every part of them: their first and last elements rule duplicates out, exactly.
    first, end = (
        torch.stack([values[tuple(slice(None) if i == axis else at for i in range(len(shape)))] for values in batch])
        for at in (0, -1)
    )
    duplicates = [0] * len(batch)
    for index in may_repeat(first.double() + 0.0, end.double() + 0.0):
        full = batch[index].transpose(0, axis).flatten(1)
        duplicates[index] = row_duplicates(full, torch.sum(full * full, 1), full.sum(1))
    return units_of_all(energies, totals, duplicates)


def _leads(scan: Scan, n: int) -> list[list[list[float]]]:
    """For each tensor and each of ``n`` parts of axis 0, the energies of its first rows, or of its first columns where
    it is taller than wide."""
    step = scan.rows // n
    if step <= scan.columns or scan.leads is None:
        return scan.raw_energies.view(-1, n, step)[:, :, :FEW].tolist()
    squares = scan.leads.square().view(len(scan.matrices), n, step, -1)
    return squares.sum(2).tolist()


def _chunks(scan: Scan, layout: Layout) -> list[dict[str, tuple[Chunk, ...]]]:
    """Statistics of equal parts of axis 0, for each of the numbers of parts."""
    found: list[dict[str, tuple[Chunk, ...]]] = [{} for _ in scan.matrices]
    for n in layout.parts:
        step, moments, few = layout.rows // n, _part_moments(scan, n), _leads(scan, n)
        for i in range(len(found)):
            residuals = [_part_residual(scan, i, k * step, (k + 1) * step, few[i][k]) for k in range(n)]
            found[i][str(n)] = tuple(map(Chunk, *moments[i], *scan.parts(i, n), residuals))
    return found


def _part_moments(scan: Scan, n: int) -> list[list[list[float]]]:
    """For each tensor the means and the second moments of its parts."""
    sums = torch.stack((scan.totals.double(), scan.energies), 1).view(len(scan.matrices), 2, n, -1).sum(3)
    return (sums / (scan.rows // n * scan.columns)).tolist()


def _part_residual(scan: Scan, index: int, first: int, stop: int, few: list[float]) -> float | None:
    if min(stop - first, scan.columns) < 2:
        return None
    part = scan.matrices[index][first:stop]
    return unequal(few) or block_gram_residual(part, scan.energies[index, first:stop], few=few)


def _experts(scan: Scan, layout: Layout) -> list[tuple[Chunk, ...]]:
    """Statistics of each slice of a stack."""
    moments = _part_moments(scan, layout.experts)
    inner = layout.shape[1:]
    return [
        tuple(
            map(
                Chunk,
                *moments[i],
                *scan.parts(i, layout.experts),
                [block_gram_residual(part.reshape(inner), None) for part in matrix],
            )
        )
        for i, matrix in enumerate(scan.matrices)
    ]
