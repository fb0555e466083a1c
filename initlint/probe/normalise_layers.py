"""Handlers of convolutions, embeddings, norms, attention and losses as functions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from initlint.facts import Operator
from initlint.probe import normalise_axes as axes
from initlint.probe import normalise_bags as bags
from initlint.probe import operators
from initlint.probe.normalise_builder import Builder, Call, elements, offset_of, value_moments
from initlint.probe.normalise_values import Signal, Static, Unknown, Value
from initlint.probe.operators import Geometry


def _tensor(value: Value | None) -> torch.Tensor | None:
    return value.value if isinstance(value, Static) and isinstance(value.value, torch.Tensor) else None


def _tuple(value: Any, spatial: int, default: int) -> tuple[int, ...]:
    if value is None or isinstance(value, str):
        return (default,) * spatial
    if isinstance(value, int):
        return (value,) * spatial
    found = tuple(int(v) for v in value)
    return found * spatial if len(found) == 1 else found


def convolution(b: Builder, c: Call) -> Value:
    """``conv1d`` to ``conv3d``."""
    bias = c.value(2, "bias")
    options = {
        "stride": c.plain(3, "stride", 1),
        "padding": c.plain(4, "padding", 0),
        "dilation": c.plain(5, "dilation", 1),
        "groups": c.plain(6, "groups", 1),
    }
    return emit_convolution(b, c, c.value(0, "input"), c.value(1, "weight"), bias, options, False)


def convolution_transpose(b: Builder, c: Call) -> Value:
    """``conv_transpose1d`` to ``conv_transpose3d``."""
    options = {
        "stride": c.plain(3, "stride", 1),
        "padding": c.plain(4, "padding", 0),
        "dilation": c.plain(7, "dilation", 1),
        "groups": c.plain(6, "groups", 1),
    }
    return emit_convolution(b, c, c.value(0, "input"), c.value(1, "weight"), c.value(2, "bias"), options, True)


def emit_convolution(
    b: Builder,
    c: Call,
    source: Value | None,
    weight: Value | None,
    bias: Value | None,
    options: dict[str, Any],
    transposed: bool,
) -> Value:
    """A convolution with a static weight; with a generated one its fan is that of the shapes."""
    index, tensor = b.signal(source, c), _tensor(weight)
    if index is None:
        return Unknown("convolution of no tensor")
    if tensor is None or not isinstance(weight, Static):
        return _dynamic_convolution(b, c, index, weight, bias)
    spatial = tensor.ndim - 2
    before, after = b.nodes[index].shape, c.meta.shape
    geometry = _geometry(tensor, before, after, spatial, options)
    static_bias = _tensor(bias)
    if tensor.is_meta:
        operator, nominal = _meta_convolution(tensor, geometry, transposed), True
    else:
        build = operators.conv_transpose_operator if transposed else operators.conv_operator
        operator, nominal = build(tensor.detach(), static_bias, geometry), None
    parameters = b.roles_of(weight, "weight")
    if isinstance(bias, Static) and bias.sources:
        parameters |= b.roles_of(bias, "bias")
    operator = _again(b, operator, tensor, geometry, parameters.get("weight")) if not transposed else operator
    attrs = {
        "groups": geometry.groups,
        "kernel": list(geometry.kernel),
        "stride": list(geometry.stride),
        "padding": list(geometry.padding),
        "dilation": list(geometry.dilation),
        "padding_mode": options.get("padding_mode", "zeros"),
        "nominal": nominal,
        "fixed": None if weight.owners else True,
    }
    if weight.owners:
        attrs |= b.weight_attrs(weight, weight.owners[0])
    roles = axes.convolution(len(after) if after is not None else None, spatial)
    op = "conv_transpose" if transposed else "conv"
    extra = b.signal(bias, c) if isinstance(bias, Signal) else None
    signal = b.emit(
        c, op, (index,), attrs=attrs, parameters=parameters, operator=operator, roles=roles, inner=extra is not None,
        shape=after,
    )  # fmt: skip
    _conv_rows(b, signal, operator.width_out)
    return signal if extra is None else b.emit(c, "add", (signal.index, extra), roles=roles)


def _again(b: Builder, operator: Operator, weight: torch.Tensor, geometry: Geometry, name: str | None) -> Operator:
    """The gains of a depthwise kernel's powers, where the kernel was applied before."""
    if name is None or weight.is_meta or geometry.groups < 2 or weight.shape[1] != 1:
        return operator
    if name in b.convolved:
        b.convolved[name] = b.convolved[name] or operators.repeated_gains(weight, geometry)
        return replace(operator, again=b.convolved[name])
    b.convolved[name] = ()
    return operator


