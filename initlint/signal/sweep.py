"""One pass forward and one backward over the graph, and the same again for what a change touches."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite, log10
from typing import TypeVar

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal import near, parts
from initlint.signal.decay import never_positive
from initlint.signal.moments import Grad, Moments, NoRuleError, Shares, State, bounded, state
from initlint.signal.opaque import measured
from initlint.signal.rectified import mixed_falls
from initlint.signal.scene import Scene
from initlint.signal.table import OPS

T = TypeVar("T")

#: Ops whose rule rests on more than Gaussian inputs and fixed weights: cross-checked where a forward was measured.
APPROXIMATE = frozenset(
    {"activation", "cumsum", "div", "mul", "matmul", "reduce", "where", "softmax", "sub", "add", "extremum"}
)
#: A rule is overruled where, from inputs within ``NEAR`` (log10) of the measured ones, it misses the output's second
#: moment by more than ``FAR``, and from inputs as measured as well: five times the rules' accuracies (THEORY 5.9).
NEAR, FAR = 1.0, 1.0
#: Of a sum of gradients that cancel each other nearly this share is left at least: chance does not cancel.
SMALLEST_SHARE = 1e-2
#: So many of the nearest sums are remembered.
TIES = 3
#: The second moment of a count is less: what is larger is a mask that is added to logits.
MANY = 1e6
#: Ops that make floats of integers.
CASTS = frozenset({"scale", "shift", "identity"})
#: Relative change of a moment below which re-propagation stops.
CONVERGED = 1e-7


@dataclass(frozen=True, slots=True)
class Sweep:
    """The state and the gradient of every node, and what each node sends back to its inputs."""

    states: tuple[State, ...]
    grads: tuple[Grad, ...]
    sent: tuple[tuple[Grad, ...], ...]


def forward_one(node: Node, states: Sequence[State], scene: Scene) -> State:
    """The state of one node; measured, or undetermined with a reason, where no rule applies."""
    xs = tuple(states[source] for source in node.inputs)
    op = OPS.get(node.op)
    numbers = _numbers(node, xs)
    if numbers is not None:
        return numbers
    try:
        if op is None:
            raise NoRuleError(f"the op {node.op!r} is not modelled")
        found = parts.forward(node, xs, scene, op) if parts.splits(node, xs) else op.forward(node, _plain(xs), scene)
    except NoRuleError as doubt:
        found = _instead(node, xs, scene, str(doubt))
    except (ArithmeticError, ValueError, IndexError) as error:
        found = _instead(node, xs, scene, f"{node.label or node.op}: {type(error).__name__} in its moments")
    found = _known(node, xs, found, scene)
    if never_positive(node, xs) and not found.negative:
        found = replace(found, negative=True)
    if found.overruled:  # handed on by a rule that changes a copy of its input
        found = replace(found, overruled=False)
    if found.undetermined is None and _contradicted(node, xs, found, scene):
        found = replace(_instead(node, xs, scene, f"{node.label or node.op} is far from its rule"), overruled=True)
    if found.undetermined and op is not None and op.clears:
        found = replace(found, undetermined=None, numeric=True)
    return found


def _known(node: Node, xs: tuple[State, ...], found: State, scene: Scene) -> State:
    """A value that no input reaches is known, as the weights are: that of a function of anything but Gaussians.

    (A softmax of distances, say.) Where its inputs were changed it moves as its rule says.
    """
    if node.index in scene.masks and node.op != "stop":
        return _counted(node, found)
    got = node.measured
    if node.op not in APPROXIMATE or node.index not in scene.fixed or found.undetermined or found.q <= 0.0:
        return found
    if (
        got is None
        or not got.finite
        or got.second <= 0.0
        or any(scene.nodes[i].attrs.get("masked") for i in node.inputs)
    ):
        return found
    scale, op = 1.0, OPS[node.op]
    was = tuple(_measured_like(x, scene.nodes[i]) for x, i in zip(xs, node.inputs, strict=True))
    if any(abs(x.q - y.q) > CONVERGED * y.q for x, y in zip(xs, was, strict=True)):
        before = op.forward(node, was, scene)
        scale = found.q / before.q if before.q > 0.0 else 1.0
    m, q = got.mean * scale**0.5, got.second * scale
    differs = max(q - m * m, 0.0)
    ratio = min(differs / found.v, q / found.q) if found.v > 0.0 else 0.0
    return replace(found, q=q, m=m, d=0.0, e=found.e * ratio, u=found.e * ratio)


def _counted(node: Node, found: State) -> State:
    """What is computed from masks alone is known as they are: zeros and ones, or counts, and no Gaussians.

    (Of a bias of minus infinity no moment says anything.)
    """
    got = node.measured
    if got is None or not got.finite or not 0.0 < got.second < MANY:
        return found
    q, m = got.second, got.mean
    return state(q, m, q * (1.0 - (got.correlation or 0.0)), q - m * m, kind="post")


def _measured_like(x: State, source: Node) -> State:
    """The state with the second moment that its node really has."""
    got = source.measured
    if got is None or not got.finite or got.second <= 0.0 or x.q <= 0.0:
        return x
    ratio = got.second / x.q
    return replace(x, q=got.second, m=x.m * ratio**0.5, d=x.d * ratio, e=x.e * ratio, u=x.u * ratio, parts=())


def _numbers(node: Node, xs: tuple[State, ...]) -> State | None:
    """Integers of an input that are made floats: data (the bytes of an image) and no indices, as measured."""
    got = node.measured
    if node.op not in CASTS or len(xs) != 1 or xs[0].kind != "index" or got is None or not got.finite:
        return None
    apart, along = 1.0 - (got.correlation or 0.0), 1.0 - (got.positions or 0.0)
    both = 1.0 - max(1.0 - apart, 0.0) * max(1.0 - along, 0.0)
    return state(got.second, got.mean, got.second * apart, got.second * along, got.second * both)


def _plain(xs: tuple[State, ...]) -> tuple[State, ...]:
    return tuple(parts.whole(x) for x in xs) if any(x.parts for x in xs) else xs


def _contradicted(node: Node, xs: tuple[State, ...], found: State, scene: Scene) -> bool:
    if scene.overruled is not None:
        return node.index in scene.overruled
    return node.op in APPROXIMATE and node.index not in scene.masks and _overruled(node, xs, found, scene)


def contradicted(found: Sweep) -> frozenset[int]:
    """The nodes whose rule the measurement overruled in a sweep over the graph that was measured."""
    return frozenset(index for index, x in enumerate(found.states) if x.overruled)


def _overruled(node: Node, xs: tuple[State, ...], found: State, scene: Scene) -> bool:
    """Whether the measured output is far from the rule's although the inputs are as predicted."""
    got = node.measured
    if got is None or not got.finite or got.second <= 0 or found.q <= 0 or found.kind == "logits":
        return False  # (masks of -inf and -100 are in the measured logits, and in no second moment here)
    if any(scene.nodes[i].attrs.get("masked") for i in node.inputs):
        return False  # so they are where the logits went through a function before
    if abs(log10(found.q / got.second)) <= FAR:
        return False
    for source, x in zip(node.inputs, xs, strict=True):
        before = scene.nodes[source].measured
        if before is None or x.kind == "index" or (x.kind == "constant" and not x.q * before.second > 0):
            continue  # (a constant may be another one: the entries of a table that were picked)
        if abs(log10(x.q / before.second) if x.q > 0 and before.second > 0 else 2 * NEAR) > NEAR:
            return False
    was = tuple(
        x if x.kind in ("index", "constant") else _measured_like(x, scene.nodes[i])
        for x, i in zip(xs, node.inputs, strict=True)
    )
    try:
        rule = OPS[node.op].forward(node, _plain(was), scene).q
    except (NoRuleError, ArithmeticError, ValueError, IndexError):
        return True
    return not rule > 0.0 or abs(log10(rule / got.second)) > FAR


