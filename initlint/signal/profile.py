"""The depth profile: signal, input-dependent signal and gradient energy along the trunk, and how far they span."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise, permutations
from operator import add, itemgetter, mul, sub
from typing import NamedTuple

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.moments import NO_GRADIENT, SMALLEST, Grad, State
from initlint.signal.operands import rounded
from initlint.signal.parts import POINTWISE
from initlint.signal.scene import Scene, text
from initlint.signal.trunk import WEIGHTED, reached, reaching, returned

#: How many standard deviations of chance are taken off a span before it is judged: 2.5 leaves 0.6 % to chance.
BAND = 2.5
#: Ops that scale or reorder the output as a whole.
FACTORS = frozenset({"scale", "reshape", "identity", "shift", "output"})
#: Ops that bring data into its units, by themselves or with a constant for their other operand.
PREPARES = frozenset({"scale", "shift", "reshape", "identity"})
ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
#: Ops at which something else joins the signal of the trunk.
JOINS = frozenset({"add", "sub", "cat", "stack"})
#: Falls and rises that differ by less are as large as each other: a ratio of 10 is harmless (THEORY 6.1).
TIE = 1.0
LN10 = math.log(10.0)
#: What is left of the unit gradient of an output, in double precision, beside a gradient that comes from further on.
UNIT = 1e-12


@dataclass(frozen=True, slots=True)
class Point:
    """A node of the trunk. Logarithms are to base 10, of second moments; ``energy`` is p times elements per sample."""

    node: int
    label: str
    q: float
    dependent: float
    energy: float | None  # None: no gradient arrives
    forward_std: float
    gradient_std: float
    share: float  # q(1-c)/q
    noise_q: float  # one standard deviation of log10 q
    noise_p: float
    guarded: bool
    judged: bool  # counts for the forward spans (not hidden by a norm, not the head)
    body: bool  # counts for the gradient span
    lost: tuple[float, float] = (0.0, 0.0)  # log10 of q and q(1-c) that what is no layer took before it, added back
    part: tuple[int, ...] = ()  # a join of another input: the operands that carry the signal of the trunk
    segments: tuple[int, ...] = ()  # of positions, those that the trunk has come to: its gradient is theirs; (): all
    first: int = 0  # the first layer of its trunk, and the head, as node indices
    head: int = 0
    added: float = 0.0  # log10 of energy that outputs further on, which are read on, brought in; taken off


@dataclass(frozen=True, slots=True)
class Span:
    """Largest ratio along the profile, in log10 of second moments.

    ``value`` is what is left beyond chance; ``shrinks``: in the direction in which it travels (forward for signals,
    backward for gradients) it gets smaller.
    """

    value: float = 0.0
    raw: float = 0.0
    noise: float = 0.0
    first: int = -1
    last: int = -1
    shrinks: bool = True
    doubt: float = 0.0  # decades that errors of rules may account for, already taken off ``value``


@dataclass(frozen=True, slots=True)
class Culprit:
    """What a layer, with all up to the next one on the trunk, contributes to the spans (log10, signed)."""

    node: int
    label: str
    forward: float
    gradient: float


def log10(value: float) -> float:
    """log10 of a second moment; zero counts as the smallest that is carried."""
    return math.log10(max(value, SMALLEST))


# Types of indices. (Truth values may be the steps of a function that has a gradient of its own.)
_WHOLE = ("int", "uint")


def points(
    scene: Scene,
    trunk: Sequence[int],
    hidden: Sequence[bool],
    states: Sequence[State],
    grads: Sequence[Grad],
) -> tuple[Point, ...]:
    """The profile; nodes whose state is undetermined are left out."""
    first, head = _ends(scene, trunk)
    added = _added(scene, trunk, grads)
    joins, segments = joined(scene, trunk), _segments(scene, trunk, states)
    found: list[Point] = []
    stopped = _stopped(scene, trunk)
    lost_q = lost_d = 0.0
    leads = True  # what comes before a table in which it is looked up is no signal
    for index in trunk[_prepared(scene, trunk) :]:
        x, part = states[index], joins.get(index, ())
        if scene.nodes[index].dtype.startswith(_WHOLE):  # codes: what they name starts anew, and no gradient comes back
            found.clear()
            continue
        if _quantised(scene, index):  # the same, where the gradient is handed on past the codes
            found.clear()
        leads = leads and x.kind in ("index", "constant") and x.d == 0
        if leads:
            continue
        taken = _aside(scene, index, part, states)
        lost_q, lost_d = lost_q + taken[0], lost_d + taken[1]
        if x.undetermined:
            continue
        brought = sum(gain for at, gain in added.items() if index <= at)
        lost = (lost_q, lost_d)
        grad = NO_GRADIENT if index < stopped else grads[index]
        here = segments.get(index, ())
        found.append(_point(scene, index, x, grad, hidden[index], (first, head), lost, part, here, brought))
    return tuple(found)


def _quantised(scene: Scene, index: int) -> bool:
    """Whether a sum is ``z + (code - z).detach()``: the code in the forward pass, in units of its own."""
    for kept, other in permutations(scene.nodes[index].inputs, 2) if scene.nodes[index].op == "add" else ():
        stop = scene.nodes[other]
        difference = scene.nodes[stop.inputs[0]] if stop.op == "stop" and stop.inputs else None
        if difference is not None and difference.op == "sub" and difference.inputs[1:] == (kept,):
            return not rounded(difference, scene)
    return False


def _stopped(scene: Scene, trunk: Sequence[int]) -> int:
    """The last node of the trunk that no gradient passes: what gradient there is before it comes of other outputs."""
    return max((index for index in trunk if scene.nodes[index].op == "stop"), default=-1)


def _prepared(scene: Scene, trunk: Sequence[int]) -> int:
    """Where in the trunk the data is ready: behind what only shifts or scales an input by constants (``x / 255``,
    ``(x - mean) / std``), which undoes the unit that the data comes in and is no layer; behind functions of data and
    constants alone; and behind tables in which it is looked up, for what goes on are their rows: places in a grid only
    weigh them."""
    at = 0
    for place, index in enumerate(trunk[1:], 1):
        node = scene.nodes[index]
        if _looked_up(scene, trunk[place - 1], index):
            at = place
            continue
        others = [i for i in node.inputs if i != trunk[place - 1]]
        constant = node.op in PREPARES or (node.op in ARITHMETIC and all(_fixed(scene, i) for i in others))
        if not constant or len(others) == len(node.inputs):
            break
        at = place
    # sines of a time step, say: what the data is turned into before any weight sees it
    turned = max((index for index in scene.data if scene.nodes[index].op == "activation"), default=math.inf)
    ready = [place for place, index in enumerate(trunk) if index >= turned and index in scene.data]
    return max([at, *ready[-1:]])


def _looked_up(scene: Scene, before: int, after: int) -> bool:
    """Whether tables are all the weights that lie between two neighbours of the trunk, and what comes first is
    looked up in them."""
    if not any(scene.nodes[index].op == "embedding" for index in range(before + 1, after)):
        return False
    inside = reaching(scene, before, after) - {before, after}
    weighted = {scene.nodes[index].op for index in inside if scene.nodes[index].op in WEIGHTED}
    return weighted == {"embedding"}


def _fixed(scene: Scene, index: int) -> bool:
    """Whether a node holds constants or buffers."""
    node = scene.nodes[index]
    return node.op == "constant" or (node.op == "parameter" and bool(node.attrs.get("buffer")))


def changed_points(
    scene: Scene,
    profile: Sequence[Point],
    trunk: Sequence[int],
    places: Mapping[int, int],
    changes: tuple[Mapping[int, State], Mapping[int, Grad]],
    views: tuple[Sequence[State], Sequence[Grad]],
    hidden: Sequence[bool],
) -> dict[int, Point]:
    """The points that differ after a change, by their place in the profile; the others are not gone through.

    ``places``: where a node is in the profile.
    """
    moved = sorted({places[index] for part in changes for index in part if index in places})
    if not moved:
        return {}
    states, grads = views
    among = changes[1] and any(point.added for point in profile)  # what an output brought in depends on all after it
    if among or any(index in places and aside(scene, profile[places[index]]) for index in changes[0]):
        return dict(enumerate(points(scene, trunk, hidden, states, grads)))
    found, stopped = {}, _stopped(scene, trunk)
    for place in moved:
        old = profile[place]
        ends = (old.first, old.head)
        x, grad = states[old.node], NO_GRADIENT if old.node < stopped else grads[old.node]
        found[place] = _point(scene, old.node, x, grad, old.guarded, ends, old.lost, old.part, old.segments, 0.0)
    return found


Shift = tuple[float, float, float]


def shifts(
    scene: Scene,
    profile: Sequence[Point],
    places: Sequence[int],
    base: Sequence[State],
    states: Sequence[State],
    grads: Sequence[Grad],
) -> dict[int, Shift] | None:
    """By how much the points at these places differ from the profile: log10 of q, q(1-c) and energy.

    None where no gradient arrives any more. What is no layer's doing is worked out for these places alone, and what
    outputs on the trunk bring in (``Point.added``), which depends on all after it, not at all.
    """
    found: dict[int, Shift] = {}
    lost_q = lost_d = 0.0
    for place in places:
        old = profile[place]
        x, ends = states[old.node], (old.first, old.head)
        if aside(scene, old):
            now, then = (_aside(scene, old.node, old.part, view) for view in (states, base))
            lost_q, lost_d = lost_q + now[0] - then[0], lost_d + now[1] - then[1]
        lost = (old.lost[0] + lost_q, old.lost[1] + lost_d)
        grad = grads[old.node]
        new = _point(scene, old.node, x, grad, old.guarded, ends, lost, old.part, old.segments, old.added)
        if new.energy is None or old.energy is None:
            return None
        found[place] = (new.q - old.q, new.dependent - old.dependent, new.energy - old.energy)
    return found


def _ends(scene: Scene, trunk: Sequence[int]) -> tuple[int, int]:
    """The first and the last layer of the trunk; the last one is the head.

    A single one is the head if all other layers, those of residual blocks, come before it. Where there is no head, the
    factors that the output as a whole is multiplied with (a temperature) are common to all gradients and not counted.
    Fixed transforms of the data (buffers: a cosine transform, a filter bank) are no layers: no gradient trains them.
    Nor is a fixed map of what the last layer says (the centres of bins, of which it gives the shares).
    """
    weighted = [index for index in trunk if scene.nodes[index].op in WEIGHTED]
    while len(weighted) > 1 and scene.nodes[weighted[-1]].attrs.get("fixed"):
        weighted.pop()
    trained = next((n.index for n in scene.nodes if n.op in WEIGHTED and not _transforms(scene, n)), 0)
    if any(scene.nodes[index].op in WEIGHTED for index in range(trained)):  # such transforms come first
        first = next((index for index in trunk if index >= trained), 0)
        return first, weighted[-1] if weighted and weighted[-1] > first else _before_factors(scene, trunk)
    if not weighted:
        return 0, _before_factors(scene, trunk)
    if len(weighted) == 1:
        others = [node.index for node in scene.nodes if node.op in WEIGHTED and node.index != weighted[0]]
        alone = not others or max(others) > weighted[0]
        return (weighted[0], _before_factors(scene, trunk)) if alone else (trunk[0], weighted[0])
    return weighted[0], weighted[-1]


def _transforms(scene: Scene, node: Node) -> bool:
    """Whether a layer's weight is a buffer."""
    weight = next((p for p in scene.facts.parameters if p.name == node.parameters.get("weight")), None)
    return weight is not None and weight.kind == "buffer"


