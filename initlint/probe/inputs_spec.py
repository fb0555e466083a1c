"""The text form of an input: ``x: float32[1,3,32,32]``, ``ids: int64[1,16]<50257``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from initlint.errors import UsageError

HINT = "give inputs by --input 'x: float32[4,3,32,32]' or define example_inputs() in the file"

_SPEC = re.compile(
    r"""\s* (?: (?P<name>[A-Za-z_]\w*) \s* : \s* )?
        (?P<dtype>[A-Za-z]\w*) \s*
        \[ (?P<shape>[\d\s,x]*) \] \s*
        (?: < \s* (?P<high>\d+) )? \s* $""",
    re.VERBOSE,
)

_DTYPES: Mapping[str, torch.dtype] = {
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "int": torch.int64,
    "long": torch.int64,
    "bool": torch.bool,
    **{
        name: getattr(torch, name)
        for name in (
            *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
            *("uint8", "complex64", "complex128"),
        )
    },
}

# Without a bound given, indices stay below the smallest table of the model, and below this.
_DEFAULT_HIGH = 1000


@dataclass(frozen=True, slots=True)
class Spec:
    """One input tensor: ``high`` is the exclusive bound of indices."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    high: int | None = None
    fill: str = ""  # "" random values | "ones"


def parse(texts: Sequence[str]) -> tuple[Spec, ...]:
    """Parse specs; one text may hold several, separated by ``;``.

    Raises:
        UsageError: a text is not of the form ``[name:] dtype[shape][<high]``, or positional ones
            follow named ones.
    """
    specs = [_parse(part) for text in texts for part in text.split(";") if part.strip()]
    named = [bool(s.name) for s in specs]
    if named != sorted(named):
        raise UsageError("inputs without a name must come before named ones", HINT)
    return tuple(specs)


def _parse(text: str) -> Spec:
    match = _SPEC.match(text)
    if match is None:
        raise UsageError(f"cannot read the input {text.strip()!r}", HINT)
    dtype = _DTYPES.get(match["dtype"])
    if dtype is None:
        raise UsageError(f"unknown dtype {match['dtype']!r} of an input", f"one of {', '.join(sorted(_DTYPES))}")
    shape = tuple(int(n) for n in re.findall(r"\d+", match["shape"]))
    high = int(match["high"]) if match["high"] else None
    if high is not None and (dtype.is_floating_point or high < 1):
        raise UsageError(f"the bound <{high} is for index inputs and at least 1", HINT)
    return Spec(match["name"] or "", dtype, shape, high)


def build(spec: Spec, model: nn.Module | None = None) -> torch.Tensor:
    """A tensor of the spec: N(0, 1) for floats, mostly distinct indices, ``True`` for booleans."""
    if spec.fill == "ones":
        return torch.ones(spec.shape, dtype=spec.dtype, device="cpu")
    if spec.dtype.is_floating_point or spec.dtype.is_complex:
        wide = torch.complex64 if spec.dtype.is_complex else torch.float32
        return torch.randn(spec.shape, dtype=wide, device="cpu").to(spec.dtype)
    if spec.dtype == torch.bool:
        return torch.ones(spec.shape, dtype=torch.bool, device="cpu")
    high = spec.high if spec.high is not None else smallest_table(model)
    high = min(high, torch.iinfo(spec.dtype).max)
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
