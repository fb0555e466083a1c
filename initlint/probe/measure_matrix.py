"""Orthogonality and singular values of weight matrices, only where they can matter and are cheap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

#: A singular value decomposition of 64 x 64 takes 0.4 ms, of 128 x 128 2.7 ms, of 256 x 256 7 ms; models have hundreds.
SVD_LIMIT = 64
#: Larger matrices are iterated on only where rows have much in common. Of so many rows all pairs are compared, which
#: takes 1 to 2 % of the pass over GPT-2. Independent rows of n entries have a mean squared cosine of 1/n, which 120
#: pairs exceed 1.6 times in one of 20,000 matrices. A direction that holds a share f of the energy adds f^2: one whose
#: singular value is three times that of independent entries (36/n of the energy of n x n) is seen nearly always up to
#: n = 1,000, one of four times up to n = 2,000.
PAIRED, IN_COMMON = 16, 1.6
#: The most elements of a matrix that is iterated on, 2048 x 2048 or the 1024 x 4096 of a transformer: five rounds are
#: ten reads, which take no longer than drawing the values did.
POWER_LIMIT = 1 << 22
#: Each round divides what is left of other directions by the squared ratio of the singular values: of a matrix that
#: matters by 9, and the first vector, a row, has at least 1/30 of its energy in the wanted direction.
ROUNDS = 5
#: Multiply-adds spent on one Gram matrix; 10^9 take about 30 ms on one core.
GRAM_BUDGET = 1e9
#: Rows of an orthogonal matrix have equal energies up to rounding; independent draws differ by
#: sqrt(2/n), 2 % for n = 4096. A larger spread than this rules orthogonality out.
ENERGY_SPREAD = 5e-3
#: Products of so many rows are looked at first.
LEAD = 32
#: Even bfloat16 rounding leaves less in the products of orthogonal rows.
ROUNDING = 1e-2
#: Elements of a block that stays in the cache.
BLOCK = 1 << 17


def gram_residual(matrix: torch.Tensor, dtype: torch.dtype) -> float | None:
    """``|W W^T / g^2 - I|_max`` of a matrix or, when taller than wide, of its transpose.

    When the energies of the rows already differ, the largest relative difference is returned
    instead: it is a lower bound, and says "not orthogonal" as well. ``None`` for zero matrices.
    """
    del dtype
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    energies = torch.sum(wide * wide, 1)
    return _residual(wide, energies)


def block_gram_residual(
    matrix: torch.Tensor,
    energies: torch.Tensor | None,
    column_energies: torch.Tensor | None = None,
    *,
    few: Sequence[float] | None = None,
) -> float | None:
    """As ``gram_residual`` for a large matrix whose row (and column) energies are known already.

    Args:
        few: energies of the first rows, or of the first columns of a matrix taller than wide, when they are known.
    """
    matrix = matrix.flatten(1)
    rows, columns = matrix.shape
    if min(rows, columns) < 2:
        return None
    if few is None and energies is not None and rows <= columns:
        few = energies[:8].tolist()
    if few and (apart := unequal(few)):  # the first rows of a random matrix settle it
        return apart
    if rows <= columns:
        known = energies
    elif column_energies is not None:
        known, matrix = column_energies, matrix.t()
    else:  # of many rows all columns have nearly the same energy, orthogonal or not: their products settle it
        known, lead = None, matrix[:, :LEAD].float().t()
        if energies is not None and (mean := float(energies.double().sum()) / columns) > 0:
            apart = _deviation(lead, lead, 0, mean)
            if apart > ROUNDING:
                return apart
        matrix = matrix.t()
    if known is None or known.numel() != matrix.shape[0]:
        first = torch.linalg.vector_norm(matrix[:8].float(), dim=1).square()
        apart = spread(first)
        if apart > 2 * ENERGY_SPREAD:
            return apart
        known = _row_energies(matrix)
    return _residual(matrix, known)


def unequal(few: Sequence[float]) -> float:
    """How far apart the energies of some of the rows are, where that is too far for an orthogonal matrix; else 0."""
    mean = sum(few) / len(few)
    apart = max(max(few) / mean - 1, 1 - min(few) / mean) if mean > 0 else 0.0
    return apart if apart > 2 * ENERGY_SPREAD else 0.0  # twice, for these are not all of the rows


def _row_energies(matrix: torch.Tensor) -> torch.Tensor:
    """Sums of squares; a transposed matrix is read in the order of its memory (a norm would take ten times as long)."""
    if matrix.stride(1) == 1:
        norms: torch.Tensor = torch.linalg.vector_norm(matrix.float(), dim=1)
        return norms.square()
    energies = torch.zeros(matrix.shape[0], dtype=torch.float64)
    for block in torch.split(matrix.t(), max(1, BLOCK // matrix.shape[0])):
        energies += block.float().square().sum(0)
    return energies


def spread(energies: torch.Tensor) -> float:
    """Largest relative distance of an energy from their mean."""
    mean = float(energies.double().mean())
    return float((energies.double() / mean - 1).abs().max()) if mean > 0 else 1.0


def _residual(wide: torch.Tensor, energies: torch.Tensor) -> float | None:
    mean = float(energies.double().mean())
    if not mean > 0:
        return None
    unequal = spread(energies)
    if unequal > ENERGY_SPREAD:
        return unequal
    rows, columns = wide.shape
    few = wide[: min(rows, LEAD)].float() if wide.dtype != torch.float64 else wide[: min(rows, LEAD)]
    first = _deviation(few, few, 0, mean)
    if first > ROUNDING or rows <= LEAD:
        return first
    kept = min(rows, max(LEAD, int(GRAM_BUDGET / (rows * columns))))
    chosen = wide[:kept].to(few.dtype)
    return _deviation(chosen, wide.to(few.dtype), 0, mean)


def _deviation(a: torch.Tensor, b: torch.Tensor, offset: int, mean: float) -> float:
    """``|A B^T / mean - I|_max`` where row i of A is row ``offset + i`` of B."""
    product = (a @ b.t()) / mean
    torch.diagonal(product, offset).sub_(1.0)
    return float(product.abs().max())


def singular_values(matrix: torch.Tensor) -> tuple[float | None, float | None]:
    """Smallest and largest singular value of a small matrix; ``None`` for larger ones."""
    if max(matrix.shape) > SVD_LIMIT:
        return None, None
    try:
        values = torch.linalg.svdvals(matrix)
    except RuntimeError:  # torch built without LAPACK, or no convergence
        return None, None
    return float(values[-1]), float(values[0])


def spectral_norms(matrices: Sequence[torch.Tensor]) -> list[float | None]:
    """Largest singular values of matrices of one shape, where it is far above that of independent entries.

    By power iteration, which comes from below: never more than the true one. ``None`` where a few rows have no more in
    common than by chance, or the matrix is too large.
    """
    rows, columns = matrices[0].shape
    if min(rows, columns) < PAIRED or rows * columns > POWER_LIMIT:
        return [None] * len(matrices)
    step = rows // PAIRED
    few = torch.stack([matrix[::step][:PAIRED] for matrix in matrices]).float()
    few = few / torch.linalg.vector_norm(few, dim=2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    cosines = torch.bmm(few, few.transpose(1, 2))
    shared = (cosines.square().sum((1, 2)) - PAIRED) / (PAIRED * (PAIRED - 1))
    pairs = zip(matrices, shared.tolist(), strict=True)
    return [_power(matrix) if most > IN_COMMON / columns else None for matrix, most in pairs]


def _power(matrix: torch.Tensor) -> float | None:
    """The largest singular value by power iteration from the loudest of a few rows, which is made of it mostly."""
    values = matrix if matrix.dtype == torch.float64 else matrix.float()
    few = values[:: values.shape[0] // PAIRED][:PAIRED]
    vector = few[int(torch.linalg.vector_norm(few, dim=1).argmax())]
    norm = 0.0
    for _ in range(ROUNDS):
        vector = torch.mv(values, vector / torch.linalg.vector_norm(vector))
        norm = float(torch.linalg.vector_norm(vector))
        if not 0.0 < norm < math.inf:
            return None
        vector = torch.mv(values.t(), vector / norm)
    return norm
