"""One pass over a large matrix in cache-sized blocks of rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from itertools import pairwise

import torch

from initlint.facts import Chunk
from initlint.probe.measure_matrix import block_gram_residual
from initlint.probe.measure_units import Fingerprint, raw_bytes

#: Elements of a block: 512 KB of float32. Smaller blocks stay in the cache better but pay torch's 3 us for each
#: call more often; on cores with 512 KB to 2 MB of second-level cache this is the flat minimum.
BLOCK = 1 << 17
#: Statistics by column need two more reductions for each block; beyond this they are not worth it.
COLUMN_LIMIT = 1 << 20
#: Energies of so many rows settle whether a random matrix could be orthogonal.
FEW = 8
#: Values that go into the signature as they are: sums do not tell rows apart whose values have changed places.
FIRST = 1 << 10


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
    """The per-row and per-block results of the pass.

    The first kernel brings a block into the cache. ``mv`` does so, since it reads several rows at a time, which memory
    serves at 1.2 times the speed of one stream; the others then run at 30 to 60 GB/s. Kernels that are slower there
    than memory is (``aminmax``, ``var_mean``) are avoided.
    """

    def __init__(self, matrix: torch.Tensor, blocks: list[tuple[int, int]]) -> None:
        rows, columns = matrix.shape
        self.rows, self.columns, self.blocks = rows, columns, blocks
        self.matrix = matrix
        wanted = matrix.numel() <= COLUMN_LIMIT
        self.column_energies = torch.zeros(columns, dtype=torch.float64) if wanted else None
        self.column_totals = torch.zeros(columns, dtype=torch.float64) if wanted else None
        self.words: list[torch.Tensor] = []  # of each block
        self.fingerprint = Fingerprint()
        totals, norms = torch.empty(rows), torch.empty(rows)
        lows, bits = self._pass(matrix, totals, norms, wanted)
        self.raw_energies = norms if wanted else norms.square_()  # these are norms yet
        self.energies, self.totals = self.raw_energies.double(), totals.double()
        self.least_energy = float(self.energies.min())
        self.lows = torch.stack(lows).tolist()
        self.highs = self._highs(torch.stack(bits))

    def _pass(
        self, matrix: torch.Tensor, totals: torch.Tensor, norms: torch.Tensor, wanted: bool
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Read every block once; the minimum and the largest bit pattern of each come back."""
        sizes = [stop - start for start, stop in self.blocks]
        ones, words = torch.ones(self.columns), _words(matrix, sizes)
        scratch = torch.empty(max(sizes), self.columns) if wanted else torch.empty(0)
        lows, bits = [], []
        for index, (block, total, norm) in enumerate(
            zip(*(torch.split(tensor, sizes) for tensor in (matrix, totals, norms)), strict=True)
        ):
            exact = block if block.dtype == torch.float32 else block.float()
            torch.mv(exact, ones, out=total)
            if self.column_energies is None or self.column_totals is None:
                torch.linalg.vector_norm(exact, dim=1, out=norm)
            else:
                self.column_totals += torch.sum(exact, 0)
                square = scratch[: sizes[index]]
                torch.mul(exact, exact, out=square)
                torch.sum(square, 1, out=norm)
                self.column_energies += torch.sum(square, 0)
            # Bit patterns of floats that are not negative are in the order of the floats, and the maximum of integers
            # takes half the time, for it need not look for NaN. (A NaN shows in the minimum or as the largest pattern.)
            bits.append(torch.amax(exact.view(torch.int32)))
            lows.append(torch.amin(exact))
            if words is None:
                self.fingerprint.add(block)
            else:
                self.words.append(torch.sum(words[index]))
        return lows, bits

    def _highs(self, bits: torch.Tensor) -> list[float]:
        """The maximum of each block, from the largest bit pattern where there is a value that is not negative."""
        highs: list[float] = bits.view(torch.float32).tolist()
        for index in torch.nonzero(bits < 0)[:, 0].tolist():
            start, stop = self.blocks[index]
            highs[index] = float(torch.amax(self.matrix[start:stop].float()))
        return highs

    def signature(self) -> tuple[object, ...]:
        """What identifies the contents: sums of bit patterns, each row's energy in their order, the first values."""
        words = raw_bytes(torch.stack(self.words)) if self.words else b""
        first = self.matrix.reshape(-1)[:FIRST]
        return (words, *self.fingerprint.value(), raw_bytes(self.raw_energies), raw_bytes(first.contiguous()))

    def range(self) -> tuple[float, float]:
        """Minimum and maximum; not finite when any value is not."""
        low, high = min(self.lows), max(self.highs)
        finite = all(map(math.isfinite, self.lows)) and all(map(math.isfinite, self.highs))
        return (low, high) if finite else (math.nan, math.nan)

    def few(self, first: int, stop: int) -> list[float]:
        """Energies of the first rows of a part, or of the first columns where it is taller than wide."""
        if stop - first <= self.columns:
            return self.raw_energies[first : min(stop, first + FEW)].tolist()
        return self._lead[first:stop].sum(0).tolist()

    @functools.cached_property
    def _lead(self) -> torch.Tensor:
        """Squares of the first columns."""
        return self.matrix[:, :FEW].float().square()

    def chunks(self, n: int, matrix: torch.Tensor, inner: tuple[int, ...] | None = None) -> tuple[Chunk, ...]:
        """Statistics of ``n`` equal parts of axis 0; ``inner`` is the shape of one expert."""
        step = self.rows // n
        count = step * self.columns
        means = self.totals.view(n, -1).sum(1).tolist()
        seconds = self.energies.view(n, -1).sum(1).tolist()
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
                    gram_residual=block_gram_residual(
                        part,
                        self.energies[first:stop] if inner is None else None,
                        few=self.few(first, stop) if inner is None else None,
                    ),
                )
            )
        return tuple(found)


def _words(matrix: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, ...] | None:
    """The blocks as 64-bit words, where each begins at one."""
    if matrix.shape[1] * matrix.element_size() % 8 or matrix.storage_offset() * matrix.element_size() % 8:
        return None
    return torch.split(matrix.view(torch.int64), sizes)
