"""Orthogonality and singular values of weight matrices, only where they can matter and are cheap."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: A singular value decomposition of 64 x 64 takes 0.4 ms, of 128 x 128 2.7 ms, of 256 x 256 7 ms; models have hundreds.
SVD_LIMIT = 64
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
