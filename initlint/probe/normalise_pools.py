"""Handlers of what reduces, pools, resizes or pads."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from initlint.probe import normalise_axes as axes
from initlint.probe.normalise_builder import Builder, Call, elements
from initlint.probe.normalise_opaque import opaque
from initlint.probe.normalise_tables import PAIRED, REDUCES
from initlint.probe.normalise_values import Items, Unknown, Value

#: Interpolation matrices larger than this on one axis are not built; the interior rule is used instead.
RESIZE_LIMIT = 1024


def reduce(b: Builder, c: Call) -> Value:
    """Reductions over one, several or all axes; the elementwise two-argument forms go elsewhere."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown(f"{c.name} of no tensor")
    shape = b.nodes[source].shape
    position = {"norm": 2, "vector_norm": 2, "quantile": 2, "kthvalue": 2}.get(c.name, 1)
    dim = c.plain(position, "dim", c.plain(-1, "axis", None))
    order = c.plain(1, "p", c.plain(1, "ord", 2)) if c.name in ("norm", "vector_norm") else None
    tensors = c.meta.elements[0] if c.meta.value_kind == "tuple" and c.meta.elements else c.meta
    keepdim = bool(c.plain(position + 1, "keepdim", False))
    attrs: dict[str, Any] = {"fn": REDUCES.get(c.name, c.name), "keepdim": keepdim, "order": order}
    rank = len(shape) if shape is not None else None
    dims = _dims(dim, rank)
    if shape is not None:
        attrs["n"] = math.prod(shape[d] for d in dims) if dims is not None else math.prod(shape)
    attrs["over"] = _over(b.roles[source], dims)
    attrs["dims"] = list(dims) if dims is not None else None
    if c.name in ("var", "std"):
        attrs["correction"] = c.plain(-1, "correction", None if c.plain(-1, "unbiased", True) else 0)
    roles = axes.without(b.roles[source], dims, keepdim) if dims is not None else ()
    if c.name in PAIRED:
        values = [
            b.emit(c, "reduce", (source,), attrs=attrs | {"fn": fn}, meta=tensors, roles=roles) for fn in PAIRED[c.name]
        ]
        return Items(tuple(values))
    signal = b.emit(c, "reduce", (source,), attrs=attrs, meta=tensors, roles=roles)
    if c.meta.value_kind == "tuple":
        rest = [b.emit(c, "stop", (source,), attrs={"name": c.name}, meta=m) for m in c.meta.elements[1:]]
        return Items((signal, *(rest or (Unknown("indices"),))))
    return signal


def _dims(dim: Any, rank: int | None) -> tuple[int, ...] | None:
    """The reduced axes, ``None`` for all of them."""
    if rank is None or dim is None or not isinstance(dim, (int, tuple, list)) or isinstance(dim, bool):
        return None
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % rank for d in dims) if rank and dims else None


def _over(roles: axes.Roles | None, dims: tuple[int, ...] | None) -> str:
    if dims is None:
        return "all"
    names = {axes.axis_name(roles, d) for d in dims}
    for name in ("batch", "channel"):
        if name in names:
            return "all" if len(names) > 1 and "batch" in names else name
    return "position"


def pool(b: Builder, c: Call) -> Value:
    """Pooling with windows, and adaptive pooling (windows of input size over output size)."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown(f"{c.name} of no tensor")
    adaptive = c.name.startswith("adaptive")
    kind = "max" if "max" in c.name else ("lp" if c.name.startswith("lp") else "avg")
    if kind == "lp" and c.plain(1, "norm_type") != 2:
        return opaque(b, c)  # odd powers of what may be negative, and moments that no state holds
    spatial = int(c.name.removesuffix("_with_indices").rstrip("d")[-1])
    before = b.nodes[source].shape
    meta = c.meta.elements[0] if c.meta.value_kind == "tuple" and c.meta.elements else c.meta
    after = meta.shape
    n_in = math.prod(before[-spatial:]) if before is not None and len(before) >= spatial else None
    n_out = math.prod(after[-spatial:]) if after is not None and len(after) >= spatial else None
    if adaptive or "fractional" in c.name:
        window: float | None = n_in / n_out if n_in and n_out else None
    else:
        kernel = c.plain(2 if kind == "lp" else 1, "kernel_size", 1)
        sizes = [kernel] * spatial if isinstance(kernel, int) else list(kernel)
        padding = 0 if kind == "lp" else c.plain(3, "padding", 0)
        pads = [padding] * spatial if isinstance(padding, int) else list(padding)
        if before is not None and n_in:  # with ceil_mode a window may be wider than the map, and is cut to it
            sizes = [min(k, n + 2 * p) for k, n, p in zip(sizes, before[-spatial:], pads, strict=False)]
        window = math.prod(sizes)
    attrs: dict[str, Any] = {"kind": kind, "window": window, "n_in": n_in, "n_out": n_out}
    if kind == "avg" and not adaptive:
        attrs["include_pad"] = bool(c.plain(5, "count_include_pad", True))
        attrs["padding"] = padding if isinstance(padding, int) else list(padding)
    roles = axes.convolution(len(after) if after is not None else None, spatial)
    if window == 1 and n_in == n_out and kind != "lp":  # (which gives absolute values)
        return b.emit(c, "identity", (source,), meta=meta, roles=roles)
    divisor = c.plain(6, "divisor_override") if kind == "avg" and not adaptive else None
    signal = b.emit(c, "pool", (source,), attrs=attrs, meta=meta, roles=roles, inner=bool(divisor), shape=after)
    if divisor and window:
        signal = b.emit(c, "scale", (signal.index,), attrs={"factor": window / divisor}, meta=meta, roles=roles)
    if c.meta.value_kind == "tuple":
        rest = [b.emit(c, "stop", (source,), attrs={"name": c.name}, meta=m) for m in c.meta.elements[1:]]
        return Items((signal, *rest))
    return signal


def resize(b: Builder, c: Call) -> Value:
    """Interpolation: Frobenius norms of its (separable) matrix, exact for white signals."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown("interpolation of no tensor")
    before, after = b.nodes[source].shape, c.meta.shape
    default = "bilinear" if "bilinear" in str(c.node.target) else "nearest"
    mode = str(c.plain(3, "mode", default))
    attrs: dict[str, Any] = {"mode": mode}
    if before is not None and after is not None and len(before) == len(after) >= 3:
        corners, smooth = (bool(c.plain(i, n, False)) for i, n in ((4, "align_corners"), (6, "antialias")))
        norms = [_resize_norm(i, o, mode, corners, smooth) for i, o in zip(before[2:], after[2:], strict=True)]
        total, n_in, n_out = math.prod(norms), math.prod(before[2:]), math.prod(after[2:])
        attrs |= {"n_in": n_in, "n_out": n_out, "gain_white": total / n_out, "back_white": total / n_in}
    return b.emit(c, "resize", (source,), attrs=attrs, roles=_of_map(after))


