"""What a run looked up in a table: entries of each bag, places that hold padding, factors of the entries."""

from __future__ import annotations

import torch
from torch import fx

from initlint.probe.normalise_builder import Builder, Call
from initlint.probe.normalise_values import Signal, Static, Value


def observed(b: Builder, c: Call, position: int, name: str) -> torch.Tensor | None:
    """The tensor that an argument of the call was in the run, or is without one."""
    known = c.plain(position, name)
    given = c.node.kwargs.get(name, c.node.args[position] if position < len(c.node.args) else None)
    found = known if known is not None else b.traced.value(given) if isinstance(given, fx.Node) else None
    return found if isinstance(found, torch.Tensor) and not found.is_meta else None


def entries(index: torch.Tensor, offsets: torch.Tensor | None, padding: int | None, bags: int) -> dict[str, float]:
    """Over ``bags`` bags, padding left out: ``bag`` E n, ``bag_second`` E n^2, ``bag_inverse`` E 1/n (0 of an empty
    one), ``filled`` the share that holds any."""
    kept = torch.ones_like(index, dtype=torch.bool) if padding is None else index != padding
    if index.ndim == 2:
        count = kept.sum(1).double()
    elif offsets is not None and index.ndim == 1:
        bag = torch.searchsorted(offsets, torch.arange(index.numel(), dtype=offsets.dtype), right=True) - 1
        count = torch.bincount(bag[kept & (bag >= 0)], minlength=bags)[:bags].double()
    else:
        return {}
    if not count.numel():
        return {}
    inverse = torch.where(count > 0, 1.0 / count.clamp(min=1.0), 0.0)
    found = {"bag": count, "bag_second": count * count, "bag_inverse": inverse, "filled": (count > 0).double()}
    return {name: float(values.mean()) for name, values in found.items()}


def padded(index: torch.Tensor | None, weight: torch.Tensor, padding: int | None) -> dict[str, float]:
    """The share of places that read the row of the padding, where that holds zeros."""
    if index is None or padding is None or weight.ndim != 2 or weight.is_meta or not index.numel():
        return {}
    share = float((index == padding).double().mean())
    return {} if bool(weight[padding].any()) else {"padded": share}


def factors(b: Builder, weights: Value | None) -> dict[str, float]:
    """Mean and second moment of what each entry of a bag is multiplied with, where something is."""
    if isinstance(weights, Static) and isinstance(weights.value, torch.Tensor) and weights.value.numel():
        values = weights.value.double()
        if values.is_meta:
            return {}
        return {"weigh_mean": float(values.mean()), "weigh_second": float(values.square().mean())}
    got = b.node(weights).measured if isinstance(weights, Signal) else None
    return {} if got is None or not got.finite else {"weigh_mean": got.mean, "weigh_second": got.second}
