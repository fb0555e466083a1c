"""How much of a tensor's memory nobody ever wrote."""

from __future__ import annotations

from typing import Any

import torch

from initlint.probe.provenance_store import Event, Region, Store
from initlint.probe.record_region import covers, touched


def unwritten_share(store: Store, region: Region, tensor: Any, *, filled: bool = True) -> float:
    """Share of the elements in memory that nobody wrote, 0 to 1.

    Floating-point memory was filled with NaN when it was made, so what is unwritten is NaN and was not
    covered by any recorded overwrite. Other types (and meta tensors) are judged by the record alone, as is
    everything when user code turned the fill off (``filled``).
    """
    if not region.numel:
        return 0.0
    tainted = store.value.unwritten or any(event.value is not None and event.value.unwritten for event in store.events)
    if not store.uninitialised and not tainted:
        return 0.0
    overwrites = [event for event in store.events if event.overwrites and not _tainted(event)]
    if any(covers(event, region) for event in overwrites):
        return 0.0  # before looking at the values: they may be many
    floating = tensor.is_floating_point() or tensor.is_complex()
    readable = filled and floating and not tensor.is_meta
    nans = tensor.detach().isnan() if readable else None
    if nans is not None and not bool(nans.any()):
        return 0.0
    written = _written(store, region, overwrites)
    if written is None and any(event.nan for event in overwrites):
        return _by_share(overwrites, region)
    if written is None:
        return float(nans.float().mean()) if nans is not None else _by_share(overwrites, region)
    open_ = ~written if nans is None else nans.to("cpu") & ~written
    return float(open_.sum()) / region.numel


def _tainted(event: Event) -> bool:
    return event.value is not None and event.value.unwritten


def _written(store: Store, region: Region, overwrites: list[Event]) -> torch.Tensor | None:
    """Mask of the tensor's elements that recorded writes touched; ``None`` when some writes cannot be located."""
    if any(event.share is not None for event in overwrites):
        return None
    mask = torch.zeros(max([region.end, *(event.region.end for event in overwrites)]), dtype=torch.bool)
    for event in overwrites:
        part = event.region
        mask.as_strided(part.size, part.stride, part.offset).fill_(True)
    return mask.as_strided(region.size, region.stride, region.offset)


def _by_share(overwrites: list[Event], region: Region) -> float:
    """Without values to look at: what the shares of the writes leave, at least."""
    total = 0.0
    for event in overwrites:
        part = touched(event, region)
        total += part.share if part is not None else 0.0
    return max(0.0, 1.0 - total)
