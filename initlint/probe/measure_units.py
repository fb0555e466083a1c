"""How slices of a tensor compare: energies, totals, duplicates; and digests of contents."""

from __future__ import annotations

import ctypes
import hashlib

import torch

from initlint.facts import Units

#: Candidate rows are compared element by element up to this many elements; beyond, their sums decide.
COMPARE_LIMIT = 1 << 24
#: Up to this many bytes a digest hashes every byte (hashing runs at 0.5 to 1.5 GB/s).
HASH_LIMIT = 1 << 20


def units(energies: torch.Tensor, totals: torch.Tensor, duplicates: int) -> Units:
    """``Units`` from each slice's sum of squares and sum."""
    e, t = energies.double(), totals.double()
    low, high = torch.aminmax(e)
    return Units(
        count=e.numel(),
        duplicates=duplicates,
        zeros=int((e == 0).sum()),
        energy_mean=float(e.mean()),
        energy_min=float(low),
        energy_max=float(high),
        energy_var=float(e.var(correction=0)),
        total_mean=float(t.mean()),
        total_second=float(torch.mean(t * t)),
    )


def row_duplicates(matrix: torch.Tensor, energies: torch.Tensor, totals: torch.Tensor) -> int:
    """How many rows equal an earlier row bit for bit.

    Equal rows have equal sums, for each row is reduced in the same order, so the sums are compared
    first; only rows whose two sums both occur twice are compared element by element.
    """
    rows = matrix.shape[0]
    if rows < 2:
        return 0
    key = torch.stack((energies.double(), totals.double()), 1)
    order = torch.argsort(key[:, 0])
    same = key[order[1:], 0] == key[order[:-1], 0]
    if not bool(same.any()):
        return 0
    _, inverse, counts = torch.unique(key, dim=0, return_inverse=True, return_counts=True)
    candidates = torch.nonzero(counts[inverse] > 1)[:, 0]
    if candidates.numel() == 0:
        return 0
    if candidates.numel() * matrix.shape[1] > COMPARE_LIMIT:
        return int((counts - 1).sum())
    chosen = matrix[candidates]
    return int(candidates.numel() - torch.unique(chosen, dim=0).shape[0])


def digest_of(values: torch.Tensor, signature: tuple[object, ...]) -> str:
    """A hash of shape, dtype and content of a contiguous tensor.

    Tensors up to ``HASH_LIMIT`` bytes are hashed byte by byte. For larger ones the content is
    replaced by the wrapping integer sum of the bit patterns of each of 4096 stripes, which any
    change of a single element alters and which two independent draws share with probability
    below 2^-64; it runs at memory speed, a cryptographic hash at a tenth of it.
    """
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(repr((tuple(values.shape), str(values.dtype))).encode())
    if signature and signature[0] == "constant":
        hasher.update(repr(signature).encode())
        return hasher.hexdigest()
    raw = values.reshape(-1).view(torch.uint8)
    if raw.numel() > HASH_LIMIT:
        whole = raw[: raw.numel() // 8 * 8].view(torch.int64)
        stripes = whole[: whole.numel() // 4096 * 4096].view(-1, 4096)
        hasher.update(_bytes(raw[raw.numel() // 32768 * 32768 :]))
        raw = torch.sum(stripes, 0).view(torch.uint8)
    hasher.update(_bytes(raw))
    return hasher.hexdigest()


def _bytes(raw: torch.Tensor) -> bytes:
    """The bytes of a contiguous uint8 tensor on the CPU, without NumPy (torch does not need it)."""
    return ctypes.string_at(raw.data_ptr(), raw.numel()) if raw.numel() else b""
