"""One pass over a large matrix in cache-sized blocks of rows."""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch

from initlint.probe.measure_units import Fingerprint, raw_bytes

#: Elements of a block: 768 KB of float32. Smaller blocks stay in the cache better but pay torch's 2 us for each of
#: five calls more often; on cores with 1 to 2 MB of second-level cache it is flat between half of this and twice this.
BLOCK = 3 << 16
#: Statistics by column need two more reductions for each block; beyond this they are not worth it.
COLUMN_LIMIT = 1 << 20
#: Energies of so many rows settle whether a random matrix could be orthogonal.
FEW = 8
#: Values that go into the signature as they are: sums do not tell rows apart whose values have changed places.
FIRST = 1 << 10


def boundaries(rows: int, columns: int, parts: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges of rows of at most ``BLOCK`` elements that never cross the border of a part, of nearly equal sizes."""
    cuts = {0, rows}
    for n in parts:
        cuts.update(rows * i // n for i in range(1, n))
    most = max(1, BLOCK // columns)
    blocks: list[tuple[int, int]] = []
    for start, stop in pairwise(sorted(cuts)):
        step = math.ceil((stop - start) / math.ceil((stop - start) / most))
        blocks.extend((first, min(first + step, stop)) for first in range(start, stop, step))
    return blocks


class Scan:
    """What one pass over each of several matrices of one shape leaves.

    The first kernel brings a block into the cache. ``mv`` does so, since it reads several rows at a time, which memory
    serves at 1.2 times the speed of one stream; the others then run at 30 to 60 GB/s. Kernels that are slower there
    than memory is (``aminmax``, ``var_mean``) are avoided, and what can wait until all matrices were read is left out:
    between two blocks a small operation finds its own code gone from the caches.

    Attributes:
        totals, energies: sums and sums of squares of the rows of each matrix.
        by_column: totals and energies of the columns of each matrix, or ``None`` for large ones.
        leads: the first columns of each matrix, where it is taller than wide, else ``None``.
    """

    def __init__(self, matrices: Sequence[torch.Tensor], blocks: list[tuple[int, int]], *, tall: bool = False) -> None:
        self.matrices, self.blocks = matrices, blocks
        self.rows, self.columns = rows, columns = matrices[0].shape
        count = len(matrices)
        self.totals, norms = torch.empty(count, rows), torch.empty(count, rows)
        self.leads = torch.empty(count, rows, min(FEW, columns)) if tall else None
        self._sizes = [stop - start for start, stop in blocks]
        self._ones = torch.ones(columns)
        self._lows: list[torch.Tensor] = []
        self._bits: list[torch.Tensor] = []
        self._words: list[torch.Tensor] = []
        self._prints = [Fingerprint() for _ in matrices]  # for matrices whose blocks do not begin at a word
        wanted = rows * columns <= COLUMN_LIMIT
        by_column = torch.empty(2, count, len(blocks), columns) if wanted else None
        self._scratch = torch.empty(max(self._sizes), columns) if wanted else torch.empty(0)
        for index in range(count):
            self._pass(index, norms[index], None if by_column is None else by_column[:, index])
        self.by_column = None if by_column is None else torch.sum(by_column, 2, dtype=torch.float64)
        self.raw_energies = norms if wanted else norms.square_()  # these are norms yet
        self.energies = self.raw_energies.double()
        shape = (count, len(blocks))
        self.lows: list[list[float]] = torch.stack(self._lows).view(shape).tolist()
        self.highs = self._highs(torch.stack(self._bits).view(shape))

    def _pass(self, index: int, norms: torch.Tensor, by_column: torch.Tensor | None) -> None:
        """Read every block of a matrix once."""
        matrix, sizes = self.matrices[index], self._sizes
        words, ones = _words(matrix, sizes), self._ones
        leads = None if self.leads is None else torch.split(self.leads[index], sizes)
        if by_column is not None:
            totals_by, energies_by = (part.unbind() for part in by_column)
        parts = zip(*(torch.split(tensor, sizes) for tensor in (matrix, self.totals[index], norms)), strict=True)
        for k, (block, total, norm) in enumerate(parts):
            exact = block if block.dtype == torch.float32 else block.float()
            torch.mv(exact, ones, out=total)
            if by_column is not None:
                torch.sum(exact, 0, out=totals_by[k])
                square = self._scratch[: sizes[k]]
                torch.mul(exact, exact, out=square)
                torch.sum(square, 1, out=norm)
                torch.sum(square, 0, out=energies_by[k])
            else:
                torch.linalg.vector_norm(exact, dim=1, out=norm)
            # Bit patterns of floats that are not negative are in the order of the floats, and the maximum of integers
            # takes half the time, for it need not look for NaN. (A NaN shows in the minimum or as the largest pattern.)
            self._bits.append(torch.amax(exact.view(torch.int32)))
            self._lows.append(torch.amin(exact))
            if words is None:
                self._prints[index].add(block)
            else:
                self._words.append(torch.sum(words[k]))
            if leads is not None:
                leads[k].copy_(block[:, :FEW])

    def _highs(self, bits: torch.Tensor) -> list[list[float]]:
        """The maximum of each block, from the largest bit pattern where there is a value that is not negative."""
        highs: list[list[float]] = bits.view(torch.float32).tolist()
        for index, k in torch.nonzero(bits < 0).tolist():
            start, stop = self.blocks[k]
            highs[index][k] = float(torch.amax(self.matrices[index][start:stop].float()))
        return highs

    def signatures(self) -> list[tuple[object, ...]]:
        """What identifies the contents: sums of bit patterns, each row's energy in their order, the first values."""
        words = torch.stack(self._words).view(len(self.matrices), -1) if self._words else torch.empty(0)
        firsts = torch.stack([matrix.reshape(-1)[:FIRST] for matrix in self.matrices])
        return [
            (
                raw_bytes(words[index]) if self._words else b"",
                *self._prints[index].value(),
                raw_bytes(self.raw_energies[index]),
                raw_bytes(firsts[index]),
            )
            for index in range(len(self.matrices))
        ]

    def range(self, index: int) -> tuple[float, float]:
        """Minimum and maximum of a matrix; not finite when any value is not."""
        lows, highs = self.lows[index], self.highs[index]
        finite = all(map(math.isfinite, lows)) and all(map(math.isfinite, highs))
        return (min(lows), max(highs)) if finite else (math.nan, math.nan)

    def parts(self, index: int, n: int) -> tuple[list[float], list[float]]:
        """The minimum and the maximum of each of n equal parts of axis 0."""
        borders = [bisect_left(self._starts, i * self.rows // n) for i in range(n + 1)]
        lows = [min(self.lows[index][a:b]) for a, b in pairwise(borders)]
        return lows, [max(self.highs[index][a:b]) for a, b in pairwise(borders)]

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [first for first, _ in self.blocks]


def _words(matrix: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, ...] | None:
    """The blocks as 64-bit words, where each begins at one."""
    if matrix.shape[1] * matrix.element_size() % 8 or matrix.storage_offset() * matrix.element_size() % 8:
        return None
    return torch.split(matrix.view(torch.int64), sizes)
