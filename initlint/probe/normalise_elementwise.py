"""Handlers of elementwise functions, arithmetic, masks and in-place writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from initlint.probe import normalise_axes as axes
from initlint.probe import normalise_shapes as shapes
from initlint.probe.normalise_builder import Builder, Call, value_moments
from initlint.probe.normalise_opaque import opaque
from initlint.probe.normalise_tables import ACTIVATIONS, INTEGER, spec_arguments
from initlint.probe.normalise_values import Items, Signal, Static, Unknown, Value
from initlint.probe.provenance_ops import UNINITIALISED

#: Shares of a tensor are means of masks in float32.
ROUNDING = 1e-4
#: Elements of a constant up to which they are compared: a bound may be as large as the signal that it bounds.
COMPARED = 1 << 22


def activation(b: Builder, c: Call) -> Value:
    """An elementwise function with fixed arguments."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown(f"{c.name} of no tensor")
    spec = ACTIVATIONS[c.name]
    if any(_varies(c.value(position, keyword)) for _, position, keyword, _ in spec[1]):
        return opaque(b, c)  # bounds that are signals, parameters or differ between elements
    return b.emit(c, "activation", (source,), attrs={"fn": spec[0], **spec_arguments(_number_of(c), spec)})


def _varies(value: Value | None) -> bool:
    """Whether an argument of an elementwise function is a tensor, and no constant with one value."""
    if isinstance(value, Static):
        return value.is_tensor and scalar(value) is None
    return value is not None


def _number_of(c: Call) -> Callable[[int, str, float | None], Any]:
    """``c.plain``, with the number behind a tensor of one value."""

    def plain(position: int, name: str, default: float | None) -> Any:
        number = scalar(c.value(position, name))
        return c.plain(position, name, default) if number is None else number

    return plain


def gelu(b: Builder, c: Call) -> Value:
    """``gelu`` with or without the tanh approximation."""
    source = b.signal(c.value(0, "input"), c)
    approximate = c.plain(1, "approximate", "none")
    fn = "gelu_tanh" if approximate == "tanh" else "gelu"
    return b.emit(c, "activation", () if source is None else (source,), attrs={"fn": fn})


def prelu(b: Builder, c: Call) -> Value:
    """PReLU: the slope that has the mean square of the actual slopes."""
    source = b.signal(c.value(0, "input"), c)
    weight = c.value(1, "weight")
    attrs: dict[str, Any] = {"fn": "prelu", "negative_slope": 0.25}
    parameters: dict[str, str] = {}
    if isinstance(weight, Static) and isinstance(weight.value, torch.Tensor):
        parameters = b.roles_of(weight, "weight")
        second = value_moments(weight.value).get("second")
        if second is not None:
            attrs["negative_slope"] = math.copysign(math.sqrt(second), float(weight.value.detach().double().mean()))
    return b.emit(c, "activation", () if source is None else (source,), attrs=attrs, parameters=parameters)


def power(b: Builder, c: Call) -> Value:
    """``x ** n`` and ``n ** x``."""
    base, exponent = c.value(0, "input"), c.value(1, "exponent")
    number = scalar(exponent)
    if isinstance(base, Static) and scalar(base) is not None and not isinstance(exponent, Static):
        source = b.signal(exponent, c)
        factor = math.log(scalar(base) or 1.0) if (scalar(base) or 0) > 0 else 1.0
        scaled = b.emit(c, "scale", (source or 0,), attrs={"factor": factor}, inner=True)
        return b.emit(c, "activation", (scaled.index,), attrs={"fn": "exp"})
    source = b.signal(base, c)
    if source is None:
        return Unknown("power of no tensor")
    if number is None:
        other = b.signal(exponent, c)
        inputs = (source,) if other is None else (source, other)
        return b.emit(c, "opaque", inputs, attrs={"name": "pow", "why": "exponent is a signal"})
    named = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}.get(number)
    if number == 1.0:
        return b.emit(c, "identity", (source,))
    attrs: dict[str, Any] = {"fn": named} if named else {"fn": "pow", "exponent": number}
    return b.emit(c, "activation", (source,), attrs=attrs)


