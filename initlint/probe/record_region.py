"""Which part of a parameter a write touched, told from offsets and strides."""

from __future__ import annotations

from initlint.probe.provenance_store import Event, Region
from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Touched:
    """A part of a parameter: share of its elements, how it reads, and its range on axis 0 if contiguous."""

    share: float
    text: str = ""
    start: int | None = None
    stop: int | None = None


def touched(event: Event, whole: Region) -> Touched | None:
    """The part of a parameter (``whole``) that an event wrote; ``None`` when they do not meet."""
    region = event.region
    if not whole.numel:
        return Touched(1.0)
    if region.end <= whole.offset or region.offset >= whole.end:
        return None
    if event.share is None and covers(event, whole):
        return Touched(1.0)
    share = min(1.0, region.numel / whole.numel)
    if event.share is not None:
        share *= event.share
        text = event.index if event.index.startswith("[") else f"[{event.index}]"
        return Touched(share, text)
    return _located(region, whole, share, event.index)


def _located(region: Region, whole: Region, share: float, index: str) -> Touched:
    slices = _slices(region, whole)
    if slices is None:
        return Touched(share, index or "[part]")
    start = stop = None
    head, rest = slices[0], slices[1:]
    if head[2] == 1 and all(
        begin == 0 and end == size for (begin, end, _), size in zip(rest, whole.size[1:], strict=True)
    ):
        start, stop = head[0], head[1]
    return Touched(share, _text(slices, whole.size), start, stop)


def _slices(region: Region, whole: Region) -> list[tuple[int, int, int]] | None:
    """``(start, stop, step)`` of each axis of ``whole``, or ``None`` when the region is no such slice."""
    axes = sorted(range(len(whole.size)), key=lambda axis: -whole.stride[axis])
    remaining = region.offset - whole.offset
    begins = [0] * len(whole.size)
    for axis in axes:
        if whole.stride[axis] > 0:
            begins[axis], remaining = divmod(remaining, whole.stride[axis])
    if remaining or any(begin < 0 for begin in begins):
        return None
    found = [(begin, begin + 1, 1) for begin in begins]
    free = [axis for axis in axes if whole.size[axis] > 1]
    for size, stride in sorted(zip(region.size, region.stride, strict=True), key=lambda pair: -pair[1]):
        if size == 1:
            continue
        fitting = [a for a in free if stride % whole.stride[a] == 0 and _fits(begins[a], size, stride, whole, a)]
        if not fitting:
            return None
        axis = fitting[0]
        free.remove(axis)
        step = stride // whole.stride[axis]
        found[axis] = (begins[axis], begins[axis] + (size - 1) * step + 1, step)
    return found


def _fits(begin: int, size: int, stride: int, whole: Region, axis: int) -> bool:
    return begin + (size - 1) * (stride // whole.stride[axis]) < whole.size[axis]


def _text(slices: list[tuple[int, int, int]], sizes: tuple[int, ...]) -> str:
    parts = [_axis(*part, size) for part, size in zip(slices, sizes, strict=True)]
    while len(parts) > 1 and parts[-1] == ":":
        parts.pop()
    return "[" + ", ".join(parts) + "]"


def _axis(begin: int, end: int, step: int, size: int) -> str:
    if step == 1 and begin == 0 and end == size and size > 1:
        return ":"
    if end == begin + 1:
        return str(begin)
    head = "" if begin == 0 else str(begin)
    tail = "" if end + step > size else str(end)
    return f"{head}:{tail}" + ("" if step == 1 else f":{step}")


def covers(event: Event, whole: Region) -> bool:
    """Whether an event wrote every element of the region."""
    if event.share is not None:
        return event.share >= 1.0
    region = event.region
    if region.offset > whole.offset or region.end < whole.end:
        return False
    dense = region.numel >= region.end - region.offset
    return dense or (region.size, region.stride) == (whole.size, whole.stride)
