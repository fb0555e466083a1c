"""Sources of signals, and ops that only move elements around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.elementwise import passed, passed_back
from initlint.signal.moments import Grad, NoRuleError, State, Tie, bounded, kept_ties, state, tied
from initlint.signal.near import gathered_back
from initlint.signal.ranked import largest
from initlint.signal.scene import Op, Scene, number, text

#: Beyond, an enlarged map is so smooth that the correlation of the fine gradient hardly matters.
MOST_ENLARGED = 8


def source_input(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """A model input: what was fed, or unit variance, independent between samples and positions."""
    kind = text(node, "kind", "float")
    if kind != "float":
        return State(number(node, "second", 1.0), number(node, "mean"), kind="index" if kind == "index" else "constant")
    q, m = number(node, "second", 1.0), number(node, "mean")
    c, s = number(node, "correlation"), number(node, "positions")
    return state(q, m, q * (1 - c), q * (1 - s), q * (1 - max(c, 0.0) * max(s, 0.0)))


def source_value(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """A parameter or constant read as a signal: the same for all samples."""
    fact = scene.parameters.get(node.parameters.get("value", ""))
    stats = fact.stats if fact else None
    if fact is not None and (fact.uninitialised > 0 or (stats is not None and stats.nans)):
        raise NoRuleError(f"{fact.name} holds NaN, or memory that nobody wrote")
    q = number(node, "second", stats.second if stats else float("nan"))
    m = number(node, "mean", stats.mean if stats else 0.0)
    if q != q:
        if node.op == "parameter":
            raise NoRuleError(f"the statistics of {node.parameters.get('value', node.label)} are not known")
        q = float("inf") if "second" in node.attrs else 0.0
    # only a tensor of two or more proper axes can differ between positions as well as between channels
    varied = sum(1 for size in node.shape or () if size > 1) > 1
    apart = max(q - m * m, 0.0) if varied else 0.0
    if varied and "alike" in node.attrs:
        apart = min(apart, q * (1.0 - max(number(node, "alike"), 0.0)))
    sign = number(node, "sign")
    return replace(state(q, m, 0.0, apart, apart, kind="constant"), positive=sign > 0, negative=sign < 0)


def none_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """No signal comes in."""
    return tuple(Grad(0.0) for _ in xs)


def output(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """What forward returns: the first signal among it."""
    for x in xs:
        if x.kind != "index":
            return x
    return xs[0] if xs else state(0.0, kind="constant")


def output_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The loss's gradient to each output."""
    return tuple(g if x.kind not in ("index", "constant") else Grad(0.0) for x in xs)