def scalar(value: Value | None) -> float | None:
    """The number behind a static value that is one constant and no parameter."""
    if not isinstance(value, Static) or value.sources:
        return None
    found = value.value
    if isinstance(found, torch.Tensor):
        if found.numel() == 0 or found.is_meta or found.is_complex():
            return None
        first = float(found.reshape(-1)[0])
        same = found.numel() == 1 or (found.numel() <= COMPARED and bool((found == found.reshape(-1)[0]).all()))
        return first if same else None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    return float(found)


def arithmetic(b: Builder, c: Call) -> Value:
    """``add``, ``sub``, ``mul``, ``div`` and their reflected forms."""
    first, second = c.value(0, "input"), c.value(1, "other")
    name = c.name
    if name == "mul":
        dropped = _random_mask(b, c, first, second) or _random_mask(b, c, second, first)
        if dropped is not None:
            return dropped
    if name in ("rsub", "rdiv", "rpow"):
        name, first, second = name[1:], second, first
    if name == "div" and c.plain(-1, "rounding_mode") is not None:
        return stop(b, c)
    alpha = c.number(2, "alpha", 1.0) if name in ("add", "sub") else 1.0
    left, right = scalar(first), scalar(second)
    if isinstance(first, (Items, Unknown)) and not isinstance(second, Signal):
        return Unknown(f"{name} of no tensor")
    if right is not None and _fits(b, first, second, c):
        return _with_constant(b, c, name, first, right * alpha)
    if left is not None and _fits(b, second, first, c):
        return _constant_first(b, c, name, left, second, alpha)
    return _two_signals(b, c, name, first, second, alpha)


def _fits(b: Builder, signal: Value | None, constant: Value | None, c: Call) -> bool:
    """Whether the constant leaves the signal's shape as it is (it may be a tensor that enlarges it)."""
    if not isinstance(signal, Signal):
        return False
    if not (isinstance(constant, Static) and isinstance(constant.value, torch.Tensor)):
        return True
    shape = b.shape(signal)
    return shape is None or c.meta.shape is None or shape == c.meta.shape


def _with_constant(b: Builder, c: Call, name: str, first: Value | None, value: float) -> Value:
    source = b.signal(first, c)
    if source is None:
        return Unknown(f"{name} of no tensor")
    if name in ("add", "sub"):
        return _shifted(b, c, source, value if name == "add" else -value)
    if name == "div":
        value = 1.0 / value if value else math.inf
    return b.emit(c, "scale", (source,), attrs={"factor": value})


def _constant_first(b: Builder, c: Call, name: str, value: float, second: Value | None, alpha: float) -> Value:
    source = b.signal(second, c)
    if source is None:
        return Unknown(f"{name} of no tensor")
    if name == "mul":
        return b.emit(c, "scale", (source,), attrs={"factor": value})
    if name == "div":
        inverse = b.emit(
            c, "activation", (source,), attrs={"fn": "reciprocal"}, shape=b.nodes[source].shape, inner=value != 1.0
        )
        return inverse if value == 1.0 else b.emit(c, "scale", (inverse.index,), attrs={"factor": value})
    factor = -alpha if name == "sub" else alpha
    if factor != 1.0:
        shape = b.nodes[source].shape
        source = b.emit(c, "scale", (source,), attrs={"factor": factor}, shape=shape, inner=True).index
    return _shifted(b, c, source, value)


def _shifted(b: Builder, c: Call, source: int, value: float) -> Value:
    """A signal and a constant; a sum that begins with 0 is its first term."""
    if value == 0.0:
        return b.emit(c, "identity", (source,))
    return b.emit(c, "shift", (source,), attrs={"value": value})


