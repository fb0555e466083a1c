"""Handlers of ``call_module`` nodes: torch layers by class, everything else opaque."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from initlint.probe import normalise_axes as axes
from initlint.probe import normalise_bags as bags
from initlint.probe import normalise_layers as layers
from initlint.probe import normalise_matmul as products
from initlint.probe.normalise_builder import Builder, Call
from initlint.probe.normalise_opaque import emit_unknown, operands
from initlint.probe.normalise_packed import ROLES as PACKED
from initlint.probe.normalise_packed import steps_of
from initlint.probe.normalise_tables import LOSS_MODULES, STATELESS
from initlint.probe.normalise_values import Items, Signal, Static, Unknown, Value, literal, signals_in
from initlint.probe.operators import effective
from initlint.probe.traced import Meta

ModuleHandler = Callable[[Builder, Call, nn.Module, str], Value]


def held(b: Builder, module: nn.Module, path: str, local: str) -> Static | None:
    """The effective tensor of a module's parameter as a static value, ``None`` when it has none."""
    value = effective(module, local)
    if value is None:
        return None
    name = b.parameter_name(path, local)
    source = (name,)
    trainable = isinstance(getattr(module, local, None), nn.Parameter) or name not in b.buffers
    return Static(value, source, name, view=True, owners=source if trainable else ())