def _before_factors(scene: Scene, trunk: Sequence[int]) -> int:
    """The first index past what makes the output, the scalars that multiply or divide it left out."""
    end = len(scene.nodes)
    for index in reversed(trunk):
        node = scene.nodes[index]
        scalar = node.op in ("mul", "div") and any(scene.layout(i).elements == 1 for i in node.inputs[:2])
        if not scalar and node.op not in FACTORS:
            break
        end = index
    return end


def _added(scene: Scene, trunk: Sequence[int], grads: Sequence[Grad]) -> dict[int, float]:
    """Decades that the unit gradient of an output adds, for the outputs on the trunk that the model itself reads on.

    Hidden states that are returned beside the prediction: their own gradient is put there by convention, and no growth
    of the one that comes back from the prediction.
    """
    ends = set(returned(scene, scene.facts.outputs)).intersection(trunk[:-1])
    return {
        index: log10(grads[index].p) - log10(max(grads[index].p - 1.0, UNIT)) for index in ends if grads[index].p >= 1.0
    }


def _point(
    scene: Scene,
    index: int,
    x: State,
    g: Grad,
    hidden: bool,
    ends: tuple[int, int],
    lost: tuple[float, float],
    part: tuple[int, ...],
    segments: tuple[int, ...],
    added: float,
) -> Point:
    node, p = scene.nodes[index], g.p
    partly_guarded = bool(x.parts) and _partly_guarded(scene, index)
    if segments and max(segments) < len(g.parts):
        p = sum(g.parts[at][0] * g.parts[at][1].p for at in segments)
    energy = log10(p * per_sample(scene, index)) - added if p > 0 else None
    return Point(
        node=index,
        label=node.label or node.module or node.op,
        q=log10(x.q) + lost[0],
        dependent=log10(x.d) + lost[1],
        energy=energy,
        forward_std=math.sqrt(x.q),
        gradient_std=math.sqrt(g.p),
        share=min(x.d / x.q, 1.0) if x.q > 0 else 0.0,
        noise_q=math.sqrt(x.noise + x.own) / LN10,
        noise_p=math.sqrt(g.noise) / LN10,
        guarded=hidden,
        judged=not hidden and index < ends[1],
        body=not hidden and ends[0] <= index < ends[1] and energy is not None and not partly_guarded,
        lost=lost,
        part=part,
        segments=segments,
        first=ends[0],
        head=ends[1],
        added=added,
    )