def _conv_rows(b: Builder, signal: Signal, out: int) -> None:
    node = b.nodes[signal.index]
    if node.shape is None or node.channel is None or node.shape[node.channel] != out:
        return
    view = [out if i == node.channel else 1 for i in range(len(node.shape))]
    b.rows[signal.index] = torch.arange(out).reshape(view).expand(node.shape)


def _geometry(
    weight: torch.Tensor,
    before: tuple[int, ...] | None,
    after: tuple[int, ...] | None,
    spatial: int,
    options: dict[str, Any],
) -> Geometry:
    kernel = tuple(weight.shape[2:])
    dilation = _tuple(options["dilation"], spatial, 1)
    padding = options["padding"]
    if padding == "same":
        pads = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    else:
        pads = _tuple(padding, spatial, 0)
    known = before is not None and after is not None and min(len(before), len(after)) >= spatial
    return Geometry(
        size=before[-spatial:] if known and before is not None else None,
        size_out=after[-spatial:] if known and after is not None else None,
        kernel=kernel,
        stride=_tuple(options["stride"], spatial, 1),
        padding=pads,
        dilation=dilation,
        groups=int(options["groups"]),
        zeros=options.get("padding_mode", "zeros") == "zeros",
    )


def _meta_convolution(weight: torch.Tensor, geometry: Geometry, transposed: bool) -> Operator:
    """Fans only: the exact pair counts of ones, computed on a single channel."""
    ones = torch.ones((1, 1, *weight.shape[2:]))
    single = Geometry(
        geometry.size, geometry.size_out, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation,
        1, geometry.zeros,
    )  # fmt: skip
    build = operators.conv_transpose_operator if transposed else operators.conv_operator
    one, groups = build(ones, None, single), geometry.groups
    if transposed:
        inner, out = weight.shape[0], weight.shape[1] * groups
    else:
        inner, out = weight.shape[1] * groups, weight.shape[0]
    fans = one.fan_in * inner / groups, one.fan_out * out / groups
    return operators.meta_operator(fans[0], fans[1], (inner, out), one.positions)


def _dynamic_convolution(b: Builder, c: Call, index: int, weight: Value | None, bias: Value | None) -> Value:
    """The kernel is itself a signal (dynamic convolutions, hypernetworks)."""
    inputs = [index] + [i for i in (b.signal(weight, c),) if i is not None]
    shape = b.nodes[inputs[1]].shape if len(inputs) == 2 else None
    n = math.prod(shape[1:]) if shape else None
    spatial = len(shape) - 2 if shape else 2
    roles = axes.convolution(len(c.meta.shape) if c.meta.shape is not None else None, spatial)
    signal = b.emit(c, "matmul", inputs, attrs={"contraction": n, "kind": "other", "convolution": True}, roles=roles)
    extra = b.signal(bias, c)
    return signal if extra is None else b.emit(c, "add", (signal.index, extra), roles=roles)


def embedding(b: Builder, c: Call) -> Value:
    """``F.embedding``; a float "index" cannot happen."""
    return emit_embedding(b, c, c.value(0, "input"), c.value(1, "weight"), c.plain(2, "padding_idx"), {})