def _two_signals(b: Builder, c: Call, name: str, first: Value | None, second: Value | None, alpha: float) -> Value:
    inputs = [i for i in (b.signal(first, c), b.signal(second, c)) if i is not None]
    if len(inputs) < 2:
        return b.emit(c, "opaque", inputs, attrs={"name": name, "why": "an operand is unknown"})
    signal = b.emit(c, name, inputs, attrs={"alpha": alpha} if alpha != 1.0 else {})
    rows = _common_rows(b, inputs) if name in ("add", "sub") else None
    if rows is not None and tuple(rows.shape) == b.nodes[signal.index].shape:
        b.rows[signal.index] = rows
    return signal


def _common_rows(b: Builder, inputs: Sequence[int]) -> torch.Tensor | None:
    """The rows that the terms of a sum come from: of W x + U h + b the gates of a cell, a bias has none of its own."""
    found = [b.rows[i] for i in inputs if i in b.rows]
    fixed = [i for i in inputs if i not in b.rows and b.nodes[i].op in ("parameter", "constant")]
    alike = found and len(found) + len(fixed) == len(inputs) and all(torch.equal(found[0], r) for r in found)
    return found[0] if alike else None


def _random_mask(b: Builder, c: Call, signal: Value | None, mask: Value | None) -> Signal | None:
    """Dropout or drop-path written by hand: times a random tensor of 0 and one constant."""
    if not (isinstance(mask, Static) and mask.random and isinstance(mask.value, torch.Tensor)):
        return None
    values = mask.value.double()
    top = values.max() if values.numel() else torch.zeros(())
    if not isinstance(signal, Signal) or not values.numel() or not bool(((values == 0) | (values == top)).all()):
        return None
    known = _drawn_with(mask)
    if top <= 0 and known is None:
        return None
    kept = 1.0 / float(top) if top > 1 else known if known is not None else float((values > 0).double().mean())
    shape = b.shape(signal) or ()
    batch = shape[0] if shape else 1
    kind = "path" if values.numel() <= batch else ("channel" if values.numel() < math.prod(shape) else "element")
    return b.emit(c, "dropout", (signal.index,), attrs={"p": round(1.0 - kept, 6), "kind": kind})


def _drawn_with(mask: Static, depth: int = 6) -> float | None:
    """The probability that a random mask of zeros and ones was drawn with, from how it was made."""
    if mask.calls is None or depth == 0:
        return None
    name, values = mask.calls
    if name in ("bernoulli_", "bernoulli"):
        numbers = [v.value for v in values if isinstance(v, Static) and isinstance(v.value, float)]
        if numbers:
            return numbers[0]
    found = [_drawn_with(v, depth - 1) for v in values if isinstance(v, Static) and v.random]
    return next((p for p in found if p is not None), None)


def negative(b: Builder, c: Call) -> Value:
    """``-x``."""
    source = b.signal(c.value(0, "input"), c)
    return b.emit(c, "scale", () if source is None else (source,), attrs={"factor": -1.0})


def stop(b: Builder, c: Call) -> Value:
    """What passes no gradient; floats, and masks of zeros and ones, keep their measured moments."""
    source = [i for i in (b.signal(v, c) for v in c.args if isinstance(v, (Signal, Items))) if i is not None]
    attrs: dict[str, Any] = {}
    if c.meta.measured is not None:
        got = c.meta.measured
        attrs = {"mean": got.mean, "second": got.second, "correlation": got.correlation}
        if c.meta.dtype in INTEGER:
            attrs["mask"] = True
    elif c.name.startswith("detach") and source:
        attrs = {"same": True}
    bound = scalar(c.value(1, "other")) if c.name in _OPPOSITE else None
    if bound is not None:
        attrs["bound"] = bound
    return b.emit(c, "stop", source[:1], attrs=attrs | {"name": c.name})


def where(b: Builder, c: Call) -> Value:
    """``torch.where(mask, a, b)``: the share of the mask is measured where the mask is known."""
    mask = c.value(0, "condition")
    inputs = [i for i in (b.signal(c.value(1, "input"), c), b.signal(c.value(2, "other"), c)) if i is not None]
    return _mix(b, c, inputs, _share_true(b, mask, c), _compared(b, mask, inputs))