def aside(scene: Scene, point: Point) -> bool:
    """Whether something that is no layer changes the scale of the signal at a point: a mean over positions, a join."""
    return bool(point.part) or averages(scene, point.node)


def per_sample(scene: Scene, index: int) -> float:
    """Elements of a node for each sample that the model was given: frames and windows laid out as samples are parts of
    one."""
    layout, given = scene.layout(index), scene.batch or 0
    return layout.elements * max(layout.batch / given, 1.0) if given else float(layout.elements)


def _aside(scene: Scene, index: int, part: Sequence[int], states: Sequence[State]) -> tuple[float, float]:
    """What is to be added back to log10 of q and of q(1-c) from a node on: what a mean over positions took, and what a
    join brought in or thinned out."""
    x = states[index]
    if averages(scene, index):
        before = states[scene.nodes[index].inputs[0]]
        return max(log10(before.q) - log10(x.q), 0.0), max(log10(before.d) - log10(x.d), 0.0)
    if not part:
        return 0.0, 0.0
    sizes = [scene.layout(source).elements for source in part]
    return _back([states[i].q for i in part], sizes, x.q), _back([states[i].d for i in part], sizes, x.d)


def _back(values: Sequence[float], sizes: Sequence[int], joined: float) -> float:
    """log10 of what the operands had over what the join has. Of a signal that is exactly zero no scale is known."""
    before = sum(map(mul, values, sizes)) / max(sum(sizes), 1)
    return log10(before) - log10(joined) if before > 0.0 and joined > 0.0 else 0.0


