"""Handlers of what moves, cuts, joins, pools or reduces elements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from initlint.probe import normalise_axes as axes
from initlint.probe.normalise_builder import ROWS_LIMIT, Builder, Call, elements, share
from initlint.probe.normalise_tables import INTEGER, REPEATS
from initlint.probe.normalise_values import Items, Signal, Static, Unknown, Value


def reshape(b: Builder, c: Call) -> Value:
    """Views and rearrangements; also tuples of them (``sort`` returns indices as well)."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown(f"{c.name} of no tensor")
    if c.name == "broadcast_tensors":
        return _broadcast(b, c)
    if c.meta.value_kind == "tuple":
        return _tuple(b, c, "reshape", source, {})
    shape_in, shape_out = b.nodes[source].shape, c.meta.shape
    attrs: dict[str, Any] = {"kind": c.name}
    kept = share(shape_out, shape_in)
    if c.name in REPEATS or (kept is not None and kept > 1):
        attrs["kept"] = kept
    shifted = _shifted(b, c, source)
    if shifted:
        attrs["shifted"] = shifted
    signal = b.emit(c, "reshape", (source,), attrs=attrs, roles=_moved(b, c, source))
    _follow_rows(b, c, source, signal)
    return signal


def _shifted(b: Builder, c: Call, source: int) -> str | None:
    """What a roll or flip puts in other places: "position", or "channel" (or samples), ``None`` where it is no such."""
    fixed = {"fliplr": (1,), "flipud": (0,), "rot90": (0, 1)}.get(c.name)
    if fixed is None and c.name not in ("roll", "flip"):
        return None
    roles = b.roles[source]
    dims = c.plain(2, "dims", None) if c.name in ("roll", "rot90") else c.plain(1, "dims", None)
    if c.name == "flip" and isinstance(dims, int):  # x.flip(1, 2)
        dims = [v.value for v in c.args[1:] if isinstance(v, Static)]
    dims = (dims,) if isinstance(dims, int) else fixed if dims is None else dims
    if roles is None or not isinstance(dims, (list, tuple)) or not all(isinstance(dim, int) for dim in dims):
        return "channel"
    return "position" if all(roles[dim] == "p" for dim in dims) else "channel"


def _broadcast(b: Builder, c: Call) -> Value:
    """Each of several tensors repeated to their common shape: the mean and the deviation of a distribution."""
    given = c.args[0].values if len(c.args) == 1 and isinstance(c.args[0], Items) else c.args
    values: list[Value] = []
    for value, meta in zip(given, c.meta.elements, strict=False):
        source = b.signal(value, c)
        if source is None:
            values.append(Unknown("broadcast_tensors of no tensor"))
            continue
        shape = b.nodes[source].shape
        more = {"kind": c.name, "kept": share(meta.shape, shape)}
        roles = axes.broadcast(b.roles[source], None, len(meta.shape)) if meta.shape is not None else None
        values.append(b.emit(c, "reshape", (source,), attrs=more, meta=meta, roles=roles))
    return Items(tuple(values))


def _moved(b: Builder, c: Call, source: int) -> axes.Roles | None:
    """Roles of the axes after a rearrangement."""
    roles, before, after = b.roles[source], b.nodes[source].shape, c.meta.shape
    if roles is None or after is None or before is None:
        return None
    order = _order(c, len(before))
    if order is not None:
        return axes.permuted(roles, order)
    if c.name in ("roll", "flip", "fliplr", "flipud", "sort", "expand", "expand_as", "repeat", "broadcast_to"):
        return axes.broadcast(roles, None, len(after))
    if c.name in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "rot90", "repeat_interleave", "tile"):
        return roles
    if c.name == "im2col" and len(after) == 3:
        return ("b", "c", "p")
    if c.name == "unfold" and len(after) == len(before) + 1:
        return (*roles, "p")
    return axes.reshaped(roles, before, after)


def _order(c: Call, rank: int) -> tuple[int, ...] | None:
    """The permutation that the call applies, ``None`` for other rearrangements."""
    order = list(range(rank))
    try:
        if c.name == "permute":
            dims = c.plain(1, "dims")
            if not isinstance(dims, (tuple, list)):
                dims = [v.value for v in c.args[1:] if isinstance(v, Static)]
            return tuple(int(d) % rank for d in dims)
        if c.name == "transpose":
            first = c.plain(1, "dim0", c.plain(1, "axis0"))
            second = c.plain(2, "dim1", c.plain(2, "axis1"))
            order[first], order[second] = order[second], order[first]
            return tuple(order)
        if c.name in ("t", "T", "H", "adjoint"):
            return tuple(reversed(order))
        if c.name == "mT":
            return (*order[:-2], order[-1], order[-2])
        if c.name == "movedim":
            index = torch.empty(tuple(range(2, rank + 2)), device="meta")
            shape = torch.movedim(index, c.plain(1, "source"), c.plain(2, "destination")).shape
            return tuple(s - 2 for s in shape)
    except (TypeError, ValueError, IndexError, RuntimeError):
        return None
    return None