def masked_fill(b: Builder, c: Call) -> Value:
    """``x.masked_fill(mask, value)``."""
    source, value = b.signal(c.value(0, "input"), c), scalar(c.value(2, "value"))
    filled = Static(torch.tensor(float(value if value is not None else 0.0)), expr=str(value))
    other = b.signal(filled if value is not None else c.value(2, "value"), c)
    share = _share_true(b, c.value(1, "mask"), c)
    inputs = [i for i in (source, other) if i is not None]
    when = _compared(b, c.value(1, "mask"), inputs)
    if when:  # the source stays where the mask is false
        when["when"] = _OPPOSITE[when["when"]]
    return _mix(b, c, inputs, None if share is None else 1.0 - share, when)


#: Comparisons, each with the one that holds where it does not.
_OPPOSITE = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}


def _compared(b: Builder, mask: Value | None, inputs: list[int]) -> dict[str, Any]:
    """The condition of a choice, where it compares with a number what one of the operands is a function of.

    ``steps``: which operand, and how many nodes back from it the compared signal is; ``magnitude``: its absolute value.
    """
    node = b.node(mask) if isinstance(mask, Signal) else None
    if node is None or node.op != "stop" or node.attrs.get("bound") is None or not node.inputs:
        return {}
    compared, magnitude = node.inputs[0], b.nodes[node.inputs[0]].attrs.get("fn") == "abs"
    if magnitude:
        compared = b.nodes[compared].inputs[0]
    for place, start in enumerate(inputs):
        at, steps = start, 0
        while at != compared and b.nodes[at].op in ("activation", "scale", "shift", "identity") and b.nodes[at].inputs:
            at, steps = b.nodes[at].inputs[0], steps + 1
        if at == compared:
            found = {"when": node.attrs["name"], "bound": node.attrs["bound"], "steps": [place, steps]}
            return found | ({"magnitude": True} if magnitude else {})
    return {}


def scatter(b: Builder, c: Call) -> Value:
    """``scores.new_full(shape, -inf).scatter(1, chosen, values)``: the chosen values, everything else masked."""
    base, source = b.signal(c.value(0, "input"), c), b.signal(c.value(3, "src"), c)
    shapes = [b.nodes[i].shape for i in (base, source) if i is not None]
    if len(shapes) < 2 or None in shapes or c.value(4, "reduce") is not None or not _wholly_masked(b, base):
        return opaque(b, c)
    places, values = (math.prod(shape or ()) for shape in shapes)
    return _mix(b, c, [i for i in (source, base) if i is not None], values / places if places else None)


def _wholly_masked(b: Builder, index: int | None) -> bool:
    share = b.nodes[index].attrs.get("masked") if index is not None else None
    return isinstance(share, float) and share == 1.0


def _mix(b: Builder, c: Call, inputs: list[int], share: float | None, when: Mapping[str, Any] | None = None) -> Value:
    if len(inputs) < 2:
        return b.emit(c, "opaque", inputs, attrs={"name": c.name, "why": "an operand is unknown"})
    roles = b.roles[inputs[0]]
    rank = len(c.meta.shape) if c.meta.shape is not None else None
    attrs = {"share": share, **(when or {})}
    return b.emit(c, "where", inputs, attrs=attrs, roles=axes.broadcast(roles, b.roles[inputs[1]], rank))


def _share_true(b: Builder, mask: Value | None, c: Call) -> float | None:
    """Share of true elements of a mask, from its values or from the run."""
    if isinstance(mask, Static) and isinstance(mask.value, torch.Tensor) and mask.value.numel():
        return None if mask.value.is_meta else float((mask.value != 0).double().mean())
    if isinstance(mask, Signal):
        measured = b.node(mask).measured
        return None if measured is None else min(1.0, max(0.0, measured.mean))
    return None


