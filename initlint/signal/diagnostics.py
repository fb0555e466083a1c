"""Diagnoses of a propagated model: saturation, dead units, depth scales, class bias, sensitivity and number range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from initlint.signal.moments import State
from initlint.signal.scene import Scene, text
from initlint.theory import activations
from initlint.theory.functions import normal_cdf, normal_pdf

#: Samples over which a unit must be silent to be called dead (a batch of this size never wakes it).
SAMPLES = 256
RECTIFIERS = frozenset({"relu", "relu6", "threshold", "relu_squared"})


def saturation(scene: Scene, states: Sequence[State]) -> dict[int, float]:
    """Share of saturated units of each bounded activation (slope below 7 % of the greatest; Glorot & Bengio 2010)."""
    found = {}
    for node in scene.nodes:
        fn = text(node, "fn")
        if node.op == "activation" and fn and node.inputs and activations.known(fn):
            x = states[node.inputs[0]]
            if not x.undetermined and x.kind not in ("constant", "index"):
                share = activations.saturation(fn, node.attrs, x.m, x.v)
                if share > 0:
                    found[node.index] = share
    return found


def saturated_share(scene: Scene, states: Sequence[State]) -> float:
    """The largest share of saturated units of any activation."""
    return max(saturation(scene, states).values(), default=0.0)


def dead(x: State, samples: int = SAMPLES) -> float:
    """Probability that a ReLU unit is negative for all of ``samples`` inputs (THEORY 6.2).

    A unit's mean over inputs is N(m, v - d) between units, around which inputs spread with variance d.
    """
    spread, within = math.sqrt(max(x.v - x.d, 0.0)), math.sqrt(x.d)
    if within <= 1e-9 * max(spread, abs(x.m), 1e-300):
        return normal_cdf(-x.m / spread) if spread > 0 else float(x.m <= 0)
    total, steps = 0.0, 400
    width = 16.0 / steps
    for index in range(steps + 1):
        z = -8.0 + index * width
        below = normal_cdf(-(x.m + spread * z) / within)
        if below > 0:
            total += normal_pdf(z) * width * math.exp(samples * math.log(below))
    return min(total, 1.0)


def dead_units(scene: Scene, states: Sequence[State]) -> dict[int, float]:
    """Share of dead units of each rectifier. The same share is always on where the mean is zero."""
    found = {}
    for node in scene.nodes:
        if node.op == "activation" and text(node, "fn") in RECTIFIERS and node.inputs:
            x = states[node.inputs[0]]
            if not x.undetermined and x.kind == "gaussian":
                found[node.index] = dead(x)
    return found


def dead_share(scene: Scene, states: Sequence[State]) -> float:
    """The largest share of dead units of any rectifier."""
    return max(dead_units(scene, states).values(), default=0.0)
