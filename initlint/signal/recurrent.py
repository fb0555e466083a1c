"""Recurrent layers as a whole: RNN, LSTM and GRU over T steps (THEORY 5.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node, Plain
from initlint.records import dataclass
from initlint.signal.curves import Curve, curve, named
from initlint.signal.elementwise import apply, times
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.rectified import REFLECTED, reflected
from initlint.signal.scene import Op, Scene, number, numbers, text
from initlint.theory.functions import normal_cdf

#: Steps after which the recursion is taken to have settled; it stops earlier when nothing changes.
MOST_STEPS = 256
#: Lags of the backward recursion computed exactly; beyond them the last ratio continues.
LAGS = 48
SETTLED = 1e-6
#: Where a sigmoid gate is closed for good: it passes 5e-5, and so does its gradient. Chrono's biases, the largest that
#: are chosen, are log T (Tallec & Ollivier 2018): 10 would be sequences of 22,000 steps.
SHUT = 10.0


@dataclass(frozen=True, slots=True)
class Bias:
    """What the biases of one gate add to its pre-activations: mean and variance over units."""

    mean: float = 0.0
    var: float = 0.0

    @property
    def second(self) -> float:
        """E[b^2]."""
        return self.mean * self.mean + self.var


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer and direction: second moments of its weights, and the biases of each gate in torch's order.

    RNN: one; LSTM: input, forget, candidate, output; GRU: reset, update, candidate, and the candidate's hidden one.
    ``projection``: units of the hidden state behind a last matrix with second moment ``hr``; 0 without one.
    """

    kind: str
    hidden: float
    inputs: float
    ih: float
    hh: float
    biases: tuple[Bias, ...]
    identity: bool = False  # the recurrent matrix
    projection: float = 0.0
    hr: float = 0.0

    @property
    def outputs(self) -> float:
        """Units of the hidden state."""
        return self.projection or self.hidden

    @property
    def projected(self) -> float:
        """Energy of a unit of the hidden state over that of a unit before the projection."""
        return self.hidden * self.hr if self.hr else 1.0

    @property
    def unprojected(self) -> float:
        """The same of gradients, on their way back."""
        return self.outputs * self.hr if self.hr else 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """A layer after its steps: output averaged over them; of the last step the pre-activations of the gates (of a GRU's
    candidate the whole argument of its tanh), hidden and cell state."""

    mean: State
    gates: tuple[State, ...]
    hidden: State
    cell: State

    @property
    def candidate(self) -> State:
        """What the tanh (or ReLU) of the candidate reads."""
        return self.gates[min(2, len(self.gates) - 1)]


#: Biases of each kind of cell.
_BIASES = {"lstm": 4, "gru": 4}


def _cells(node: Node, x_size: float) -> list[list[Cell]]:
    """For each layer its directions."""
    hidden = max(number(node, "hidden", 1.0), 1.0)
    directions = 2 if node.attrs.get("bidirectional") else 1
    layers = max(int(number(node, "layers", 1.0)), 1)
    lists = {name: numbers(node.attrs.get(name)) for name in ("second_ih", "second_hh", "second_hr", "input_size")}
    projection = number(node, "projection")
    default = 1.0 / (3.0 * hidden)
    kind = text(node, "cell", "rnn_tanh")
    found = []
    for layer in range(layers):
        row = []
        for direction in range(directions):
            at = layer * directions + direction

            def pick(name: str, fallback: float, at: int = at) -> float:
                values = lists[name]
                return values[at] if at < len(values) else fallback

            size = pick("input_size", x_size if layer == 0 else (projection or hidden) * directions)
            ih, hh = pick("second_ih", default), pick("second_hh", default)
            hr = pick("second_hr", default) if projection else 0.0
            row.append(
                Cell(kind, hidden, size, ih, hh, _biases(node, kind, at), _identity(node, kind, at), projection, hr)
            )
        found.append(row)
    return found


def _identity(node: Node, kind: str, at: int) -> bool:
    """Whether a ReLU's units go on from their own state alone (IRNN, Le et al. 2015)."""
    known = node.attrs.get("identity_hh")
    return kind == "rnn_relu" and isinstance(known, list) and at < len(known) and known[at] is True


def _biases(node: Node, kind: str, at: int) -> tuple[Bias, ...]:
    """The biases of each gate; those of the two matrices are added, but for the candidate of a GRU."""
    given = [_pairs(node.attrs.get(f"bias_{side}_gates"), at) for side in ("ih", "hh")]
    if not all(given):
        return (Bias(),) * _BIASES.get(kind, 1)
    both = [Bias(i.mean + h.mean, i.var + h.var) for i, h in zip(*given, strict=True)]
    return (*both[:2], given[0][2], given[1][2]) if kind == "gru" else tuple(both)


def _pairs(lists: Plain, at: int) -> list[Bias]:
    values = numbers(lists[at]) if isinstance(lists, list) and at < len(lists) else ()
    return [Bias(mean, var) for mean, var in zip(values[::2], values[1::2], strict=True)]


