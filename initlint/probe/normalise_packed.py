"""Handlers of packed sequences: the steps of all samples in one tensor, without their padding."""

from __future__ import annotations

from initlint.probe import normalise_axes as axes
from initlint.probe.normalise_builder import Builder, Call, elements
from initlint.probe.normalise_opaque import opaque
from initlint.probe.normalise_values import Items, Signal, Value

#: Axes of a packed sequence in the graph: (steps, samples, channels), with as many steps as samples have on average.
ROLES: axes.Roles = ("p", "b", "c")


def pack(b: Builder, c: Call) -> Value:
    """``torch._pack_padded_sequence(input, lengths, batch_first)``: (data, samples at each step)."""
    source, metas = b.signal(c.value(0, "input"), c), c.meta.elements
    before = b.nodes[source].shape if source is not None else None
    if source is None or before is None or len(before) != 3 or len(metas) < 2 or metas[0].shape is None:
        return opaque(b, c)
    samples = before[0] if c.plain(2, "batch_first", False) else before[1]
    rows = metas[0].shape[0]
    shape = (max(1, round(rows / max(1, samples))), samples, before[2])
    if elements(metas[0].shape) == elements(before):
        data = b.emit(c, "reshape", (source,), attrs={"kind": "pack"}, meta=metas[0], shape=shape, roles=ROLES)
    else:
        attrs = {"share": rows / (before[0] * before[1]), "axis": "position"}
        data = b.emit(c, "select", (source,), attrs=attrs, meta=metas[0], shape=shape, roles=ROLES)
    return Items((data, b.emit(c, "stop", (source,), attrs={"name": c.name}, meta=metas[1])))


def unpack(b: Builder, c: Call) -> Value:
    """``torch._pad_packed_sequence(data, batch_sizes, batch_first, ...)``: (padded sequence, lengths)."""
    source, metas = b.signal(c.value(0, "data"), c), c.meta.elements
    if source is None or len(metas) < 2 or metas[0].shape is None:
        return opaque(b, c)
    roles: axes.Roles = ("b", "p", "c") if c.plain(2, "batch_first", False) else ROLES
    before, after = elements(b.nodes[source].shape), elements(metas[0].shape)
    if before == after:
        padded = b.emit(c, "reshape", (source,), attrs={"kind": "unpack"}, meta=metas[0], roles=roles)
    else:
        attrs = {"n_in": before, "n_out": after, "mode": "constant", "value": c.plain(3, "padding_value", 0.0)}
        padded = b.emit(c, "pad", (source,), attrs=attrs, meta=metas[0], roles=roles)
    return Items((padded, b.emit(c, "stop", (source,), attrs={"name": c.name}, meta=metas[1])))


def steps_of(b: Builder, packed: Items) -> int | None:
    """Steps of a packed sequence that reaches a recurrent layer: on average, or those of the longest sample."""
    found = [b.nodes[v.index].shape for v in packed.values[:2] if isinstance(v, Signal)]
    if found and found[0] is not None and len(found[0]) == 3:
        return found[0][0]
    return found[1][0] if len(found) > 1 and found[1] else None
