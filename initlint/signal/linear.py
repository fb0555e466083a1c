"""Maps with fixed weights: linear and convolutional layers, embeddings and bilinear forms, from the actual weights.

With input mean m and channel variance v, output unit i has mean m S_i + b_i and variance v R_i (row sum, row energy):
``q = gain v + m^2 total_second + 2 m total_bias + bias_second``, exact for one layer and any weights (THEORY 1).
Whatever differs between samples or positions has no common mean and passes with ``gain`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node, Operator
from initlint.signal.elementwise import greatest, times, width_of
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.scene import Op, Scene, number, text

#: Gaussian units: the mean square of n of them has relative variance 2 / n.
GAUSSIAN = 2.0
#: PyTorch's default epsilon of batch norm.
EPSILON = 1e-5
#: Rows of so few weights (padding counted) have one weight each.
ALONE = 1.5
#: Rows of three normal weights; beyond, the mean of 1 / energy hardly settles.
MOST_UNEVEN = 2.0 / 3.0


def operator_of(node: Node) -> Operator:
    """The node's operator. Raises NoRuleError when the probe could not compute one."""
    if node.operator is None:
        raise NoRuleError(f"{node.label or node.op}: the weights' fans are not known (shapes are missing)")
    known = node.operator.gain + node.operator.total_second + node.operator.bias_second
    if not math.isfinite(known):  # memory that nobody wrote, or NaN: whatever follows is not known either
        raise NoRuleError(f"{node.label or node.op}: the weights hold NaN or infinite values")
    return node.operator


def through(operator: Operator, x: State) -> tuple[float, float]:
    """Second moment and mean of the output."""
    v = max(x.q - x.m * x.m, 0.0)
    q = operator.gain * v + x.m * x.m * operator.total_second + 2.0 * x.m * operator.total_bias + operator.bias_second
    return max(q, 0.0), x.m * operator.total_mean + operator.bias_mean