def lerp(b: Builder, c: Call) -> Value:
    """``a + w (b - a)`` as a sum of two scaled signals, for a constant or a signal weight."""
    start, end = b.signal(c.value(0, "input"), c), b.signal(c.value(1, "end"), c)
    if start is None or end is None:
        return Unknown("lerp of no tensor")
    weight = scalar(c.value(2, "weight"))
    if weight is not None:
        one = b.emit(c, "scale", (start,), attrs={"factor": 1 - weight}, shape=b.nodes[start].shape, inner=True)
        two = b.emit(c, "scale", (end,), attrs={"factor": weight}, shape=b.nodes[end].shape, inner=True)
        return b.emit(c, "add", (one.index, two.index))
    gate = b.signal(c.value(2, "weight"), c)
    if gate is None:
        return b.emit(c, "opaque", (start, end), attrs={"name": "lerp"})
    difference = b.emit(c, "sub", (end, start), shape=c.meta.shape, inner=True)
    scaled = b.emit(c, "mul", (difference.index, gate), shape=c.meta.shape, inner=True)
    return b.emit(c, "add", (start, scaled.index))


def addc(b: Builder, c: Call) -> Value:
    """``addcmul`` and ``addcdiv``: t + value * a * b."""
    inputs = [b.signal(c.value(i, n), c) for i, n in enumerate(("input", "tensor1", "tensor2"))]
    known = [i for i in inputs if i is not None]
    if len(known) < 3:
        return b.emit(c, "opaque", known, attrs={"name": c.name})
    op = "mul" if c.name == "addcmul" else "div"
    product = b.emit(c, op, (known[1], known[2]), shape=c.meta.shape, inner=True)
    return b.emit(c, "add", (known[0], product.index), attrs={"alpha": c.number(3, "value", 1.0)})


def extremum(b: Builder, c: Call) -> Value:
    """``maximum``/``minimum`` with a constant is a clamp."""
    bound = "min" if c.name in ("maximum", "fmax") else "max"
    for value, other in ((c.value(0, "input"), c.value(1, "other")), (c.value(1, "other"), c.value(0, "input"))):
        number = scalar(other)
        if isinstance(value, Signal) and number is not None:
            return b.emit(c, "activation", (value.index,), attrs={"fn": "clamp", bound: number})
    inputs = [i for i in (b.signal(c.value(0, "input"), c), b.signal(c.value(1, "other"), c)) if i is not None]
    if len(inputs) < 2:
        return b.emit(c, "opaque", inputs, attrs={"name": c.name, "why": "an operand is unknown"})
    rank = len(c.meta.shape) if c.meta.shape is not None else None
    roles = axes.broadcast(b.roles[inputs[0]], b.roles[inputs[1]], rank)
    return b.emit(c, "extremum", inputs, attrs={"fn": "max" if bound == "min" else "min"}, roles=roles)


def glu(b: Builder, c: Call) -> Value:
    """``F.glu``: value * sigmoid(gate) of the two halves."""
    source = b.signal(c.value(0, "input"), c)
    return b.emit(c, "glu", () if source is None else (source,), attrs={"fn": "sigmoid", "dim": c.plain(1, "dim", -1)})


def softmax(b: Builder, c: Call) -> Value:
    """``softmax``, ``softmin`` (of -x), ``log_softmax`` and ``gumbel_softmax``."""
    source = b.signal(c.value(0, "input"), c)
    if source is None:
        return Unknown("softmax of no tensor")
    position = 4 if c.name == "gumbel_softmax" else 1
    dim = c.plain(position, "dim", None)
    shape = b.nodes[source].shape or c.meta.shape
    if dim is None and shape is not None:
        dim = 0 if len(shape) in (0, 1, 3) else 1  # torch's implicit choice
    n = shape[dim] if shape and dim is not None and -len(shape) <= dim < len(shape) else None
    if c.name == "softmin":
        source = b.emit(c, "scale", (source,), attrs={"factor": -1.0}, shape=shape, inner=True).index
    op = "log_softmax" if c.name == "log_softmax" else "softmax"
    return b.emit(c, op, (source,), attrs={"n": n, "dim": dim, "axis": axes.axis_name(b.roles[source], dim)})


