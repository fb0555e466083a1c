"""Normalisations and softmax written by hand, recognised by what they compute.

Relative to a candidate signal x every node is described by a small algebra: the mean of x, x minus
its mean, its square, the mean of that, its root, the inverse of the root. A quotient (or product
with the inverse) of x or its centred form is then a norm, however it was spelled. The statistic
must be of degree one in x; constants added under the root or to it are its epsilon.
"""

from __future__ import annotations

import math
from dataclasses import replace

from initlint.facts import Node, Plain
from initlint.probe.normalise_edit import Editor
from initlint.records import dataclass

#: A constant added to a statistic up to this is an epsilon, not part of the function.
EPSILON = 1e-1

#: What may stand between x and its norm. Behind anything else lies the rest of the model, which need not be walked.
_DESCRIBED = frozenset({"identity", "reshape", "reduce", "activation", "scale", "shift", "sub", "mul"})


@dataclass(frozen=True, slots=True)
class Term:
    """What a node is relative to x: ``kind`` of x mean centred square second deviation inverse normed."""

    kind: str
    centred: bool = False
    dims: tuple[int, ...] = ()
    n: int = 0  # elements of each statistic
    factor: float = 1.0
    eps: float = 0.0
    summed: bool = False  # a sum instead of a mean: the factor holds sqrt(n)
    gain: int | None = None  # parameter that already multiplies it


def fuse_norms(editor: Editor) -> None:
    """Replace hand-written normalisations by ``norm`` nodes, then take in their gains and biases."""
    for node in list(editor.nodes):
        if node.op in ("mul", "div") and len(node.inputs) == 2:
            _try_norm(editor, editor.nodes[node.index])
            _try_softmax(editor, editor.nodes[node.index])
        elif node.op == "sub" and len(node.inputs) == 2:
            _try_log_softmax(editor, node)
    for node in list(editor.nodes):
        if editor.nodes[node.index].op == "norm":
            _affine(editor, node.index)


def _try_norm(editor: Editor, node: Node) -> None:
    left, right = node.inputs
    pairs = ((left, right),) if node.op == "div" else ((left, right), (right, left))
    for signal, statistic in pairs:
        source = _candidate(editor, statistic)
        if source is None:
            continue
        terms: dict[int, Term | None] = {source: Term("x")}
        top, bottom = term(editor, signal, terms), term(editor, statistic, terms)
        if top is None or bottom is None or top.kind not in ("x", "centred"):
            continue
        if bottom.kind != ("deviation" if node.op == "div" else "inverse"):
            continue
        if not bottom.dims or (top.kind == "centred" and top.dims != bottom.dims):
            continue
        _make_norm(editor, node, source, top, bottom)
        return


def _candidate(editor: Editor, statistic: int) -> int | None:
    """The signal whose statistic this is: the input of the reduction behind it, before centring and squaring."""
    index = statistic
    for _ in range(12):
        node = editor.nodes[index]
        if node.op == "reduce":
            return _root(editor, node.inputs[0])
        live = [i for i in node.inputs if editor.nodes[i].op not in ("parameter", "constant")]
        difference = node.op == "sub" and len(live) == 2  # E[x^2] - E[x]^2
        unary = node.op in ("activation", "scale", "shift", "identity", "reshape") and len(live) == 1
        twice = node.op in ("add", "mul") and len(set(live)) == 1
        if not (difference or unary or twice):
            return None
        index = live[0]
    return None


def _root(editor: Editor, index: int) -> int | None:
    """x behind x^2, |x|^2 and x - mean(x)."""
    for _ in range(8):
        node = editor.nodes[index]
        squared = node.op == "activation" and node.attrs.get("fn") in ("square", "pow", "abs")
        if squared or (node.op == "mul" and len(set(node.inputs)) == 1):
            index = node.inputs[0]
        elif node.op == "sub" and len(node.inputs) == 2:
            other = editor.nodes[editor.through(node.inputs[1])]
            if other.op == "reduce" and other.attrs.get("fn") == "mean" and other.inputs[0] == node.inputs[0]:
                return node.inputs[0]
            return index
        else:
            return index
    return None