def _follow_rows(b: Builder, c: Call, source: int, signal: Signal, output: int | None = None) -> None:
    """Carry along which rows of the last projection's weight the elements come from."""
    rows = b.rows.get(source)
    if rows is None or (elements(c.meta.shape) or 0) > ROWS_LIMIT:
        return
    target = c.node.target
    args: list[Any] = [rows, *(v.value for v in c.args[1:] if isinstance(v, Static))]
    keywords = {k: v.value for k, v in c.kwargs.items() if isinstance(v, Static)}
    if len(args) != len(c.args) or len(keywords) != len(c.kwargs):
        return
    try:
        if c.node.op == "call_method":
            result = getattr(rows, str(target))(*args[1:], **keywords)
        elif callable(target):
            result = target(*args, **keywords)
        else:
            return
        if output is not None:
            result = result[output]
    except (RuntimeError, TypeError, IndexError, ValueError):
        return
    if isinstance(result, torch.Tensor) and tuple(result.shape) == b.nodes[signal.index].shape:
        b.rows[signal.index] = result


def row_range(rows: torch.Tensor) -> list[int] | None:
    """``[start, stop]`` when the rows are one contiguous range, else ``None``."""
    low, high = torch.aminmax(rows)
    start, stop = int(low), int(high) + 1
    seen = torch.zeros(stop - start, dtype=torch.bool)
    seen[(rows - start).reshape(-1)] = True
    return [start, stop] if bool(seen.all()) else None


def _tuple(b: Builder, c: Call, op: str, source: int, attrs: dict[str, Any], axis: int | None = None) -> Value:
    """One node for each element of a tuple of tensors."""
    if not c.meta.elements:
        node = b.emit(c, op, (source,), attrs=attrs | {"of": None})
        return Items((node,))
    values: list[Value] = []
    start = 0
    whole = b.nodes[source].shape
    for i, meta in enumerate(c.meta.elements):
        if meta.dtype in INTEGER:
            values.append(b.emit(c, "stop", (source,), attrs={"name": c.name}, meta=meta))
            continue
        more: dict[str, Any] = {"of": i}
        if axis is not None and meta.shape is not None and whole is not None:
            size = meta.shape[axis] if len(meta.shape) == len(whole) else 1
            more |= {"start": start, "stop": start + size}
            start += size
        if op == "select":
            more["share"] = share(meta.shape, whole)
        roles = _selected_roles(b.roles[source], whole, meta.shape, axis)
        signal = b.emit(c, op, (source,), attrs=attrs | more, meta=meta, roles=roles)
        _follow_rows(b, c, source, signal, i)
        _mark_rows(b, signal)
        values.append(signal)
    return Items(tuple(values))


def _mark_rows(b: Builder, signal: Signal) -> None:
    """Write the range of rows into the node's attributes."""
    rows = b.rows.get(signal.index)
    if rows is None or not rows.numel():
        return
    found = row_range(rows)
    if found is not None:
        node = b.nodes[signal.index]
        b.nodes[signal.index] = dataclasses.replace(node, attrs={**node.attrs, "rows": list(found)})


def _selected_roles(
    roles: axes.Roles | None, before: Sequence[int] | None, after: Sequence[int] | None, axis: int | None
) -> axes.Roles | None:
    if roles is None or before is None or after is None:
        return None
    if len(before) == len(after):
        return roles
    if axis is not None and len(after) == len(before) - 1:
        return axes.without(roles, (axis,), False)
    return None


