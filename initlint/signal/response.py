"""How a stretch of a graph between two cuts responds to another state at its start.

All paths meet again and again in one node, a cut. Behind it only its state matters, and the gradient that comes back
to it is proportional to the one at the end of the stretch. A stretch is therefore evaluated a few times, once and for
all, with a slightly other state at its start: its response, linear in logarithms, and how far that can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from initlint.signal.diagnostics import dead_share, saturated_share
from initlint.signal.moments import Grad, State
from initlint.signal.profile import LN10
from initlint.signal.scene import Scene
from initlint.signal.sweep import Overlay, Sweep, backward_one, forward_one, summed

#: Nodes of a stretch at least: what is gone through on either side of a change, against the number of stretches.
LENGTH = 48
#: Steps (nats) at which a stretch is evaluated; the wide one tells whether a common factor passes whatever its size.
STEP, WIDE = 0.1, 6.0 * LN10
#: The response is used up to so many steps.
REACH = 5.0
#: Deviations from linear at ``WIDE`` that are rounding.
EXACT = 1e-6
#: Equal parts of a state that stay so.
SAME = 1e-9

Row = tuple[float, ...]


class Outcome(NamedTuple):
    """A stretch with some state at its start, relative to how it is, in nats."""

    end: Row  # the state at its end
    points: tuple[Row, ...]  # of each point of the profile: q, d, and the gradient relative to that at the end
    back: float  # the gradient at its start, likewise
    make_up: float  # by how much the make-up of that gradient differs
    shares: Row  # the largest shares of saturated and of dead units, as they are then


class Response(NamedTuple):
    """Derivatives by each coordinate of the state at the start, and how far they hold."""

    end: tuple[Row, ...]
    points: tuple[tuple[Row, ...], ...]  # of q, d and the gradient, at each point
    back: Row
    shares: tuple[Row, ...]
    now: Row  # the shares as they are
    errors: Row  # nats at one step; they grow with its square
    reach: Row


def cuts(scene: Scene, base: Sweep, outputs: Sequence[int]) -> tuple[int, ...]:
    """Nodes over which no edge jumps, at least ``LENGTH`` apart; those without a mean are preferred.

    Edges from nodes without inputs, which no change upstream reaches, do not count.
    """
    found: list[int] = []
    reach, first, last = -1, min(outputs, default=0), -1
    for node in scene.nodes[: len(scene.nodes) - LENGTH]:
        index = node.index
        apart = index - last
        enough = apart >= (LENGTH if base.states[index].m == 0.0 else 2 * LENGTH)
        if enough and node.inputs and reach <= index < first and _stands(base, index):
            found.append(index)
            last = index
        if node.inputs and scene.consumers[index]:
            reach = max(reach, scene.consumers[index][-1])
    return tuple(found)


def _stands(base: Sweep, index: int) -> bool:
    x, g = base.states[index], base.grads[index]
    plain = x.kind in ("gaussian", "post") and not x.parts and not x.undetermined and not g.parts
    return plain and x.q > 0.0 and x.d > 0.0 and g.p > 0.0


def groups(x: State) -> tuple[tuple[str, ...], ...]:
    """The parts d, e and u of a state that differ from zero, equal ones together."""
    found: list[tuple[str, ...]] = []
    for name in ("d", "e", "u"):
        value = getattr(x, name)
        same = next((i for i, names in enumerate(found) if abs(getattr(x, names[0]) - value) <= SAME * value), None)
        if same is not None:
            found[same] = (*found[same], name)
        elif value > 0.0:
            found.append((name,))
    return tuple(found)


def coordinates(x: State, base: State) -> Row | None:
    """Where a state is, seen from another: a common factor, then what each part has beyond it, then the mean (nats).

    None where they differ in more than that.
    """
    alike = x.kind == base.kind and x.positive == base.positive and x.share == base.share and _as_mixed(x, base)
    if not alike or x.q <= 0.0 or x.parts or x.undetermined or x.isometric != base.isometric:
        return None
    if x.levels is not None or base.levels is not None:  # of more than a few numbers
        return None
    common = math.log(x.q / base.q)
    found = [common]
    for names in groups(base):
        values = [getattr(x, name) / getattr(base, name) for name in names]
        if values[0] <= 0.0 or any(abs(value - values[0]) > SAME * values[0] for value in values):
            return None
        found.append(math.log(values[0]) - common)
    if any(getattr(base, name) == 0.0 and getattr(x, name) > 0.0 for name in ("d", "e", "u")):
        return None
    mean = x.m / math.sqrt(x.q) - base.m / math.sqrt(base.q)
    if base.m != 0.0:
        found.append(mean)
    elif abs(mean) > SAME:
        return None
    return tuple(found)


def _as_mixed(x: State, base: State) -> bool:
    """Whether two states are the same mixture, up to rounding."""
    if x.mix == base.mix:
        return True
    pairs = zip(x.mix, base.mix, strict=False)
    reach = math.sqrt(base.q)
    return len(x.mix) == len(base.mix) and all(
        abs(one[0] - other[0]) <= SAME
        and abs(one[1] - other[1]) <= SAME * reach
        and abs(one[2] - other[2]) <= SAME * base.q
        for one, other in pairs
    )


def displaced(base: State, moved: Row) -> State:
    """The state at these coordinates."""
    q = base.q * math.exp(moved[0])
    parts = {name: getattr(base, name) for name in ("d", "e", "u")}
    for names, by in zip(groups(base), moved[1:], strict=False):
        parts |= {name: parts[name] * math.exp(moved[0] + by) for name in names}
    m = base.m * math.exp(moved[0] / 2.0) + (moved[-1] * math.sqrt(q) if base.m != 0.0 else 0.0)
    return replace(base, q=q, m=m, d=parts["d"], e=parts["e"], u=parts["u"])


def unlike(a: Grad, b: Grad) -> float:
    """By how much the make-up of two gradients differs, that of ``a`` being that of ``b`` up to a factor at best."""
    if len(a.falls) != len(b.falls):
        return math.inf
    falls = (abs(x - y) for x, y in zip(a.falls, b.falls, strict=True))
    return max(*(abs(x - y) for x, y in zip(_make_up(a), _make_up(b), strict=True)), *falls, 0.0)


def _make_up(g: Grad) -> Row:
    through = 1.0 if g.through < 0.0 else g.through / g.p
    return (through, g.t / g.p, g.along / g.p, g.won / g.p, g.across / g.p, g.lean, g.active, g.first / g.p)


def dot(row: Row, moved: Row) -> float:
    """The change that a row of derivatives gives."""
    return sum(x * by for x, by in zip(row, moved, strict=True))


def dots(rows: Sequence[Row], moved: Row, unit: float, more: float = 0.0) -> list[float]:
    """The changes that rows of derivatives give, in another unit, plus a common one."""
    if len(moved) == 2:  # nearly always: a factor, and the part that depends on the input
        a, b = moved[0] / unit, moved[1] / unit
        return [x * a + y * b + more for x, y in rows]
    return [dot(row, moved) / unit + more for row in rows]


def missed(response: Response, moved: Row) -> float:
    """Nats by which the response may be wrong; infinite out of its reach."""
    total = 0.0
    for error, reach, by in zip(response.errors, response.reach, moved, strict=True):
        if abs(by) > reach:
            return math.inf
        total += error * (by / STEP) ** 2
    return total


def respond(scene: Scene, base: Sweep, span: tuple[int, int], points: Sequence[int]) -> Response | None:
    """The response of the stretch between two cuts, in which these nodes count; None where it has none."""

    def at(moved: Row) -> Outcome | None:
        return _outcome(scene, base, span, points, moved)

    start = base.states[span[0]]
    size = 1 + len(groups(start)) + (start.m != 0.0)
    steps = [tuple(STEP if i == axis else 0.0 for i in range(size)) for axis in range(size)]
    none = at((0.0,) * size)
    plus = [there for step in steps if (there := at(step)) is not None]
    minus = [there for step in steps if (there := at(tuple(-x for x in step))) is not None]
    if none is None or len(plus) < size or len(minus) < size:
        return None
    pairs = list(zip(plus, minus, strict=True))

    def slopes(rows: Sequence[tuple[Row, Row]]) -> tuple[Row, ...]:
        each = [[(x - y) / (2.0 * STEP) for x, y in zip(a, b, strict=True)] for a, b in rows]
        return tuple(zip(*each, strict=True))

    found = Response(
        end=slopes([(a.end, b.end) for a, b in pairs]),
        points=tuple(
            slopes([(tuple(x[i] for x in a.points), tuple(x[i] for x in b.points)) for a, b in pairs]) for i in range(3)
        ),
        back=tuple((a.back - b.back) / (2.0 * STEP) for a, b in pairs),
        shares=slopes([(a.shares, b.shares) for a, b in pairs]),
        now=none.shares,
        errors=(),
        reach=(REACH * STEP,) * size,
    )
    errors = [
        max(_off(found, a, step), _off(found, b, tuple(-x for x in step)))
        for step, (a, b) in zip(steps, pairs, strict=True)
    ]
    if errors[0] < EXACT:
        far = [(sign * WIDE, *(0.0,) * (size - 1)) for sign in (1.0, -1.0)]
        ends = [(moved, at(moved)) for moved in far]
        if all(there is not None and _off(found, there, moved) < EXACT for moved, there in ends):
            return found._replace(errors=(0.0, *errors[1:]), reach=(WIDE, *found.reach[1:]))
    return found._replace(errors=tuple(errors))


def _off(response: Response, got: Outcome, moved: Row) -> float:
    """By how much the response misses an outcome."""
    rows = [*response.end, *chain.from_iterable(response.points), response.back]
    values = [*got.end, *chain.from_iterable(zip(*got.points, strict=True)), got.back]
    missing: list[float] = [dot(row, moved) - value for row, value in zip(rows, values, strict=True)]
    shares = zip(response.now, response.shares, got.shares, strict=True)
    missing += [now + dot(row, moved) - value for now, row, value in shares]
    return max(got.make_up, max(missing), -min(missing))


def _outcome(scene: Scene, base: Sweep, span: tuple[int, int], points: Sequence[int], moved: Row) -> Outcome | None:
    low, high = span
    states = {low: displaced(base.states[low], moved)}
    view = Overlay(base.states, states)
    for index in range(low + 1, high + 1):
        if scene.nodes[index].inputs:
            states[index] = forward_one(scene.nodes[index], view, scene)
    end = coordinates(states[high], base.states[high])
    grads = _back(scene, base, span, view)
    if end is None or grads[low].p <= 0.0:
        return None
    rows = []
    for index in points:
        x, old, p, before = view[index], base.states[index], grads[index].p, base.grads[index].p
        if x.undetermined or min(x.q, x.d, p, old.q, old.d, before) <= 0.0:
            return None
        rows.append((math.log(x.q / old.q), math.log(x.d / old.d), math.log(p / before)))
    among = range(low + 1, high + 1)
    shares = (saturated_share(scene, view, among), dead_share(scene, view, among))
    start, before_start = grads[low], base.grads[low]
    return Outcome(end, tuple(rows), math.log(start.p / before_start.p), unlike(start, before_start), shares)


def _back(scene: Scene, base: Sweep, span: tuple[int, int], view: Sequence[State]) -> dict[int, Grad]:
    """Gradients in a stretch for the one at its end."""
    low, high = span
    incoming: dict[int, list[Grad]] = {index: [] for index in range(low, high + 1)}
    grads = {high: base.grads[high]}
    for index in range(high, low, -1):
        node = scene.nodes[index]
        g = grads.setdefault(index, summed(incoming[index]))
        for source, part in zip(node.inputs, backward_one(node, view, g, scene), strict=True):
            if part.p and source >= low:
                incoming[source].append(part)
    grads[low] = summed(incoming[low])
    return grads