def linear(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """y = W x + b."""
    operator, x = operator_of(node), xs[0]
    q, m = through(operator, x)
    apart, both = _borders(operator, x)
    y = state(
        q,
        m,
        operator.gain * x.d,
        operator.gain * x.e + apart,
        operator.gain * x.u + both,
        noise=x.noise + x.own,
        spread=x.spread + GAUSSIAN / max(scene.layout(node.index).channels, 1),
        like=(x,),
    )
    # weight rows of unequal energy make the mean square fluctuate more
    spread = GAUSSIAN * (1.0 + operator.energy_spread) / width_of(node.index, y, scene)
    square = operator.orthogonal and operator.width_out >= operator.width_in > 0
    own, noise = (x.own, x.noise) if square else (spread, y.noise)
    harmonic = _harmonic(node, operator, y, scene)
    return replace(y, own=own, noise=noise, isometric=operator.orthogonal, harmonic=harmonic)


def _borders(operator: Operator, x: State) -> tuple[float, float]:
    """What zero padding adds to e and to u: of what all positions share those near a border take less."""
    mean = x.m * x.m
    of_mean = mean * operator.total_second * operator.total_uneven
    of_channels = operator.gain * operator.uneven
    return (
        of_mean + of_channels * max(x.q - x.e - mean, 0.0),
        of_mean + of_channels * max(x.q - x.u - mean, 0.0),
    )


def _harmonic(node: Node, operator: Operator, y: State, scene: Scene) -> float:
    """E[1/v] E[v] over output channels whose rows have unequal energies.

    Of k normal weights each: 1 / (1 - 2/k), with 2/k the relative variance of the energies. That diverges for two or
    fewer. Of one weight each the n-th smallest is n times the smallest, whatever their distribution (its density at
    zero is finite): the mean of 1 / w^2 is pi^2/6 of what the smallest gives, as far as the epsilon of a norm lets it.
    """
    uneven = operator.energy_spread
    if operator.fan_in > ALONE:
        return 1.0 / (1.0 - min(uneven, MOST_UNEVEN))
    stats = scene.stats(node.parameters.get("weight"))
    rows = stats.rows if stats is not None else None
    if rows is None or rows.energy_mean <= 0 or y.v <= 0:
        return 1.0 / (1.0 - min(uneven, 0.5))
    smallest = rows.energy_min / rows.energy_mean + EPSILON / y.v
    return max(math.pi**2 / 6.0 / (rows.count * smallest), 1.0 / (1.0 - min(uneven, 0.5)))


def linear_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """p_x = back p_y."""
    operator = operator_of(node)
    p = g.p if g.through < 0 else g.through
    # only input positions of one phase of the stride read the same taps: the others share nothing
    read, written = scene.layout(node.inputs[0]).positions, scene.layout(node.index).positions
    back, turns = operator.back, ("", 0)
    if g.turns[0] and g.turns[0] == node.parameters.get("weight"):
        back, turns = _turning(node, g, back, scene), (g.turns[0], g.turns[1] + 1)
    shared = back * min(written / read, 1.0)
    return (
        Grad(
            bounded(p * back),
            g.t * shared,
            g.noise,
            across=g.across * shared,
            turns=turns,
            near=g.near if read == written else (),
        ),
    )


def _turning(node: Node, g: Grad, back: float, scene: Scene) -> float:
    """Of x + W x the part of W: together with x it gives one more turn of 1 + W (see operands.again)."""
    gains, turns = scene.again.get(node.parameters["weight"], ()), g.turns[1]
    if not gains:
        return back
    at = min(turns, len(gains) - 1)
    return max(gains[at] / (gains[at - 1] if at > 0 else 1.0) - 1.0, 0.0)


def bilinear(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """y = x1 W x2 + b for independent x1 and x2."""
    operator = operator_of(node)
    both = times(xs[0], xs[1])
    return state(
        operator.gain * both.q + operator.bias_second,
        operator.bias_mean,
        operator.gain * both.d,
        operator.gain * both.e,
        operator.gain * both.u,
        own=GAUSSIAN / scene.layout(node.index).channels,
        noise=both.noise + both.own,
        like=xs,
    )


def bilinear_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """To each input the gradient times the other: out * in_other * E w^2 * q_other."""
    operator = operator_of(node)
    first, second = number(node, "in1"), number(node, "in2")
    weight = operator.gain / max(first * second, 1.0)
    out = scene.layout(node.index).channels
    sides = (out * second * weight * xs[1].q, out * first * weight * xs[0].q)
    return tuple(Grad(bounded(g.p * side), g.t * side, g.noise) for side in sides)


def embedding(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Rows of a table: what all rows share is shared by samples and positions, the rest differs."""
    stats = scene.stats(node.parameters.get("weight"))
    rows = max(number(node, "num", 1.0), 1.0)
    if "second" in node.attrs:  # put there by a counterfactual
        second, mean = number(node, "second"), number(node, "mean")
        common = mean * mean + (second - mean * mean) / rows
    elif stats is not None:
        second, mean = stats.second, stats.mean
        common = stats.columns.total_second / rows**2 if stats.columns is not None else mean * mean
    else:
        raise NoRuleError(f"{node.label or node.op}: the table's statistics are not known")
    # the mean over rows of independent entries is not zero by chance: that part is no common mean
    differs = max(second - common, 0.0) if rows < 2 else max(second - common, 0.0) * rows / (rows - 1.0)
    differs = min(differs, second - mean * mean if second > mean * mean else second)
    mode, padded = text(node, "mode"), number(node, "padded")
    if mode:
        second, mean, differs = _bagged(node, mode, second, mean, differs)
    elif 0.0 < padded < 1.0:  # the row of the padding holds zeros, and is one of those that the moments are of
        kept = (1.0 - padded) * rows / max(rows - 1.0, 1.0)
        common = (second - differs) * kept * kept
        second, mean = second * kept, mean * kept
        differs = max(second - common, 0.0)
    size = scene.layout(node.index)
    if xs and xs[0].kind == "constant":  # the same rows for all samples: positions, types, relative distances
        apart = differs if xs[0].v > 0.0 else 0.0
        return state(second, mean, 0.0, apart, apart, own=GAUSSIAN / size.elements, spread=GAUSSIAN / size.channels)
    return state(second, mean, differs, differs, differs, own=GAUSSIAN / size.elements, spread=GAUSSIAN / size.channels)


def _bagged(node: Node, mode: str, second: float, mean: float, differs: float) -> tuple[float, float, float]:
    """Second moment, mean and what differs between bags, of bags of rows with these."""
    bag = max(number(node, "bag", 1.0), 0.0)
    common, filled = second - differs, number(node, "filled", 1.0)
    if mode == "sum":  # (entries may be weighed: by interpolation, by frequency)
        weight, square = number(node, "weigh_mean", 1.0), number(node, "weigh_second", 1.0)
        own, common = bag * square * differs, number(node, "bag_second", bag * bag) * weight * weight * common
        return own + common, bag * weight * mean, own
    if mode == "mean":
        own = number(node, "bag_inverse", 1.0 / max(bag, 1.0)) * differs
        return filled * common + own, filled * mean, own
    top = greatest(state(second, mean, differs, differs, differs), bag)
    return filled * top.q, filled * top.m, filled * top.d


def embedding_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """Indices take no gradient."""
    return tuple(Grad(0.0) for _ in xs)


OPS: Mapping[str, Op] = {
    "linear": Op(linear, linear_back),
    "conv": Op(linear, linear_back),
    "conv_transpose": Op(linear, linear_back),
    "bilinear": Op(bilinear, bilinear_back),
    "embedding": Op(embedding, embedding_back, clears=True),
}