def joined(scene: Scene, trunk: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
    """The joins on the trunk at which what no layer has made is added or put beside the signal, each with the operands
    that carry the signal.

    Another input, rows looked up for it, constant positions: they come at a scale of their own, and a small signal that
    meets them has not grown.
    """
    found: dict[int, tuple[int, ...]] = {}
    carried: frozenset[int] = frozenset()
    for index in trunk[1:]:
        sources = dict.fromkeys(scene.nodes[index].inputs)
        if scene.nodes[index].op not in JOINS or len(sources) < 2:
            continue
        carried = carried or frozenset(reached(scene.nodes, trunk[0], trunk[-1]))
        part = tuple(source for source in sources if source in carried)
        others = [source for source in sources if source not in carried]
        if part and others and all(_unlearned(scene, source) for source in others):
            found[index] = part
    return found


def _unlearned(scene: Scene, end: int) -> bool:
    """Whether a node is computed from inputs and constants by no weight but the tables in which they are looked up."""
    seen, stack = {end}, [end]
    while stack:
        node = scene.nodes[stack.pop()]
        if node.op == "embedding":
            continue
        if node.op in WEIGHTED or (node.op == "parameter" and not node.attrs.get("buffer")):
            return False
        fresh = [source for source in node.inputs if source not in seen]
        seen.update(fresh)
        stack += fresh
    return True


def _segments(scene: Scene, trunk: Sequence[int], states: Sequence[State]) -> Mapping[int, tuple[int, ...]]:
    """The segments of positions that the trunk's signal has come to, for nodes of the trunk where it is not in all.

    A class token is put beside the patches. Until one of them asks the other, the gradient of the class token, which is
    large where the token is small and a norm follows, is none that goes on to the layers before.
    """
    found: dict[int, tuple[int, ...]] = {}
    here: tuple[int, ...] = ()
    for before, index in pairwise(trunk):
        if here and not _apart(scene, before, index, states):
            here = ()
        node = scene.nodes[index]
        if node.op == "cat" and states[index].parts and text(node, "axis") == "position":
            carried, at, mine = reached(scene.nodes, trunk[0], index), 0, []
            for source in node.inputs:
                count = max(len(states[source].parts), 1)
                own = here if here and source == before else range(count)
                mine += [at + one for one in own if source in carried]
                at += count
            here = tuple(mine) if len(mine) < at == len(states[index].parts) else ()
        if here:
            found[index] = here
    return found


def _partly_guarded(scene: Scene, index: int) -> bool:
    """Whether positions of a node are taken one by one to be brought to unit scale, and others go on as they are.

    A class token that is normalised by itself: where it is small its gradient is large, as that of any guarded signal.
    """
    takers = [scene.nodes[user] for user in scene.consumers[index]]
    if not takers or not all(node.op == "select" and text(node, "axis") == "position" for node in takers):
        return False
    normed = [all(scene.nodes[user].op == "norm" for user in scene.consumers[node.index]) for node in takers]
    return any(normed) and not all(normed)


def _apart(scene: Scene, before: int, after: int, states: Sequence[State]) -> bool:
    """Whether between two nodes of the trunk positions are treated one by one, and ``after`` has as many segments."""
    if len(states[after].parts) != len(states[before].parts):
        return scene.nodes[after].op == "cat" and before in scene.nodes[after].inputs
    inside = reaching(scene, before, after) - {before}
    return all(scene.nodes[index].op in POINTWISE for index in inside)


def averages(scene: Scene, index: int) -> bool:
    """Whether a node is a mean over positions: on the white noise that a model is traced with it averages the signal
    away, on real images hardly. What it takes is the architecture's choice and is added back."""
    node = scene.nodes[index]
    if node.op == "pool":
        return node.attrs.get("kind") == "avg"
    return node.op == "reduce" and node.attrs.get("fn") == "mean" and node.attrs.get("over") in ("position", "all")


class Columns(NamedTuple):
    """What spans are taken of: for forward, dependent and gradient the places of the points that count, their nodes,
    their values and their noise."""

    places: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    nodes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    values: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    noise: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


def columns(profile: Sequence[Point]) -> Columns:
    """A signal that is exactly zero has no scale: whether it ever opens is for the rules on values.

    Nor have differences that are exactly zero. Rounding leaves something of what shrinks; none at all are left by zeros
    (an attention whose scores start at zero weighs all its values alike, and what differs comes with the values) and
    where all that was measured came out the same (a step function), which says nothing of the size.
    """
    judged = [(at, p) for at, p in enumerate(profile) if p.judged and p.forward_std > 0]
    differs = [(at, p) for at, p in judged if p.share > 0]
    body = [(at, p) for at, p in enumerate(profile) if p.body]
    rows = (judged, differs, body)
    forward, dependent, gradient = (tuple(at for at, _ in row) for row in rows)
    nodes = [tuple(p.node for _, p in row) for row in rows]
    return Columns(
        (forward, dependent, gradient),
        (nodes[0], nodes[1], nodes[2]),
        (
            tuple(p.q for _, p in judged),
            tuple(p.dependent for _, p in differs),
            tuple(p.energy or 0.0 for _, p in body),
        ),
        (
            tuple(p.noise_q for _, p in judged),
            tuple(p.noise_q for _, p in differs),
            tuple(p.noise_p for _, p in body),
        ),
    )


def spans(profile: Sequence[Point]) -> Mapping[str, Span]:
    """``forward`` (q), ``dependent`` (q(1-c)) and ``gradient`` (energy per sample)."""
    return spans_of(columns(profile))


def spans_of(rows: Columns, shift: Sequence[Sequence[float]] = ()) -> Mapping[str, Span]:
    """The same; ``shift``: what is to be added to each of the three, by place in the profile."""
    found = {}
    for which, name in enumerate(("forward", "dependent", "gradient")):
        values: Sequence[float] = rows.values[which]
        if shift:
            values = list(map(add, values, chosen(shift[which], rows.places[which])))
        found[name] = _span(rows.nodes[which], values, rows.noise[which], forward=which < 2)
    return found


def chosen(values: Sequence[float], places: Sequence[int]) -> Sequence[float]:
    """The values at these places."""
    return itemgetter(*places)(values) if len(places) > 1 else [values[place] for place in places]


def _span(nodes: Sequence[int], values: Sequence[float], noise: Sequence[float], *, forward: bool) -> Span:
    """The largest fall and the largest rise along the rows; a fall in the direction of travel stands, if they tie.

    A dip has both; which of its ends is a little higher is chance and must not decide.
    """
    if len(values) < 2:
        return Span()
    fall, rise = _largest_fall(values), _largest_rise(values)
    down, up = (fall, rise) if forward else (rise, fall)
    shrinks = _height(values, down) >= _height(values, up) - TIE
    first, last = down if shrinks else up
    raw = abs(values[last] - values[first])
    chance = math.sqrt(abs(noise[first] ** 2 - noise[last] ** 2))
    return Span(max(raw - BAND * chance, 0.0), raw, chance, nodes[first], nodes[last], shrinks)


def _largest_rise(values: Sequence[float]) -> tuple[int, int]:
    """The two places, in order, between which the value grows most."""
    lowest = list(accumulate(values, min))
    rises = list(map(sub, values, lowest))
    end = rises.index(max(rises))
    return values.index(lowest[end]), end


def _largest_fall(values: Sequence[float]) -> tuple[int, int]:
    highest = list(accumulate(values, max))
    falls = list(map(sub, highest, values))
    end = falls.index(max(falls))
    return values.index(highest[end]), end


def _height(values: Sequence[float], step: tuple[int, int]) -> float:
    return abs(values[step[1]] - values[step[0]])


class Section(NamedTuple):
    """A stretch of the profile that ``layers`` write: from the point before them to the last one before others do."""

    before: Point
    end: Point
    layers: tuple[int, ...]  # a layer of the trunk, or those of the branches that are summed into it


def sections(scene: Scene, rows: Sequence[Point], hidden: Sequence[bool] = ()) -> tuple[Section, ...]:
    """The profile cut where layers write. ``hidden`` layers, whose scale a norm cancels, do not count as writers."""
    starts: list[tuple[int, tuple[int, ...]]] = []
    for at, point in enumerate(rows):
        layers: tuple[int, ...] = (point.node,) if scene.nodes[point.node].op in WEIGHTED else ()
        if not layers and at:
            layers = _between(scene, rows[at - 1].node, point.node, hidden)
        if layers:
            starts.append((at, layers))
    found = []
    for number, (at, layers) in enumerate(starts):
        stop = starts[number + 1][0] if number + 1 < len(starts) else len(rows)
        # what a mean over positions takes is the architecture's doing, not the layer's
        end = next((i for i in range(at + 1, stop) if averages(scene, rows[i].node)), stop)
        found.append(Section(rows[max(at - 1, 0)], rows[end - 1], layers))
    return tuple(found)


def _between(scene: Scene, start: int, end: int, hidden: Sequence[bool]) -> tuple[int, ...]:
    """Layers off the trunk whose signals meet in ``end``, made after the trunk's node ``start``."""
    seen, stack = {end}, [end]
    while stack:
        for source in scene.nodes[stack.pop()].inputs:
            if source > start and source not in seen:
                seen.add(source)
                stack.append(source)
    layers = (i for i in sorted(seen) if scene.nodes[i].op in WEIGHTED)
    return tuple(i for i in layers if not (hidden and hidden[i]))


def culprits(scene: Scene, profile: Sequence[Point], hidden: Sequence[bool]) -> tuple[Culprit, ...]:
    """Layers by how much they contribute to the spans, the largest first; those of a residual block share alike."""
    found = []
    for before, end, layers in sections(scene, [p for p in profile if not p.guarded], hidden):
        gradient = (before.energy or 0.0) - (end.energy or 0.0) if before.energy and end.energy else 0.0
        forward = end.dependent - before.dependent
        share = len(layers)
        for index in layers:
            node = scene.nodes[index]
            label = node.label or node.module or node.op
            found.append(Culprit(index, label, forward / share, gradient / share))
    return tuple(sorted(found, key=lambda c: -max(abs(c.forward), abs(c.gradient))))
