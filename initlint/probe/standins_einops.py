"""What a model needs of ``einops`` where that is not installed: views, sums and repetitions by a pattern.

All of it is views and sums that torch has under other names, so a stand-in changes nothing of what is judged. An
installed einops always wins.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import math
import string
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

#: How a dimension is put together: names of axes, the first the slowest; one axis for most, none for a size of 1.
Side = list[list[str]]
#: The axes that ``...`` stands for.
REST = "…"
_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
    "prod": torch.prod,
    "any": torch.any,
    "all": torch.all,
}


class EinopsError(RuntimeError):
    """A pattern that does not fit the tensor."""


def rearrange(tensor: Any, pattern: str, **sizes: int) -> Any:
    """``"b c h w -> b (h w) c"``: other orders and groupings of the same axes."""
    return _applied(tensor, pattern, sizes, None, may_add=False)


def repeat(tensor: Any, pattern: str, **sizes: int) -> Any:
    """``"d -> b d"``: axes that are new on the right are repeated."""
    return _applied(tensor, pattern, sizes, None, may_add=True)


def reduce(tensor: Any, pattern: str, reduction: str | Callable[..., Any], **sizes: int) -> Any:
    """``"b c (h 2) (w 2) -> b c h w"``: axes that are not on the right are reduced."""
    function = _REDUCTIONS.get(reduction) if isinstance(reduction, str) else reduction
    if function is None:
        raise EinopsError(f"the reduction {reduction!r} is not known")
    return _applied(tensor, pattern, sizes, function, may_add=False)


def einsum(*operands: Any) -> Any:
    """Einstein's summation with names of axes instead of letters; the pattern comes last."""
    *tensors, pattern = operands
    names = dict.fromkeys(pattern.replace("->", " ").replace(",", " ").replace("...", " ").split())
    letters = dict(zip(names, string.ascii_letters, strict=False))

    def spelled(side: str) -> str:
        return "".join("..." if name == REST else letters[name] for name in side.replace("...", f" {REST} ").split())

    inputs, _, output = pattern.partition("->")
    equation = ",".join(map(spelled, inputs.split(",")))
    return torch.einsum(f"{equation}->{spelled(output)}", *tensors)


def parse_shape(tensor: Any, pattern: str) -> dict[str, int]:
    """The sizes of named axes; ``_`` stands for one that is not asked for."""
    names = pattern.split()
    if len(names) != len(tensor.shape):
        raise EinopsError(f"{pattern!r} does not fit the shape {tuple(tensor.shape)}")
    return {name: size for name, size in zip(names, tensor.shape, strict=True) if name != "_" and name.isidentifier()}


def pack(tensors: Sequence[Any], pattern: str) -> tuple[Any, list[torch.Size]]:
    """Tensors joined along the axis ``*``, which takes what each has of axes there; and the shapes of these."""
    before, after = _around(pattern)
    shapes = [t.shape[before : t.dim() - after] for t in tensors]
    flat = [
        t.reshape(*t.shape[:before], math.prod(shape), *t.shape[t.dim() - after :])
        for t, shape in zip(tensors, shapes, strict=True)
    ]
    return torch.cat(flat, dim=before), shapes


def unpack(tensor: Any, shapes: Sequence[Sequence[int]], pattern: str) -> list[Any]:
    """The tensors that ``pack`` has joined."""
    before, _ = _around(pattern)
    sizes = [None if -1 in shape else math.prod(shape) for shape in shapes]
    rest = tensor.shape[before] - sum(size for size in sizes if size is not None)  # for the one that is not known
    parts = torch.split(tensor, [rest if size is None else size for size in sizes], dim=before)
    return [
        part.reshape(*part.shape[:before], *shape, *part.shape[before + 1 :])
        for part, shape in zip(parts, shapes, strict=True)
    ]


def _around(pattern: str) -> tuple[int, int]:
    names = pattern.split()
    if names.count("*") != 1:
        raise EinopsError(f"{pattern!r} needs one *")
    return names.index("*"), len(names) - names.index("*") - 1


class Rearrange(nn.Module):
    """``rearrange`` as a layer."""

    def __init__(self, pattern: str, **sizes: int) -> None:
        super().__init__()
        self.pattern, self.sizes = pattern, sizes

    def forward(self, tensor: Any) -> Any:
        """The tensor in another order."""
        return rearrange(tensor, self.pattern, **self.sizes)


class Reduce(nn.Module):
    """``reduce`` as a layer."""

    def __init__(self, pattern: str, reduction: str, **sizes: int) -> None:
        super().__init__()
        self.pattern, self.reduction, self.sizes = pattern, reduction, sizes

    def forward(self, tensor: Any) -> Any:
        """The tensor without the axes that are not on the right."""
        return reduce(tensor, self.pattern, self.reduction, **self.sizes)


