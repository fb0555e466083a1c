"""Products of two signals and softmax attention (THEORY 5.3 and 5.5).

What softmax sees of a row of logits is what differs between keys: the part common to all keys cancels. A row of
weights a has sum 1 and energy S = E sum a^2; averaging values with it keeps what positions share and S of the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.contraction import axes_of, contracted, contracted_back
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.operands import SCALED, TAKEN, behind
from initlint.signal.order import log_sum_exp, softmax_energy, softmax_slip
from initlint.signal.ranked import spread_of
from initlint.signal.scene import Op, Scene, number, text

#: Variance of logits up to which the energies are tabulated.
WIDEST = 1e6
#: Rows of a causal mask at which the energy is evaluated; between them it is smooth in log length.
ROWS = 12


def energy(sigma: float, keys: float, *, causal: bool = False) -> float:
    """S, averaged over queries; of query t only t keys count when causal."""
    if not causal:
        return softmax_energy(sigma, keys)
    return _causal(softmax_energy, round(sigma, 3) if sigma < 10 else round(sigma, 1), round(keys))


def slip(sigma: float, keys: float, *, causal: bool = False) -> float:
    """What of the differences between values passes back through softmax, averaged over queries as ``energy``."""
    if not causal:
        return softmax_slip(sigma, keys)
    return _causal(softmax_slip, round(sigma, 3) if sigma < 10 else round(sigma, 1), round(keys))


@lru_cache(maxsize=2048)
def _causal(of: Callable[[float, float], float], sigma: float, keys: int) -> float:
    if keys <= ROWS:
        return sum(of(sigma, t) for t in range(1, keys + 1)) / keys
    rows = sorted({1, 2, 3, 4, *(round(4 * (keys / 4) ** (i / ROWS)) for i in range(1, ROWS + 1))})
    values = [t * of(sigma, t) for t in rows]
    # sum over t of (t S_t) / t with t S_t piecewise linear in log t
    total = sum(v / t for v, t in zip(values[:3], rows[:3], strict=True))
    tail = list(zip(rows, values, strict=True))[3:]
    for (a, x), (b, y) in itertools.pairwise(tail):
        total += (x + y) / 2 * math.log(b / a)
    total += 0.5 * (values[3] / rows[3] + values[-1] / rows[-1])
    return float(min(total / keys, 1.0))


def ties(logits: float, keys: float, rows: float) -> float:
    """What is left of the mean of what passes a softmax whose logits have this variance, in a run of so many rows.

    Beyond ``WIDEST`` the chance that the two best keys are near one another falls with the spread. And the mean rests
    on such rows alone: the nearest two keys of all rows are about sigma / (sqrt(2 ln n) rows) apart, and exp(-2 times
    that) is what passes there; without a near tie among them nothing does.
    """
    sigma = math.sqrt(logits)
    nearest = sigma / (math.sqrt(2.0 * math.log(max(keys, 2.0))) * max(rows, 1.0))
    return math.exp(-2.0 * nearest) * min(math.sqrt(WIDEST) / sigma, 1.0) if sigma > 0.0 else 1.0


@dataclass(frozen=True, slots=True)
class Attend:
    """What one attention does: logit variance between keys, row energy S, tilt, its size, and what passes back."""

    sigma2: float
    row: float
    tilt: float
    queries: float
    keys: float
    slip: float = 0.0
    width: float = 1.0  # channels of the tokens that keys and values read
    rows_alike: float = 0.0  # correlation between the weights that two queries give one key
    one: bool = False  # all queries of a sample are the same, and see the same keys: so is what they read
    rate: float = 0.0  # of the dropout that weights pass: it keeps neither their sum nor what keys share

    @property
    def odds(self) -> float:
        """Variance of a weight's factor under dropout: 1 / (1 - p) with probability 1 - p, else zero."""
        return self.rate / (1.0 - self.rate) if self.rate < 1.0 else 0.0

    @property
    def lean(self) -> float:
        """Of the gradient to a query what all keys have in common.

        It is W_k C W_v^T times the gradient, with C the covariance of the tokens under the row of weights: beside the
        chance part ``slip`` there is the mean of C, (1 - S) times the identity, whose energy is spread over all
        channels. It is the greater part where there are more keys than channels.
        """
        return (1.0 - self.row) ** 2 / self.width


