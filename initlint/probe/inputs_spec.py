"""The text form of an input: ``x: float32[1,3,32,32]``, ``ids: int64[1,16]<50257``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

from initlint.probe.inputs_syntax import HINT, Written, read
from initlint.records import dataclass

__all__ = ["HINT", "Spec", "build", "indices", "parse", "smallest_table"]

# Without a bound given, indices stay below the smallest table of the model, and below this.
_DEFAULT_HIGH = 1000
#: Names of the lengths of sequences.
LENGTHS = r"(^|_)(len|lens|lengths?|seqlens?)($|_)"


@dataclass(frozen=True, slots=True)
class Spec:
    """One input tensor: ``high`` is the exclusive bound of indices."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    high: int | None = None
    #: "" random values | "ones" | "longest": below the bound | "every N": 0, N, 2N | "times C": random, of that std
    fill: str = ""


def parse(texts: Sequence[str]) -> tuple[Spec, ...]:
    """The specs of texts.

    Raises:
        UsageError: see ``inputs_syntax.read``.
    """
    return tuple(_spec(w) for w in read(texts))


def _spec(written: Written) -> Spec:
    # sequences that are packed must be sorted by their lengths, and none may be empty: all are whole
    lengths = written.dtype.startswith("int") and len(written.shape) == 1 and re.search(LENGTHS, written.name.lower())
    fill = "longest" if lengths else ""
    return Spec(written.name, getattr(torch, written.dtype), written.shape, written.high, fill)


def build(spec: Spec, model: nn.Module | None = None) -> torch.Tensor:
    """A tensor of the spec: N(0, 1) for floats, mostly distinct indices, ``True`` for booleans."""
    if spec.fill == "ones":
        return torch.ones(spec.shape, dtype=spec.dtype, device="cpu")
    if spec.dtype.is_floating_point or spec.dtype.is_complex:
        wide = torch.complex64 if spec.dtype.is_complex else torch.float32
        values = torch.randn(spec.shape, dtype=wide, device="cpu")
        return (values * float(spec.fill[6:]) if spec.fill.startswith("times ") else values).to(spec.dtype)
    if spec.dtype == torch.bool:
        return torch.ones(spec.shape, dtype=torch.bool, device="cpu")
    if spec.fill.startswith("every "):
        return torch.arange(spec.shape[0], dtype=spec.dtype, device="cpu") * int(spec.fill[6:])
    high = spec.high if spec.high is not None else smallest_table(model)
    high = min(high, torch.iinfo(spec.dtype).max)
    if spec.fill == "longest":
        return torch.full(spec.shape, max(high - 1, 1), dtype=spec.dtype, device="cpu")
    return indices(spec.shape, high).to(spec.dtype)


def indices(shape: tuple[int, ...], high: int, low: int = 0) -> torch.Tensor:
    """Random indices in [low, high), distinct while there are enough of them.

    Index 0 is left out where possible: it is mostly the padding row.
    """
    count = 1
    for n in shape:
        count *= n
    low = max(low, 1) if high > count + 1 else low
    if count <= high - low <= 1_000_000:
        return (torch.randperm(high - low, device="cpu")[:count] + low).reshape(shape)
    return torch.randint(low, max(high, low + 1), shape, device="cpu")


def smallest_table(model: nn.Module | None) -> int:
    """Rows of the smallest embedding of a model, at most ``_DEFAULT_HIGH``."""
    modules = model.modules() if model is not None else iter(())
    tables = [m.num_embeddings for m in modules if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    return min([_DEFAULT_HIGH, *tables])
