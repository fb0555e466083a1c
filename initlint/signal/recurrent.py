"""Recurrent layers as a whole: RNN, LSTM and GRU over T steps (THEORY 5.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.curves import Curve, curve, named
from initlint.signal.elementwise import apply, times
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.scene import Op, Scene, number, numbers, text

#: Steps after which the recursion is taken to have settled; it stops earlier when nothing changes.
MOST_STEPS = 256
#: Lags of the backward recursion computed exactly; beyond them the last ratio continues.
LAGS = 48
SETTLED = 1e-6


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer and direction: second moments of its weights and of its summed biases."""

    kind: str
    hidden: float
    inputs: float
    ih: float
    hh: float
    bias: float
    bias_mean: float
    forget: float


@dataclass(frozen=True, slots=True)
class Run:
    """A layer after its steps: output averaged over them, the last pre-activation, hidden and cell state."""

    mean: State
    pre: State
    hidden: State
    cell: State


def _cells(node: Node, x_size: float) -> list[list[Cell]]:
    """For each layer its directions."""
    hidden = max(number(node, "hidden", 1.0), 1.0)
    directions = 2 if node.attrs.get("bidirectional") else 1
    layers = max(int(number(node, "layers", 1.0)), 1)
    lists = {
        name: numbers(node.attrs.get(name))
        for name in ("second_ih", "second_hh", "bias_second", "bias_mean", "forget_bias", "input_size")
    }
    default = 1.0 / (3.0 * hidden)
    found = []
    for layer in range(layers):
        row = []
        for direction in range(directions):
            at = layer * directions + direction

            def pick(name: str, fallback: float, at: int = at) -> float:
                values = lists[name]
                return values[at] if at < len(values) else fallback

            size = pick("input_size", x_size if layer == 0 else hidden * directions)
            row.append(
                Cell(
                    text(node, "cell", "rnn_tanh"),
                    hidden,
                    size,
                    pick("second_ih", default),
                    pick("second_hh", default),
                    pick("bias_second", 0.0),
                    pick("bias_mean", 0.0),
                    pick("forget_bias", 0.0),
                )
            )
        found.append(row)
    return found


def _pre(cell: Cell, x: State, h: State, mean: float) -> State:
    a, b = cell.inputs * cell.ih, cell.hidden * cell.hh
    centred = max(cell.bias - cell.bias_mean**2, 0.0)
    return state(
        a * x.q + b * h.q + centred + mean * mean, mean, a * x.d + b * h.d, a * x.e + b * h.e, a * x.u + b * h.u
    )


def _of(name: str, x: State, width: float) -> State:
    return apply(curve(named(name), x.m, x.v), x, width)


def _plus(a: State, b: State, cross: float = 0.0) -> State:
    return state(a.q + b.q + cross, a.m + b.m, a.d + b.d, a.e + b.e, a.u + b.u)


def _complement(z: State) -> State:
    return replace(z, q=max(1.0 - 2.0 * z.m + z.q, 0.0), m=1.0 - z.m)


def run(cell: Cell, x: State, steps: int) -> Run:
    """Unroll one layer until it has settled or the sequence ends."""
    zero = state(0.0, kind="constant")
    h, c, pre = zero, zero, zero
    total = [0.0] * 5
    done = 0
    for step in range(min(max(steps, 1), MOST_STEPS)):
        before = h.q
        pre, h, c = _step(cell, x, h, c, step)
        total = [t + value for t, value in zip(total, (h.q, h.m, h.d, h.e, h.u), strict=True)]
        done = step + 1
        if step > 4 and abs(h.q - before) <= SETTLED * h.q:
            break
    rest = max(steps - done, 0)
    q, m, d, e, u = (
        (t + rest * last) / (done + rest) for t, last in zip(total, (h.q, h.m, h.d, h.e, h.u), strict=True)
    )
    return Run(state(q, m, d, e, u, kind="post", own=2.0 / cell.hidden), pre, h, c)


