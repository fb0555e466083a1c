"""Ask the live op: how it answers sampled signals, where no closed form is known.

Answers are plain data (``Response``, tables) that go into the facts, so that rules and
counterfactuals need no torch later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from initlint.facts import Response
from initlint.probe.recorded_state import preserved, seeded
from initlint.probe.recorded_values import as_real, between_samples
from initlint.probe.traced import MARKERS, Traced, meta_of, tensors_in

#: Factors of the observed inputs at which an op is asked: two decades around the operating point.
SCALES = (0.1, 0.3, 0.6, 1.0, 1.6, 3.0, 10.0)

#: The same for ops with large results, of which each answer takes seconds: what lies between is interpolated.
FEW_SCALES = (0.3, 1.0, 3.0)
_LARGE = 4_000_000

# Grid of a table: dense near zero where activations bend, reaching far enough that they are
# straight (or saturated) beyond. x = sinh(t): |x| up to 50.
_POINTS = 321
_REACH = math.asinh(50.0)
_ENOUGH = 150
# Elements beyond which laying the grid over a tensor takes longer than the answer is worth.
_LARGEST = 1 << 20
# Largest difference, relative to the largest value, up to which two answers for the same x are equal.
_EQUAL = 1e-5


def response(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    scales: Sequence[float] = SCALES,
    seed: int = 0,
) -> Response | None:
    """What ``func`` does to its float tensors when all of them are scaled by each factor.

    Each tensor among the arguments is an input of the response, in order; ``back`` of an index or
    boolean tensor is empty. The output is the first float tensor returned. ``None`` when the op
    raises or returns no float tensor.
    """
    kwargs = dict(kwargs or {})
    operands = list(tensors_in((tuple(args), kwargs)))
    asked = []
    for scale in scales:
        with seeded(seed):
            one = _ask(func, args, kwargs, operands, scale)
        if one is not None:
            asked.append((scale, *one))
    if not asked:
        return None
    return Response(
        scales=tuple(a[0] for a in asked),
        second=tuple(a[1] for a in asked),
        mean=tuple(a[2] for a in asked),
        correlation=tuple(a[3] for a in asked),
        back=tuple(_column(asked, index) for index in range(len(operands))),
        q_in=tuple(_second(t) for t in operands),
        c_in=tuple(_correlation(t) for t in operands),
    )


def _column(asked: Sequence[tuple[Any, ...]], index: int) -> tuple[float, ...]:
    column = tuple(a[4][index] for a in asked)
    return column if all(v is not None for v in column) else ()


def _ask(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    operands: Sequence[torch.Tensor],
    scale: float,
) -> tuple[float, float, float, list[float | None]] | None:
    """(second, mean, c, p_in / p_out of each operand) at one scale."""
    leaves: dict[int, torch.Tensor] = {}
    for tensor in operands:
        if tensor.is_floating_point() and id(tensor) not in leaves:
            leaves[id(tensor)] = (tensor.detach() * scale).requires_grad_()
    try:
        with torch.enable_grad():
            # no leaf: the op may write into it
            fresh = {k: v.clone() for k, v in leaves.items()}
            result = func(*_replaced(list(args), fresh), **_replaced(dict(kwargs), fresh))
            output = next((t for t in tensors_in(result) if t.is_floating_point() and t.numel()), None)
            if output is None:
                return None
            gradients = _backward(output, leaves)
    except Exception:  # anything a foreign op may raise at an unusual scale
        return None
    back = [gradients.get(id(t)) for t in operands]
    return _second(output), float(output.detach().double().mean()), _correlation(output), back


def _backward(output: torch.Tensor, leaves: Mapping[int, torch.Tensor]) -> dict[int, float]:
    if not output.requires_grad:
        return {}
    loss = (output * torch.randn_like(output)).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {k: _second(g) if g is not None else 0.0 for k, g in zip(leaves, gradients, strict=True)}


def _replaced(value: Any, fresh: Mapping[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return fresh.get(id(value), value)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_replaced(v, fresh) for v in value)
    if isinstance(value, Mapping):
        return {k: _replaced(v, fresh) for k, v in value.items()}
    return value


def _second(tensor: torch.Tensor) -> float:
    real = as_real(tensor)
    return float(real.double().square().mean()) if real is not None and real.numel() else 0.0


def _correlation(tensor: torch.Tensor) -> float:
    real = as_real(tensor)
    if real is None or real.dim() < 2:
        return 0.0
    return between_samples(real, _second(tensor)) or 0.0


def response_of(traced: Traced, node: fx.Node, *, scales: Sequence[float] = SCALES, seed: int = 0) -> Response | None:
    """The response of a node of a traced graph to the tensors it got in the run (inputs in argument order)."""
    called = _call_of(traced, node, seed)
    if called is None:
        return None
    if meta_of(node).shape is not None and math.prod(meta_of(node).shape or ()) > _LARGE:
        scales = [s for s in FEW_SCALES if s in scales]
    with preserved(traced.root):
        return response(*called, scales=scales, seed=seed)


def _call_of(
    traced: Traced, node: fx.Node, seed: int
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
    """The op of a node as a function, with its observed arguments."""
    if node.op not in ("call_function", "call_method", "call_module") or node.target in MARKERS:
        return None
    observed: dict[fx.Node, Any] = {}
    for source in node.all_input_nodes:
        value = observe(traced, source, seed)
        if value is None:
            return None
        observed[source] = value
    args = map_arg(node.args, observed.__getitem__)
    kwargs = map_arg(node.kwargs, observed.__getitem__)
    if node.op == "call_module":
        module: nn.Module = traced.module(node)
        return module, args, kwargs
    if node.op == "call_method":
        name = str(node.target)
        return (lambda first, *rest, **named: getattr(first, name)(*rest, **named)), args, kwargs
    assert callable(node.target)
    return node.target, args, kwargs


def observe(traced: Traced, node: fx.Node, seed: int = 0) -> Any:
    """What a node produced in the run; where that was overwritten, a Gaussian of its measured moments."""
    if node.op == "get_attr":
        value = traced.attribute(str(node.target))
        return value.detach() if isinstance(value, torch.Tensor) else value
    value = traced.value(node)
    if value is not None:
        return value
    meta = meta_of(node)
    if meta.shape is None or meta.measured is None or meta.dtype is None:
        return None
    spread = max(0.0, meta.measured.second - meta.measured.mean**2) ** 0.5
    with seeded(seed):
        return (torch.randn(meta.shape) * spread + meta.measured.mean).to(getattr(torch, meta.dtype))


def table(
    func: Callable[[torch.Tensor], Any], shape: Sequence[int] = (_POINTS,)
) -> dict[str, tuple[float, ...]] | None:
    """Samples ``x``, ``y``, ``dy`` of an elementwise callable; ``None`` when it is not elementwise.

    Elementwise: the output has the input's shape, and each element depends on nothing but the
    element at its place, in the same way at all places. This is tried with the grid laid out
    twice, in different ways, over tensors of ``shape``.
    """
    xs = torch.sinh(torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64)).float()
    # Another order, and some points more often than others: sums over all points change as well.
    order = torch.randint(_POINTS, (_POINTS,), generator=torch.Generator().manual_seed(0))
    try:
        first = _tabulate(func, xs, tuple(shape))
        second = _tabulate(func, xs[order], tuple(shape))
    except Exception:  # a callable that wants something else than a tensor of this shape
        return None
    if first is None or second is None:
        return None
    y, dy = first
    if not (_same(y[order], second[0]) and _same(dy[order], second[1])):
        return None
    keep = torch.isfinite(y) & torch.isfinite(dy)
    if int(keep.sum()) < _ENOUGH:  # log and sqrt are undefined on one half
        return None
    return {
        "x": tuple(float(v) for v in xs[keep]),
        "y": tuple(float(v) for v in y[keep]),
        "dy": tuple(float(v) for v in dy[keep]),
    }


def _tabulate(
    func: Callable[[torch.Tensor], Any], xs: torch.Tensor, shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """y and dy at each x, with the points laid over as many tensors of ``shape`` as are needed."""
    size = max(1, math.prod(shape))
    calls = -(-xs.numel() // size)
    laid = xs.repeat(-(-calls * size // xs.numel()))[: calls * size]
    ys, dys = [], []
    for start in range(0, calls * size, size):
        x = laid[start : start + size].reshape(shape).requires_grad_()
        with torch.enable_grad():
            y = func(x)
            if not isinstance(y, torch.Tensor) or y.shape != x.shape or not y.is_floating_point():
                return None
            slope = torch.autograd.grad(y.sum(), x, allow_unused=True)[0] if y.requires_grad else None
        ys.append(y.detach().reshape(-1))
        dys.append(slope.reshape(-1) if slope is not None else torch.zeros(size))
    answers = _once(torch.cat(ys).float(), xs.numel()), _once(torch.cat(dys).float(), xs.numel())
    return None if answers[0] is None or answers[1] is None else (answers[0], answers[1])


def _once(values: torch.Tensor, points: int) -> torch.Tensor | None:
    """The first answer for each point; ``None`` where places answer differently, as if each had a bound of its own."""
    first = values[:points]
    for start in range(points, values.numel(), points):
        again = values[start : start + points]
        if not torch.allclose(again, first[: again.numel()], rtol=_EQUAL, atol=_EQUAL, equal_nan=True):
            return None
    return first


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    size = float(a[torch.isfinite(a)].abs().max()) if bool(torch.isfinite(a).any()) else 1.0
    return bool(torch.allclose(a, b, rtol=_EQUAL, atol=_EQUAL * max(size, 1e-6), equal_nan=True))


def table_of(traced: Traced, node: fx.Node) -> dict[str, tuple[float, ...]] | None:
    """A table of a node that is an elementwise function of one tensor, ``None`` for others."""
    called = _call_of(traced, node, 0)
    meta = meta_of(node)
    if called is None or meta.shape is None or math.prod(meta.shape) > _LARGEST:
        return None
    func, args, kwargs = called
    signals = [t for t in tensors_in((args, kwargs)) if t.is_floating_point() and tuple(t.shape) == meta.shape]
    if len(signals) != 1:
        return None

    def alone(x: torch.Tensor) -> Any:
        fresh = {id(signals[0]): x.clone()}
        with seeded(0):
            return func(*_replaced(args, fresh), **_replaced(kwargs, fresh))

    with preserved(traced.root):
        return table(alone, meta.shape)
