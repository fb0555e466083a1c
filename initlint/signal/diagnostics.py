"""Diagnoses of a propagated model: saturation, dead units, depth scales, class bias, sensitivity and number range."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from initlint.facts import Node
from initlint.records import dataclass
from initlint.signal.moments import NoRuleError, State
from initlint.signal.recurrent import driven, shut
from initlint.signal.scene import Scene, text
from initlint.signal.trunk import WEIGHTED
from initlint.theory import activations
from initlint.theory.functions import normal_cdf, normal_pdf

if TYPE_CHECKING:
    from initlint.signal.propagate import Signal

#: Samples over which a unit must be silent to be called dead (a batch of this size never wakes it).
SAMPLES = 256
RECTIFIERS = frozenset({"relu", "relu6", "threshold", "relu_squared"})
#: Smooth rectifiers, and how far below zero their slope stays under 1e-3: 1e-6 of the gradient's second moment, at
#: which Adam loses points (THEORY 6.1).
FADING = {
    "gelu": 4.0,
    "gelu_tanh": 4.0,
    "quick_gelu": 5.5,
    "silu": 9.5,
    "mish": 9.5,
    "elu": 7.0,
    "selu": 7.5,
    "celu": 7.0,
}


def saturation(scene: Scene, states: Sequence[State], among: Collection[int] | None = None) -> dict[int, float]:
    """Share of saturated units of each bounded activation (slope below 7 % of the greatest; Glorot & Bengio 2010).

    ``among``: only these nodes.
    """
    found = {}
    for node in scene.nodes if among is None else (scene.nodes[index] for index in among):
        fn = text(node, "fn")
        if node.op == "activation" and fn and node.inputs and activations.known(fn):
            x = states[node.inputs[0]]
            if not x.undetermined and x.kind not in ("constant", "index"):
                share = activations.saturation(fn, node.attrs, x.m, x.v)
                if share > 0:
                    found[node.index] = share
    return found


def saturated_cells(scene: Scene, states: Sequence[State]) -> dict[int, float]:
    """Share of saturated candidates of each recurrent layer, the worst layer of a stack; biases are left out."""
    variances = _of_cells(scene, states, driven)
    return {i: activations.saturation("tanh", None, 0.0, v) if v > 0 else 0.0 for i, v in variances.items()}


def shut_cells(scene: Scene, states: Sequence[State]) -> dict[int, float]:
    """Share of the units of each recurrent layer whose gates let nothing in or out, the worst layer of a stack."""
    return _of_cells(scene, states, shut)


def _of_cells(
    scene: Scene, states: Sequence[State], each: Callable[[Node, State, Scene], list[float]]
) -> dict[int, float]:
    """The largest of what is asked of each layer of a stack, for all recurrent nodes whose input is known."""
    found = {}
    for node in scene.nodes:
        x = states[node.inputs[0]] if node.op == "recurrent" and node.inputs else None
        if x is not None and not x.undetermined:
            with contextlib.suppress(NoRuleError):
                found[node.index] = max(each(node, x, scene), default=0.0)
    return found


def saturated_share(scene: Scene, states: Sequence[State], among: Collection[int] | None = None) -> float:
    """The largest share of saturated units of any activation."""
    return max(saturation(scene, states, among).values(), default=0.0)


def dead(x: State, samples: int = SAMPLES) -> float:
    """Probability that a ReLU unit is negative for all of ``samples`` inputs (THEORY 6.2).

    A unit's mean over inputs is N(m, v - d) between units, around which inputs spread with variance d.
    """
    spread, within = math.sqrt(max(x.v - x.d, 0.0)), math.sqrt(x.d)
    if within <= 1e-9 * max(spread, abs(x.m), 1e-300):
        return normal_cdf(-x.m / spread) if spread > 0 else float(x.m <= 0)
    if spread < 0.4 * within and x.m > -0.4 * within:
        return 0.0  # below 1e-6 for any number of samples worth the name
    return _never(float(f"{spread / within:.3g}"), float(f"{x.m / within:.3g}"), samples)


@lru_cache(maxsize=65536)
def _never(spread: float, mean: float, samples: int) -> float:
    """The same in units of the spread between inputs: a factor common to all changes nothing.

    Asked for at three digits, which moves it by less than .005, and answered once for all layers that are alike.
    """
    total, steps = 0.0, 160
    width = 16.0 / steps
    for index in range(steps + 1):
        z = -8.0 + index * width
        below = normal_cdf(-(mean + spread * z))
        if below > 0:
            total += normal_pdf(z) * width * math.exp(samples * math.log(below))
    return min(total, 1.0)


def dead_units(scene: Scene, states: Sequence[State], among: Collection[int] | None = None) -> dict[int, float]:
    """Share of dead units of each rectifier. The same share is always on where the mean is zero."""
    found = {}
    for node in scene.nodes if among is None else (scene.nodes[index] for index in among):
        fn = text(node, "fn")
        if node.op == "activation" and (fn in RECTIFIERS or fn in FADING) and node.inputs:
            x = states[node.inputs[0]]
            if not x.undetermined and x.kind == "gaussian":
                found[node.index] = dead(_raised(x, FADING.get(fn, 0.0)))
    return found


def _raised(x: State, by: float) -> State:
    """The state with its mean moved up."""
    mean = x.m + by
    return replace(x, q=x.v + mean * mean, m=mean) if by else x


def dead_share(scene: Scene, states: Sequence[State], among: Collection[int] | None = None) -> float:
    """The largest share of dead units of any rectifier."""
    return max(dead_units(scene, states, among).values(), default=0.0)


@dataclass(frozen=True, slots=True)
class Depth:
    """How signals change per layer of the trunk (Schoenholz et al. 2017).

    ``chi``: factor of the gradient's second moment per layer (above 1: chaos, below: order). ``scale``: number of
    layers over which the input-dependent part falls by e; infinite where it does not fall. ``layers``: how many.
    """

    layers: int
    chi: float
    scale: float


def depth_scale(signal: Signal) -> Depth | None:
    """Rates along the trunk; None for fewer than three layers. A net is trainable to about six scales."""
    scene = signal.scene
    if scene is None:
        return None
    rows = [p for p in signal.profile if scene.nodes[p.node].op in WEIGHTED and p.judged and p.energy is not None]
    if len(rows) < 3:
        return None
    count = len(rows) - 1
    steps = [(a.energy or 0.0) - (b.energy or 0.0) for a, b in itertools.pairwise(rows)]
    fall = (rows[0].dependent - rows[-1].dependent) * math.log(10.0)
    return Depth(len(rows), 10.0 ** statistics.median(steps), count / fall if fall > 0 else math.inf)


@dataclass(frozen=True, slots=True)
class ClassBias:
    """Initial guessing bias of an untrained classifier (Francazi et al. 2024).

    ``gamma``: variance between inputs' common part and their own part of the logits; ``largest``: expected share of
    inputs that the favourite class gets, 1 / classes without bias.
    """

    gamma: float
    largest: float
    classes: int


def class_bias(signal: Signal) -> ClassBias | None:
    """None where the output is no vector of logits or does not depend on the input."""
    loss, sweeps = signal.init_loss, signal.sweeps
    if loss is None or sweeps is None:
        return None
    x = sweeps[0].states[loss.head]
    if x.d <= 0 or x.undetermined:
        return None
    gamma = max(x.v - x.d, 0.0) / x.d
    return ClassBias(gamma, largest_share(gamma, loss.classes), loss.classes)


#: Steps of ln gamma at which shares are computed: a step changes a share by .003 at most, and draws share them.
FINE = 0.02


def largest_share(gamma: float, classes: int) -> float:
    """Expected share of the favourite class: logits are N(shift_k, 1) with shifts N(0, gamma) between classes.

    The favourite has the greatest shift a; another one beats x with the chance of a shift below a. For two classes
    E max(G, 1-G) with G = Phi(sqrt(gamma) z), exactly.
    """
    if gamma > 1e-9 and classes > 2:
        gamma = math.exp(FINE * round(math.log(gamma) / FINE))
    return _largest_share(gamma, classes)


@lru_cache(maxsize=512)
def _largest_share(gamma: float, classes: int) -> float:
    if classes < 2:
        return 1.0
    if gamma < 1e-9:
        return 1.0 / classes
    if classes == 2:
        return 0.5 + math.atan(math.sqrt(gamma)) / math.pi
    sigma = math.sqrt(gamma)
    shifts = [-7.0 + 14.0 * i / 100 for i in range(101)]
    below = [normal_cdf(z) for z in shifts]
    total = weight = 0.0
    for at, z in enumerate(shifts):
        density = classes * normal_pdf(z) * below[at] ** (classes - 1)
        if density < 1e-12:
            continue
        total += density * _wins(sigma * z, sigma, z, classes)
        weight += density
    return min(max(total / weight, 1.0 / classes), 1.0) if weight else 1.0


def _wins(a: float, sigma: float, limit: float, classes: int) -> float:
    """P(N(a, 1) beats classes - 1 others, each N(sigma s, 1) with s a standard normal below ``limit``)."""
    points = [-7.0 + (limit + 7.0) * (i + 0.5) / 60 for i in range(60)] if limit > -7.0 else [-7.0]
    pdf = [normal_pdf(s) for s in points]
    norm = sum(pdf) or 1.0
    total = 0.0
    for i in range(61):
        x = a - 6.0 + 12.0 * i / 60
        loses = sum(w * normal_cdf(x - sigma * s) for s, w in zip(points, pdf, strict=True)) / norm
        total += normal_pdf(x - a) * 0.2 * loses ** (classes - 1)
    return total


#: Largest and smallest normal numbers of the float types, and their relative precision.
RANGES = {
    "float16": (65504.0, 6.1e-5, 2.0**-11),
    "bfloat16": (3.4e38, 1.2e-38, 2.0**-9),
    "float32": (3.4e38, 1.2e-38, 2.0**-24),
    "float64": (1.8e308, 2.2e-308, 2.0**-53),
}
#: A Gaussian's values reach this many standard deviations in a tensor of a million.
REACH = 5.0


@dataclass(frozen=True, slots=True)
class Range:
    """Nodes whose values overflow, whose signal is below rounding, or whose gradient vanishes in the number type."""

    overflow: tuple[int, ...]
    constant: tuple[int, ...]  # what differs between inputs is below the rounding of what they share
    gradients: tuple[int, ...]


def number_range(signal: Signal, dtype: str) -> Range:
    """What of the trunk leaves the range of a float type (IEEE 754; gradients without loss scaling), and products of
    two signals anywhere: one infinity among the logits of an attention makes its softmax NaN."""
    largest, smallest, rounding = RANGES.get(dtype, RANGES["float32"])
    overflow, constant, gradients = [], [], []
    for point in signal.profile:
        if point.forward_std * REACH > largest:
            overflow.append(point.node)
        elif point.forward_std > 0 and math.sqrt(point.share) < rounding:
            constant.append(point.node)
        if point.body and 0 < point.gradient_std < smallest:
            gradients.append(point.node)
    if signal.scene is not None and signal.sweeps is not None:
        states = signal.sweeps[0].states
        products = [n.index for n in signal.scene.nodes if n.op == "matmul" and not n.parameters]
        overflow += [i for i in products if i not in overflow and math.sqrt(states[i].q) * REACH > largest]
    return Range(tuple(overflow), tuple(constant), tuple(gradients))


#: Largest slope of elementwise functions that are not 1-Lipschitz.
STEEP = {"gelu": 1.13, "silu": 1.10, "mish": 1.09, "elu": 1.0, "selu": 1.758, "hardswish": 1.5, "sigmoid": 0.25}


def lipschitz(signal: Signal) -> float | None:
    """log10 of the product of spectral norms along the trunk: an upper bound on input sensitivity of a plain chain.

    ||W|| is the measured one, else sigma (sqrt(in) + sqrt(out)) (Szegedy et al. 2014; exact to 1 % for Gaussians).
    None where a residual sum or attention makes the product no bound.
    """
    scene = signal.scene
    if scene is None:
        return None
    total = 0.0
    for index in signal.trunk:
        node = scene.nodes[index]
        if node.op in ("add", "attention", "mha", "matmul", "recurrent", "norm"):
            return None
        if node.op in WEIGHTED and node.operator is not None:
            stats = scene.stats(node.parameters.get("weight"))
            operator = node.operator
            if node.op == "linear" and stats is not None and stats.spectral_norm:
                total += math.log10(stats.spectral_norm)
            elif operator.gain > 0 and operator.fan_in > 0:
                sigma = math.sqrt(operator.gain / operator.fan_in)
                total += math.log10(sigma * (math.sqrt(operator.fan_in) + math.sqrt(operator.fan_out)))
        elif node.op == "activation":
            total += math.log10(STEEP.get(text(node, "fn"), 1.0))
    return total