def _step(cell: Cell, x: State, h: State, c: State, step: int) -> tuple[State, State, State]:
    n = cell.hidden
    if cell.kind in ("rnn_tanh", "rnn_relu"):
        pre = _pre(cell, x, h, cell.bias_mean)
        return pre, _of("relu" if cell.kind.endswith("relu") else "tanh", pre, n), c
    if cell.kind == "lstm":
        pre = _pre(cell, x, h, 0.0)
        forget = _of("sigmoid", _pre(cell, x, h, cell.forget), n)
        gate, inner = _of("sigmoid", pre, n), _of("tanh", pre, n)
        # the constant biases make i_t g_t of successive steps add up along the cell (THEORY 5.7)
        shared = max(cell.bias, 0.0) * curve(named("tanh"), 0.0, pre.v).slope
        carry = (1.0 - forget.m**step) / (1.0 - forget.m) if forget.m < 1 else float(step)
        cross = 2.0 * forget.m * gate.m * gate.m * shared * carry
        c = replace(_plus(times(forget, c), times(gate, inner), cross), kind="gaussian")
        return pre, times(gate, _of("tanh", c, n)), c
    if cell.kind == "gru":
        pre = _pre(cell, x, h, 0.0)
        z, r = _of("sigmoid", pre, n), _of("sigmoid", pre, n)
        again = cell.hidden * cell.hh
        side = cell.inputs * cell.ih
        bias = 0.5 * cell.bias
        reset = times(r, state(again * h.q + bias, 0.0, again * h.d, again * h.e, again * h.u))
        inner = _plus(state(side * x.q + bias, 0.0, side * x.d, side * x.e, side * x.u), reset)
        new = _of("tanh", inner, n)
        slope = curve(named("tanh"), 0.0, inner.v).slope
        cross = 0.5 * bias * slope * (1.0 - 0.5**step)
        return pre, _plus(times(_complement(z), new), times(z, h), cross), inner
    raise NoRuleError(f"the recurrent cell {cell.kind!r} is not modelled")