def select(b: Builder, c: Call) -> Value:
    """``chunk``, ``split``, ``unbind``, ``getitem``, ``gather`` ...: part of the elements."""
    target = c.value(0, "input")
    if c.name == "getitem" and isinstance(target, Items):
        return _item(target, c.plain(1, "", None))
    if isinstance(target, Static) and target.owners:
        found = _looked_up(b, c, target)
        if found is not None:
            return found
    source = b.signal(target, c)
    if source is None:
        return Unknown(f"{c.name} of no tensor")
    axis = _axis(b, c, source)
    attrs: dict[str, Any] = {"axis": axes.axis_name(b.roles[source], axis), "dim": axis}
    if c.name == "topk" and axis is not None and bool(c.plain(3, "largest", True)):
        shapes = [b.nodes[source].shape, *(meta.shape for meta in c.meta.elements[:1])]
        sizes = [shape[axis] for shape in shapes if shape is not None]
        attrs |= dict(zip(("among", "largest"), sizes, strict=False))
    if c.meta.value_kind == "tuple":
        return _tuple(b, c, "select", source, attrs, axis)
    before, after = b.nodes[source].shape, c.meta.shape
    kept = share(after, before)
    if kept == 1.0 and c.name == "getitem" and before is not None and after is not None:
        signal = b.emit(c, "reshape", (source,), attrs={"kind": "getitem"}, roles=_indexed(b, c, source))
    elif kept is not None and kept > 1.0:  # a lookup that repeats
        signal = b.emit(c, "reshape", (source,), attrs={"kind": c.name, "kept": kept}, roles=_indexed(b, c, source))
    else:
        roles = _indexed(b, c, source)
        signal = b.emit(c, "select", (source,), attrs=attrs | {"share": kept} | _range(c, before, axis), roles=roles)
    _follow_rows(b, c, source, signal)
    _mark_rows(b, signal)
    return signal


def _looked_up(b: Builder, c: Call, table: Static) -> Value | None:
    """A parameter indexed by a signal: an embedding by another name, or a choice among stacked weights."""
    index = c.value(2, "index") if c.name in ("index_select", "gather") else c.value(1)
    axis = 0
    if isinstance(index, Items):  # table[:, ids]: one table for each member of a stack
        places = [i for i, v in enumerate(index.values) if isinstance(v, Signal)]
        rest = [v.value for v in index.values if isinstance(v, Static)]
        if len(places) != 1 or any(v not in (slice(None), Ellipsis) for v in rest) or Ellipsis in rest:
            return None
        axis, index = places[0], index.values[places[0]]
    if not isinstance(index, Signal) or not table.is_tensor or c.meta.value_kind != "tensor":
        return None
    if b.node(index).dtype not in INTEGER or b.node(index).dtype == "bool" or table.value.ndim < axis + 2:
        return None
    if c.name == "gather" or (c.name == "index_select" and c.plain(1, "dim", 0) != 0):
        return None
    shape = tuple(table.value.shape)
    attrs: dict[str, Any] = {"num": shape[axis], "dim": math.prod(shape[axis + 1 :])}
    attrs |= {"gathered": True} if len(shape) > axis + 2 else {}
    attrs |= {"stack": math.prod(shape[:axis])} if axis else {}
    rank = len(c.meta.shape) if c.meta.shape is not None else None
    before = b.roles[index.index] or ()
    roles = None
    if rank is not None:
        head = (*("p",) * axis, *("b" if r == "b" else "p" for r in before))[: rank - 1]
        roles = (*head, *("p",) * (rank - 1 - len(head)), "c")
    return b.emit(c, "embedding", (index.index,), attrs=attrs, parameters=b.roles_of(table, "weight"), roles=roles)


def _item(target: Items, index: Any) -> Value:
    """An element (or slice) of a tuple of values."""
    try:
        found = target.values[index]
    except (TypeError, IndexError):
        return Unknown(f"element {index!r} of a tuple")
    return Items(found) if isinstance(found, tuple) else found


def _axis(b: Builder, c: Call, source: int) -> int | None:
    """The axis that is cut, when it is one."""
    shape = b.nodes[source].shape
    rank = len(shape) if shape is not None else None
    position = {"chunk": 2, "split": 2, "split_with_sizes": 2, "tensor_split": 2, "unsafe_chunk": 2, "unbind": 1}
    if c.name == "getitem":
        return _index_axis(c.value(1), rank)
    dim = c.plain(position.get(c.name, 1), "dim", 0)
    if not isinstance(dim, int) or rank is None or rank == 0:
        return None
    return dim % rank


def _index_axis(index: Value | None, rank: int | None) -> int | None:
    """The only axis that an index touches, ``None`` for several."""
    if rank is None:
        return None
    if isinstance(index, Items):
        items: list[Any] = [v.value if isinstance(v, Static) else v for v in index.values]
    elif isinstance(index, Static):
        items = list(index.value) if isinstance(index.value, tuple) else [index.value]
    else:
        return 0
    touched, axis = [], 0
    for position, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            axis = rank - sum(1 for rest in items[position + 1 :] if rest is not None)
            continue
        if not (isinstance(item, slice) and item == slice(None)):
            touched.append(axis)
        axis += 1
    return touched[0] if len(touched) == 1 else None


