"""How slices of a tensor compare: energies, totals, duplicates; and digests of contents."""

from __future__ import annotations

import ctypes
import hashlib

import torch

from initlint.facts import Units

#: Candidate rows are compared element by element up to this many elements; beyond, their sums decide.
COMPARE_LIMIT = 1 << 24
#: Up to this many bytes a digest hashes every byte (hashing runs at 0.5 to 1.5 GB/s).
HASH_LIMIT = 1 << 18
#: An odd multiplier with well-mixed bits (2^64 / golden ratio), to join two integers into one key.
MIX = -7046029254386353131
#: Width of the stripes whose bit patterns are summed; a multiple of any vector register.
STRIPES = 512


def units(energies: torch.Tensor, totals: torch.Tensor, duplicates: int) -> Units:
    """``Units`` from each slice's sum of squares and sum."""
    e, t = energies.double(), totals.double()
    count, mean, low = e.numel(), e.mean(), e.min()
    centred = e - mean
    # torch.var takes ten times as long as a difference and a product
    sums = torch.stack((mean, low, e.max(), torch.dot(centred, centred), t.sum(), torch.dot(t, t))).tolist()
    return Units(
        count=count,
        duplicates=duplicates,
        zeros=int((e == 0).sum()) if sums[1] == 0 else 0,
        energy_mean=sums[0],
        energy_min=sums[1],
        energy_max=sums[2],
        energy_var=sums[3] / count,
        total_mean=sums[4] / count,
        total_second=sums[5] / count,
    )


def row_duplicates(matrix: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> int:
    """How many rows equal an earlier row bit for bit.

    Two numbers of each row are compared first, such as its energy and its sum: equal rows have equal ones as long as
    every row is reduced in the same order (``torch.sum`` and norms do, products of matrices need not). Only rows whose
    two numbers both occur twice are compared element by element.
    """
    rows = matrix.shape[0]
    if rows < 2:
        return 0
    key = one.double().view(torch.int64) * MIX + other.double().view(torch.int64)
    ordered = torch.sort(key).values
    if not bool((ordered[1:] == ordered[:-1]).any()):
        return 0
    _, inverse, counts = torch.unique(key, return_inverse=True, return_counts=True)
    candidates = torch.nonzero(counts[inverse] > 1)[:, 0]
    if candidates.numel() == 0:
        return 0
    if candidates.numel() * matrix.shape[1] > COMPARE_LIMIT:
        return int((counts - 1).sum())
    chosen = matrix[candidates]
    return int(candidates.numel() - torch.unique(chosen, dim=0).shape[0])


def digest_of(values: torch.Tensor, signature: tuple[object, ...] = ()) -> str:
    """A hash of shape, dtype and content of a contiguous tensor.

    Up to ``HASH_LIMIT`` bytes every byte is hashed. For larger tensors the content is replaced by
    ``Fingerprint`` (or ``signature``, where the pass over the blocks has made it already), for a
    cryptographic hash runs at a tenth of the memory's speed.
    """
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(repr((tuple(values.shape), str(values.dtype))).encode())
    for part in signature:
        hasher.update(part if isinstance(part, bytes) else repr(part).encode())
    if not signature:
        raw = values.reshape(-1).view(torch.uint8)
        if raw.numel() <= HASH_LIMIT:
            hasher.update(raw_bytes(raw))
        else:
            fingerprint = Fingerprint()
            for start in range(0, values.numel(), 1 << 17):
                fingerprint.add(values.reshape(-1)[start : start + (1 << 17)])
            hasher.update(repr(fingerprint.value()).encode())
    return hasher.hexdigest()


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