def _instead(node: Node, xs: tuple[State, ...], scene: Scene, reason: str) -> State:
    try:
        return measured(node, xs, scene, reason)
    except NoRuleError:
        like = next((x for x in xs if x.kind not in ("index", "constant")), xs[0] if xs else State(1.0))
        return replace(like, ties=(), undetermined=reason)


def backward_one(node: Node, states: Sequence[State], g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """What a node sends back to each of its inputs."""
    xs = tuple(states[source] for source in node.inputs)
    if not xs or g.p == 0.0:
        return tuple(Grad(0.0) for _ in xs)
    y, op = states[node.index], OPS.get(node.op)
    unmodelled = op is None or (y.numeric and not any(x.numeric for x in xs))
    op = OPS["opaque"] if op is None or unmodelled else op
    try:
        if parts.splits(node, xs):
            sent = parts.backward(node, xs, y, g, scene, op)
        else:
            bare = g._replace(parts=()) if g.parts else g
            sent = op.backward(node, _plain(xs), parts.whole(y), bare, scene)
    except (NoRuleError, ArithmeticError, ValueError, IndexError):
        sent = OPS["opaque"].backward(node, xs, y, g, scene)
    sent = tuple(one if isfinite(one.p) else Grad(bounded(one.p), 0.0, g.noise) for one in sent[: len(xs)])
    return sent + (Grad(0.0),) * (len(xs) - len(sent))


def summed(received: Iterable[Grad]) -> Grad:
    """Gradients from several consumers add up; their chance parts average."""
    pieces = tuple(received)
    p = t = noise = through = along = across = won = lean = active = first = 0.0
    window = 1.0
    packed = False
    for part in pieces:
        p += part.p
        along += part.along
        across += part.across
        won += part.won
        active += part.p * part.active
        first += part.first
        lean += part.p * part.lean
        window = max(window, part.window)
        through += part.p if part.through < 0 else part.through
        packed = packed or part.through >= 0
        t += part.t
        noise += part.p * part.p * part.noise
    if p <= 0.0:
        return Grad(0.0)
    ties, cross = _coherent(pieces)
    if cross:  # the same gradient, over a sum and its parts: they cancel or reinforce each other
        ratio = max(1.0 + cross / p, SMALLEST_SHARE)
        p, t, across, won, along = (ratio * value for value in (p, t, across, won, along))
        through, noise = ratio * through, ratio * ratio * noise
    seen = bounded(through) if packed else -1.0
    return Grad(
        bounded(p),
        t,
        noise / (p * p),
        seen,
        parts.summed_parts(pieces),
        along,
        lean / p,
        won,
        window,
        active / p,
        first,
        across,
        turns=max(pieces, key=lambda piece: piece.p).turns,
        near=near.mixed(tuple((piece.p, piece.near) for piece in pieces)),
        ties=ties,
        falls=mixed_falls(pieces),
    )


def _coherent(pieces: tuple[Grad, ...]) -> tuple[tuple[Shares, ...], float]:
    """What the sum still contains of gradients further on, and the energy by which its pieces are not independent."""
    if len(pieces) == 1:
        return pieces[0].ties, 0.0
    cross = 0.0
    for at, one in enumerate(pieces):
        for other in pieces[at + 1 :]:
            theirs = {tie.root: tie for tie in other.ties}
            shared = next((tie for tie in one.ties if tie.root in theirs), None)
            if shared is not None:
                cross += 2.0 * shared.in_common(theirs[shared.root])
    found: dict[int, Shares] = {}
    for one in pieces:
        for tie in one.ties:
            before = found.get(tie.root)
            if before is not None:
                tie = tie._replace(factor=tie.factor + before.factor, together=tie.together + before.together)
            found[tie.root] = tie
    return tuple(sorted(found.values(), key=lambda tie: tie.root)[:TIES]), cross


def sweep(nodes: Sequence[Node], scene: Scene, outputs: Sequence[int]) -> Sweep:
    """Propagate through the whole graph."""
    states: list[State] = []
    for node in nodes:
        states.append(forward_one(node, states, scene))
    incoming: list[list[Grad]] = [[] for _ in nodes]
    for index in outputs:
        incoming[index].append(Grad(1.0))
    grads = [Grad(0.0)] * len(nodes)
    sent: list[tuple[Grad, ...]] = [()] * len(nodes)
    for node in reversed(nodes):
        grads[node.index] = summed(incoming[node.index])
        sent[node.index] = backward_one(node, states, grads[node.index], scene)
        for source, part in zip(node.inputs, sent[node.index], strict=True):
            if part.p:
                incoming[source].append(part)
    return Sweep(tuple(states), tuple(grads), tuple(sent))


def moments(found: Sweep) -> tuple[Moments, ...]:
    """The public form of a sweep."""
    rows = []
    for x, g in zip(found.states, found.grads, strict=True):
        rows.append(
            Moments(
                q=x.q,
                m=x.m,
                kappa=x.q - x.d,
                s=1.0 - x.e / x.q if x.q > 0 else 1.0,
                p=g.p,
                noise_q=(x.noise + x.own) ** 0.5,
                noise_p=g.noise**0.5,
                numeric=x.numeric,
                undetermined=x.undetermined,
                dependent=x.d,
            )
        )
    return tuple(rows)


def changed_states(
    nodes: Mapping[int, Node],
    base: Sweep,
    scene: Scene,
    given: Mapping[int, State] | None = None,
    span: tuple[int, int] | None = None,
) -> dict[int, State]:
    """States that differ when these nodes replace their namesakes, in order, until nothing changes any more.

    ``span``: only those after its first node, whose state may be ``given``, up to its last one.
    """
    low, high = span or (-1, len(scene.nodes) - 1)
    found: dict[int, State] = dict(given or {})
    view = Overlay(base.states, found)
    waiting = {index for index in nodes if low < index <= high}
    waiting.update(user for index in found for user in scene.consumers[index] if low < user <= high)
    queue = sorted(waiting)
    while queue:
        index = heapq.heappop(queue)
        waiting.discard(index)
        node = nodes.get(index, scene.nodes[index])
        now = forward_one(node, view, scene)
        if not differs(now, base.states[index]):
            continue
        found[index] = now
        for user in scene.consumers[index]:
            if user not in waiting and user <= high:
                waiting.add(user)
                heapq.heappush(queue, user)
    return found


def changed_grads(
    nodes: Mapping[int, Node],
    states: Mapping[int, State],
    base: Sweep,
    scene: Scene,
    outputs: Sequence[int],
    given: Grad | None = None,
    span: tuple[int, int] | None = None,
) -> dict[int, Grad]:
    """Gradients that differ, given the changed states.

    ``span``: only those after its first node up to its last one, on which the gradient may be ``given``; that on the
    first one is among the result, whether it differs or not.
    """
    low, high = span or (-1, len(scene.nodes) - 1)
    view = Overlay(base.states, states)
    sent: dict[int, tuple[Grad, ...]] = {}
    found: dict[int, Grad] = {}
    seeds = set(outputs)
    # a node sends another gradient back when its inputs or its own output changed
    dirty = set(nodes) | set(states)
    dirty.update(user for index in states for user in scene.consumers[index])
    dirty = {index for index in dirty if low < index <= high} | ({high} if given is not None else set())
    queue = [-index for index in dirty]
    heapq.heapify(queue)
    while queue:
        index = -heapq.heappop(queue)
        node = nodes.get(index, scene.nodes[index])
        if given is not None and index == high:
            g = given
        else:
            g = summed(_received(index, scene, base, sent, index in seeds))
        if _apart(g.p, base.grads[index].p):
            found[index] = g
        now = backward_one(node, view, g, scene)
        sent[index] = now
        for source, new, old in zip(node.inputs, now, base.sent[index], strict=True):
            if _apart(new.p, old.p) and source not in dirty and source > low:
                dirty.add(source)
                heapq.heappush(queue, -source)
    if low >= 0:
        found[low] = summed(_received(low, scene, base, sent, low in seeds))
    return found


def _received(
    index: int, scene: Scene, base: Sweep, sent: Mapping[int, tuple[Grad, ...]], seed: bool
) -> Iterable[Grad]:
    if seed:
        yield Grad(1.0)
    for user in scene.consumers[index]:
        back = sent.get(user, base.sent[user])
        for source, part in zip(scene.nodes[user].inputs, back, strict=True):
            if source == index and part.p:
                yield part


class Overlay(Sequence[T]):
    """A sequence with some entries replaced."""

    def __init__(self, base: Sequence[T], changes: Mapping[int, T]) -> None:
        self._base = base
        self._changes = changes

    def __getitem__(self, index: int) -> T:  # type: ignore[override]
        found = self._changes.get(index)
        return self._base[index] if found is None else found

    def __len__(self) -> int:
        return len(self._base)


def _apart(a: float, b: float) -> bool:
    return abs(a - b) > CONVERGED * max(abs(a), abs(b))


def differs(a: State, b: State) -> bool:
    """Whether two states differ beyond rounding."""
    return (
        _apart(a.q, b.q)
        or _apart(a.d, b.d)
        or _apart(a.e, b.e)
        or _apart(a.u, b.u)
        or abs(a.m - b.m) > CONVERGED * max(a.q, b.q) ** 0.5
        or a.share != b.share
        or len(a.parts) != len(b.parts)
        or any(differs(x, y) for (_, x), (_, y) in zip(a.parts, b.parts, strict=True))
    )