def _range(c: Call, before: Sequence[int] | None, axis: int | None) -> dict[str, Any]:
    """``start`` and ``stop`` of a slice, narrow or select on one axis."""
    if before is None or axis is None or axis >= len(before):
        return {}
    if c.name == "narrow":
        start, length = c.plain(2, "start", 0), c.plain(3, "length", 0)
        return {"start": int(start), "stop": int(start) + int(length)}
    if c.name == "select":
        start = int(c.plain(2, "index", 0)) % before[axis]
        return {"start": start, "stop": start + 1}
    if c.name == "getitem" and isinstance(c.value(1), Static):
        index = c.plain(1, "")
        for item in index if isinstance(index, tuple) else (index,):
            if isinstance(item, slice) and item != slice(None):
                start, stop, step = item.indices(before[axis])
                return {"start": start, "stop": stop, "step": step} if step != 1 else {"start": start, "stop": stop}
            if isinstance(item, int) and not isinstance(item, bool):
                return {"start": item % before[axis], "stop": item % before[axis] + 1}
    return {}


def _indexed(b: Builder, c: Call, source: int) -> axes.Roles | None:
    """Roles after indexing with integers, slices, ``None`` and ellipsis."""
    roles, after = b.roles[source], c.meta.shape
    if roles is None or after is None:
        return None
    if len(roles) == len(after) and c.name != "getitem":
        return roles
    index = c.plain(1, "") if c.name == "getitem" else None
    items = list(index) if isinstance(index, tuple) else [index]
    fancy = not isinstance(c.value(1), Static) or any(isinstance(i, (torch.Tensor, list)) for i in items)
    if c.name != "getitem" or fancy:
        axis = _axis(b, c, source)
        if len(after) == len(roles) - 1 and axis is not None:
            return axes.without(roles, (axis,), False)
        return roles if len(roles) == len(after) else axes.guess(after, "b" in roles)
    count = sum(1 for i in items if i is not None and i is not Ellipsis)
    result: list[str] = []
    axis = 0
    for item in items:
        if item is None:
            result.append("p")
        elif item is Ellipsis:
            width = len(roles) - count
            result.extend(roles[axis : axis + width])
            axis += width
        else:
            if isinstance(item, slice):
                result.extend(roles[axis : axis + 1])
            axis += 1
    result.extend(roles[axis:])
    return tuple(result) if len(result) == len(after) else None


def join(b: Builder, c: Call) -> Value:
    """``cat`` and ``stack`` in all spellings."""
    target = c.value(0, "tensors")
    values = target.values if isinstance(target, Items) else ()
    if isinstance(target, Static):
        values = tuple(Static(v) for v in target.value) if isinstance(target.value, (tuple, list)) else ()
    inputs = [i for i in (b.signal(v, c) for v in values) if i is not None]
    if len(inputs) == 1:
        return b.emit(c, "reshape", inputs, attrs={"kind": c.name})
    dims = {"hstack": 1, "vstack": 0, "dstack": 2, "column_stack": 1}
    dim = c.plain(1, "dim", None)
    dim = dims.get(c.name, 0) if dim is None else dim
    op = "stack" if c.name == "stack" else "cat"
    shapes = [b.nodes[i].shape for i in inputs]
    rank = len(shapes[0]) if shapes and shapes[0] is not None else None
    axis = dim % (rank + (op == "stack")) if rank is not None and isinstance(dim, int) else None
    roles = next((b.roles[i] for i in inputs if b.roles[i] is not None and "b" in (b.roles[i] or ())), None)
    if roles is None and inputs:
        roles = b.roles[inputs[0]]
    name = axes.axis_name(roles, axis) if op == "cat" else "other"
    if op == "stack" and roles is not None and axis is not None:
        roles = (*roles[:axis], "p", *roles[axis:])
    elif roles is not None and axis is not None and axis < len(roles) and roles[axis] == "?":
        # joining features of one sample is joining channels, unless another axis is known to be those
        name = "channel" if "c" not in roles and (axis == 1 or axis == len(roles) - 1) else name
    attrs = {"axis": name, "sizes": [elements(s) for s in shapes], "dim": axis}
    return b.emit(c, op, inputs, attrs=attrs, roles=roles)