def linear(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.Linear``."""
    call = _call(c, "linear", (c.args[0] if c.args else None, held(b, module, path, "weight"), _bias(b, module, path)))
    return products.linear(b, call)


def _bias(b: Builder, module: nn.Module, path: str) -> Static | None:
    return held(b, module, path, "bias")


def _call(c: Call, name: str, args: tuple[Value | None, ...], **kwargs: Value) -> Call:
    filled = tuple(literal(None) if a is None else a for a in args)
    return Call(name, filled, kwargs, c.meta, c.node, c.label, c.module)


def convolution(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.ConvNd`` and ``nn.ConvTransposeNd``."""
    options = {k: getattr(module, k) for k in ("stride", "padding", "dilation", "groups", "padding_mode")}
    transposed = bool(getattr(module, "transposed", False))
    weight, bias = held(b, module, path, "weight"), _bias(b, module, path)
    return layers.emit_convolution(b, c, c.value(0, "input"), weight, bias, options, transposed)


def embedding(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.Embedding`` and ``nn.EmbeddingBag``."""
    options: dict[str, Any] = {"max_norm": getattr(module, "max_norm", None)}
    if isinstance(module, nn.EmbeddingBag):
        options |= {"mode": module.mode, "offsets": bags.observed(b, c, 1, "offsets")}
        options |= bags.factors(b, c.value(2, "per_sample_weights"))
    weight = held(b, module, path, "weight")
    return layers.emit_embedding(b, c, c.value(0, "input"), weight, getattr(module, "padding_idx", None), options)


def bilinear(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.Bilinear``."""
    weight, bias = held(b, module, path, "weight"), _bias(b, module, path)
    return layers.emit_bilinear(b, c, c.value(0, "input1"), c.value(1, "input2"), weight, bias)


def norm(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """Layer, RMS, batch, group, instance norms, by class."""
    weight, bias = held(b, module, path, "weight"), _bias(b, module, path)
    options: dict[str, Any] = {"eps": getattr(module, "eps", None)}
    if isinstance(module, nn.LayerNorm):
        kind, options["normalized"] = "layer", module.normalized_shape
    elif isinstance(module, nn.GroupNorm):
        kind, options["groups"] = "group", module.num_groups
    elif isinstance(module, nn.modules.instancenorm._InstanceNorm):
        kind = "instance"
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        kind = "batch"
        known = b.traced.estimating
        training = b.traced.training and module.training if known is None else id(module) in known
        options["training"] = training or not module.track_running_stats
    else:
        kind, options["normalized"] = "rms", getattr(module, "normalized_shape", None)
        if options["eps"] is None:
            options["eps"] = float(torch.finfo(torch.float32).eps)  # torch's choice when none is given
    return layers.emit_norm(b, c, c.value(0, "input"), kind, weight, bias, options)


def local_response(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.LocalResponseNorm``."""
    del path
    args = (c.args[0], *(literal(getattr(module, k)) for k in ("size", "alpha", "beta", "k")))
    return layers.local_response(b, _call(c, "local_response_norm", args))


def prelu(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.PReLU``."""
    from initlint.probe.normalise_elementwise import prelu as function

    return function(b, _call(c, "prelu", (c.args[0], held(b, module, path, "weight"))))


def recurrent(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.RNN``, ``nn.LSTM``, ``nn.GRU``: outputs (sequence, state)."""
    assert isinstance(module, nn.RNNBase)
    source = b.signal(c.value(0, "input"), c)
    mode = module.mode.lower()
    shape = b.nodes[source].shape if source is not None else None
    given = c.value(0, "input")
    packed = given if isinstance(given, Items) else None  # axes as there, whatever the layer says
    first = 1 if module.batch_first and shape is not None and len(shape) == 3 else 0
    steps = shape[first] if shape is not None and len(shape) >= 2 else None
    if packed is not None:
        steps = steps_of(b, packed)
    attrs: dict[str, Any] = {
        "cell": mode,
        "hidden": module.hidden_size,
        "layers": module.num_layers,
        "bidirectional": module.bidirectional,
        "steps": steps,
        "projection": module.proj_size or None,
        "dropout": module.dropout or None,
        "batch_first": module.batch_first and packed is None,
    }
    attrs |= recurrent_moments(module, mode)
    parameters = {k: b.parameter_name(path, k) for k, _ in module.named_parameters(recurse=False)}
    metas = c.meta.elements
    meta = metas[0] if metas else None
    roles = sizes = None
    if packed is not None and meta is not None and meta.elements:
        meta = meta.elements[0]
        if shape is not None and len(shape) == 3 and meta.shape is not None:
            roles, sizes = PACKED, (*shape[:2], meta.shape[-1])
    elif meta is not None and meta.shape is not None and len(meta.shape) == 3:
        roles = ("b", "p", "c") if module.batch_first else ("p", "b", "c")
    inputs = () if source is None else (source,)
    out = b.emit(c, "recurrent", inputs, attrs=attrs, parameters=parameters, roles=roles, meta=meta, shape=sizes)
    states = _states(b, c, out, metas[1] if len(metas) > 1 else None)
    return Items((out if packed is None else Items((out, *packed.values[1:])), states))


def _states(b: Builder, c: Call, out: Signal, meta: Meta | None) -> Value:
    """The last state(s): parts of the output sequence (the cell state is not, but is of its kind)."""
    metas = meta.elements if meta is not None and meta.value_kind == "tuple" else (meta,)
    values = []
    for i, item in enumerate(metas):
        attrs = {"axis": "position", "of": i + 1, "state": True}
        signal = b.emit(c, "select", (out.index,), attrs=attrs, meta=item, roles=("p", "b", "c"))
        values.append(signal)
    return Items(tuple(values)) if len(values) > 1 else values[0]


def recurrent_moments(module: nn.Module, mode: str) -> dict[str, Any]:
    """Per layer and direction: second moments of the weights and biases, the sum of the forget biases, and for each of
    the two biases mean and variance of each gate's part in turn; whether the recurrent matrix is the identity."""
    lists = ("second_ih", "second_hh", "second_hr", "identity_hh", "bias_ih_gates", "bias_hh_gates", "input_size")
    found: dict[str, list[Any]] = {k: [] for k in lists}
    gates = {"lstm": 4, "gru": 3}.get(mode, 1)
    forget: list[float] = []
    names = [n for n, _ in module.named_parameters(recurse=False) if n.startswith(("weight_ih", "weight.ih"))]
    for name in names:
        suffix = name.removeprefix("weight_ih")
        ih, hh = effective(module, name), effective(module, f"weight_hh{suffix}")
        if ih is None or hh is None or ih.is_meta:
            continue
        found["second_ih"].append(float(ih.double().square().mean()))
        found["second_hh"].append(float(hh.double().square().mean()))
        square = hh.shape[0] == hh.shape[1]
        found["identity_hh"].append(square and bool((hh == torch.eye(len(hh), dtype=hh.dtype, device=hh.device)).all()))
        found["input_size"].append(ih.shape[1])
        projection = effective(module, f"weight_hr{suffix}")
        if projection is not None:
            found["second_hr"].append(float(projection.double().square().mean()))
        biases = [effective(module, f"bias_{kind}{suffix}") for kind in ("ih", "hh")]
        for kind, bias in zip(("ih", "hh"), biases, strict=True):
            parts = bias.double().chunk(gates) if bias is not None else ()
            of_gates = [float(value) for x in parts for value in (x.mean(), x.var(unbiased=False))]
            found[f"bias_{kind}_gates"].append(of_gates or [0.0] * (2 * gates))
        if mode == "lstm":
            forget.append(sum(found[f"bias_{kind}_gates"][-1][2] for kind in ("ih", "hh")))
    if not found["second_hr"]:
        del found["second_hr"]
    return {**found, **({"forget_bias": forget} if mode == "lstm" else {})}


def cell(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.RNNCell``, ``nn.LSTMCell``, ``nn.GRUCell``: one step."""
    source = b.signal(c.value(0, "input"), c)
    mode = {"LSTMCell": "lstm", "GRUCell": "gru"}.get(
        type(module).__name__, "rnn_" + getattr(module, "nonlinearity", "tanh")
    )
    attrs: dict[str, Any] = {
        "cell": mode,
        "hidden": module.hidden_size,
        "layers": 1,
        "bidirectional": False,
        "steps": 1,
    }
    attrs |= recurrent_moments(module, mode) | {"single": True}
    parameters = {k: b.parameter_name(path, k) for k, _ in module.named_parameters(recurse=False)}
    states = [s.index for s in signals_in(c.value(1, "hx"))] if c.value(1, "hx") is not None else []  # type: ignore[arg-type]
    inputs = [] if source is None else [source, *states]
    metas = c.meta.elements
    roles = ("b", "c")
    out = b.emit(
        c, "recurrent", inputs, attrs=attrs, parameters=parameters, roles=roles, meta=metas[0] if metas else None
    )
    if c.meta.value_kind != "tuple":
        return out
    state = {"axis": "position", "of": 1, "state": True}
    return Items((out, b.emit(c, "select", (out.index,), attrs=state, meta=metas[1] if len(metas) > 1 else None)))


def multihead(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.MultiheadAttention`` as a whole."""
    assert isinstance(module, nn.MultiheadAttention)
    inputs = [b.signal(c.value(i, n), c) for i, n in enumerate(("query", "key", "value"))]
    known = [i for i in inputs if i is not None]
    known = known if len(known) == 3 else (known * 3)[:3]
    shapes = [b.nodes[i].shape for i in known]
    axis = 1 if module.batch_first else 0
    lengths = [s[axis if len(s) == 3 else 0] if s is not None and len(s) >= 2 else None for s in shapes]
    mask = c.value(5, "attn_mask")
    attrs: dict[str, Any] = {
        "embed_dim": module.embed_dim,
        "heads": module.num_heads,
        "queries": lengths[0] if lengths else None,
        "keys": lengths[1] if lengths else None,
        "causal": bool(c.plain(7, "is_causal", False)),
        "dropout": module.dropout or None,
        "bias_k": module.bias_k is not None,
        "batch_first": module.batch_first,
    }
    if isinstance(mask, Static) and isinstance(mask.value, torch.Tensor):
        attrs |= layers._mask_attrs(mask.value if mask.value.dtype != torch.bool else ~mask.value)
    moments, parameters = _multihead_parameters(b, module, path)
    metas = c.meta.elements
    meta = metas[0] if metas else (c.meta if c.meta.value_kind != "tuple" else None)
    rank = len(meta.shape) if meta is not None and meta.shape is not None else None
    roles = {3: ("b", "p", "c") if module.batch_first else ("p", "b", "c"), 2: ("p", "c")}.get(rank or 0)
    out = b.emit(c, "mha", known, attrs=attrs | moments, parameters=parameters, roles=roles, meta=meta)
    if c.meta.value_kind != "tuple":
        return out
    weights: Value = Unknown("attention weights")
    if len(metas) > 1 and metas[1].shape is not None:
        weights = b.emit(c, "opaque", known[:2], attrs={"name": "attention_weights"}, meta=metas[1])
    return Items((out, weights))


def _multihead_parameters(
    b: Builder, module: nn.MultiheadAttention, path: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Second moments of q, k, v, out and their biases, and the names by role."""
    parameters: dict[str, str] = {}
    moments: dict[str, Any] = {}
    size = module.embed_dim
    packed = effective(module, "in_proj_weight")
    parts: tuple[torch.Tensor | None, ...]
    if packed is not None:
        parameters["in_proj"] = b.parameter_name(path, "in_proj_weight")
        parts = tuple(torch.split(packed, size))
    else:
        parts = tuple(effective(module, f"{k}_proj_weight") for k in "qkv")
        parameters |= {f"{k}_proj": b.parameter_name(path, f"{k}_proj_weight") for k in "qkv"}
    bias = effective(module, "in_proj_bias")
    if bias is not None:
        parameters["in_bias"] = b.parameter_name(path, "in_proj_bias")
    for i, (k, part) in enumerate(zip("qkv", parts, strict=True)):
        moments[f"second_{k}"] = _second(part)
        moments[f"bias_second_{k}"] = _second(bias[i * size : (i + 1) * size]) if bias is not None else 0.0
    for name in ("bias_k", "bias_v"):
        if getattr(module, name) is not None:
            parameters[name] = b.parameter_name(path, name)
    out = f"{path}.out_proj" if path else "out_proj"
    parameters["out"] = b.parameter_name(out, "weight")
    moments["second_out"] = _second(effective(module.out_proj, "weight"))
    moments["bias_second_out"] = 0.0
    if module.out_proj.bias is not None:
        parameters["out_bias"] = b.parameter_name(out, "bias")
        moments["bias_second_out"] = _second(module.out_proj.bias.detach())
    return moments, parameters


def _second(tensor: torch.Tensor | None) -> float | None:
    if tensor is None or tensor.is_meta or not tensor.numel():
        return None
    return float(torch.linalg.vector_norm(tensor.float())) ** 2 / tensor.numel()


_POOLS = {
    "Avg": "avg_pool",
    "Max": "max_pool",
    "LP": "lp_pool",
    "FractionalMax": "fractional_max_pool",
    "AdaptiveAvg": "adaptive_avg_pool",
    "AdaptiveMax": "adaptive_max_pool",
}


def pooling(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """Pooling modules: their arguments in the order of the functions."""
    from initlint.probe.normalise_pools import pool

    del path
    name = type(module).__name__
    spatial = name[-2:].lower()
    base = name[:-2].removesuffix("Pool")
    function = _POOLS.get(base, "avg_pool")
    keywords: dict[str, Value] = {
        k: literal(getattr(module, k))
        for k in (
            "kernel_size",
            "stride",
            "padding",
            "count_include_pad",
            "norm_type",
            "output_size",
            "divisor_override",
        )
        if hasattr(module, k)
    }
    return pool(b, Call(function + spatial, c.args[:1], keywords, c.meta, c.node, c.label, c.module))


def resizing(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.Upsample`` and its relatives."""
    from initlint.probe.normalise_pools import resize

    del path
    keywords: dict[str, Value] = {"mode": literal(module.mode), "align_corners": literal(module.align_corners)}
    return resize(b, Call("interpolate", c.args[:1], keywords, c.meta, c.node, c.label, c.module))


def padding(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """``nn.ZeroPad2d`` and its relatives."""
    from initlint.probe.normalise_pools import pad

    del path
    name = type(module).__name__
    modes = {"Reflection": "reflect", "Replication": "replicate", "Circular": "circular"}
    mode = next((m for prefix, m in modes.items() if name.startswith(prefix)), "constant")
    keywords: dict[str, Value] = {"mode": literal(mode), "value": literal(getattr(module, "value", None))}
    return pad(b, Call("pad", c.args[:1], keywords, c.meta, c.node, c.label, c.module))


def unknown(b: Builder, c: Call, module: nn.Module, path: str) -> Value:
    """A module that nothing is known about: opaque, with its parameters."""
    parameters: dict[str, str | None] = {k: b.parameter_name(path, k) for k, _ in module.named_parameters()}
    attrs = {"name": type(module).__name__, "why": c.meta.unknown or "no rule for this module"}
    if c.meta.value_kind == "other":
        return Unknown(attrs["why"])
    return emit_unknown(b, c, operands(b, c), attrs, parameters)


_BY_BASE: tuple[tuple[tuple[type, ...], ModuleHandler], ...] = (
    ((nn.MultiheadAttention,), multihead),
    ((nn.LSTM, nn.GRU, nn.RNN), recurrent),
    ((nn.RNNCellBase,), cell),
    ((nn.Linear,), linear),
    ((nn.modules.conv._ConvNd,), convolution),
    ((nn.Embedding, nn.EmbeddingBag), embedding),
    ((nn.Bilinear,), bilinear),
    ((nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase), norm),
    ((nn.LocalResponseNorm,), local_response),
    ((nn.PReLU,), prelu),
    ((nn.Upsample,), resizing),
)
if hasattr(nn, "RMSNorm"):
    _BY_BASE = (*_BY_BASE, ((nn.RMSNorm,), norm))


def handler_of(module: nn.Module) -> ModuleHandler | None:
    """The handler of a torch layer (or of a user's subclass that keeps its forward), else ``None``."""
    cls = type(module)
    for bases, handler in _BY_BASE:
        for base in bases:
            if isinstance(module, base) and _keeps_forward(cls, base):
                return handler
    name = next((k.__name__ for k in cls.__mro__ if k.__module__.startswith("torch.nn")), "")
    if name.endswith(("Pool1d", "Pool2d", "Pool3d")) and "Unpool" not in name:
        return pooling
    if name.endswith(("Pad1d", "Pad2d", "Pad3d")):
        return padding
    return None


def _keeps_forward(cls: type, base: type) -> bool:
    """Whether ``forward`` of the class is one that torch defines."""
    owner = next((k for k in cls.__mro__ if "forward" in k.__dict__), base)
    return owner.__module__.startswith("torch.")


def stateless(module: nn.Module) -> tuple[str, tuple[Value, ...]] | None:
    """Function name and further arguments of a torch module without parameters."""
    cls = type(module)
    if isinstance(module, nn.Sequential) and len(module) == 0:
        return "contiguous", ()
    owner = next((k for k in cls.__mro__ if "forward" in k.__dict__), cls)
    if not owner.__module__.startswith("torch."):
        return None
    for base in cls.__mro__:
        if base.__name__ in LOSS_MODULES and base.__module__.startswith("torch."):
            return LOSS_MODULES[base.__name__], ()
        if base.__name__ in STATELESS and base.__module__.startswith("torch."):
            name, attributes = STATELESS[base.__name__]
            return name, tuple(literal(getattr(module, a, None)) for a in attributes)
    if cls.__name__ == "Softmax2d":
        return "softmax", (literal(-3),)
    return None


def fan_of_pool(size: int, out: int) -> float:
    """Window of an adaptive pooling along one axis."""
    return size / out if out else math.nan


__all__ = ["axes", "handler_of", "held", "stateless", "unknown"]
