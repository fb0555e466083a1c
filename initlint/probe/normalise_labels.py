"""Labelled axes of products: which axes of a weight are stacked, contracted or outputs."""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch

from initlint.records import dataclass

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """The axes of a weight, sorted by what they do."""

    stack: Labels
    out: Labels
    inner: Labels

    @classmethod
    def of(cls, weight: Labels, signal: Labels, result: Labels) -> Split:
        """Sort the labels of ``weight``."""
        stack = tuple(x for x in weight if x in signal and x in result)
        inner = tuple(x for x in weight if x in signal and x not in result)
        return cls(stack, tuple(x for x in weight if x not in signal), inner)


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """Labels of each operand and of the result; an ellipsis becomes labels of its own."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise ValueError("operands do not match the equation")
    labels = [_labels(part, rank) for part, rank in zip(parts, ranks, strict=True)]
    if arrow:
        widest = max((len(part) for part in (_dots(x) for x in labels)), default=0)
        return labels, _labels(right, len(right.replace("...", "")) + widest)
    flat = [x for part in labels for x in part]
    result = sorted(x for x in set(flat) if flat.count(x) == 1 and not x.startswith("."))
    return labels, (*sorted({x for x in flat if x.startswith(".")}, reverse=True), *result)


def equation(left: Labels, right: Labels, result: Labels) -> str:
    """A product as an einsum writes it, with one letter for each label."""
    letters = dict(zip(dict.fromkeys((*left, *right)), string.ascii_letters, strict=False))
    first, second, third = ("".join(letters[x] for x in part) for part in (left, right, result))
    return f"{first},{second}->{third}"


def _dots(labels: Labels) -> list[str]:
    return [x for x in labels if x.startswith(".")]


def _labels(part: str, rank: int) -> Labels:
    before, dots, after = part.partition("...")
    width = rank - len(before) - len(after)
    if width < 0 or (width and not dots):
        raise ValueError(f"{part!r} does not fit a tensor of {rank} axes")
    return (*before, *(f".{i}" for i in range(width, 0, -1)), *after)


def layout(weight: torch.Tensor, labels: Labels, split: Split) -> str:
    """How the parameter behind a (view of a) weight lies in memory: the order of its strides."""
    strides = weight.stride()
    order = sorted(range(len(labels)), key=lambda i: -strides[i])
    kinds: list[str] = []
    for i in order:
        if weight.shape[i] == 1 and len(labels) > 2:
            continue
        kind = "s" if labels[i] in split.stack else ("i" if labels[i] in split.inner else "o")
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
    if weight.ndim == 3 and kinds == ["o", "i"] and labels[order[1]] in split.out and weight.shape[order[0]] > 1:
        return "stacked_out_in"  # (heads, out, in): each head is a matrix of its own
    names = {"oi": "out_in", "io": "in_out", "sio": "stacked_in_out", "soi": "stacked_out_in", "oio": "stacked_in_out"}
    names |= {"i": "out_in", "o": "in_out", "si": "stacked_out_in", "so": "stacked_in_out"}
    return names.get("".join(kinds), "other")