def _pre(cell: Cell, x: State, h: State, bias: Bias) -> State:
    a, b = cell.inputs * cell.ih, cell.outputs * cell.hh
    return state(a * x.q + b * h.q + bias.second, bias.mean, a * x.d + b * h.d, a * x.e + b * h.e, a * x.u + b * h.u)


def _of(name: str, x: State, width: float) -> State:
    return apply(curve(named(name), x.m, x.v), x, width)


def _constant(name: str, x: State) -> tuple[float, float]:
    """E f(x_t) f(x_t'): what biases, and inputs that hardly change, make of it at every step alike; of which samples
    differ by the second."""
    shape = curve(named(name), x.m, x.v)
    whole, common = (max(shape.second - shape.gap(gap), 0.0) for gap in (x.e, x.u))
    return whole, max(whole - common, 0.0)


def _plus(a: State, b: State, cross: float = 0.0, apart: float = 0.0) -> State:
    return state(a.q + b.q + cross, a.m + b.m, a.d + b.d + apart, a.e + b.e, a.u + b.u + apart)


def _complement(z: State) -> State:
    return replace(z, q=max(1.0 - 2.0 * z.m + z.q, 0.0), m=1.0 - z.m)


def run(cell: Cell, x: State, steps: int) -> Run:
    """Unroll one layer until it has settled or the sequence ends."""
    if cell.identity:
        return _walk(cell, x, steps)
    zero = state(0.0, kind="constant")
    h, c = zero, zero
    gates: tuple[State, ...] = ()
    total = [0.0] * 5
    done = 0
    for step in range(min(max(steps, 1), MOST_STEPS)):
        before = h.q
        gates, h, c = _step(cell, x, h, c, step)
        total = [t + value for t, value in zip(total, (h.q, h.m, h.d, h.e, h.u), strict=True)]
        done = step + 1
        if step > 4 and abs(h.q - before) <= SETTLED * h.q:
            break
    rest = max(steps - done, 0)
    q, m, d, e, u = (
        (t + rest * last) / (done + rest) for t, last in zip(total, (h.q, h.m, h.d, h.e, h.u), strict=True)
    )
    return Run(state(q, m, d, e, u, kind="post", own=2.0 / cell.outputs), gates, h, c)


def _walk(cell: Cell, x: State, steps: int) -> Run:
    """ReLU units h + W x + b: each is a walk that zero holds up, with what is constant in time as its drift."""
    zero = state(0.0, kind="constant")
    pre = _pre(cell, x, zero, cell.biases[0])
    moving = min(pre.e, pre.v)
    taken = min(max(steps, 1), MOST_STEPS)
    by = max(steps, 1) / taken  # fewer steps, each as long: it goes as far
    m, q, last, end = reflected(by * pre.m, by * by * max(pre.v - moving, 0.0), by * moving, taken)
    apart = min(pre.d / moving, 1.0) if moving > 0.0 else 0.0
    d, e, u = (q * part for part in REFLECTED)
    found = state(q, m, d * apart, e, max(u * apart, e), kind="post", own=2.0 / cell.hidden)
    hidden = state(end, last, end * REFLECTED[0] * apart, kind="post")
    return Run(replace(found, positive=True), (pre,), hidden, zero)


def _step(cell: Cell, x: State, h: State, c: State, step: int) -> tuple[tuple[State, ...], State, State]:
    n = cell.hidden
    if cell.kind in ("rnn_tanh", "rnn_relu"):
        pre = _pre(cell, x, h, cell.biases[0])
        return (pre,), _of("relu" if cell.kind.endswith("relu") else "tanh", pre, n), c
    if cell.kind == "lstm":
        gates = tuple(_pre(cell, x, h, bias) for bias in cell.biases)
        entry, forget, out = (_of("sigmoid", gates[at], n) for at in (0, 1, 3))
        inner = _of("tanh", gates[2], n)
        # what is constant makes i_t g_t of successive steps add up along the cell (THEORY 5.7)
        carry = (1.0 - forget.m**step) / (1.0 - forget.m) if forget.m < 1 else float(step)
        cross, apart = (2.0 * forget.m * entry.m * entry.m * carry * part for part in _constant("tanh", gates[2]))
        c = replace(_plus(times(forget, c), times(entry, inner), cross, apart), kind="gaussian")
        return gates, _projected(cell, times(out, _of("tanh", c, n))), c
    if cell.kind == "gru":
        reset, update = (_pre(cell, x, h, bias) for bias in cell.biases[:2])
        r, z = _of("sigmoid", reset, n), _of("sigmoid", update, n)
        seen, kept = cell.biases[2:]
        side, again = cell.inputs * cell.ih, cell.hidden * cell.hh
        own = state(side * x.q + seen.second, seen.mean, side * x.d, side * x.e, side * x.u)
        back = times(r, state(again * h.q + kept.second, kept.mean, again * h.d, again * h.e, again * h.u))
        inner = _plus(own, back, 2.0 * seen.mean * back.m)
        new = _of("tanh", inner, n)
        rate = 2.0 * max(z.m - z.q, 0.0) * (1.0 - z.m**step)
        cross, apart = (rate * part for part in _constant("tanh", inner))
        return (reset, update, inner), _plus(times(_complement(z), new), times(z, h), cross, apart), c
    raise NoRuleError(f"the recurrent cell {cell.kind!r} is not modelled")