def term(editor: Editor, index: int, terms: dict[int, Term | None]) -> Term | None:
    """The description of a node relative to x, ``None`` when it is something else."""
    if index not in terms:
        terms[index] = None  # against cycles; graphs have none
        terms[index] = _describe(editor, editor.nodes[index], terms)
    return terms[index]


def _describe(editor: Editor, node: Node, terms: dict[int, Term | None]) -> Term | None:
    if node.op not in _DESCRIBED:
        return None
    gained = _gained(editor, node, terms)
    if gained is not None:
        return gained
    found = [term(editor, i, terms) for i in node.inputs]
    if any(f is None for f in found) or not found:
        return None
    args = [f for f in found if f is not None]
    first = args[0]
    if node.op in ("identity", "reshape"):
        return first
    if node.op == "reduce":
        return _reduced(editor, node, first)
    if node.op == "activation":
        return _applied(node, first)
    if node.op == "scale":
        return _scaled(node, first)
    if node.op == "shift":
        return _shifted(node, first)
    if len(args) != 2:
        return None
    second = args[1]
    if node.op == "sub" and (first.kind, second.kind) == ("x", "mean"):
        return Term("centred", True, second.dims, second.n)
    if node.op == "sub" and (first.kind, second.kind) == ("second", "mean_square") and first.dims == second.dims:
        return replace(first, centred=True)
    if node.op == "mul" and node.inputs[0] == node.inputs[1]:
        return _squared(first)
    return None


def _gained(editor: Editor, node: Node, terms: dict[int, Term | None]) -> Term | None:
    """x or its centred form times a parameter: the gain applied before the division."""
    if node.op != "mul" or len(node.inputs) != 2:
        return None
    for mine, other in (node.inputs, node.inputs[::-1]):
        if editor.nodes[editor.through(other)].op == "parameter":
            value = term(editor, mine, terms)
            if value is not None and value.kind in ("x", "centred") and value.gain is None:
                return replace(value, gain=other)
    return None


def _squared(value: Term) -> Term | None:
    if value.gain is not None:
        return None
    if value.kind in ("x", "centred"):
        return replace(value, kind="square")
    if value.kind == "mean":
        return replace(value, kind="mean_square")
    return replace(value, kind="second", factor=value.factor) if value.kind == "deviation" else None


def _reduced(editor: Editor, node: Node, value: Term) -> Term | None:
    fn, dims, n = node.attrs.get("fn"), node.attrs.get("dims"), node.attrs.get("n")
    shape = editor.nodes[node.inputs[0]].shape
    if not isinstance(n, int) or n < 1:
        return None
    axes = tuple(int(d) for d in dims) if isinstance(dims, list) else tuple(range(len(shape or ())))  # type: ignore[arg-type]
    base = replace(value, dims=axes, n=n)
    if value.kind == "x" and fn == "mean":
        return replace(base, kind="mean")
    if value.kind == "square" and fn in ("mean", "sum"):
        return replace(base, kind="second", summed=fn == "sum")
    if value.kind in ("x", "centred") and fn == "var":
        return replace(base, kind="second", centred=True)
    if value.kind in ("x", "centred") and fn == "std":
        return replace(base, kind="deviation", centred=True)
    if value.kind in ("x", "centred") and fn == "norm" and node.attrs.get("order") in (2, 2.0, None, "fro"):
        return replace(base, kind="deviation", summed=True)
    return None


def _applied(node: Node, value: Term) -> Term | None:
    fn = node.attrs.get("fn")
    exponent = node.attrs.get("exponent")
    if fn == "square" or (fn == "pow" and exponent == 2):
        return _squared(value)
    if value.kind == "second" and fn == "sqrt":
        return replace(value, kind="deviation", factor=math.sqrt(abs(value.factor)))
    if value.kind == "second" and fn == "rsqrt":
        return replace(value, kind="inverse", factor=1.0 / math.sqrt(abs(value.factor) or 1.0))
    if value.kind == "deviation" and fn == "reciprocal":
        return replace(value, kind="inverse", factor=1.0 / (value.factor or 1.0))
    if fn == "clamp" and value.kind in ("second", "deviation"):
        low = node.attrs.get("min")
        if "max" not in node.attrs and isinstance(low, (int, float)) and 0 <= low <= EPSILON:
            return replace(value, eps=float(low))
    if fn == "abs" and value.kind == "x":
        return Term("absolute")
    return None


