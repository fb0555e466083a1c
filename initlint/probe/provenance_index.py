"""What ``tensor[index] = value`` writes: the view, its share, and how the index reads."""

from __future__ import annotations

from typing import Any

import torch

from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """An indexed part of a tensor."""

    tensor: Any  # the view, when plain indexing gives one
    share: float | None  # share of ``tensor`` (or of the whole, without a view) written; None: all of it
    text: str


def indexed(target: Any, index: Any) -> Part:
    """The part of ``target`` that ``target[index] = ...`` writes."""
    items = index if isinstance(index, tuple) else (index,)
    text = "[" + ", ".join(_text(item) for item in items) + "]"
    if all(
        item is None or item is Ellipsis or (isinstance(item, int | slice) and not isinstance(item, bool))
        for item in items
    ):
        return Part(target[index], None, "" if items == (Ellipsis,) or items == (slice(None),) else text)
    if target.is_meta or target.numel() == 0:
        return Part(None, 0.5, text)
    try:
        touched = torch.zeros(target.shape, dtype=torch.bool)
        touched[index] = True
        share = float(touched.sum()) / touched.numel()
    except (RuntimeError, IndexError, TypeError):
        share = 0.5
    return Part(None, share, text)


def _text(item: Any) -> str:
    if item is None:
        return "None"
    if item is Ellipsis:
        return "..."
    if isinstance(item, slice):
        ends = ["" if end is None else str(end) for end in (item.start, item.stop)]
        return ":".join(ends) + ("" if item.step is None else f":{item.step}")
    if isinstance(item, torch.Tensor):
        return "mask" if item.dtype == torch.bool else "index"
    if isinstance(item, bool | int):
        return str(item)
    return "index"