def _applied(
    tensor: Any, pattern: str, sizes: Mapping[str, int], reduction: Callable[..., Any] | None, *, may_add: bool
) -> Any:
    if isinstance(tensor, list | tuple):
        tensor = torch.stack(list(tensor))
    left, right = sides(pattern)
    rank = len(tensor.shape)
    left, right = _without_rest(left, right, rank - (len(left) - 1))
    try:
        if len(left) != rank:
            raise EinopsError(f"Wrong shape: expected {len(left)} dims. Received {rank}-dim tensor.")
        known = {**numbers(left), **numbers(right), **sizes}
        for names, size in zip(left, tensor.shape, strict=True):
            _infer(names, size, known)
    except EinopsError as error:  # in the library's own words, which the search for inputs reads
        raise EinopsError(
            f'Error while processing pattern "{pattern}".\n'
            f" Input tensor shape: {list(tensor.shape)}. Additional info: {dict(sizes)}.\n {error}"
        ) from None
    held = [name for names in left for name in names]
    kept = [name for names in right for name in names]
    new = [name for name in kept if name not in held]
    gone = [name for name in held if name not in kept]
    if (new and not may_add) or (gone and reduction is None):
        raise EinopsError(f"{pattern!r}: {', '.join(new or gone)} only on one side")
    if missing := [name for name in new if name not in known]:
        raise EinopsError(f"{pattern!r}: the size of {missing[0]} is not given")
    found = tensor.reshape([known[name] for name in held])
    if gone and reduction is not None:
        found = _reduced(found, [held.index(name) for name in gone], reduction)
        held = [name for name in held if name not in gone]
    found = found.permute([held.index(name) for name in kept if name in held])
    for place, name in enumerate(kept):
        if name in new:
            found = found.unsqueeze(place)
    if new:
        found = found.expand([known[name] for name in kept])
    return found.reshape([math.prod(known[name] for name in names) for names in right])


def _reduced(tensor: Any, axes: list[int], reduction: Callable[..., Any]) -> Any:
    if reduction in (torch.prod, torch.any, torch.all):  # one axis at a time
        for axis in sorted(axes, reverse=True):
            tensor = reduction(tensor, dim=axis)
        return tensor
    return reduction(tensor, tuple(axes))


def sides(pattern: str) -> tuple[Side, Side]:
    """What a pattern takes and what it makes.

    Raises:
        EinopsError: there is no arrow in it, or more than one.
    """
    halves = pattern.split("->")
    if len(halves) != 2:
        raise EinopsError(f"{pattern!r} needs one ->")
    return _side(halves[0], 0), _side(halves[1], 1)


def _side(text: str, number: int) -> Side:
    """The dimensions of one side. A number is an axis of its own; 1 is no axis at all."""
    found: Side = []
    group: list[str] | None = None
    words = text.replace("...", f" {REST} ").replace("(", " ( ").replace(")", " ) ").split()
    for place, word in enumerate(words):
        if word == "(":
            group = []
        elif word == ")":
            found.append(group or [])
            group = None
        else:
            name = f"{word}#{number}.{place}" if word.isdigit() else word
            names = [] if word == "1" else [name]
            if group is None:
                found.append(names)
            else:
                group.extend(names)
    return found


def _without_rest(left: Side, right: Side, count: int) -> tuple[Side, Side]:
    """Both sides with an axis for each dimension that ``...`` stands for."""
    names = [f"{REST}{i}" for i in range(count)]

    def spread(side: Side) -> Side:
        found: Side = []
        for group in side:
            if group == [REST]:
                found += [[name] for name in names]
            else:  # inside parentheses the axes are joined
                found.append([n for name in group for n in (names if name == REST else [name])])
        return found

    if not any(REST in group for group in left):
        return left, right
    return spread(left), spread(right)


def numbers(side: Side) -> dict[str, int]:
    """The sizes of axes that are written as numbers."""
    return {name: int(name.partition("#")[0]) for group in side for name in group if "#" in name}


def _infer(names: list[str], size: int, known: dict[str, int]) -> None:
    """Fill in the one axis of a dimension whose size is not given."""
    unknown = [name for name in names if name not in known]
    rest = math.prod(known[name] for name in names if name in known)
    if len(unknown) > 1 or rest == 0 or (not unknown and rest != size) or size % rest:
        raise EinopsError(f"Shape mismatch, an axis of length {size} cannot be {' x '.join(names) or '1'}")
    if unknown:
        known[unknown[0]] = size // rest


_MODULES: Mapping[str, tuple[str, ...]] = {
    "einops": (
        "rearrange",
        "repeat",
        "reduce",
        "einsum",
        "parse_shape",
        "pack",
        "unpack",
        "EinopsError",
        "layers",
    ),
    "einops.layers": ("torch",),
    "einops.layers.torch": ("Rearrange", "Reduce"),
}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-in after everything else has been asked.

    Args:
        notes: told once that it is used.
    """

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The stand-in for one of the modules of einops."""
        if fullname not in _MODULES:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname != "einops.layers.torch")

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        if module.__name__ == "einops":
            self.notes.append(
                "einops is not installed; views, sums and repetitions by pattern are computed all the same"
            )
            module.__version__ = "0.8"  # type: ignore[attr-defined]
        for name in _MODULES[module.__name__]:
            if (value := globals().get(name)) is not None and name != "torch":
                setattr(module, name, value)


def is_stand_in(module: ModuleType) -> bool:
    """Whether a module is one of these, and not the real one."""
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), Finder)