def attend(q: State, k: State, node: Node, mask: State | None = None) -> Attend:
    """The softmax of scaled products of queries and keys, plus an additive mask or bias of its own spread."""
    dim = max(number(node, "head_dim", 64.0), 1.0)
    scale = number(node, "scale", 1.0 / math.sqrt(dim))
    keys = max(number(node, "keys", 1.0), 1.0)
    queries = max(number(node, "queries", keys), 1.0)
    causal = bool(node.attrs.get("causal"))
    logits = scale * scale * dim * q.q * k.e + (mask.e if mask is not None else 0.0)
    sigma2 = min(logits, WIDEST)
    share = 1.0 - min(number(node, "masked"), 1.0)
    if mask is not None and share >= 1.0:
        share = mask.share
    causal = causal or triangular(share, keys)
    seen = keys if causal else max(keys * share, 1.0)
    heads = number(node, "heads", 1.0) if node.op == "mha" else 1.0
    near = ties(logits, keys, heads * math.prod((node.shape or ())[:-1]))
    row = 1.0 - (1.0 - energy(math.sqrt(sigma2), seen, causal=causal)) * near
    # keys and values read the same tokens, so softmax leans its mean towards W_k^T q (dominates for many keys)
    width = max(dim * number(node, "heads", 1.0), 1.0)
    tilt = (1.0 - row) * sigma2 / width
    passing = slip(math.sqrt(sigma2), seen, causal=causal) * near
    alike = _rows_alike(max(seen * row, 1.0), max(1.0 - q.e / q.q, 0.0) if q.q > 0.0 else 0.0)
    one = q.q > 0.0 and q.e == 0.0 and mask is None and share >= 1.0 and not causal
    return Attend(sigma2, row, min(tilt, 1.0), queries, keys, passing, width, alike, one, number(node, "dropout"))


def _rows_alike(uneven: float, alike: float) -> float:
    """Correlation of exp(l) between queries whose logits l have correlation ``alike``; ``uneven`` is n S = E e^2l."""
    return (uneven**alike - 1.0) / (uneven - 1.0) if uneven > 1.0 + 1e-9 else alike


def triangular(share: float, keys: float) -> bool:
    """Whether a mask that leaves this share of the logits is the lower triangle: (n+1) / 2n of them."""
    return keys > 1.0 and 0.5 <= share <= 0.5 * (1.0 + 2.0 / keys)


def attended(v: State, found: Attend) -> State:
    """Values averaged with the weights."""
    kept = min(found.row + found.tilt, 1.0)
    lost = 1.0 - kept
    eps = max(v.d + v.e - v.u, 0.0)
    q = v.q - lost * v.e
    # outputs of two queries differ by their own choice of keys only
    e = 0.0 if found.one else v.e * max(kept - 1.0 / found.keys, 0.0)
    d = v.d - lost * eps
    u = d if found.one else max(v.u - lost * v.e, d, e)
    # masks of two queries and of two samples differ
    dropped = found.row * found.odds * v.q
    return state(q + dropped, v.m, d + dropped, e + dropped, u + dropped, noise=v.noise + v.own, like=(v,))


def attended_back(g: Grad, found: Attend) -> Grad:
    """The gradient to the values: independent ones by S T_q / T_k, shared ones add up.

    What one query sends back falls on all its keys with the weights a: of it E a_j a_k = (1 - S) / (n (n - 1)) is the
    same for two keys, all of it where the weights are equal. Of what queries share a key takes the sum of its weights.
    """
    ratio = found.queries / found.keys
    shared = max(min(g.t, g.p), 0.0)
    coherent = shared * ratio * ratio
    varied = max(min(found.row, 1.0) - 1.0 / found.keys, 0.0) * (1.0 + (found.queries - 1.0) * found.rows_alike)
    alike = (1.0 - min(found.row, 1.0)) / max(found.keys - 1.0, 1.0)
    t = coherent + (g.p - shared) * alike * ratio
    dropped = g.p * found.row * found.odds * ratio
    return Grad(bounded((g.p - shared) * found.row * ratio + coherent + shared * varied * ratio + dropped), t, g.noise)