def _projected(cell: Cell, h: State) -> State:
    """W_hr h, of weights that are zero on average."""
    if not cell.hr:
        return h
    gain = cell.projected
    return state(gain * h.q, 0.0, gain * h.d, gain * h.e, gain * h.u)


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
        bare = [replace(cell, biases=(Bias(),) * len(cell.biases)) for cell in row]
        runs = [run(cell, x, _steps(node)) for cell in bare]
        found.append(max(made.candidate.v for made in runs))
        x = runs[0].mean
    return found


def shut(node: Node, x: State, scene: Scene) -> list[float]:
    """For each layer the share of its units that nothing enters or leaves: a gate is closed beyond ``SHUT``."""
    found = []
    for row in _cells(node, _inputs(node, scene)):
        runs = [run(cell, x, _steps(node)) for cell in row]
        found.append(max(_shut(cell, made) for cell, made in zip(row, runs, strict=True)))
        x = runs[0].mean
    return found


def _shut(cell: Cell, done: Run) -> float:
    """Where the biases make the most of what a gate reads; large weights saturate the candidate, too (``driven``)."""
    sides = {"lstm": ((0, -1.0), (3, -1.0)), "gru": ((1, 1.0),)}.get(cell.kind, ())  # a GRU that updates nothing
    passing = 1.0
    for at, side in sides:
        x = done.gates[at]
        if 2.0 * cell.biases[at].second >= x.q:
            passing *= normal_cdf((SHUT - side * x.m) / math.sqrt(x.v)) if x.v > 0 else float(side * x.m < SHUT)
    return 1.0 - passing


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
    b = cell.hidden * cell.hh * cell.unprojected
    candidate = _curve("relu" if cell.kind == "rnn_relu" else "tanh", done.candidate)
    if cell.kind in ("rnn_tanh", "rnn_relu"):
        return 0.0, candidate.slope * b, 0.0
    if cell.kind == "gru":
        r, z = (_curve("sigmoid", gate) for gate in done.gates[:2])
        pn = (1.0 - 2.0 * z.mean + z.second) * candidate.slope
        q_u = b * done.hidden.q + cell.biases[3].second
        same = ((1.0 - z.mean) * _mean_slope(candidate) * r.mean) ** 2 * b
        whole = b * (pn * r.second + pn * r.slope * q_u + z.slope * (done.hidden.q + candidate.second))
        return z.mean, same, max(z.second - z.mean * z.mean + whole - same, 0.0)
    entry, forget, output = (_curve("sigmoid", done.gates[at]) for at in (0, 1, 3))
    out = _curve("tanh", done.cell)
    same = (entry.mean * _mean_slope(candidate) * output.mean * _mean_slope(out)) ** 2 * b
    through = output.second * out.slope
    inside = _inside(entry, forget, candidate, done)
    return forget.mean, same, max(forget.second - forget.mean**2 + b * through * inside - same, 0.0)


def _inside(entry: Curve, forget: Curve, candidate: Curve, done: Run) -> float:
    """Energy that passes from the cell state of an LSTM to the pre-activations of what it is made of."""
    return entry.slope * candidate.second + forget.slope * done.cell.q + entry.second * candidate.slope


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
        if cell.identity:
            # by the arcsine law of walks a unit is above zero from step s to t in half of all such pairs (Feller 1968)
            p = bounded(len(row) * p * 0.25 * (steps + 1.0) * cell.hidden * cell.ih)
            noise += 5.0 / cell.hidden
            continue
        passed = lags(*transition(cell, made), steps)
        weights = [1.0 - lag / steps for lag in range(len(passed))]
        reached = p * sum(w * value for w, value in zip(weights, passed, strict=True))
        p = bounded(len(row) * reached * cell.unprojected * cell.hidden * cell.ih * _entry(cell, made))
        noise += 5.0 / cell.hidden
    return (Grad(p, 0.0, noise), *(Grad(0.0) for _ in xs[1:]))


def _entry(cell: Cell, done: Run) -> float:
    """Energy that passes from the hidden state of a step to its pre-activations."""
    candidate = _curve("relu" if cell.kind == "rnn_relu" else "tanh", done.candidate)
    if cell.kind in ("rnn_tanh", "rnn_relu"):
        return candidate.slope
    if cell.kind == "gru":
        z = _curve("sigmoid", done.gates[1])
        keep2 = 1.0 - 2.0 * z.mean + z.second
        return keep2 * candidate.slope + z.slope * (done.hidden.q + candidate.second)
    entry, forget, output = (_curve("sigmoid", done.gates[at]) for at in (0, 1, 3))
    out = _curve("tanh", done.cell)
    inside = _inside(entry, forget, candidate, done)
    return output.slope * out.second + output.second * out.slope * inside


OPS: Mapping[str, Op] = {"recurrent": Op(recurrent, recurrent_back)}
