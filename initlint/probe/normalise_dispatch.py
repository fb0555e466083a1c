"""Which handler serves which function: one table, and the canonical names it is keyed by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from initlint.probe import normalise_axes as axes
from initlint.probe import normalise_elementwise as elementwise
from initlint.probe import normalise_layers as layers
from initlint.probe import normalise_matmul as products
from initlint.probe import normalise_packed as packed
from initlint.probe import normalise_pools as pools
from initlint.probe import normalise_shapes as shapes
from initlint.probe.normalise_builder import Builder, Call, share
from initlint.probe.normalise_opaque import opaque
from initlint.probe.normalise_tables import (
    ACTIVATIONS,
    ALIASES,
    IDENTITIES,
    LOSSES,
    PAIRED,
    REDUCES,
    REPEATS,
    RESHAPES,
    SELECTS,
    STOPS,
    words,
)
from initlint.probe.normalise_values import Items, Signal, Unknown, Value
from initlint.probe.traced import custom_backward, merge_view, unknown_source, view_again

Handler = Callable[[Builder, Call], Value]

#: Modules whose functions are known by name; anything else is user code and stays opaque.
TRUSTED = ("torch", "_operator", "operator", "math", "builtins", "_VariableFunctions", "_C")


def identity(b: Builder, c: Call) -> Value:
    """The value itself, under a new name (a dtype cast may change it by rounding)."""
    target = c.value(0, "input")
    if isinstance(target, Items):
        return target
    source = b.signal(target, c)
    if source is None:
        return target if target is not None else Unknown(c.name)
    before, after = b.nodes[source].shape, c.meta.shape
    if before is not None and after is not None and before != after:  # the same view of a newer tensor
        kept = share(after, before)
        op = "select" if kept is not None and kept < 1 else "reshape"
        attrs = {"share": kept, "axis": "other"} if op == "select" else {"kind": c.name}
        return b.emit(c, op, (source,), attrs=attrs)
    if c.name not in ("type", "to"):
        return Signal(source)
    return b.emit(c, "identity", (source,), roles=b.roles[source])


def custom(b: Builder, c: Call) -> Value:
    """A custom autograd function: forward as its parts, backward unknown."""
    source = b.signal(c.value(0), c)
    attrs = {"name": "autograd.Function", "why": "its backward is unknown", "forward": "identity"}
    return b.emit(c, "opaque", () if source is None else (source,), attrs=attrs)


def filled(b: Builder, c: Call) -> Value:
    """``zeros``, ``ones`` and ``full`` of a size that depends on the input: one value all the same."""
    value = {"zeros": 0.0, "ones": 1.0}.get(c.name, c.plain(1, "fill_value", None))
    if not isinstance(value, (int, float)):
        return opaque(b, c)
    attrs = {"mean": float(value), "second": float(value) ** 2}
    return b.emit(c, "constant", (), attrs=attrs, roles=axes.constant(c.meta.shape))


def _table() -> dict[str, Handler]:
    table: dict[str, Handler] = {}
    groups: tuple[tuple[Any, Handler], ...] = (
        (STOPS, elementwise.stop),
        (RESHAPES, shapes.reshape),
        (REPEATS, shapes.reshape),
        (SELECTS, shapes.select),
        (IDENTITIES, identity),
        (ACTIVATIONS, elementwise.activation),
        (REDUCES, pools.reduce),
        (PAIRED, pools.reduce),
        (LOSSES, layers.loss),
        (("add", "sub", "mul", "div", "rsub", "rdiv"), elementwise.arithmetic),
        (("cat", "stack", "hstack", "vstack", "dstack", "column_stack"), shapes.join),
        (("conv1d", "conv2d", "conv3d"), layers.convolution),
        (("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), layers.convolution_transpose),
        (("layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm"), layers.norm),
        (("addmm", "baddbmm", "addmv"), products.addmm),
        (("softmax", "softmin", "log_softmax", "gumbel_softmax"), elementwise.softmax),
        (("addcmul", "addcdiv"), elementwise.addc),
        (("maximum", "minimum", "fmax", "fmin"), elementwise.extremum),
        (("setitem", "merge_view"), elementwise.written),
    )
    for names, handler in groups:
        table.update(dict.fromkeys(names, handler))
    for d in (1, 2, 3):
        for name in (
            "avg_pool",
            "max_pool",
            "lp_pool",
            "adaptive_avg_pool",
            "adaptive_max_pool",
            "fractional_max_pool",
        ):
            table[f"{name}{d}d"] = pools.pool
            table[f"{name}{d}d_with_indices"] = pools.pool
        table[f"dropout{d}d"] = elementwise.dropout
    for name in ("dropout", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"):
        table[name] = elementwise.dropout
    return table


HANDLERS: Mapping[str, Handler] = {
    **_table(),
    "gelu": elementwise.gelu,
    "prelu": elementwise.prelu,
    "pow": elementwise.power,
    "rpow": elementwise.power,
    "neg": elementwise.negative,
    "where": elementwise.where,
    "copy": elementwise.copied,
    "masked_fill": elementwise.masked_fill,
    "scatter": elementwise.scatter,
    "lerp": elementwise.lerp,
    "glu": elementwise.glu,
    "linear": products.linear,
    "matmul": products.matmul,
    "einsum": products.einsum,
    "grouped_mm": products.grouped,
    "tensordot": products.tensordot,
    "bilinear": layers.bilinear,
    "embedding": layers.embedding,
    "embedding_bag": layers.embedding_bag,
    "local_response_norm": layers.local_response,
    "normalize": layers.normalize,
    "scaled_dot_product_attention": layers.attention,
    "interpolate": pools.resize,
    "grid_sample": pools.sample,
    "pad": pools.pad,
    "cumsum": pools.cumulate,
    "fold": pools.fold,
    "col2im": pools.fold,
    "pack_padded_sequence": packed.pack,
    "pad_packed_sequence": packed.unpack,
    "custom_backward": custom,
    "unknown_source": opaque,
    **dict.fromkeys(("zeros", "ones", "full"), filled),
}

#: With static operands these are layers all the same: a parameter sent through a layer is a signal.
LAYERS = words(
    "linear bilinear embedding embedding_bag conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "scaled_dot_product_attention"
)
_MARKERS = {
    unknown_source: "unknown_source",
    view_again: "view_again",
    merge_view: "merge_view",
    custom_backward: "custom_backward",
}


def canonical(target: Any, method: bool) -> tuple[str, bool]:
    """The canonical name of what a node calls, and whether its meaning is known by that name."""
    if method:
        name = str(target)
    else:
        if target in _MARKERS:
            return _MARKERS[target], True
        name = str(getattr(target, "__name__", "") or type(target).__name__)
        if name in ("__get__", "__set__"):  # a property of tensors: its descriptor has the name
            name = str(getattr(getattr(target, "__self__", None), "__name__", name))
        name = name.split(".")[0]
        if name == "unfold" and "functional" in str(getattr(target, "__module__", "")):
            name = "im2col"
    plain = name.strip("_").removeprefix("linalg_").removeprefix("special_")
    plain = ALIASES.get(plain, plain)
    return plain, method or trusted(target)


def trusted(target: Any) -> bool:
    """Whether a function belongs to torch or Python and so means what its name says."""
    module = getattr(target, "__module__", None)
    if module is None:
        owner = getattr(target, "__objclass__", None) or getattr(target, "__self__", None)
        module = getattr(owner, "__module__", None) or getattr(owner, "__name__", "") or "torch"
    return str(module).split(".")[0] in TRUSTED