def embedding_bag(b: Builder, c: Call) -> Value:
    """``F.embedding_bag(input, weight, offsets, max_norm, norm_type, scale_grad, mode, ..., padding_idx)``."""
    options: dict[str, Any] = {"mode": c.plain(6, "mode", "mean"), "offsets": bags.observed(b, c, 2, "offsets")}
    options |= bags.factors(b, c.value(8, "per_sample_weights"))
    return emit_embedding(b, c, c.value(0, "input"), c.value(1, "weight"), c.plain(10, "padding_idx"), options)


def emit_embedding(
    b: Builder, c: Call, source: Value | None, weight: Value | None, padding_idx: Any, options: dict[str, Any]
) -> Value:
    """A table lookup, or a bag of them: ``options`` hold its mode, offsets of the run and moments of factors."""
    index, tensor = b.signal(source, c), _tensor(weight)
    if tensor is None or not isinstance(weight, Static):
        inputs = [i for i in (index, b.signal(weight, c)) if i is not None]
        return b.emit(c, "opaque", inputs, attrs={"name": "embedding", "why": "the table is a signal"})
    shape = tuple(tensor.shape)
    attrs: dict[str, Any] = {"num": shape[0], "dim": shape[-1], "padding_idx": padding_idx}
    mode = options.get("mode")
    places = bags.observed(b, c, 0, "input")
    padding = padding_idx % shape[0] if isinstance(padding_idx, int) else None
    if mode:
        attrs |= {"mode": mode, **_bag(b, index, c, places, options.get("offsets"), padding)}
        attrs |= {key: value for key, value in options.items() if key.startswith("weigh")}
    else:
        attrs |= bags.padded(places, tensor, padding)
    attrs["max_norm"] = options.get("max_norm")
    if tensor.is_meta:
        attrs["nominal"] = True
    if not weight.owners:
        attrs["fixed"] = True
    rank = len(c.meta.shape) if c.meta.shape is not None else None
    batched = index is not None and b.roles[index] is not None and "b" in (b.roles[index] or ())
    roles = None if rank is None else (*("b" if i == 0 and batched else "p" for i in range(rank - 1)), "c")
    signal = b.emit(
        c, "embedding", () if index is None else (index,), attrs=attrs, parameters=b.roles_of(weight, "weight"),
        roles=roles,
    )  # fmt: skip
    if tensor.ndim == 2 and rank and math.prod(c.meta.shape or ()) <= 1 << 21:
        b.rows[signal.index] = torch.arange(shape[1]).expand(c.meta.shape or ())
    return signal


def _bag(
    b: Builder,
    index: int | None,
    c: Call,
    places: torch.Tensor | None,
    offsets: torch.Tensor | None,
    padding: int | None,
) -> dict[str, float]:
    """Entries of a bag: as many as the run looked up, else their mean number by the shapes."""
    rows = c.meta.shape[0] if c.meta.shape else 0
    found = bags.entries(places, offsets, padding, rows) if places is not None and rows else {}
    before = b.nodes[index].shape if index is not None else None
    return found or ({"bag": math.prod(before) / rows} if before is not None and rows else {})


def bilinear(b: Builder, c: Call) -> Value:
    """``F.bilinear(x1, x2, W, b)``."""
    return emit_bilinear(b, c, c.value(0, "input1"), c.value(1, "input2"), c.value(2, "weight"), c.value(3, "bias"))


def emit_bilinear(
    b: Builder, c: Call, first: Value | None, second: Value | None, weight: Value | None, bias: Value | None
) -> Value:
    """A bilinear form with a static weight."""
    inputs = [i for i in (b.signal(first, c), b.signal(second, c)) if i is not None]
    tensor = _tensor(weight)
    if tensor is None or not isinstance(weight, Static) or len(inputs) < 2:
        return b.emit(c, "opaque", inputs, attrs={"name": "bilinear", "why": "the weight is a signal"})
    parameters = b.roles_of(weight, "weight")
    if isinstance(bias, Static) and bias.sources:
        parameters |= b.roles_of(bias, "bias")
    out, one, two = tensor.shape
    meta = tensor.is_meta
    operator = (
        operators.meta_operator(float(one * two), float(out * two), (one, out))
        if meta
        else operators.bilinear_operator(tensor.detach(), _tensor(bias))
    )
    roles = axes.linear(b.roles[inputs[0]], len(c.meta.shape) if c.meta.shape is not None else None)
    attrs = {"in1": one, "in2": two, "nominal": meta or None}
    return b.emit(c, "bilinear", inputs, attrs=attrs, parameters=parameters, operator=operator, roles=roles)


