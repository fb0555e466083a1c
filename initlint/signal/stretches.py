"""Counterfactuals on long graphs: a change is carried over stretches of the graph by how each of them responds.

Where a change never fades (a plain ReLU chain, a residual stream) every node after it differs, and going through them
anew for each group of parameters costs what half a propagation costs. What changes little, or by a common factor that
passes unchanged, is carried over a stretch by its response; anything else is gone through node by node, as ever.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from initlint.facts import Node
from initlint.signal.moments import Grad, State
from initlint.signal.profile import LN10, Point, aside, columns, shifts
from initlint.signal.response import Response, Row, coordinates, cuts, displaced, dot, dots, missed, respond, unlike
from initlint.signal.scene import Scene
from initlint.signal.sweep import Overlay, Sweep, changed_grads, changed_states

#: Graphs of fewer nodes are gone through node by node: a group costs a fifth of a second at most.
LONG = 2000
#: Stretches at least; of fewer there is nothing to gain.
FEWEST = 8
#: By how much what responses leave out may add up, in decades: a tenth of what counts as no effect is reached by none.
TOLERANCE = 0.005
#: Changes (nats) below which nothing changes any more.
SETTLED = 1e-6
#: Differences in the make-up of two gradients up to which one is the other times a factor.
ALIKE = 1e-4


class Change(NamedTuple):
    """What differs when some nodes are replaced."""

    states: Mapping[int, State]  # of what was gone through
    shifts: tuple[Sequence[float], ...] = ()  # log10 of q, d and energy, by place in the profile
    saturated: tuple[float, float] = (0.0, 0.0)  # the largest share in what was carried over, as it is and changed
    dead: tuple[float, float] = (0.0, 0.0)
    touched: int = 0


class Stretches:
    """A long graph, cut into stretches; what is found out of each is kept."""

    def __init__(self, scene: Scene, base: Sweep, profile: Sequence[Point], outputs: Sequence[int]) -> None:
        self.scene, self.base, self.profile, self.outputs = scene, base, profile, outputs
        ends = cuts(scene, base, outputs)
        #: first and last node of each stretch; the first one, of -1, belongs to the stretch before
        self.spans = tuple(zip((-1, *ends), (*ends, len(scene.nodes) - 1), strict=True))
        nodes = [point.node for point in profile]
        #: where the points of each stretch are in the profile
        self.places = [slice(bisect_right(nodes, low), bisect_right(nodes, high)) for low, high in self.spans]
        self.columns = columns(profile)
        self.unguarded = tuple(place for place, point in enumerate(profile) if not point.guarded)
        self.body = tuple(place for place in self.unguarded if profile[place].body)
        self._responses: dict[int, Response | None] = {}
        # a mean over positions or a join moves all points behind it, which is worked out for the last stretch only
        late = not any(aside(scene, point) for point in profile[: self.places[-1].start])
        plain = all(point.energy is not None and not point.added for point in profile)
        self.usable = len(self.spans) >= FEWEST and late and plain

    def response(self, at: int) -> Response | None:
        """Of one stretch; None where it has none."""
        if at not in self._responses:
            inner = 0 < at < len(self.spans) - 1
            nodes = [point.node for point in self.profile[self.places[at]]]
            self._responses[at] = respond(self.scene, self.base, self.spans[at], nodes) if inner else None
        return self._responses[at]

    def changed(self, nodes: Mapping[int, Node]) -> Change | None:
        """What differs when these nodes replace their namesakes; None where that has to be found node by node."""
        if not self.usable or any(self._jumps(index) for index in nodes):
            return None
        return _Carried(self, nodes).change()

    def _jumps(self, index: int) -> bool:
        """Whether a node without inputs feeds more than one stretch."""
        users = self.scene.consumers[index]
        if self.scene.nodes[index].inputs or not users:
            return False
        return any(index <= low < users[-1] for low, _ in self.spans)


class _Carried:
    """One change: forward from where it is, then back from where it ends."""

    def __init__(self, graph: Stretches, nodes: Mapping[int, Node]) -> None:
        self._graph, self._nodes = graph, nodes
        self._states: dict[int, State] = {}
        self._moved: dict[int, Row] = {}  # by stretch, the coordinates of what is carried over it
        self._saturated, self._dead = [0.0, 0.0], [0.0, 0.0]

    def change(self) -> Change | None:
        graph = self._graph
        first, last = min(self._nodes), max(self._nodes)
        start = next(at for at, (_, high) in enumerate(graph.spans) if first <= high)
        end = self._forward(start, last)
        return self._back(start, end)

    def _forward(self, start: int, last: int) -> int:
        """The last stretch in which something changes."""
        graph, error = self._graph, 0.0
        for at in range(start, len(graph.spans)):
            low, high = graph.spans[at]
            if low >= last and low not in self._states:
                return at - 1
            x = self._states.get(low)
            moved = coordinates(x, graph.base.states[low]) if x is not None and low >= last else None
            if moved is not None and max(map(abs, moved)) < SETTLED:
                del self._states[low]
                return at - 1
            response = graph.response(at) if moved is not None else None
            more = missed(response, moved) if response is not None and moved is not None else math.inf
            if response is None or moved is None or error + more > TOLERANCE * LN10:
                given = {low: x} if x is not None else {}
                self._states |= changed_states(self._nodes, graph.base, graph.scene, given, (low, high))
                continue
            # what was missed before is passed on like the change itself
            error = error * max(1.0, *(sum(map(abs, row)) for row in response.end)) + more
            self._moved[at] = moved
            self._states[high] = displaced(graph.base.states[high], tuple(dot(row, moved) for row in response.end))
        return len(graph.spans) - 1

    def _back(self, start: int, end: int) -> Change | None:
        graph = self._graph
        count = len(graph.profile)
        found = ([0.0] * count, [0.0] * count, [0.0] * count)
        # the gradient at the end of a stretch: as it is, times a factor (nats), or another one
        factor = 0.0
        given: Grad | None = None
        touched = 0
        for at in range(end, -1, -1):
            low, high = graph.spans[at]
            moved = self._moved.get(at)
            response = graph.response(at) if moved is not None and given is None else None
            if response is not None and moved is not None:
                for part, rows, more in zip(found, response.points, (0.0, 0.0, factor / LN10), strict=True):
                    part[graph.places[at]] = dots(rows, moved, LN10, more)
                factor += dot(response.back, moved)
                self._count(response, moved)
                touched += 2 * (high - low)
                continue
            states = self._inside(at)
            if given is None and not states and not any(low < index <= high for index in self._nodes):
                if at < start and abs(factor) < SETTLED:
                    if not self._moved:  # nothing goes far: quicker told node by node
                        return None
                    break
                places = graph.places[at]
                found[2][places] = [factor / LN10] * (places.stop - places.start)
                touched += high - low
                continue
            if given is None and factor:
                given = times(graph.base.grads[high], math.exp(factor))
            grads = changed_grads(self._nodes, states, graph.base, graph.scene, graph.outputs, given, (low, high))
            views = Overlay(graph.base.states, states), Overlay(graph.base.grads, grads)
            here = range(count)[graph.places[at]]
            moves = shifts(graph.scene, graph.profile, here, graph.base.states, *views)
            if moves is None:
                return None
            for place, values in moves.items():
                for part, value in zip(found, values, strict=True):
                    part[place] = value
            touched += len(states) + len(grads)
            if low >= 0:
                factor, given = 0.0, grads[low]
                before = graph.base.grads[low]
                if given.p > 0.0 and unlike(given, before) < ALIKE:
                    factor, given = math.log(given.p / before.p), None
        return Change(self._states, found, _pair(self._saturated), _pair(self._dead), touched)

    def _inside(self, at: int) -> Mapping[int, State]:
        """The changed states of a stretch and of the cut before it, gone through now if only its end is known."""
        graph = self._graph
        low, high = graph.spans[at]
        if at in self._moved:
            given = {low: self._states[low]}
            return changed_states(self._nodes, graph.base, graph.scene, given, (low, high))
        return {index: x for index in range(max(low, 0), high + 1) if (x := self._states.get(index)) is not None}

    def _count(self, response: Response, moved: Row) -> None:
        for found, now, row in zip((self._saturated, self._dead), response.now, response.shares, strict=True):
            found[0] = max(found[0], now)
            found[1] = max(found[1], min(max(now + dot(row, moved), 0.0), 1.0))


def _pair(values: Sequence[float]) -> tuple[float, float]:
    return values[0], values[1]


def times(g: Grad, factor: float) -> Grad:
    """The gradient of a loss that is larger by a factor (of second moments)."""
    return g._replace(
        p=g.p * factor,
        t=g.t * factor,
        through=g.through * factor if g.through >= 0.0 else g.through,
        along=g.along * factor,
        won=g.won * factor,
        across=g.across * factor,
        ties=tuple(tie._replace(base=tie.base * factor, shared=tie.shared * factor) for tie in g.ties),
    )