def _scaled(node: Node, value: Term) -> Term | None:
    factor = node.attrs.get("factor")
    if not isinstance(factor, (int, float)) or factor == 0:
        return None
    if value.kind == "second" and value.summed and abs(factor * value.n - 1) < 1e-6:
        return replace(value, summed=False)
    if value.kind in ("second", "deviation", "inverse") and factor > 0:
        if value.kind == "deviation" and value.summed and abs(factor * math.sqrt(value.n) - 1) < 1e-6:
            return replace(value, summed=False)
        return replace(value, factor=value.factor * factor)
    return None


def _shifted(node: Node, value: Term) -> Term | None:
    shift = node.attrs.get("value")
    if value.kind in ("second", "deviation") and isinstance(shift, (int, float)) and 0 <= shift <= EPSILON:
        squared = shift if value.kind == "second" else shift * shift
        return replace(value, eps=max(value.eps, float(squared)))
    return None


def _make_norm(editor: Editor, node: Node, source: int, top: Term, bottom: Term) -> None:
    shape = editor.nodes[source].shape
    centred = top.kind == "centred"
    kind = _kind(editor.nodes[source], bottom.dims, centred, len(shape) if shape is not None else 0)
    factor = bottom.factor if node.op == "mul" else 1.0 / (bottom.factor or 1.0)
    channel = editor.nodes[source].channel
    attrs: dict[str, Plain] = {
        "kind": "l2" if bottom.summed and not centred else kind,
        "n": bottom.n,
        "eps": bottom.eps / (bottom.n if bottom.summed else 1),
        "training": True,
        "channels": shape[channel] if shape is not None and channel is not None else bottom.n,
        "fused": True,
    }
    if attrs["kind"] == "group" and shape is not None:
        attrs["groups"] = max(1, math.prod(shape[1:]) // bottom.n)
        attrs["channels"] = math.prod(shape[1:3])
    if abs(factor - 1.0) > 1e-6:
        attrs["scale"] = factor
    parameters = {}
    if top.gain is not None:
        value = editor.nodes[editor.through(top.gain)]
        found = _gain(value, "weight") if _per_channel(node, editor.nodes[top.gain], node) else None
        if found is None:
            return
        attrs |= found
        parameters["weight"] = next(iter(value.parameters.values()))
    editor.replace(node.index, "norm", (source,), attrs, label=_label(parameters), parameters=parameters)


def _label(parameters: dict[str, str]) -> str:
    """A norm is called by the module that holds its gain."""
    return parameters.get("weight", "").rpartition(".")[0] or "norm"


def _kind(source: Node, dims: tuple[int, ...], centred: bool, rank: int) -> str:
    """Which norm takes its statistics over these axes."""
    axes = {d % rank for d in dims} if rank else set()
    if source.batch is not None and source.batch in axes:
        return "batch"
    if not centred:
        return "rms"
    if source.channel is not None and source.channel not in axes:
        return "instance"
    if rank >= 4 and len(axes) >= 2 and 1 not in axes and rank - 1 in axes:
        return "group"
    return "layer"


def _affine(editor: Editor, index: int) -> None:
    """Take a parameter that multiplies the norm's output as its gain, and one added to it as its bias."""
    for op, role in (("mul", "weight"), ("add", "bias")):
        norm = editor.nodes[index]
        user = editor.sole_user(index)
        while user is not None and user.op == "identity":  # a cast back to the input's dtype
            user = editor.sole_user(user.index)
        if user is None or user.op != op or role in norm.parameters or len(user.inputs) != 2:
            continue
        other = editor.nodes[user.inputs[0] if editor.through(user.inputs[1]) == index else user.inputs[1]]
        value = editor.nodes[editor.through(other.index)]
        if value.op != "parameter" or not _per_channel(norm, other, user):
            continue
        found = _gain(value, role)
        if found is None:
            continue
        inputs = norm.inputs
        parameters = {**norm.parameters, role: next(iter(value.parameters.values()))}
        label = _label(parameters) if norm.label == "norm" else norm.label
        editor.replace(
            user.index, "norm", inputs, {**norm.attrs, **found}, parameters=parameters, label=label, module=norm.module
        )
        editor.take_in(index)
        index = user.index


def _per_channel(norm: Node, operand: Node, user: Node) -> bool:
    """Whether the operand leaves the shape alone and varies along one axis at most (or is one gain for all)."""
    if user.shape is not None and norm.shape is not None and user.shape != norm.shape:
        return False
    shape = operand.shape
    if shape is None:
        return False
    if math.prod(shape) == 1 and norm.attrs.get("n") != 1:
        return False  # one factor for all (a temperature, a learned logit scale) stays a factor
    if sum(1 for s in shape if s != 1) <= 1:
        return True
    n = norm.attrs.get("n")
    return isinstance(n, int) and math.prod(shape) == n  # normalised over several axes


def _gain(value: Node, role: str) -> dict[str, Plain] | None:
    """Moments of the gain or bias; a gain of 1 + weight is told apart."""
    attrs: dict[str, Plain] = {f"{role}_mean": value.attrs.get("mean"), f"{role}_second": value.attrs.get("second")}
    if "expr" in value.attrs:
        offset = value.attrs.get("offset")
        mean, second = value.attrs.get("mean"), value.attrs.get("second")
        if role != "weight" or offset != 1.0 or not isinstance(mean, float) or not isinstance(second, float):
            return None  # some other function of the parameter
        return {"weight_mean": mean - 1.0, "weight_second": max(0.0, second - 2 * mean + 1.0), "unit_offset": True}
    return attrs


def _try_softmax(editor: Editor, node: Node) -> None:
    """exp(x) / sum(exp(x)), with or without the maximum subtracted."""
    if node.op != "div":
        return
    top, bottom = editor.nodes[node.inputs[0]], editor.nodes[editor.through(node.inputs[1])]
    while bottom.op == "shift":
        bottom = editor.nodes[bottom.inputs[0]]
    if top.op != "activation" or top.attrs.get("fn") != "exp" or bottom.op != "reduce":
        return
    if bottom.attrs.get("fn") != "sum" or bottom.inputs[0] != top.index:
        return
    source = top.inputs[0]
    shifted = editor.nodes[source]
    if shifted.op == "sub" and len(shifted.inputs) == 2:
        other = editor.nodes[editor.through(shifted.inputs[1])]
        if other.op == "stop" and other.inputs:
            other = editor.nodes[other.inputs[0]]
        if other.op == "reduce" and other.attrs.get("fn") == "max" and other.inputs[0] == shifted.inputs[0]:
            source = shifted.inputs[0]
    dims = bottom.attrs.get("dims")
    dim = dims[0] if isinstance(dims, list) and len(dims) == 1 else None
    attrs: dict[str, Plain] = {"n": bottom.attrs.get("n"), "dim": dim, "fused": True}
    editor.replace(node.index, "softmax", (source,), attrs, label="softmax")


def _try_log_softmax(editor: Editor, node: Node) -> None:
    """x - logsumexp(x), as ``torch.distributions.Categorical`` normalises its logits."""
    source, other = node.inputs[0], editor.nodes[editor.through(node.inputs[1])]
    if other.op != "reduce" or other.attrs.get("fn") != "logsumexp" or other.inputs != (source,):
        return
    if editor.nodes[source].shape != node.shape:
        return
    dims = other.attrs.get("dims")
    dim = dims[0] if isinstance(dims, list) and len(dims) == 1 else None
    attrs: dict[str, Plain] = {"n": other.attrs.get("n"), "dim": dim, "axis": other.attrs.get("over"), "fused": True}
    editor.replace(node.index, "log_softmax", (source,), attrs, label="log_softmax")