def dropout(b: Builder, c: Call) -> Value:
    """All kinds of dropout; the identity where it does nothing."""
    source = b.signal(c.value(0, "input"), c)
    inputs = () if source is None else (source,)
    p = c.number(1, "p", 0.5)
    training = c.plain(2, "training", True)
    if not training or p == 0:
        return b.emit(c, "identity", inputs)
    kinds = {"dropout": "element", "alpha_dropout": "alpha", "feature_alpha_dropout": "alpha"}
    return b.emit(c, "dropout", inputs, attrs={"p": p, "kind": kinds.get(c.name, "channel")})


def written(b: Builder, c: Call) -> Value:
    """``setitem`` and ``merge_view``: a tensor of which a share was replaced by another."""
    value = c.value(2) if c.name == "setitem" else c.value(1)
    part = b.signal(value, c)
    share = c.meta.share
    if _is_empty(c.value(0)) and part is not None:
        return _filled(b, c, None, part, share)
    whole = b.signal(c.value(0), c)
    if whole is None or part is None:
        known = [i for i in (whole, part) if i is not None]
        return b.emit(c, "identity" if known else "opaque", known, attrs={"name": c.name})
    if share is not None and share >= 1.0:
        return b.emit(c, "identity", (part,))
    if share == 0.0:  # no place was chosen: boxes of a level that none belongs to
        return b.emit(c, "identity", (whole,))
    if share is not None and whole in b.filled and b.filled[whole] + share < 1.0 + ROUNDING:
        return _filled(b, c, whole, part, share)
    attrs = {"share": None if share is None else 1.0 - share, "written": True}
    return b.emit(c, "where", (whole, part), attrs=attrs, roles=b.roles[whole])


def _filled(b: Builder, c: Call, whole: int | None, part: int, share: float | None) -> Value:
    """Memory that held nothing, piece by piece: what has been written so far, side by side.

    Whatever was in the rest of it, a model writes over it before it reads it; measured it would be what it held.
    """
    before = 0.0 if whole is None else b.filled[whole]
    after = before + (1.0 if share is None else share)
    inner = after < 1.0 - ROUNDING
    if whole is None:
        found = b.emit(c, "identity", (part,), shape=c.meta.shape, inner=inner)
    else:
        attrs = _side_by_side(b, c, part) | {"sizes": [before, after - before]}
        found = b.emit(c, "cat", (whole, part), attrs=attrs, roles=b.roles[whole], shape=c.meta.shape, inner=inner)
    if inner:
        b.filled[found.index] = after
    return found


def _side_by_side(b: Builder, c: Call, part: int) -> dict[str, Any]:
    """The axis along which a piece is a part of the whole."""
    whole, piece = c.meta.shape, b.nodes[part].shape
    if whole is None or piece is None or len(whole) != len(piece):
        return {"axis": "position"}  # one step or one place of many
    cut = [axis for axis, (n, m) in enumerate(zip(whole, piece, strict=True)) if n != m]
    if len(cut) != 1:
        return {"axis": "other"}
    return {"axis": axes.axis_name(b.roles[part], cut[0]), "dim": cut[0]}


def copied(b: Builder, c: Call) -> Value:
    """``x.copy_(y)``: y, in the shape of x."""
    part = b.signal(c.value(1, "src"), c)
    if part is None:
        return opaque(b, c)
    if b.nodes[part].shape != c.meta.shape:
        return shapes.reshape(b, replace(c, name="expand", args=(Signal(part),), kwargs={}))
    return b.emit(c, "identity", (part,))


def _is_empty(value: Value | None) -> bool:
    """Whether it is memory that nothing has been written to yet."""
    return isinstance(value, Static) and value.calls is not None and value.calls[0] in UNINITIALISED
