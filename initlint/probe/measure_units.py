"""How slices of a tensor compare: energies, totals, duplicates; and digests of contents."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence

import torch

from initlint.facts import Units

#: Candidate rows are compared element by element up to this many elements; beyond, their sums decide.
COMPARE_LIMIT = 1 << 24
#: Up to this many bytes a digest hashes every byte (hashing runs at 0.5 to 1.5 GB/s).
HASH_LIMIT = 1 << 18
#: An odd multiplier with well-mixed bits (2^64 / golden ratio), to join two integers into one key.
MIX = -7046029254386353131
#: From so many on torch sorts integers by their digits, which takes a quarter of the time.
RADIX = 1 << 15
#: Width of the stripes whose bit patterns are summed; a multiple of any vector register.
STRIPES = 512


def units(energies: torch.Tensor, totals: torch.Tensor, duplicates: int) -> Units:
    """``Units`` from each slice's sum of squares and sum."""
    return units_of_all(energies.double()[None], totals.double()[None], [duplicates])[0]


def units_of_all(energies: torch.Tensor, totals: torch.Tensor, duplicates: Sequence[int]) -> list[Units]:
    """``Units`` of several tensors: each has a row of sums of squares and a row of sums, in float64."""
    count = energies.shape[1]
    mean = energies.mean(1, keepdim=True)
    centred = energies - mean  # torch.var takes ten times as long as a difference and a product
    sums = torch.stack(
        (
            mean[:, 0],
            energies.amin(1),
            energies.amax(1),
            (centred * centred).mean(1),
            totals.mean(1),
            (totals * totals).mean(1),
        ),
        1,
    ).tolist()
    return [
        Units(count, repeated, int((energies[i] == 0).sum()) if line[1] == 0 else 0, *line)
        for i, (repeated, line) in enumerate(zip(duplicates, sums, strict=True))
    ]


def row_duplicates(matrix: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> int:
    """How many rows equal an earlier row bit for bit.

    Two numbers of each row are compared first, such as its energy and its sum: equal rows have equal ones as long as
    every row is reduced in the same order (``torch.sum`` and norms do, products of matrices need not). Only rows whose
    two numbers both occur twice are compared element by element.
    """
    rows = matrix.shape[0]
    if rows < 2:
        return 0
    if not may_repeat(one.double()[None], other.double()[None]):
        return 0
    _, inverse, counts = torch.unique(_key(one, other), return_inverse=True, return_counts=True)
    candidates = torch.nonzero(counts[inverse] > 1)[:, 0]
    if candidates.numel() == 0:
        return 0
    if candidates.numel() * matrix.shape[1] > COMPARE_LIMIT:
        return int((counts - 1).sum())
    chosen = matrix[candidates]
    return int(candidates.numel() - torch.unique(chosen, dim=0).shape[0])


def may_repeat(one: torch.Tensor, other: torch.Tensor) -> list[int]:
    """Of several tensors, each a row of pairs of float64 numbers, those in which a pair occurs twice.

    Certain of the others; of these but for the chance that keys of 64 bits collide.
    """
    keys = _key(one, other)
    if keys.numel() > RADIX // 2:  # halves of keys settle most cases, for all tensors in one go
        mixed = keys + torch.arange(keys.shape[0])[:, None] * MIX
        halves = (mixed >> 32).int().view(-1)
        filled = torch.arange(max(0, RADIX - halves.numel()), dtype=torch.int32)
        ordered = torch.sort(torch.cat((halves, filled))).values
        if not bool((ordered[1:] == ordered[:-1]).any()):
            return []
    ordered = torch.sort(keys, 1).values
    return torch.nonzero((ordered[:, 1:] == ordered[:, :-1]).any(1))[:, 0].tolist()


def _key(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """One integer of two floats."""
    return one.double().view(torch.int64) * MIX + other.double().view(torch.int64)


def digest_of(shape: tuple[int, ...], dtype: torch.dtype, signature: tuple[object, ...]) -> str:
    """A hash of shape, dtype and what stands for the content."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(repr((shape, str(dtype))).encode())
    for part in signature:
        hasher.update(part if isinstance(part, bytes) else repr(part).encode())
    return hasher.hexdigest()


def contents(values: torch.Tensor) -> tuple[object, ...]:
    """What stands for the content of a contiguous tensor: every byte, or the ``Fingerprint`` of many.

    A cryptographic hash runs at a tenth of the memory's speed.
    """
    raw = values.reshape(-1).view(torch.uint8)
    if raw.numel() <= HASH_LIMIT:
        return (raw_bytes(raw),)
    fingerprint = Fingerprint()
    for start in range(0, values.numel(), 1 << 17):
        fingerprint.add(values.reshape(-1)[start : start + (1 << 17)])
    return (repr(fingerprint.value()),)


class Fingerprint:
    """Wrapping sums of bit patterns, for each block of the tensor: in stripes, or of the whole block.

    A change of any single element changes it; two independent draws share it with a probability
    below 2^-64. It depends on how the tensor is cut into blocks, which its shape decides.

    Args:
        order: sum in stripes, so that the order of elements counts. Without it a sum takes half the time; the pass
            over a matrix has the sums of each row besides, which tell orders apart.
    """

    def __init__(self, *, order: bool = True) -> None:
        self.width = STRIPES if order else 1
        self.stripes: list[torch.Tensor] = []
        self.rest: list[bytes] = []

    def add(self, block: torch.Tensor) -> None:
        """Take in the next block (contiguous)."""
        raw = block.reshape(-1).view(torch.uint8)
        whole = raw.numel() // (8 * self.width) * 8 * self.width
        if raw.storage_offset() % 8:  # words must be aligned
            raw = raw.clone()
        if whole:
            words = raw[:whole].view(torch.int64)
            self.stripes.append(torch.sum(words) if self.width == 1 else torch.sum(words.view(-1, self.width), 0))
        if whole < raw.numel():
            self.rest.append(hashlib.blake2b(raw_bytes(raw[whole:]), digest_size=8).digest())

    def value(self) -> tuple[object, ...]:
        """What identifies the contents."""
        whole = raw_bytes(torch.stack(self.stripes)) if self.stripes else b""
        return ("stripes", hashlib.blake2b(whole).digest(), b"".join(self.rest))


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a contiguous tensor on the CPU, without NumPy (torch does not need it)."""
    return ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size()) if tensor.numel() else b""
