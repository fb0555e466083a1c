"""Handlers of products: linear maps with weights, and contractions of two signals.

Every form (``linear``, ``matmul``, ``addmm``, ``einsum``, ``tensordot``) becomes labelled axes as
in an einsum. Labels of a weight then say all: those it shares with the signal and the output are
a stack (experts, heads), those it shares with the signal only are contracted, the others are its
outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from initlint.facts import Operator
from initlint.probe import normalise_axes as axes
from initlint.probe import normalise_results as results
from initlint.probe import operators
from initlint.probe.normalise_algebra import Term, terms_of
from initlint.probe.normalise_builder import Builder, Call
from initlint.probe.normalise_labels import Labels, Split, equation, layout, parse
from initlint.probe.normalise_values import Items, Signal, Static, Unknown, Value, evaluate, literal


def linear(b: Builder, c: Call) -> Value:
    """``F.linear(x, W, b)``."""
    source, weight, bias = c.value(0, "input"), c.value(1, "weight"), c.value(2, "bias")
    rank = _rank(b, source, c)
    names = tuple(f"x{i}" for i in range(rank - 1))
    out: Labels = (*names, "o") if _ndim(weight) != 1 else names
    return product(b, c, source, (*names, "i"), weight, ("o", "i")[-_ndim(weight) :], out, bias)


def _rank(b: Builder, value: Value | None, c: Call, default: int = 2) -> int:
    if isinstance(value, Signal):
        shape = b.shape(value)
        if shape is None and c.meta.shape is not None:
            return len(c.meta.shape)
        return len(shape) if shape is not None else default
    return value.value.ndim if isinstance(value, Static) and value.is_tensor else default


def _ndim(value: Value | None) -> int:
    return value.value.ndim if isinstance(value, Static) and value.is_tensor else 2


def matmul(b: Builder, c: Call) -> Value:
    """``a @ b`` with broadcasting over leading axes."""
    return _matmul(b, c, c.value(0, "input"), c.value(1, "other"), None)


def _matmul(
    b: Builder, c: Call, first: Value | None, second: Value | None, bias: Value | None, inner: bool = False
) -> Value:
    ranks = _rank(b, first, c), _rank(b, second, c)
    if c.meta.shape is not None and min(ranks) >= 2:
        ranks = tuple(min(r, len(c.meta.shape)) for r in ranks)  # type: ignore[assignment]
    batch = max(ranks) - 2
    names = tuple(f"x{i}" for i in range(max(batch, 0)))
    left = (*names[max(0, batch - (ranks[0] - 2)) :], "m", "k") if ranks[0] >= 2 else ("k",)
    right = (*names[max(0, batch - (ranks[1] - 2)) :], "k", "n") if ranks[1] >= 2 else ("k",)
    result = (*names, *(("m",) if ranks[0] >= 2 else ()), *(("n",) if ranks[1] >= 2 else ()))
    return product(b, c, first, left, second, right, result, bias, inner)


def addmm(b: Builder, c: Call) -> Value:
    """``addmm``, ``baddbmm`` and ``addmv``: beta * bias + alpha * a @ b."""
    bias, first, second = (c.value(i, n) for i, n in enumerate(("input", "mat1", "mat2")))
    first = first if first is not None else c.value(1, "batch1")
    second = second if second is not None else c.value(2, "batch2")
    alpha, beta = c.number(4, "alpha", 1.0), c.number(3, "beta", 1.0)
    bias = None if beta == 0.0 else _times(b, c, bias, beta)
    if isinstance(first, Static):
        return _matmul(b, c, _times(b, c, first, alpha), second, bias)
    if isinstance(second, Static):  # a weight times a number is a weight: the layer is the whole of the op
        return _matmul(b, c, first, _times(b, c, second, alpha), bias)
    if alpha == 1.0:
        return _matmul(b, c, first, second, bias)
    found = b.signal(_matmul(b, c, first, second, None, inner=True), c)
    inputs, extra = () if found is None else (found,), b.signal(bias, c)
    scaled = b.emit(c, "scale", inputs, attrs={"factor": alpha}, shape=c.meta.shape, inner=extra is not None)
    return scaled if extra is None else b.emit(c, "add", (scaled.index, extra))


def _times(b: Builder, c: Call, value: Value | None, factor: float) -> Value | None:
    """A factor of an operand: of a parameter as a part of its expression."""
    if factor == 1.0 or value is None:
        return value
    if isinstance(value, Static):
        return evaluate("mul", torch.mul, (value, literal(factor)), {})
    index = b.signal(value, c)
    if index is None:
        return value
    return b.emit(c, "scale", (index,), attrs={"factor": factor}, shape=b.nodes[index].shape, inner=True)


def einsum(b: Builder, c: Call) -> Value:
    """``torch.einsum`` with any number of operands, contracted from left to right."""
    written = c.plain(0, "equation")
    operands: Sequence[Value] = c.args[1:]
    if len(operands) == 1 and isinstance(operands[0], Items):
        operands = operands[0].values
    if not isinstance(written, str) or not operands:
        return _opaque(b, c, operands, "equation is not known")
    try:
        labels, result = parse(written, [_rank(b, v, c, 0) for v in operands])
    except ValueError as error:
        return _opaque(b, c, operands, str(error))
    return _chain(b, c, list(operands), labels, result)


def _chain(b: Builder, c: Call, operands: list[Value], labels: list[Labels], result: Labels) -> Value:
    if len(operands) == 1:
        return _single(b, c, operands[0], labels[0], result)
    current, names = operands[0], labels[0]
    for i in range(1, len(operands)):
        last = i == len(operands) - 1
        needed = set(result).union(*labels[i + 1 :])
        target = result if last else tuple(dict.fromkeys(x for x in (*names, *labels[i]) if x in needed))
        if isinstance(current, Static) and isinstance(operands[i], Static):
            return _opaque(b, c, operands, "several constant operands")
        current = product(b, c, current, names, operands[i], labels[i], target, None, inner=not last)
        names = target
    return current


def _single(b: Builder, c: Call, operand: Value, labels: Labels, result: Labels) -> Value:
    source = b.signal(operand, c)
    if source is None:
        return Unknown("einsum of no tensor")
    gone = [x for x in labels if x not in result]
    if not gone and len(set(labels)) == len(labels):
        order = tuple(labels.index(x) for x in result)
        return b.emit(c, "reshape", (source,), attrs={"kind": "permute"}, roles=axes.permuted(b.roles[source], order))
    if len(set(labels)) != len(labels):
        return b.emit(c, "opaque", (source,), attrs={"name": "einsum", "why": "diagonal"})
    shape = b.nodes[source].shape
    n = math.prod(shape[labels.index(x)] for x in gone) if shape else None
    return b.emit(c, "reduce", (source,), attrs={"fn": "sum", "n": n, "over": "position", "keepdim": False})


def grouped(b: Builder, c: Call) -> Value:
    """``torch._grouped_mm(x, W, offs)``: rows of x sorted by expert, each group times its own matrix."""
    weight, signal = c.value(1, "mat2"), c.value(0, "input")
    if not (isinstance(weight, Static) and weight.is_tensor and weight.value.ndim == 3 and isinstance(signal, Signal)):
        return _two(b, c, signal, ("n", "k"), weight, ("e", "k", "o"), ("n", "o"), None, False)
    parameters = b.roles_of(weight, "weight")
    value = weight.value.detach()
    split = Split(("e",), ("o",), ("k",))
    operator, stack = _operator(value, ("e", "k", "o"), split, None)
    attrs = {"layout": layout(value, ("e", "k", "o"), split), "stack": stack, "nominal": value.is_meta or None}
    roles = axes.linear(b.roles[signal.index], 2)
    found = b.emit(c, "linear", (signal.index,), attrs=attrs, parameters=parameters, operator=operator, roles=roles)
    if c.meta.shape is not None:
        b.rows[found.index] = torch.arange(value.shape[2]).expand(c.meta.shape)
    return found


def tensordot(b: Builder, c: Call) -> Value:
    """``torch.tensordot``."""
    first, second, dims = c.value(0, "a"), c.value(1, "b"), c.plain(2, "dims", 2)
    ranks = _rank(b, first, c), _rank(b, second, c)
    if isinstance(dims, int):
        dims = (list(range(ranks[0] - dims, ranks[0])), list(range(dims)))
    left, right = [f"a{i}" for i in range(ranks[0])], [f"b{i}" for i in range(ranks[1])]
    for i, j in zip(dims[0], dims[1], strict=True):
        right[j] = left[i]
    result = [x for x in left if x not in right] + [x for x in right if x not in left]
    return product(b, c, first, tuple(left), second, tuple(right), tuple(result), None)


def product(
    b: Builder,
    c: Call,
    first: Value | None,
    left: Labels,
    second: Value | None,
    right: Labels,
    result: Labels,
    bias: Value | None,
    inner: bool = False,
) -> Value:
    """The product of two labelled operands, at most one of them static."""
    if isinstance(first, Static) and isinstance(second, Signal):
        return _weighted(b, c, second, right, first, left, result, bias, inner)
    if isinstance(second, Static) and isinstance(first, Signal):
        return _weighted(b, c, first, left, second, right, result, bias, inner)
    if isinstance(first, Static) and isinstance(second, Static) and second.is_tensor:
        index = b.signal(first, c)  # a parameter sent through a layer is a signal like any other
        if index is not None:
            return _weighted(b, c, Signal(index), left, second, right, result, bias, inner)
    return _two(b, c, first, left, second, right, result, bias, inner)


def _two(
    b: Builder,
    c: Call,
    first: Value | None,
    left: Labels,
    second: Value | None,
    right: Labels,
    result: Labels,
    bias: Value | None,
    inner: bool,
) -> Value:
    """Both operands are signals."""
    inputs = [i for i in (b.signal(first, c), b.signal(second, c)) if i is not None]
    if len(inputs) < 2:
        return b.emit(c, "opaque", inputs, attrs={"name": c.name, "why": "an operand is unknown"})
    contracted = [x for x in left if x in right and x not in result]
    sizes = results.sizes(b, ((inputs[0], left), (inputs[1], right)))
    n = math.prod(sizes[x] for x in contracted) if all(x in sizes for x in contracted) else None
    roles = results.two_roles(b, inputs, left, right, result)
    kept = inner or bias is not None
    if not contracted:
        signal = b.emit(c, "mul", inputs, roles=roles, shape=results.shape(sizes, result), inner=kept)
    else:
        attrs = {"contraction": n, "kind": "other", "equation": equation(left, right, result)}
        attrs |= _gathered(b, inputs, (left, right), contracted)
        signal = b.emit(c, "matmul", inputs, attrs=attrs, roles=roles, shape=results.shape(sizes, result), inner=kept)
    extra = b.signal(bias, c) if bias is not None and not _is_none(bias) else None
    return signal if extra is None else b.emit(c, "add", (signal.index, extra), roles=roles)


def _gathered(b: Builder, inputs: list[int], labels: tuple[Labels, Labels], contracted: list[str]) -> dict[str, Any]:
    """An operand that is a weight chosen from a stack: where its inputs and outputs lie."""
    for place, (index, names) in enumerate(zip(inputs, labels, strict=True)):
        node = b.nodes[index]
        if node.op == "embedding" and node.attrs.get("gathered") and len(names) >= 2:
            order = "stacked_out_in" if names[-1] in contracted else "stacked_in_out"
            return {"gathered": place, "layout": order}
    return {}


def _is_none(value: Value | None) -> bool:
    return value is None or (isinstance(value, Static) and value.value is None)


def _weighted(
    b: Builder,
    c: Call,
    signal: Signal,
    names: Labels,
    weight: Static,
    labels: Labels,
    result: Labels,
    bias: Value | None,
    inner: bool,
) -> Value:
    """A signal times a static tensor."""
    if not weight.is_tensor or weight.value.ndim != len(labels):
        return _opaque(b, c, (signal, weight), "shapes of the operands are not known")
    terms = terms_of(weight)
    if terms is not None and len(labels) == 2:
        return _composed(b, c, signal, names, terms, labels, result, bias)
    labels = _free_broadcast(b, signal, names, weight, labels)
    split = Split.of(labels, names, result)
    if not split.inner and not split.out:  # elementwise
        other = b.signal(weight, c)
        return b.emit(c, "mul", [signal.index] + ([] if other is None else [other]), inner=inner)
    parameters = b.roles_of(weight, "weight") if weight.sources else {}
    static_bias = bias if isinstance(bias, Static) and bias.is_tensor else None
    tensor_bias = static_bias.value if static_bias is not None else None
    if static_bias is not None and static_bias.sources:
        parameters |= b.roles_of(static_bias, "bias")
    operator, stack = _operator(weight.value.detach(), labels, split, tensor_bias)
    order = layout(weight.value, labels, split)
    if order.startswith("stacked") and stack == 1:  # the same input goes to every matrix of the stack
        stack = int(weight.value.shape[0])
    attrs: dict[str, Any] = {"layout": order, "stack": stack if stack > 1 else None}
    if weight.value.is_meta:
        attrs["nominal"] = True
    attrs |= _weight_notes(b, weight, parameters)
    sizes = {**results.sizes(b, ((signal.index, names),)), **dict(zip(labels, weight.value.shape, strict=True))}
    shape = c.meta.shape if not inner and c.meta.shape is not None else results.shape(sizes, result)
    roles = results.result_roles(b, signal, names, split, result)
    extra = None if bias is None or static_bias is not None or _is_none(bias) else b.signal(bias, c)
    found = b.emit(
        c, "linear", (signal.index,), attrs=attrs, parameters=parameters, operator=operator, roles=roles, shape=shape,
        inner=inner or extra is not None,
    )  # fmt: skip
    results.set_rows(b, found, shape, result, split, sizes)
    return found if extra is None else b.emit(c, "add", (found.index, extra), roles=roles)


def _composed(
    b: Builder,
    c: Call,
    signal: Signal,
    names: Labels,
    terms: tuple[Term, ...],
    labels: Labels,
    result: Labels,
    bias: Value | None,
) -> Value:
    """x (W + c B A): one map for each factor, and a sum over the terms (a low-rank adapter merged into a weight)."""
    inner = next((x for x in labels if x in names and x not in result), None)
    found: list[Signal] = []
    for position, (factor, chain) in enumerate(terms):
        forward = chain if labels[0] == inner else tuple(reversed(chain))
        current: Value = signal
        for step, matrix in enumerate(forward):
            last = step == len(forward) - 1
            target = result if last else _next(names, inner, step)
            source = names if step == 0 else _next(names, inner, step - 1)
            contracted = inner if step == 0 else f"r{step - 1}"
            opened = next(x for x in labels if x != inner) if last else f"r{step}"
            pair = (contracted, opened) if labels[0] == inner else (opened, contracted)
            own = bias if last and position == 0 else None
            current = product(b, c, current, source, matrix, tuple(str(x) for x in pair), target, own, inner=True)
        index = b.signal(current, c)
        if index is None:
            continue
        if factor != 1.0:
            shape = b.nodes[index].shape
            current = b.emit(c, "scale", (index,), attrs={"factor": factor}, shape=shape, inner=True, label="scale")
            index = current.index
        found.append(Signal(index))
    total = found[0]
    for k, term in enumerate(found[1:], 2):
        total = b.emit(c, "add", (total.index, term.index), shape=c.meta.shape, inner=k < len(found), label="add")
    return total


def _next(names: Labels, inner: str | None, step: int) -> Labels:
    """Labels of the signal after ``step`` maps of a chain."""
    return tuple(f"r{step}" if x == inner else x for x in names)


def _free_broadcast(b: Builder, signal: Signal, names: Labels, weight: Static, labels: Labels) -> Labels:
    """Axes that the signal has with size 1 only are outputs of the weight, not a stack."""
    shape = b.shape(signal)
    if shape is None or len(shape) != len(names):
        return labels
    sizes = dict(zip(names, shape, strict=True))
    return tuple(
        f"{x}'" if sizes.get(x) == 1 and size > 1 else x for x, size in zip(labels, weight.value.shape, strict=True)
    )


def _weight_notes(b: Builder, weight: Static, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Attributes of a weight that is an expression or a part of a parameter."""
    attrs: dict[str, Any] = {}
    if weight.owners and not weight.view:
        attrs |= b.weight_attrs(weight, weight.owners[0])
    elif weight.view and weight.owners:
        part = _part(b, weight)
        if part is not None:
            attrs["part"] = part
    if not weight.owners:
        attrs["fixed"] = True  # a buffer or constant: nothing to initialise
    del parameters
    return attrs