def norm(b: Builder, c: Call) -> Value:
    """All normalisations as functions."""
    kind = {"layer_norm": "layer", "rms_norm": "rms", "batch_norm": "batch", "group_norm": "group"}.get(c.name, "")
    if c.name == "instance_norm":
        kind = "instance"
    options: dict[str, Any] = {}
    if kind in ("layer", "rms"):
        weight, bias = c.value(2, "weight"), c.value(3, "bias") if kind == "layer" else None
        options = {"normalized": c.plain(1, "normalized_shape"), "eps": c.plain(4 if bias else 3, "eps")}
        if kind == "layer":
            options["eps"] = c.plain(4, "eps", 1e-5)
    elif kind == "group":
        weight, bias = c.value(2, "weight"), c.value(3, "bias")
        options = {"groups": c.plain(1, "num_groups"), "eps": c.plain(4, "eps", 1e-5)}
    else:
        weight, bias = c.value(3, "weight"), c.value(4, "bias")
        options = {"eps": c.plain(7, "eps", 1e-5), "training": bool(c.plain(5, "training", kind == "instance"))}
    return emit_norm(b, c, c.value(0, "input"), kind, weight, bias, options)


def emit_norm(
    b: Builder,
    c: Call,
    source: Value | None,
    kind: str,
    weight: Value | None,
    bias: Value | None,
    options: dict[str, Any],
) -> Value:
    """A normalisation with optional static gain and bias."""
    index = b.signal(source, c)
    if index is None:
        return Unknown("norm of no tensor")
    shape = b.nodes[index].shape
    n, channels = norm_size(kind, shape, options)
    attrs: dict[str, Any] = {"kind": kind, "n": n, "channels": channels, "groups": options.get("groups")}
    attrs |= {"eps": options.get("eps"), "training": options.get("training", True)}
    parameters: dict[str, str] = {}
    for role, value in (("weight", weight), ("bias", bias)):
        tensor = _tensor(value)
        if tensor is None or not isinstance(value, Static):
            continue
        found = value_moments(tensor)
        attrs |= {f"{role}_mean": found.get("mean"), f"{role}_second": found.get("second")}
        if role == "weight" and value.sources and not value.view and offset_of(value) == 1.0 and "mean" in found:
            mean, second = float(found["mean"]), float(found["second"])
            attrs |= {"weight_mean": mean - 1.0, "weight_second": max(0.0, second - 2 * mean + 1.0)}
            attrs["unit_offset"] = True
        if value.sources:
            parameters |= b.roles_of(value, role)
    roles = b.roles[index]
    if roles is not None and "c" not in roles and shape is not None and len(shape) >= 2:
        place = len(shape) - 1 if kind in ("layer", "rms") else 1
        roles = tuple("c" if i == place else ("p" if r == "?" else r) for i, r in enumerate(roles))
    return b.emit(c, "norm", (index,), attrs=attrs, parameters=parameters, roles=roles)


def norm_size(kind: str, shape: tuple[int, ...] | None, options: dict[str, Any]) -> tuple[int | None, int | None]:
    """Elements that each statistic is taken over, and the number of channels."""
    normalized = options.get("normalized")
    if kind in ("layer", "rms") and normalized is not None:
        normalized = (normalized,) if isinstance(normalized, int) else tuple(normalized)
        return math.prod(normalized), normalized[-1]
    if shape is None or len(shape) < 2:
        return options.get("n"), options.get("channels")
    channels = shape[1]
    spatial = math.prod(shape[2:])
    if kind == "batch":
        return shape[0] * spatial, channels
    if kind == "group":
        return channels // max(1, int(options.get("groups") or 1)) * spatial, channels
    if kind == "instance":
        return spatial, channels
    return shape[-1], channels