def recurrent(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """The output sequence of the last layer, averaged over steps."""
    y = xs[0]
    for row in _cells(node, _inputs(node, scene)):
        runs = [run(cell, y, _steps(node)) for cell in row]
        y = runs[0].mean
    return replace(y, noise=xs[0].noise + xs[0].own, numeric=xs[0].numeric, undetermined=xs[0].undetermined)


def driven(node: Node, x: State, scene: Scene) -> list[float]:
    """For each layer the variance of what its candidate's tanh reads, from the weights alone: biases set gates on
    purpose. Empty for cells without a bounded candidate."""
    found = []
    for row in _cells(node, _inputs(node, scene)):
        if row[0].kind == "rnn_relu":
            return []
        bare = [replace(cell, bias=0.0, bias_mean=0.0) for cell in row]
        runs = [run(cell, x, _steps(node)) for cell in bare]
        found.append(
            max((made.cell if cell.kind == "gru" else made.pre).v for cell, made in zip(bare, runs, strict=True))
        )
        x = runs[0].mean
    return found


def _inputs(node: Node, scene: Scene) -> float:
    return float(scene.layout(node.inputs[0]).channels)


def _steps(node: Node) -> int:
    return max(int(number(node, "steps", 1.0)), 1)


def lags(d: float, a: float, s: float, count: int) -> list[float]:
    """P(0..count-1): gradient energy that passes T steps, when the same matrix acts at each (THEORY 5.7)."""
    kept = min(count, LAGS)
    same = [
        sum(math.comb(t, k) ** 2 * d ** (2 * (t - k)) * a**k for k in range(t + 1)) if t else 1.0 for t in range(kept)
    ]
    found: list[float] = []
    for t in range(kept):
        value = same[t] + sum(same[u - 1] * s * found[t - u] for u in range(1, t + 1))
        found.append(bounded(value))
    ratio = found[-1] / found[-2] if len(found) > 1 and found[-2] > 0 else 0.0
    while len(found) < min(count, 4 * MOST_STEPS):
        found.append(bounded(found[-1] * ratio))
    return found


def transition(cell: Cell, done: Run) -> tuple[float, float, float]:
    """d (what passes unchanged), a (the same matrix again), s (fresh at each step) of one step back."""
    b = cell.hidden * cell.hh
    pre = done.pre
    tanh = _curve("tanh", pre)
    if cell.kind == "rnn_tanh":
        return 0.0, tanh.slope * b, 0.0
    if cell.kind == "rnn_relu":
        return 0.0, _curve("relu", pre).slope * b, 0.0
    sigmoid = _curve("sigmoid", pre)
    if cell.kind == "gru":
        inner = _curve("tanh", done.cell)
        z, z2 = sigmoid.mean, sigmoid.second
        keep2 = 1.0 - 2.0 * z + z2
        pn = keep2 * inner.slope
        q_u = b * done.hidden.q + 0.5 * cell.bias
        same = ((1.0 - z) * _mean_slope(inner) * z) ** 2 * b
        whole = b * (pn * z2 + pn * sigmoid.slope * q_u + sigmoid.slope * (done.hidden.q + inner.second))
        return z, same, max(z2 - z * z + whole - same, 0.0)
    forget = curve(named("sigmoid"), cell.forget, pre.v)
    out = _curve("tanh", done.cell)
    same = (sigmoid.mean * _mean_slope(tanh) * sigmoid.mean * _mean_slope(out)) ** 2 * b
    through = sigmoid.second * out.slope
    whole = b * (through * (sigmoid.slope * tanh.second + forget.slope * done.cell.q + sigmoid.second * tanh.slope))
    return forget.mean, same, max(forget.second - forget.mean**2 + whole - same, 0.0)


def _curve(name: str, x: State) -> Curve:
    return curve(named(name), x.m, x.v)


def _mean_slope(shape: Curve) -> float:
    """E f', from the linear Hermite coefficient: what differs by a little differs by E f'^2, by much E[f']^2."""
    if shape.v <= 0:
        return math.sqrt(shape.slope)
    return math.sqrt(max(shape.kernel(shape.v * 0.99), 0.0))


def recurrent_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Each layer: gradients of all later steps reach the input of a step through the hidden state."""
    rows = _cells(node, _inputs(node, scene))
    steps = _steps(node)
    runs, x = [], xs[0]
    for row in rows:
        made = run(row[0], x, steps)
        runs.append((row, made))
        x = made.mean
    p, noise = g.p, g.noise
    for row, made in reversed(runs):
        cell = row[0]
        passed = lags(*transition(cell, made), steps)
        weights = [1.0 - lag / steps for lag in range(len(passed))]
        reached = p * sum(w * value for w, value in zip(weights, passed, strict=True))
        p = bounded(len(row) * reached * cell.hidden * cell.ih * _entry(cell, made))
        noise += 5.0 / cell.hidden
    return (Grad(p, 0.0, noise), *(Grad(0.0) for _ in xs[1:]))


def _entry(cell: Cell, done: Run) -> float:
    """Energy that passes from the hidden state of a step to its pre-activations."""
    if cell.kind == "rnn_relu":
        return _curve("relu", done.pre).slope
    tanh = _curve("tanh", done.pre)
    if cell.kind == "rnn_tanh":
        return tanh.slope
    sigmoid = _curve("sigmoid", done.pre)
    if cell.kind == "gru":
        inner = _curve("tanh", done.cell)
        keep2 = 1.0 - 2.0 * sigmoid.mean + sigmoid.second
        return keep2 * inner.slope + sigmoid.slope * (done.hidden.q + inner.second)
    out = _curve("tanh", done.cell)
    through = sigmoid.second * out.slope
    forget = curve(named("sigmoid"), cell.forget, done.pre.v)
    inside = sigmoid.slope * tanh.second + forget.slope * done.cell.q + sigmoid.second * tanh.slope
    return sigmoid.slope * out.second + through * inside


OPS: Mapping[str, Op] = {"recurrent": Op(recurrent, recurrent_back)}