def _part(b: Builder, weight: Static) -> list[int] | None:
    """``[start, stop]`` of axis 0 when the weight is a range of rows of its parameter."""
    try:
        whole = b.traced.attribute(weight.owners[0])
    except AttributeError:
        return None
    value = weight.value
    if not isinstance(whole, torch.Tensor) or whole.ndim < 1 or whole.numel() == value.numel():
        return None
    row = whole.stride(0)
    if value.numel() % max(1, row) or value.numel() == 0 or row != math.prod(whole.shape[1:]):
        return None
    start = (value.storage_offset() - whole.storage_offset()) / max(1, row)
    count = value.numel() // max(1, row)
    same = value.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    return [int(start), int(start) + count] if same and start.is_integer() else None


def _operator(weight: torch.Tensor, labels: Labels, split: Split, bias: torch.Tensor | None) -> tuple[Operator, int]:
    """The operator and the size of the stack."""
    sizes = dict(zip(labels, weight.shape, strict=True))
    stack, out, inner = (math.prod(sizes[x] for x in group) for group in (split.stack, split.out, split.inner))
    if weight.is_meta:
        return operators.meta_operator(float(inner), float(out), (inner, out)), stack
    order = [labels.index(x) for x in (*split.stack, *split.out, *split.inner)]
    moved = weight.permute(order)
    if stack == 1:
        return operators.linear_operator(moved.reshape(out, inner), bias), 1
    return operators.stacked_operator(moved.reshape(stack, out, inner), bias), stack


def _opaque(b: Builder, c: Call, operands: Sequence[Value], why: str) -> Value:
    inputs = [i for i in (b.signal(v, c) for v in operands) if i is not None]
    return b.emit(c, "opaque", inputs, attrs={"name": c.name, "why": why})