def to_logits(g: Grad, found: Attend, v: State) -> float:
    """Gradient second moment at the logits: p times what differs between values, through the softmax.

    What values share cancels there, but for a dropout of the weights in between.
    """
    return g.p * (v.e + found.odds * v.q) * found.slip / found.keys


def to_queries(found: Attend, v: State) -> float:
    """The same towards a query, for p = 1: beside chance there is the mean (``Attend.lean``)."""
    return v.e * (found.slip + found.lean) + found.odds * v.q * found.slip


def asked(q: State, queries: float, g: Grad, found: Attend | None = None) -> float:
    """Energy of the queries that a key's gradient sums over: they add up as far as both they and the gradients at their
    logits are alike. ``found``: the gradient is that of the result, and passes the weights of each query yet."""
    alike = min(max(g.t / g.p, 0.0), 1.0) if g.p > 0.0 else 0.0
    if found is not None:
        uneven = max(found.keys * found.row, 1.0)
        alike *= (1.0 + (uneven - 1.0) * found.rows_alike) / uneven
    return queries * (q.q + (queries - 1.0) * alike * max(q.q - q.e, 0.0))


def attention(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Scaled dot-product attention of separate q, k, v."""
    q, k, v = _three(node, xs)
    return _doubtful(attended(v, attend(q, k, node, _bias(xs))), xs)


def _bias(xs: tuple[State, ...]) -> State | None:
    """A mask or relative bias that is computed: the fourth input, where it is no fixed mask."""
    return xs[3] if len(xs) > 3 and xs[3].kind != "index" and math.isfinite(xs[3].e) and xs[3].e < 1e4 else None


def attention_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """To v the averaged gradient; to q and k the little that passes softmax."""
    q, k, v = _three(node, xs)
    found = attend(q, k, node, _bias(xs))
    dim = max(number(node, "head_dim", 64.0), 1.0)
    scale = number(node, "scale", 1.0 / math.sqrt(dim))
    # a logit's gradient sums over the channels of the values, which may be more than those of the keys
    value = scene.nodes[node.inputs[2]].shape
    outer = float(value[-1]) if value and len(value) == 4 else dim
    to_query = outer * g.p * scale * scale * k.e * to_queries(found, v)
    to_key = outer * to_logits(g, found, v) * scale * scale * asked(q, found.queries, g, found)
    sharing = _sharing(node, scene)
    value_back = attended_back(g, found)
    back = (
        Grad(bounded(to_query), 0.0, g.noise),
        Grad(bounded(to_key * sharing[0]), 0.0, g.noise),
        Grad(bounded(value_back.p * sharing[1]), value_back.t * sharing[1], g.noise),
    )
    return (*back, *(Grad(0.0) for _ in xs[3:]))


def _sharing(node: Node, scene: Scene) -> tuple[float, float]:
    """How many heads of queries read each head of keys, and of values (multi-query, grouped-query attention)."""
    asking = scene.nodes[node.inputs[0]].shape
    return _readers(asking, scene.nodes[node.inputs[1]].shape), _readers(asking, scene.nodes[node.inputs[2]].shape)


def _readers(asking: tuple[int, ...] | None, read: tuple[int, ...] | None) -> float:
    """Of shapes [..., head, position, channel]."""
    if asking is None or read is None or len(asking) < 3 or len(read) != len(asking):
        return 1.0
    return max(math.prod(asking[:-2]) / max(math.prod(read[:-2]), 1), 1.0)


def mha(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """nn.MultiheadAttention: projections, attention, output projection."""
    _, _, v, found, _ = _projected(node, xs)
    y = attended(v, found)
    dim = max(number(node, "embed_dim", 1.0), 1.0)
    gain = dim * number(node, "second_out", 1.0 / (3.0 * dim))
    mixed = state(
        gain * y.q + number(node, "bias_second_out"),
        0.0,
        gain * y.d,
        gain * y.e,
        gain * y.u,
        own=2.0 / dim,
        noise=y.noise + y.own + 2.0 / dim,
        like=xs,
    )
    return _doubtful(mixed, xs)


def mha_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Back through the output projection, the attention and each of the three projections."""
    q, k, v, found, gains = _projected(node, xs)
    dim = max(number(node, "embed_dim", 1.0), 1.0)
    head = dim / max(number(node, "heads", 1.0), 1.0)
    inner = dim * number(node, "second_out", 1.0 / (3.0 * dim))
    at = Grad(g.p * inner, g.t * inner, g.noise)
    logits = head * to_logits(at, found, v) / head
    parts = (
        Grad(bounded(at.p * to_queries(found, v) * k.e * gains[0]), 0.0, g.noise),
        Grad(bounded(logits * asked(q, found.queries, at, found) * gains[1]), 0.0, g.noise),
        attended_back(at, found),
    )
    value = Grad(bounded(parts[2].p * gains[2]), parts[2].t * gains[2], g.noise)
    three = (parts[0], parts[1], value)
    if len(xs) == 1:  # self-attention written with one input: the three add up
        return (Grad(bounded(sum(part.p for part in three)), value.t, g.noise),)
    return (*three[: len(xs)], *(Grad(0.0) for _ in xs[3:]))


def _projected(node: Node, xs: tuple[State, ...]) -> tuple[State, State, State, Attend, tuple[float, float, float]]:
    dim = max(number(node, "embed_dim", 1.0), 1.0)
    head = dim / max(number(node, "heads", 1.0), 1.0)
    sources = xs if len(xs) >= 3 else (xs[0], xs[-1], xs[-1])
    made, gains = [], []
    for name, x in zip("qkv", sources[:3], strict=True):
        gain = dim * number(node, f"second_{name}", 0.5 / dim)
        bias = number(node, f"bias_second_{name}")
        gains.append(gain)
        made.append(
            state(gain * x.q + bias, 0.0, gain * x.d, gain * x.e, gain * x.u, noise=x.noise + x.own, own=2.0 / dim)
        )
    at = replace(node, attrs={**node.attrs, "head_dim": head, "scale": 1.0 / math.sqrt(head)})
    return made[0], made[1], made[2], attend(made[0], made[1], at), (gains[0], gains[1], gains[2])


def projected_logits(node: Node, xs: tuple[State, ...]) -> float:
    """Variance of the logits between keys inside ``nn.MultiheadAttention``."""
    return _projected(node, xs)[3].sigma2


def _three(node: Node, xs: tuple[State, ...]) -> tuple[State, State, State]:
    if len(xs) < 3:
        raise NoRuleError(f"{node.label or node.op}: attention needs queries, keys and values")
    return xs[0], xs[1], xs[2]


def _doubtful(y: State, xs: tuple[State, ...]) -> State:
    doubt = next((x.undetermined for x in xs[:3] if x.undetermined), None)
    return replace(y, undetermined=doubt) if doubt else y


def matmul(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Sum over n products of two signals."""
    a, b = (xs[0], xs[1]) if len(xs) > 1 else (xs[0], xs[0])
    n, kind = max(number(node, "contraction", 1.0), 1.0), text(node, "kind", "other")
    if (a.kind == "constant") != (b.kind == "constant") and kind == "other":
        return _weights(b, a, n) if a.kind == "constant" else _weights(a, b, n)
    if kind == "logits":
        common = n * (n - 1.0) * (a.m * b.m) ** 2
        q = n * a.q * b.q * _coherent(node, n, scene) + common
        d = n * _differing(a.q, a.d, b.q, b.d)
        u = n * a.q * b.e  # between keys, at one query
        y = state(q, n * a.m * b.m, d, u, max(d, u), noise=a.noise + b.noise, own=a.own + b.own, like=(a, b))
        return replace(y, kind="logits")
    if a.kind == "weights":
        if _over_channels(node, 1, scene):
            return _mixed(a, b, n)
        return _weighted(a, b, n, _rate(node, scene), a.tilt / _width(node, scene))
    # the contraction runs over positions of b (values) or over channels (other)
    if kind == "values":
        alike = (a.q - a.e) * (b.q - b.e)
        q = n * a.q * b.q + n * (n - 1.0) * max(alike, 0.0)
    elif (fixed := _same_layer(node, xs, scene)) > 0.0:
        return _compared_maps(a, b, n, fixed)
    elif (axes := axes_of(node, scene)) is not None:
        return contracted(node, a, b, axes, scene)
    else:
        q = n * a.q * b.q + n * (n - 1.0) * (a.m * b.m) ** 2
    d = q * _differing(a.q, a.d, b.q, b.d) / (a.q * b.q) if a.q * b.q > 0 else q
    e = n * a.q * b.e if kind == "values" else n * _differing(a.q, a.e, b.q, b.e)
    return state(q, n * a.m * b.m, d, e, max(d, e), noise=a.noise + b.noise + a.own + b.own, like=(a, b))


def _differing(a: float, apart: float, b: float, other: float) -> float:
    """a b less what both have in common, (a - apart)(b - other), without the rounding of a difference."""
    return apart * b + a * other - apart * other


def _same_layer(node: Node, xs: tuple[State, ...], scene: Scene) -> float:
    """What one layer's outputs share everywhere, channel by channel, where they are compared with each other."""
    if len(node.inputs) != 2:
        return 0.0
    one, other = (behind(index, scene, TAKEN).index for index in node.inputs)
    return max(xs[0].q - xs[0].u, 0.0) if one == other and xs[0].kind != "constant" else 0.0


def _compared_maps(a: State, b: State, n: float, fixed: float) -> State:
    """Products of one layer's outputs at different places (correlation volumes): n fixed parts, and chance."""
    mean = n * fixed
    apart = n * max(a.q * b.q - fixed * fixed, 0.0)
    return state(mean * mean + apart, mean, apart, apart, apart, noise=a.noise + b.noise + a.own + b.own, like=(a, b))


def _weights(x: State, w: State, n: float) -> State:
    """A signal through computed weights (standardised, generated from parameters): a linear map."""
    gain = n * w.q
    total = 0.0 if w.centred else n * w.v + n * n * w.m * w.m
    q = gain * x.v + x.m * x.m * total
    return state(q, n * x.m * w.m, gain * x.d, gain * x.e, gain * x.u, own=2.0 / n, noise=x.noise + x.own, like=(x, w))


def _rate(node: Node, scene: Scene) -> float:
    """Of the dropout that the weights of a product have passed."""
    made = behind(node.inputs[0], scene)
    return min(number(made, "p"), 1.0) if made.op == "dropout" and text(made, "kind", "element") == "element" else 0.0


def _width(node: Node, scene: Scene) -> float:
    """Channels of the tokens that keys and values read; infinite where values are no projection of tokens."""
    operator = behind(node.inputs[-1], scene, TAKEN | SCALED).operator
    return float(operator.width_in) if operator is not None and operator.width_in > 0 else math.inf


def _weighted(a: State, v: State, keys: float, rate: float, tilt: float) -> State:
    """Rows of a softmax times values."""
    row, total = _rows(a, keys)
    y = attended(v, Attend(0.0, row * (1.0 - rate), min(tilt, 1.0), keys, keys, rate=rate))
    square = total * total
    if abs(total - 1.0) > 1e-3:  # weights that were scaled since
        y = state(
            y.q * square, y.m * total, y.d * square, y.e * square, y.u * square, noise=y.noise, own=y.own, like=(y,)
        )
    return replace(y, undetermined=a.undetermined or v.undetermined, numeric=a.numeric or v.numeric)


def _rows(a: State, keys: float) -> tuple[float, float]:
    """S and the sum of a row, whatever became of the softmax since: dropout, gates, sums of several."""
    total = a.m * keys
    if not total > 0.0:
        return min(max(a.share, 1.0 / keys), 1.0), 1.0
    return min(max(a.q * keys / (total * total), 1.0 / keys), 1.0), total


def _over_channels(node: Node, which: int, scene: Scene) -> bool:
    """Whether the weights of an attention mix the channels of the values: [..., channel, position]."""
    shape, channel = scene.nodes[node.inputs[which]].shape, scene.nodes[node.inputs[which]].channel
    return shape is not None and len(shape) >= 4 and channel is not None and channel % len(shape) == len(shape) - 2


def _coherent(node: Node, n: float, scene: Scene) -> float:
    """Products of two projections of the same tokens summed over the tokens (attention between channels).

    Row i of one and row j of the other are W_i C W_j^T with C the tokens' covariance: beside chance, n of it, there is
    its mean, n^2 / D for D channels.
    """
    if not node.inputs or not _over_channels(node, 0, scene):
        return 1.0
    shape = scene.nodes[node.inputs[0]].shape
    channels = shape[-2] * shape[1] if shape is not None else 1
    return 1.0 + n / max(channels, 1)


def _mixed(a: State, v: State, count: float) -> State:
    """Rows of a softmax times channels, which share nothing but the mean."""
    row, _ = _rows(a, count)
    y = state(v.m * v.m + v.v * row, v.m, v.d * row, v.e * row, v.u * row, noise=v.noise + v.own, like=(a, v))
    return replace(y, undetermined=a.undetermined or v.undetermined, numeric=a.numeric or v.numeric)


def matmul_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """To each operand the other, summed over the axis that it does not have."""
    a, b = (xs[0], xs[1]) if len(xs) > 1 else (xs[0], xs[0])
    n = max(number(node, "contraction", 1.0), 1.0)
    out = scene.layout(node.index)
    size_a, size_b = (_size(i, scene) for i in (node.inputs[0], node.inputs[-1]))
    size_y = float(out.batch * out.elements)
    # each element of a meets size_y n / size_a outputs
    per_a, per_b = size_y * n / max(size_a, 1.0), size_y * n / max(size_b, 1.0)
    if a.kind == "weights":
        (row, total), rate = _rows(a, n), _rate(node, scene)
        found = Attend(0.0, row * (1.0 - rate), 0.0, per_b, n, rate=rate)
        through = g._replace(p=g.p * total * total, t=g.t * total * total)
        if _over_channels(node, 1, scene):
            left = Grad(bounded(g.p * b.v * per_a), 0.0, g.noise)
            back = found.row * per_b / n
            return (left, Grad(bounded(through.p * back), through.t * back, g.noise))
        # what queries share of the gradient they share at their logits; what keys share is lost there, if not dropped
        left = Grad(bounded(g.p * (b.e + rate * b.q) * per_a), max(g.t, 0.0) * b.e * per_a, g.noise)
        return (left, attended_back(through, found))
    axes = axes_of(node, scene) if text(node, "kind", "other") == "other" else None
    if axes is not None:
        return contracted_back(node, g, a, b, axes, scene)
    # what keys and values have in common reaches the queries coherently: see Attend.lean
    lean = g.lean / (n * _heads(node)) if text(node, "kind") == "logits" else 0.0
    # gradients of a query's logits sum to zero over the keys: what these share does not reach it
    apart = b.e if text(node, "kind") == "logits" else b.q
    left = Grad(bounded(g.p * apart * per_a * (1.0 + lean)), 0.0, g.noise + b.noise + b.own)
    summed = (
        asked(a, per_b, g) if text(node, "kind") == "logits" and not _over_channels(node, 0, scene) else a.q * per_b
    )
    # what all queries weigh alike of what their gradients have in common adds up at the values
    together = max(g.t, 0.0) * max(a.q - a.e, 0.0) * per_b if text(node, "kind") == "values" else 0.0
    right = Grad(bounded(g.p * summed + together * max(per_b - 1.0, 0.0)), together * per_b, g.noise + a.noise + a.own)
    if len(node.inputs) == 1:
        return (Grad(left.p + right.p, 0.0, left.noise),)
    return (left, right)


def _heads(node: Node) -> float:
    """Heads of logits [batch, head, query, key]."""
    return float(node.shape[1]) if node.shape is not None and len(node.shape) == 4 else 1.0


def _size(index: int, scene: Scene) -> float:
    layout = scene.layout(index)
    return float(layout.batch * layout.elements)


def softmax(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Weights that sum to 1: mean 1/n, energy from the spread of the logits along the axis."""
    x, n = xs[0], max(number(node, "n", 1.0), 1.0)
    spread = _compared(node, x)
    row = _masked(energy, x, spread, n)
    q = row / n
    differs = max(q - 1.0 / (n * n), 0.0)
    y = state(q, 1.0 / n, differs * min(x.d / spread, 1.0) if spread > 0 else 0.0, differs, differs, like=(x,))
    return replace(
        y, kind="weights", share=row, tilt=(1.0 - row) * spread if x.kind == "logits" else 0.0, noise=x.noise
    )


def _compared(node: Node, x: State) -> float:
    """What differs along the axis of a softmax; what is shared along it cancels."""
    return (x.e if x.kind == "logits" or text(node, "axis") == "position" else x.v) * _temperature(node)


def _temperature(node: Node) -> float:
    """The square of what logits are multiplied by inside a softmax."""
    return number(node, "factor", 1.0) ** 2


def _masked(of: Callable[..., float], x: State, spread: float, n: float) -> float:
    """``energy`` or ``slip`` of logits of which a share counts."""
    root = math.sqrt(min(spread, WIDEST))
    if x.share >= 1.0:
        return of(root, n)
    if triangular(x.share, n):
        return of(root, n, causal=True)
    return of(root, max(n * x.share, 1.0))


def softmax_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Jacobian a_j (delta_jk - a_k): E a_j^2 (1 - 2 a_j + S)."""
    x, n = xs[0], max(number(node, "n", 1.0), 1.0)
    spread = _compared(node, x)
    if node.index in scene.fixed and n > 1.0:  # known weights, and no Gaussian logits: as uneven as they are
        spread = spread_of(round(min(y.q * n, 1.0), 3), round(n)) ** 2
    passing = _masked(slip, x, spread, n) * ties(spread, n, math.prod(node.shape or ()) / n)
    lean = (1.0 - y.share) ** 2 / passing if passing > 1e-12 and x.kind == "logits" else 0.0
    passing *= _temperature(node)
    layout = scene.layout(node.index)
    if layout.positions == n and layout.channels > 1:  # over all positions: what they share moves no weight
        return (Grad(bounded(max(g.p - max(g.t, 0.0), 0.0) * passing / n), 0.0, g.noise, lean=lean),)
    return (Grad(bounded(g.p * passing / n), g.t * passing / n, g.noise, lean=lean),)


def log_softmax(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Logits less their log-sum-exp."""
    x, n = xs[0], max(number(node, "n", 1.0), 1.0)
    m = -log_sum_exp(math.sqrt(x.v), round(n))
    v = x.v * (1.0 - 1.0 / n)
    return state(m * m + v, m, x.d, x.e, x.u, kind="post", noise=x.noise, own=x.own, like=(x,))


def log_softmax_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """g - softmax * sum(g): one more for each 1/n."""
    n = max(number(node, "n", 1.0), 1.0)
    row = energy(math.sqrt(min(xs[0].v, 1e6)), n)
    return (Grad(bounded(g.p * (1.0 - 2.0 / n + row)), 0.0, g.noise),)


OPS: Mapping[str, Op] = {
    "matmul": Op(matmul, matmul_back),
    "softmax": Op(softmax, softmax_back),
    "log_softmax": Op(log_softmax, log_softmax_back),
    "attention": Op(attention, attention_back),
    "mha": Op(mha, mha_back),
}
