"""One pass over a large matrix in cache-sized blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch

from initlint.facts import Chunk
from initlint.probe.measure_matrix import block_gram_residual
from initlint.probe.measure_units import Fingerprint, raw_bytes

#: Elements of a block: 1 MB of float32. Smaller blocks stay in the cache better but pay torch's 5 us for each
#: call more often; on cores with 512 KB to 2 MB of second-level cache this is the flat minimum.
BLOCK = 1 << 18
#: Statistics by column need two more reductions for each block; beyond this they are not worth it.
COLUMN_LIMIT = 1 << 20


def boundaries(rows: int, columns: int, parts: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges of rows of at most ``BLOCK`` elements that never cross the border of a part."""
    cuts = {0, rows}
    for n in parts:
        cuts.update(rows * i // n for i in range(1, n))
    ordered, step = sorted(cuts), max(1, BLOCK // columns)
    blocks: list[tuple[int, int]] = []
    for start, stop in pairwise(ordered):
        blocks.extend((first, min(first + step, stop)) for first in range(start, stop, step))
    return blocks


class Scan:
    """The per-row and per-block results of the pass."""

    def __init__(self, matrix: torch.Tensor, blocks: list[tuple[int, int]]) -> None:
        rows, columns = matrix.shape
        self.rows, self.columns, self.blocks = rows, columns, blocks
        self.energies = torch.empty(rows)
        self.totals = torch.empty(rows)
        wanted = matrix.numel() <= COLUMN_LIMIT
        self.column_energies = torch.zeros(columns, dtype=torch.float64) if wanted else None
        self.column_totals = torch.zeros(columns, dtype=torch.float64) if wanted else None
        self.extremes: list[torch.Tensor] = []
        self.fingerprint = Fingerprint(order=False)
        scratch = torch.empty(max(stop - start for start, stop in blocks), columns) if wanted else torch.empty(0)
        for start, stop in blocks:
            self._block(matrix[start:stop], start, stop, scratch[: stop - start])
        if not wanted:
            self.energies.square_()  # these are norms yet
        low_high = torch.stack(self.extremes).view(-1, 2)
        self.lows, self.highs = low_high[:, 0].tolist(), low_high[:, 1].tolist()

    def _block(self, block: torch.Tensor, start: int, stop: int, scratch: torch.Tensor) -> None:
        self.fingerprint.add(block)
        if block.dtype != torch.float32:
            block = block.float()
        torch.sum(block, 1, out=self.totals[start:stop])
        self.extremes.extend(torch.aminmax(block))
        if self.column_energies is None or self.column_totals is None:
            torch.linalg.vector_norm(block, dim=1, out=self.energies[start:stop])
            return
        self.column_totals += torch.sum(block, 0)
        torch.mul(block, block, out=scratch)
        torch.sum(scratch, 1, out=self.energies[start:stop])
        self.column_energies += torch.sum(scratch, 0)

    def signature(self) -> tuple[object, ...]:
        """What identifies the contents: the stripes, and each row's sums in their order."""
        return (*self.fingerprint.value(), raw_bytes(self.energies), raw_bytes(self.totals))

    def range(self) -> tuple[float, float]:
        """Minimum and maximum; not finite when any value is not."""
        low, high = min(self.lows), max(self.highs)
        finite = all(map(math.isfinite, self.lows)) and all(map(math.isfinite, self.highs))
        return (low, high) if finite else (math.nan, math.nan)

    def chunks(self, n: int, matrix: torch.Tensor, inner: tuple[int, ...] | None = None) -> tuple[Chunk, ...]:
        """Statistics of ``n`` equal parts of axis 0; ``inner`` is the shape of one expert."""
        step = self.rows // n
        count = step * self.columns
        means = self.totals.double().view(n, -1).sum(1).tolist()
        seconds = self.energies.double().view(n, -1).sum(1).tolist()
        found = []
        for i in range(n):
            first, stop = i * step, (i + 1) * step
            inside = [k for k, (a, _) in enumerate(self.blocks) if first <= a < stop]
            part = matrix[first:stop] if inner is None else matrix[first:stop].reshape(inner)
            found.append(
                Chunk(
                    mean=means[i] / count,
                    second=seconds[i] / count,
                    minimum=min(self.lows[k] for k in inside),
                    maximum=max(self.highs[k] for k in inside),
                    gram_residual=block_gram_residual(part, self.energies[first:stop] if inner is None else None),
                )
            )
        return tuple(found)