def reshape(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """view, permute, expand ...: moments unchanged. Flattening positions into channels leaves one position."""
    y = passed(node, xs, scene)
    return replace(y, ties=_ties_of_shifted(node, xs[0])) if "shifted" in node.attrs else y


def _ties_of_shifted(node: Node, x: State) -> tuple[Tie, ...]:
    """What was rolled, flipped or shifted meets other elements than its own: only what positions share is the same."""
    return tied(x, node.inputs[0], 0.0, 1.0) if text(node, "shifted") == "position" else ()


def reshape_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """An expanded tensor takes the sum over its copies; positions that became channels have a gradient each."""
    kept = number(node, "kept", 1.0)
    if "shifted" in node.attrs:
        return _shifted_back(node, g)
    if kept <= 1.0:
        return (g._replace(t=g.t * _alike_still(node, scene)),)
    return (Grad(bounded(kept * (g.p + (kept - 1.0) * max(g.t, 0.0))), 0.0, g.noise),)


def _shifted_back(node: Node, g: Grad) -> tuple[Grad, ...]:
    return (g._replace(ties=kept_ties(g, 0.0, 1.0) if text(node, "shifted") == "position" else ()),)


#: Ops whose output is laid out by heads.
HEADED = frozenset({"matmul", "attention", "mha", "scan"})


def _headed(node: Node, scene: Scene) -> bool:
    """Whether what is laid out anew comes from heads, by itself or with what was added to each."""
    source = _writer(node, scene)
    return source.op in HEADED or (source.op == "add" and any(scene.nodes[i].op in HEADED for i in source.inputs))


def _alike_still(node: Node, scene: Scene) -> float:
    """Of pairs of positions the share that stays on the same channels where positions are laid out as channels.

    Patches that are merged, [B, k P, c] to [B, P, k c]: one of k. All positions of a sample as the channels of one
    position of a larger sample, [B P, p, c] to [B, P, p c]: none. Heads are no positions.
    """
    if scene.nodes[node.inputs[0]].shape is None or node.shape is None or _headed(node, scene):
        return 1.0
    own, out = scene.layout(node.inputs[0]), scene.layout(node.index)
    if own.positions <= 1 or out.channels <= own.channels or out.channels % own.channels:
        return 1.0
    merged = out.channels // own.channels
    if own.batch == out.batch and own.positions == merged * out.positions:
        return 1.0 / merged
    return 0.0 if own.positions == merged and own.batch == out.batch * out.positions else 1.0


def select(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """A part of the signal: the same moments, but another signal unless it is all of it.

    A part of a packed projection has its own scale; rows picked from a table by an input differ between samples.
    """
    x = passed(node, xs, scene)
    if x.kind == "constant" and _picked(node, scene):
        apart = max(x.q - x.m * x.m, 0.0)
        return replace(xs[0], d=apart, e=apart, u=apart, kind="gaussian", ties=())
    if _share(node, scene) >= 1.0:
        return x
    if "largest" in node.attrs and text(node, "axis") == "channel":
        return largest(xs[0], round(number(node, "among")), round(number(node, "largest")))
    factor = block(node, scene)
    if factor == 1.0:
        return replace(xs[0], ties=())
    x = xs[0]
    return replace(
        x,
        q=bounded(x.q * factor),
        m=x.m * min(factor, 1.0) ** 0.5,
        d=bounded(x.d * factor),
        e=bounded(x.e * factor),
        u=bounded(x.u * factor),
        ties=(),
    )


def _picked(node: Node, scene: Scene) -> bool:
    """Whether rows are picked by a signal: no fixed place is given, and the result has the batch of the inputs."""
    if any(key in node.attrs for key in ("start", "stop", "of")) or node.shape is None:
        return False
    alike = node.measured.correlation if node.measured is not None else None
    if alike is not None and alike > 0.999:
        return False
    return scene.batch is None or scene.layout(node.index).batch == scene.batch


def block(node: Node, scene: Scene) -> float:
    """Second moment of the rows of a packed weight that this part comes from, relative to all of them.

    ``rows`` says which rows of the layer that wrote the signal they are.
    """
    start, stop = _chosen_rows(node)
    source = _writer(node, scene)
    if stop <= start:
        return 1.0
    name = source.parameters.get("weight")
    stats, fact = scene.stats(name), scene.parameters.get(name or "")
    if stats is None or fact is None or source.operator is None or stats.second <= 0 or not fact.shape:
        return 1.0
    count = source.operator.width_out or fact.shape[0]
    for parts in stats.chunks.values():
        size = count // len(parts) if parts else 0
        if size and start % size == 0 and stop % size == 0 and stop > start:
            own = [part.second for part in parts[start // size : stop // size]]
            if own:
                return _relative(source, sum(own) / len(own) / stats.second, stats.second)
    return 1.0


def _chosen_rows(node: Node) -> tuple[int, int]:
    """The range of the writer's rows that a part holds; (0, 0) where it is not known."""
    rows = node.attrs.get("rows")
    if not isinstance(rows, list) or len(rows) != 2 or not all(isinstance(row, int) for row in rows):
        return 0, 0
    return int(str(rows[0])), int(str(rows[1]))


def _writer(node: Node, scene: Scene) -> Node:
    """The op whose output is laid out anew or taken apart."""
    source = scene.nodes[node.inputs[0]] if node.inputs else node
    while source.op in ("reshape", "identity") and source.inputs:
        source = scene.nodes[source.inputs[0]]
    return source


def _of_channels(node: Node, share: float, scene: Scene) -> bool:
    """Whether a part holds all positions of some channels: also where these were laid out on an axis of their own, as
    queries, keys and values of a packed projection are."""
    if text(node, "axis") == "channel":
        return True
    start, stop = _chosen_rows(node)
    operator = _writer(node, scene).operator
    count = operator.width_out if operator is not None else 0
    return stop > start and count > 0 and abs((stop - start) / count - share) < 1e-3


def _relative(source: Node, ratio: float, second: float) -> float:
    """The ratio, unless a counterfactual put another weight there: then all parts are alike."""
    operator = source.operator
    if operator is None or operator.fan_in <= 0:
        return ratio
    expected = operator.fan_in * second
    # padding changes gain by less than this for convolutions; packed projections are linear layers
    return ratio if 0.5 < operator.gain / expected < 2.0 or operator.gain == 0 else 1.0


def select_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Zero elsewhere: on average the share of the gradient."""
    share = _share(node, scene)
    shared = g.t * share if _of_channels(node, share, scene) else g.t * share * share
    factor = block(node, scene)
    through = g.p * share * factor if factor != 1.0 else -1.0
    first = Grad(
        g.p * share,
        shared,
        g.noise,
        through,
        won=g.won * share,
        window=g.window,
        across=g.across * share * share,
    )
    return (first, *(Grad(0.0) for _ in xs[1:]))


def _share(node: Node, scene: Scene) -> float:
    share = number(node, "share", float("nan"))
    if share == share:
        return min(share, 1.0)
    source = scene.nodes[node.inputs[0]]
    if source.shape is None or node.shape is None:
        return 1.0
    whole, own = scene.layout(source.index), scene.layout(node.index)
    return min(own.batch * own.elements / max(whole.batch * whole.elements, 1), 1.0)


#: Ops that read several positions at once.
WINDOWS = frozenset({"conv", "conv_transpose", "pool"})


def pad(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Zeros around the signal thin it out; other modes repeat it."""
    x = xs[0]
    share = number(node, "n_in", 1.0) / max(number(node, "n_out", 1.0), 1.0)
    if "shifted" in node.attrs:  # what falls off at one end is as much as the zeros at the other
        return replace(x, ties=_ties_of_shifted(node, x))
    if text(node, "mode", "constant") != "constant" or share >= 1.0:
        return replace(x, ties=tied(x, node.inputs[0]))
    # of two positions one is padding: they differ by all that the other is. A window reads the padding at borders alone
    windows = any(scene.nodes[user].op in WINDOWS for user in scene.consumers[node.index])
    beside, apart = (0.0, share) if windows else (share * (1.0 - share) * x.q, share * share)
    return replace(
        x,
        q=x.q * share,
        m=x.m * share,
        d=x.d * share,
        e=x.e * apart + beside,
        u=x.u * apart + beside,
        ties=tied(x, node.inputs[0]),
        mix=(),
        open=x.open * share,
    )


def pad_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """The gradient where the signal was."""
    return _shifted_back(node, g) if "shifted" in node.attrs else passed_back(node, xs, y, g, scene)


def resize(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Interpolation averages what differs between positions and keeps what they share."""
    x, gain = xs[0], number(node, "gain_white", 1.0)
    lost = 1.0 - gain
    eps = max(x.d + x.e - x.u, 0.0)
    return state(
        x.q - lost * x.e,
        x.m,
        x.d - lost * eps,
        x.e * gain,
        x.u - lost * x.e,
        kind=x.kind,
        noise=x.noise + x.own,
        like=(x,),
    )


def resize_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Independent gradients by the Frobenius norm, shared ones by the number of outputs for each input."""
    ratio = number(node, "n_out", 1.0) / max(number(node, "n_in", 1.0), 1.0)
    back = number(node, "back_white", ratio * number(node, "gain_white", 1.0))
    shared = max(min(g.t, g.p), 0.0)
    both = shared * ratio * ratio
    alike, near = _neighbours(node, g, ratio, scene)
    p = bounded((g.p - shared) * back * alike + both)
    return (Grad(p, both, g.noise, across=g.across * ratio * ratio, near=near),)


def _neighbours(node: Node, g: Grad, ratio: float, scene: Scene) -> tuple[float, tuple[float, ...]]:
    """What neighbours that are alike add to the energy that an enlargement sends back; and how alike those are."""
    axes = len(node.shape) - 2 if node.shape else 0
    factor = round(ratio ** (1.0 / axes)) if axes > 0 and ratio > 1.0 else 1
    if "linear" not in text(node, "mode") or not 1 < factor <= MOST_ENLARGED or abs(factor**axes - ratio) > 1e-6:
        return 1.0, ()
    gain, near = gathered_back(g.near, factor)
    return float(gain**axes), near


OPS: Mapping[str, Op] = {
    "input": Op(source_input, none_back, clears=True),
    "parameter": Op(source_value, none_back, clears=True),
    "constant": Op(source_value, none_back, clears=True),
    "output": Op(output, output_back),
    "reshape": Op(reshape, reshape_back),
    "select": Op(select, select_back),
    "pad": Op(pad, pad_back),
    "resize": Op(resize, resize_back),
}
