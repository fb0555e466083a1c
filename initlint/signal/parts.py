"""Signals whose positions fall into segments of different scale: a class token among patches, a prefix among tokens.

An op that treats every position alike is applied to each segment; attention lets each segment ask all of them; any
other op sees the mixture. Without this a class token that starts at 1e-6 would be lost among a thousand patches of
unit scale, although it alone reaches the head.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.merge import mixed
from initlint.signal.moments import Grad, State, bounded
from initlint.signal.scene import Op, Scene, number, text

Parts = tuple[tuple[float, State], ...]

#: Ops that act on each position by itself.
POINTWISE = frozenset(
    {"linear", "activation", "glu", "scale", "shift", "identity", "dropout", "reshape", "add", "sub", "mul", "div"}
    | {"norm", "softmax", "log_softmax", "stop", "output", "extremum"}
)
#: Ops of which the first input asks and the others answer.
ASKING = frozenset({"attention", "mha", "matmul"})
#: Ops after which the signal still holds earlier ones.
KEEPS = frozenset({"add", "sub", "identity", "reshape", "dropout"})
#: More segments than this are not told apart.
MOST = 4
#: Segments whose second moments differ by less than this factor are not worth it.
ALIKE = 1.2


def splits(node: Node, xs: Sequence[State]) -> bool:
    """Whether a node is to be taken segment by segment."""
    if node.op == "cat" or (node.op == "select" and text(node, "axis") == "position"):
        return text(node, "axis") == "position" and len(xs) > 0
    if node.op == "pad":
        return border(node) is not None
    if not any(x.parts for x in xs):
        return False
    if node.op == "norm":
        return text(node, "kind", "layer") in ("layer", "rms", "l2")
    if node.op == "select":
        return text(node, "axis") in ("channel", "other")
    if node.op in ASKING:
        return bool(xs[0].parts) and (node.op != "matmul" or _by_token(node))
    return node.op in POINTWISE or (node.op == "select" and text(node, "axis") != "position")


def _by_token(node: Node) -> bool:
    """Whether a product treats each token of its first operand by itself: the last axis is summed over."""
    last = node.channel is None or not node.shape or node.channel % len(node.shape) == len(node.shape) - 1
    return text(node, "kind") in ("logits", "values") or last


def shares(xs: Sequence[State]) -> tuple[float, ...] | None:
    """The common partition of the inputs that have one; None where they differ."""
    found = {tuple(round(share, 9) for share, _ in x.parts) for x in xs if x.parts}
    return next(tuple(share for share, _ in x.parts) for x in xs if x.parts) if len(found) == 1 else None


def border(node: Node) -> tuple[float, bool] | None:
    """Share of zeros that are put before or after (True: before) the tokens of a sequence; None for other padding."""
    amounts, shape = node.attrs.get("amounts"), node.shape
    if not isinstance(amounts, list) or text(node, "mode", "constant") != "constant" or not shape:
        return None
    sides = [(at, amount) for at, amount in enumerate(amounts) if isinstance(amount, int) and amount != 0]
    if len(sides) != 1 or sides[0][1] < 0 or number(node, "value") != 0.0:
        return None
    axis = len(shape) - 1 - sides[0][0] // 2
    channel = (node.channel if node.channel is not None else -1) % len(shape)
    # (the tokens stand right before their channels; padding of maps has no such axis)
    if axis == node.batch or axis == channel or channel != len(shape) - 1 or axis != channel - 1:
        return None
    return sides[0][1] / shape[axis], sides[0][0] % 2 == 0


def whole(x: State) -> State:
    """A state without its segments."""
    return replace(x, parts=()) if x.parts else x


def piece(x: State, at: int) -> State:
    """Segment ``at``, or all of a signal that has none."""
    return x.parts[at][1] if x.parts else x


def joined(parts: Parts, like: State | None = None) -> State:
    """The mixture of segments, which keeps them."""
    found = mixed(tuple(x for _, x in parts), tuple(share for share, _ in parts), apart=True)
    first = parts[0][1]
    kept = like if like is not None else found
    return replace(
        kept,
        parts=parts,
        kind=first.kind,
        share=first.share,
        numeric=any(x.numeric for _, x in parts),
        undetermined=next((x.undetermined for _, x in parts if x.undetermined), None),
    )


def forward(node: Node, xs: tuple[State, ...], scene: Scene, op: Op) -> State:
    """The rule of an op, segment by segment."""
    if node.op == "cat":
        return _cat(node, xs, scene, op)
    if node.op == "select" and text(node, "axis") == "position":
        return _select(node, xs, scene, op)
    if node.op == "pad":
        return _pad(node, xs, scene, op)
    found = shares(xs[:1] if node.op in ASKING else xs)
    if found is None or (node.op == "reshape" and _blurred(node, found, scene)):
        return op.forward(node, tuple(whole(x) for x in xs), scene)
    plain = [whole(x) for x in xs]
    parts = []
    for at, share in enumerate(found):
        if node.op in ASKING:
            given = (piece(xs[0], at), *plain[1:])
        else:
            given = tuple(piece(x, at) for x in xs)
        parts.append((share, op.forward(node, given, scene)))
    y = joined(tuple(parts))
    # what the whole still contains of earlier signals is for the whole's own rule to say
    ties = (
        op.forward(node, tuple(plain), scene).ties
        if node.op in ("add", "sub", "identity", "reshape", "dropout")
        else ()
    )
    return replace(y, ties=ties)


def _blurred(node: Node, found: Sequence[float], scene: Scene) -> bool:
    """Whether positions become channels of fewer positions, of which one lies in two segments: frames in patches."""
    before, after = scene.layout(node.inputs[0]), scene.layout(node.index)
    if not 1 < after.positions < before.positions or after.channels <= before.channels:
        return False
    ends = [end * after.positions for end in itertools.accumulate(found)]
    return any(abs(end - round(end)) > 1e-6 for end in ends)


def _cat(node: Node, xs: tuple[State, ...], scene: Scene, op: Op) -> State:
    y = op.forward(node, tuple(whole(x) for x in xs), scene)
    lengths = [scene.layout(index).batch * scene.layout(index).elements for index in node.inputs]
    total = float(sum(lengths))
    pieces = sum(max(len(x.parts), 1) for x in xs)
    if not 1 < pieces <= MOST or total <= 0:
        return y
    parts = tuple(
        (length / total * share, part)
        for length, x in zip(lengths, xs, strict=True)
        for share, part in (x.parts or ((1.0, x),))
    )
    return joined(parts, y)


def _pad(node: Node, xs: tuple[State, ...], scene: Scene, op: Op) -> State:
    y, x, found = op.forward(node, tuple(whole(x) for x in xs), scene), xs[0], border(node)
    if found is None or len(x.parts) >= MOST:
        return y
    share, before = found
    zero = (share, replace(whole(x), q=0.0, m=0.0, d=0.0, e=0.0, u=0.0, own=0.0, noise=0.0, ties=(), mix=()))
    rest = tuple((part * (1.0 - share), one) for part, one in x.parts or ((1.0, x),))
    return joined((zero, *rest) if before else (*rest, zero), y)


def chosen(node: Node, x: State, scene: Scene) -> list[float]:
    """Of each segment the share that a slice of positions takes."""
    total, shape, axis = (
        scene.layout(node.inputs[0]).positions,
        scene.nodes[node.inputs[0]].shape,
        node.attrs.get("dim"),
    )
    if shape and isinstance(axis, int) and -len(shape) <= axis < len(shape):
        total = shape[axis]  # (heads are no positions of the sequence)
    start = number(node, "start", -1.0)
    stop = number(node, "stop", -1.0)
    if start < 0 or stop < 0:
        return []
    found, at = [], 0.0
    for share, _ in x.parts:
        end = at + share * total
        found.append(max(min(stop, end) - max(start, at), 0.0) / max(share * total, 1e-9))
        at = end
    return [min(value, 1.0) if value > 1e-6 else 0.0 for value in found]


def _select(node: Node, xs: tuple[State, ...], scene: Scene, op: Op) -> State:
    x = xs[0]
    taken = chosen(node, x, scene) if x.parts else []
    if not any(taken):
        return op.forward(node, tuple(whole(one) for one in xs), scene)
    weights = [(value * share, part) for value, (share, part) in zip(taken, x.parts, strict=True) if value > 0]
    if len(weights) == 1:
        return op.forward(node, (replace(weights[0][1], parts=()), *xs[1:]), scene)
    total = sum(weight for weight, _ in weights)
    return joined(tuple((weight / total, part) for weight, part in weights))


def backward(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene, op: Op) -> tuple[Grad, ...]:
    """What the op sends back, segment by segment."""
    plain = tuple(whole(x) for x in xs)
    if node.op == "cat":
        sent = op.backward(node, plain, whole(y), _bare(g), scene)
        if g.parts and len(g.parts) == sum(max(len(x.parts), 1) for x in xs):
            return tuple(_taken(g, xs))
        return sent
    if node.op == "select" and text(node, "axis") == "position":
        return _select_back(node, xs, plain, y, g, scene, op)
    if node.op == "pad":
        return _pad_back(node, xs, g)
    found = shares(xs[:1] if node.op in ASKING else xs)
    if found is None or not y.parts or len(y.parts) != len(found):
        return op.backward(node, plain, whole(y), _bare(g), scene)
    rows, apart = [], []
    for at, _ in enumerate(found):
        if node.op in ASKING:
            given = (piece(xs[0], at), *plain[1:])
        else:
            given = tuple(piece(x, at) for x in xs)
        own = part_of(g, at)
        rows.append(op.backward(node, given, y.parts[at][1], own, scene))
        if node.op in ASKING:
            apart.append(op.backward(node, given, y.parts[at][1], own._replace(t=0.0), scene) if own.t else rows[-1])
    columns: list[Grad] = []
    for which, x in enumerate(xs):
        column = tuple((share, row[which]) for share, row in zip(found, rows, strict=True))
        answers = node.op in ASKING and which > 0
        if answers:
            alone = tuple((share, row[which]) for share, row in zip(found, apart, strict=True))
            columns.append(_answered(column, alone))
        else:
            columns.append(gathered(column, keep=bool(x.parts)))
    return tuple(columns)


def _answered(column: tuple[tuple[float, Grad], ...], alone: tuple[tuple[float, Grad], ...]) -> Grad:
    """What several segments ask of one signal adds up.

    Each row was computed as if all that ask had the segment's gradient: of ``alone``, where no two share any, a
    segment causes its share; what its positions have in common takes two of them.
    """
    found = gathered(alone, keep=False)
    p, t = found.p, sum(share * one.t for share, one in alone)
    for (share, one), (_, bare) in zip(column, alone, strict=True):
        p += share * share * max(one.p - bare.p, 0.0)
        t += share * share * max(one.t - bare.t, 0.0)
    return found._replace(p=bounded(p), t=min(t, p))


def _taken(g: Grad, xs: tuple[State, ...]) -> Iterator[Grad]:
    """What each input of a concatenation takes of the segments of its gradient."""
    at = 0
    for x in xs:
        if x.parts:
            own = g.parts[at : at + len(x.parts)]
            yield gathered(tuple((share, part) for (share, _), (_, part) in zip(x.parts, own, strict=True)), keep=True)
        else:
            yield g.parts[at][1]
        at += max(len(x.parts), 1)


def _select_back(
    node: Node, xs: tuple[State, ...], plain: tuple[State, ...], y: State, g: Grad, scene: Scene, op: Op
) -> tuple[Grad, ...]:
    x = xs[0]
    taken = chosen(node, x, scene) if x.parts else []
    sent = op.backward(node, plain, whole(y), _bare(g), scene)
    if not any(taken):
        return sent
    parts = []
    used = 0
    for value, (share, _) in zip(taken, x.parts, strict=True):
        own = part_of(g, used) if value > 0 else Grad(0.0)
        used += value > 0
        sent_on = Grad(own.p * value, own.t * value * value, own.noise, turns=own.turns)
        parts.append((share, sent_on if value > 0 else Grad(0.0)))
    return (gathered(tuple(parts), keep=True), *sent[1:])


def _pad_back(node: Node, xs: tuple[State, ...], g: Grad) -> tuple[Grad, ...]:
    """What falls on the zeros is lost."""
    count, found = max(len(xs[0].parts), 1), border(node)
    if found is None or len(g.parts) != count + 1:
        return (_bare(g), *(Grad(0.0) for _ in xs[1:]))
    share, before = found
    rest = g.parts[1:] if before else g.parts[:-1]
    scaled = tuple((part / (1.0 - share), one) for part, one in rest)
    return (gathered(scaled, keep=bool(xs[0].parts)), *(Grad(0.0) for _ in xs[1:]))


def part_of(g: Grad, at: int) -> Grad:
    """The gradient on a segment; on all alike where no segments are told apart."""
    return g.parts[at][1] if at < len(g.parts) else _bare(g)


def _bare(g: Grad) -> Grad:
    return g._replace(parts=()) if g.parts else g


def gathered(parts: tuple[tuple[float, Grad], ...], *, keep: bool) -> Grad:
    """The mean over segments."""
    p = sum(share * part.p for share, part in parts)
    t = sum(share * share * part.t for share, part in parts)
    noise = max((part.noise for _, part in parts if part.p > 0), default=0.0)
    through = -1.0
    if any(part.through >= 0 for _, part in parts):
        through = sum(share * (part.through if part.through >= 0 else part.p) for share, part in parts)
    return Grad(bounded(p), t, noise, through, parts if keep else ())


def summed_parts(grads: Sequence[Grad]) -> tuple[tuple[float, Grad], ...]:
    """Segments of a sum of gradients; a gradient without segments is alike on all."""
    partitions = {tuple(round(share, 9) for share, _ in g.parts) for g in grads if g.parts}
    if len(partitions) != 1:
        return ()
    found = []
    for at, share in enumerate(next(tuple(share for share, _ in g.parts) for g in grads if g.parts)):
        pieces = [part_of(g, at) for g in grads]
        p = sum(one.p for one in pieces)
        through = sum(one.through if one.through >= 0 else one.p for one in pieces)
        packed = any(one.through >= 0 for one in pieces)
        noise = sum(one.p * one.p * one.noise for one in pieces) / (p * p) if p > 0 else 0.0
        turns = max(pieces, key=lambda one: one.p).turns
        t = sum(one.t for one in pieces)
        found.append((share, Grad(bounded(p), t, noise, through if packed else -1.0, turns=turns)))
    return tuple(found)
