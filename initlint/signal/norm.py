"""Normalisation layers (THEORY 5.5).

A statistic taken over c channels and P positions removes, from what all of them share, everything; from what
differs between channels 1/c of it is removed; from what differs between positions as well, 1/(c P).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node
from initlint.signal.moments import Grad, State, bounded, kept_ties, state, tied
from initlint.signal.operands import behind
from initlint.signal.parts import border
from initlint.signal.rectified import by_levels
from initlint.signal.scene import Op, Scene, number, text

#: A statistic over fewer elements than this depends on the batch that happened to be traced; it counts as this many.
FEWEST = 16.0
#: E[1/v] of a variance with fewer degrees of freedom has no variance over channels: no mean settles.
FEWEST_FREE = 4.0
#: Gains whose second moment is at most so many times the square of their mean: they differ by a third at most.
ALIKE = 1.1
#: PyTorch's defaults of nn.LocalResponseNorm: alpha, beta, k.
LOCAL = (1e-4, 0.75, 1.0)


def affine(node: Node) -> tuple[float, float, float, float]:
    """Mean and second moment of the gain, then of the bias."""
    gain, second = number(node, "weight_mean", 1.0), number(node, "weight_second", 1.0)
    if node.attrs.get("unit_offset"):
        gain, second = 1.0 + gain, 1.0 + 2.0 * gain + second
    return gain, second, number(node, "bias_mean"), number(node, "bias_second")


def statistic(node: Node, x: State, scene: Scene) -> tuple[State, float]:
    """The centred signal and its variance, before division."""
    kind = text(node, "kind", "layer")
    if kind == "batch":
        return _batch(x, *_samples(node, scene), number(node, "n"))
    channels, positions, _ = _cells(node, x, scene)
    return _group(x, channels, positions)


def _samples(node: Node, scene: Scene) -> tuple[int, int]:
    """Samples and positions that a batch norm sees. Positions laid out as samples, [B, P, c] to [B P, c], are no
    samples: what the state says of pairs of samples does not hold for pairs of them."""
    layout, samples = scene.layout(node.index), scene.batch or 1
    if samples > 1 and layout.batch % samples == 0:
        return samples, layout.positions * (layout.batch // samples)
    return layout.batch, layout.positions


def _group(x: State, channels: float, positions: float) -> tuple[State, float]:
    cells = channels * positions
    tau, eps = max(x.u - x.d, 0.0), max(x.d + x.e - x.u, 0.0)
    beta = max(x.u - x.e, 0.0)
    mu = max(x.q - x.u - x.m * x.m, 0.0)
    mu, beta = mu * (1 - 1 / channels), beta * (1 - 1 / channels)
    if channels > 1:
        d = max(x.d * (1 - 1 / cells) - beta / (1 - 1 / channels) * (1 / channels - 1 / cells), 0.0)
    else:
        d = eps * (1 - 1 / cells)
    e = x.e * (1 - 1 / cells)
    u = beta + (tau + eps) * (1 - 1 / cells)
    v = mu + u
    return replace(x, q=v, m=0.0, d=d, e=e, u=max(u, d, e)), v


def _batch(x: State, batch: int, positions: int, n: float) -> tuple[State, float]:
    """Variance over samples and positions; the mean of n of them keeps what they share."""
    cells = max(n, float(batch * positions), FEWEST)
    batch, positions = max(batch, 2), max(positions, 1)
    # E of the squared batch mean: pairs alike in sample, in position, in neither
    rest = (x.q - x.e) * (positions - 1) + (x.q - x.d) * (batch - 1) + (x.q - x.u) * (batch - 1) * (positions - 1)
    shared = (x.q + rest) / (batch * positions)
    v = max(x.q - shared, 0.0) if batch * positions >= FEWEST else x.u * (1 - 1 / cells)
    return replace(x, q=v, m=0.0, d=min(x.d, 2 * v), e=min(x.e, 2 * v), u=max(min(x.u, 2 * v), v)), v


def norm(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """(x - mean) / sqrt(var + eps) * weight + bias, in its kinds."""
    x, kind = xs[0], text(node, "kind", "layer")
    gain, second, bias, bias_second = affine(node)
    if kind == "local_response":
        return _scaled_norm(node, x, _local_factor(node, x), gain, second, bias, bias_second)
    if kind == "batch" and not node.attrs.get("training", True):
        return _scaled_norm(node, x, 1.0 / (1.0 + number(node, "eps", 1e-5)), gain, second, bias, bias_second)
    filled = _filled(node, scene)
    if kind in ("rms", "l2"):
        return _scaled_norm(node, x, filled * _power(node, x), gain, second, bias, bias_second)
    centred, v = statistic(node, x, scene)
    factor = filled / (v + number(node, "eps", 1e-5)) if v + number(node, "eps", 1e-5) > 0 else 0.0
    y = _scaled_norm(node, centred, factor, gain, second, bias, bias_second, x)
    # of the same shape about zero, where the gains are nearly the same; drawn at random they may turn it round
    if kind == "batch" and second <= ALIKE * gain * gain and (mix := x.mix or by_levels(x)):
        scale = factor**0.5 * gain
        y = replace(y, mix=tuple((weight, (m - x.m) * scale + bias, part * factor * second) for weight, m, part in mix))
    return y


def _filled(node: Node, scene: Scene) -> float:
    """The share of positions that are no padding of zeros, for a norm of each position by itself: the others stay zero.

    A signal thinned out by padding is brought to unit scale where there is any, and not on average.
    """
    if text(node, "kind", "layer") not in ("layer", "rms", "l2"):
        return 1.0
    before = behind(node.inputs[0], scene)
    if before.op != "pad" or text(before, "mode", "constant") != "constant" or not before.inputs:
        return 1.0
    if border(before) is not None:  # taken by itself: see ``parts``
        return 1.0
    channels = scene.layout(before.inputs[0]).channels
    if not channels == scene.layout(before.index).channels == round(number(node, "n", channels)):
        return 1.0
    return min(number(before, "n_in", 1.0) / max(number(before, "n_out", 1.0), 1.0), 1.0)


def _power(node: Node, x: State) -> float:
    """1 / (q + eps) of an RMS norm; an l2 norm also divides by the number of elements."""
    eps = number(node, "eps", 1e-12)
    if text(node, "kind") == "l2":
        return 1.0 / (max(x.q, 1e-150) * max(number(node, "n", 1.0), 1.0))
    return 1.0 / max(x.q + eps, 1e-150)


def _local_factor(node: Node, x: State) -> float:
    alpha, beta, k = number(node, "alpha", LOCAL[0]), number(node, "beta", LOCAL[1]), number(node, "k", LOCAL[2])
    return float(max(k + alpha * x.q, 1e-150) ** (-2.0 * beta))


def _scaled_norm(
    node: Node,
    x: State,
    factor: float,
    gain: float,
    second: float,
    bias: float,
    bias_second: float,
    source: State | None = None,
) -> State:
    scale = factor * second
    cross = 2.0 * x.m * factor**0.5 * gain * bias
    width = max(number(node, "n", FEWEST), FEWEST)
    y = state(
        x.q * scale + bias_second + cross,
        x.m * factor**0.5 * gain + bias,
        x.d * scale,
        x.e * scale,
        x.u * scale,
        spread=0.0 if text(node, "kind", "layer") in ("layer", "rms", "l2") else 2.0 / max(width, 1.0),
        like=(x,),
    )
    whole = source if source is not None else x
    ties = tied(whole, node.inputs[0], gain * factor**0.5)
    noise = x.noise if text(node, "kind") == "local_response" else 0.0
    doubt = None if text(node, "kind") != "local_response" else x.undetermined
    weights = whole.kind == "constant"
    centred = weights and bias_second == 0.0 and text(node, "kind", "layer") in ("layer", "instance", "batch", "group")
    kind = "constant" if weights else y.kind
    return replace(y, own=2.0 / width, noise=noise, ties=ties, undetermined=doubt, kind=kind, centred=centred)


def norm_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """p weight^2 E[1/v], less what points along the removed mean and along x itself.

    A gradient that positions share is what a statistic over positions removes first: (1 + (P-1) t/p) / (c P) of it.
    """
    x, kind = xs[0], text(node, "kind", "layer")
    _, second, _, _ = affine(node)
    if kind == "local_response":
        factor = second * _local_factor(node, x)
        return (Grad(bounded(g.p * factor), g.t * factor, g.noise, across=g.across * factor),)
    if kind == "batch" and not node.attrs.get("training", True):
        factor = second / (1.0 + number(node, "eps", 1e-5))
        return (Grad(bounded(g.p * factor), g.t * factor, g.noise, across=g.across * factor),)
    channels, positions, samples = _cells(node, x, scene)
    batch, cells = samples, channels * positions * samples
    if cells < FEWEST:
        samples, cells = samples * FEWEST / cells, FEWEST
    alike = min(max(g.t / g.p, 0.0), 1.0) if g.p > 0 else 0.0
    same = max(1.0 - y.e / y.q, 0.0) if y.q > 0 else 0.0
    # how much of what a sample's positions share is left in the mean over samples, relative to independent samples
    apart = _apart(g, positions, batch) if kind == "batch" else 1.0
    along = (1.0 + (positions - 1.0) * alike * same) / cells
    if g.p > 0:  # averaged over samples and channels, whose signs are independent
        along = min(along + g.along * apart / g.p / (channels * samples), 1.0)
    mean = 0.0 if kind in ("rms", "l2") else apart * (1.0 + (positions - 1.0) * alike) / cells
    eps = number(node, "eps", 1e-5)
    if kind in ("rms", "l2"):
        v = x.q
        factor = second * _power(node, x)
    else:
        _, v = statistic(node, x, scene)
        factor = second / max(v + eps, 1e-150)
    factor *= _filled(node, scene)
    felt = v / max(v + eps, 1e-150) if kind != "l2" else 1.0  # beside a large epsilon the scale of x is felt less
    along *= felt * (2.0 - felt)
    # E[1/v] E[v] - 1: the energy of one token fluctuates as the signal does, a mean over positions hardly
    single = positions * samples == 1
    free = _free(x, positions, batch, cells) if kind == "batch" else cells - 1.0
    factor *= 1.0 + min(x.spread if single else felt * felt * 2.0 / (free - 2.0), 1.0)
    gain, _, _, _ = affine(node)
    ties = kept_ties(g, gain * (factor / second) ** 0.5) if second > 0 else ()
    kept = max(g.p * (1.0 - mean - along), 0.0)
    p = bounded(kept * factor)
    noise = g.noise + x.noise + x.own
    across = g.across * factor
    if kind == "batch":
        # what points along the signal is alike between positions as the signal is
        left = min(max(g.t - g.p * (mean + along * same), 0.0), kept)
        shared = left * factor
        # the mean over the batch is gone: what samples have in common makes up for what each has by itself
        across = -(kept + (positions - 1.0) * left) * factor / (positions * (batch - 1.0)) if batch > 1 else 0.0
    else:
        shared = min(g.t * (1.0 - 1.0 / max(channels * samples, 1.0)) if mean else g.t, kept) * factor
    # each channel is moved and scaled: the same units pass
    active, falls = (g.active, g.falls) if kind == "batch" else (0.0, ())
    if channels > 1.0 or x.harmonic <= 1.0:
        return (Grad(p, shared, noise, across=across, ties=ties, active=active, falls=falls),)
    # each channel is divided by its own scale; the weights that made the scales unequal undo it on the way back
    p_in = bounded(p * x.harmonic)
    return (Grad(p_in, shared, noise, through=p, across=across, ties=ties, active=active, falls=falls),)


def _free(x: State, positions: float, samples: float, cells: float) -> float:
    """Degrees of freedom of a variance over samples and positions: fewer where positions are alike.

    (sum of eigenvalues)^2 / sum of their squares: of what differs between samples, between positions, between both.
    """
    between, places, both = max(x.u - x.e, 0.0), max(x.u - x.d, 0.0), max(x.d + x.e - x.u, 0.0)
    modes = (
        (samples - 1.0, positions * between + both),
        (positions - 1.0, samples * places + both),
        ((samples - 1.0) * (positions - 1.0), both),
    )
    energy, square = (sum(count * scale**power for count, scale in modes) for power in (1, 2))
    return min(max(energy * energy / square, FEWEST_FREE), cells - 1.0) if square > 0.0 else cells - 1.0


def _apart(g: Grad, positions: float, samples: float) -> float:
    """Energy of the mean over samples and positions, relative to samples that are independent."""
    alone = g.p + (positions - 1.0) * max(g.t, 0.0)
    if alone <= 0.0 or not g.across:
        return 1.0
    return min(max(1.0 + (samples - 1.0) * positions * g.across / alone, 0.0), samples)


def _cells(node: Node, x: State, scene: Scene) -> tuple[float, float, float]:
    """Channels, positions and samples that one statistic is taken over."""
    layout, kind = scene.layout(node.index), text(node, "kind", "layer")
    if kind == "batch":
        samples, positions = _samples(node, scene)
        return 1.0, float(positions), max(number(node, "n") / positions, float(samples))
    n = max(number(node, "n", float(layout.channels)), 1.0)
    if kind == "instance":
        return 1.0, n, 1.0
    if kind == "group":
        channels = max(number(node, "channels", layout.channels) / max(number(node, "groups", 1.0), 1.0), 1.0)
        return channels, max(n / channels, 1.0), 1.0
    channels = min(n, number(node, "channels", n) or n)
    return channels, max(n / channels, 1.0), 1.0


OPS: Mapping[str, Op] = {"norm": Op(norm, norm_back, clears=True)}