def local_response(b: Builder, c: Call) -> Value:
    """``F.local_response_norm``."""
    source = b.signal(c.value(0, "input"), c)
    attrs = {
        "kind": "local_response",
        "n": c.plain(1, "size"),
        "alpha": c.number(2, "alpha", 1e-4),
        "beta": c.number(3, "beta", 0.75),
        "k": c.number(4, "k", 1.0),
    }
    return b.emit(c, "norm", () if source is None else (source,), attrs=attrs)


def normalize(b: Builder, c: Call) -> Value:
    """``F.normalize``: unit length along an axis."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown("normalize of no tensor")
    p, dim, shape = c.number(1, "p", 2.0), c.plain(2, "dim", 1), b.nodes[source].shape
    n = shape[dim] if shape and isinstance(dim, int) and -len(shape) <= dim < len(shape) else None
    if p != 2.0:
        return b.emit(c, "opaque", (source,), attrs={"name": "normalize", "why": f"p = {p}"})
    return b.emit(c, "norm", (source,), attrs={"kind": "l2", "n": n, "eps": c.number(3, "eps", 1e-12), "dim": dim})


def attention(b: Builder, c: Call) -> Value:
    """``F.scaled_dot_product_attention`` on (..., tokens, head_dim)."""
    inputs = [b.signal(c.value(i, n), c) for i, n in enumerate(("query", "key", "value"))]
    known = [i for i in inputs if i is not None]
    if len(known) < 3:
        return b.emit(c, "opaque", known, attrs={"name": c.name, "why": "an operand is unknown"})
    q, k = b.nodes[known[0]].shape, b.nodes[known[1]].shape
    mask = c.value(3, "attn_mask")
    scale = c.plain(6, "scale", None)
    attrs: dict[str, Any] = {
        "heads": q[-3] if q is not None and len(q) >= 4 else 1,
        "head_dim": q[-1] if q is not None else None,
        "queries": q[-2] if q is not None else None,
        "keys": k[-2] if k is not None else None,
        "causal": bool(c.plain(5, "is_causal", False)),
        "scale": scale if scale is not None else (1.0 / math.sqrt(q[-1]) if q is not None else None),
        "dropout": c.number(4, "dropout_p", 0.0),
    }
    if isinstance(mask, Signal) or _tensor(mask) is not None:
        attrs |= {"mask": True} | _mask_attrs(_tensor(mask))
        learned = isinstance(mask, Signal) or (isinstance(mask, Static) and bool(mask.owners))
        bias = b.signal(mask, c) if learned else None
        known += [bias] if bias is not None else []
    return b.emit(
        c, "attention", known, attrs=attrs, roles=b.roles[known[2]] if q == c.meta.shape else b.roles[known[0]]
    )


def _mask_attrs(mask: torch.Tensor | None) -> dict[str, Any]:
    """Whether a known mask is causal, and which share of the logits it hides."""
    if mask is None or mask.is_meta or mask.ndim < 2 or not mask.numel():
        return {}
    hidden = ~mask if mask.dtype == torch.bool else mask <= -1e4
    last = hidden.reshape(-1, *hidden.shape[-2:])[0]
    causal = (
        last.shape[0] == last.shape[1] and last.shape[0] > 1 and bool((last == torch.ones_like(last).triu(1)).all())
    )
    return {"masked": float(hidden.double().mean()), "causal": causal}


def loss(b: Builder, c: Call) -> Value:
    """Losses inside forward."""
    inputs = [
        i for i in (b.signal(v, c) for v in (*c.args, *c.kwargs.values()) if isinstance(v, Signal)) if i is not None
    ]
    shape = b.nodes[inputs[0]].shape if inputs else None
    attrs = {"kind": c.name, "classes": shape[1] if shape is not None and len(shape) >= 2 else None}
    return b.emit(c, "loss", inputs, attrs=attrs, roles=())


def count(c: Call) -> int | None:
    """Elements of the call's output."""
    return elements(c.meta.shape)