def _of_map(shape: tuple[int, ...] | None) -> axes.Roles | None:
    """Roles of (batch, channel, positions ...)."""
    return axes.convolution(len(shape), len(shape) - 2) if shape is not None and len(shape) >= 3 else None


def sample(b: Builder, c: Call) -> Value:
    """``grid_sample``: a map (batch, channel, ...) read at places (batch, ..., axis)."""
    source, grid = b.signal(c.value(0, "input"), c), b.signal(c.value(1, "grid"), c)
    if source is None or grid is None:
        return Unknown("sampling of no tensor")
    attrs = {"mode": str(c.plain(2, "mode", "bilinear")), "padding_mode": str(c.plain(3, "padding_mode", "zeros"))}
    return b.emit(c, "sample", (source, grid), attrs=attrs, roles=_of_map(c.meta.shape))


def _resize_norm(size: int, wanted: int, mode: str, corners: bool, smooth: bool) -> float:
    """Squared Frobenius norm of the interpolation matrix along one axis; ``smooth``: antialiased."""
    if size == wanted and not mode.endswith("cubic"):
        return float(wanted)
    if max(size, wanted) > RESIZE_LIMIT:  # the interior rule of a smaller case with the same ratio
        factor = RESIZE_LIMIT / max(size, wanted)
        small, target = max(1, round(size * factor)), max(1, round(wanted * factor))
        return _resize_norm(small, target, mode, corners, smooth) * wanted / target
    eye = torch.eye(size)
    if mode == "bicubic" or smooth:
        matrix = F.interpolate(eye[None, :, :, None], (wanted, 1), mode=mode, align_corners=corners, antialias=smooth)
    elif mode.endswith("linear"):
        matrix = F.interpolate(eye[None], wanted, mode="linear", align_corners=corners)
    else:
        matrix = F.interpolate(eye[None], wanted, mode=mode)
    return float(matrix.double().square().sum())


def pad(b: Builder, c: Call) -> Value:
    """Padding of any mode."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown("padding of no tensor")
    attrs: dict[str, Any] = {"n_in": elements(b.nodes[source].shape), "n_out": elements(c.meta.shape)}
    amounts = c.plain(1, "pad")
    if isinstance(amounts, list | tuple) and all(isinstance(amount, int) for amount in amounts):
        attrs["amounts"] = list(amounts)
        pairs = list(zip(amounts[::2], amounts[1::2], strict=False))
        if any(first and first == -last for first, last in pairs):  # cut on one side what is added on the other
            roles = b.roles[source] or ()
            places = [len(roles) - 1 - at for at, (first, _) in enumerate(pairs) if first]
            known = all(place >= 0 and roles[place] == "p" for place in places)
            attrs["shifted"] = "position" if known else "channel"
    mode = c.plain(2, "mode", "constant")
    value = c.plain(3, "value", None)
    return b.emit(c, "pad", (source,), attrs=attrs | {"mode": mode, "value": value}, roles=b.roles[source])


def fold(b: Builder, c: Call) -> Value:
    """``F.fold``: each output is the sum of the patches that overlap there."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown("fold of no tensor")
    before, after = elements(b.nodes[source].shape), elements(c.meta.shape)
    n = max(1, round(before / after)) if before and after else None
    roles = axes.convolution(len(c.meta.shape) if c.meta.shape is not None else None, 2)
    attrs = {"fn": "sum", "n": n, "over": "position", "keepdim": False, "fold": True}
    return b.emit(c, "reduce", (source,), attrs=attrs, roles=roles)


def cumulate(b: Builder, c: Call) -> Value:
    """``cumsum`` along an axis."""
    source = b.signal(c.value(0, "input"), c)
    dim, shape = c.plain(1, "dim", 0), c.meta.shape
    n = shape[dim] if shape and isinstance(dim, int) and -len(shape) <= dim < len(shape) else None
    inputs = () if source is None else (source,)
    axis = axes.axis_name(b.roles[source], dim) if source is not None else None
    return b.emit(c, "cumsum", inputs, attrs={"n": n, "dim": dim, "axis": axis})
