"""Reading a map at computed places (``grid_sample``): optical flow, spatial transformers, deformable attention.

Between pixels a value is a weighted sum of the nearest, with weights f and 1 - f along each axis: of what differs
between pixels E[f^2 + (1 - f)^2] = 2/3 is left where places fall evenly between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from initlint.facts import Node
from initlint.signal.moments import Grad, NoRuleError, State, bounded, state
from initlint.signal.scene import Op, Scene, text
from initlint.theory.functions import normal_cdf

#: E[f^2 + (1 - f)^2] for f uniform in [0, 1].
BETWEEN = 2.0 / 3.0
#: Half the width of a uniform distribution over its standard deviation, and the whole.
HALF, WHOLE = math.sqrt(3.0), math.sqrt(12.0)
#: What coordinates of a map's corners are off by in float32, and a spread that is none.
ROUNDING = 1e-6
#: Places reach over their own pixel and, half the time, the next.
REACH = 1.5


def _sides(node: Node, scene: Scene) -> tuple[int, ...]:
    """Pixels of the map along each axis. Raises NoRuleError where they or the weights are not known."""
    shape, mode = scene.nodes[node.inputs[0]].shape, text(node, "mode", "bilinear")
    if len(node.inputs) != 2 or shape is None or len(shape) < 4 or mode not in ("bilinear", "nearest"):
        raise NoRuleError(f"{node.label or node.op}: {mode} sampling is not modelled")
    return shape[2:]


def _inside(node: Node, grid: State) -> float:
    """The share of places inside the map (coordinates from -1 to 1), along one axis."""
    sigma = math.sqrt(grid.v)
    if text(node, "padding_mode", "zeros") != "zeros" or sigma + abs(grid.m) == 0.0:
        return 1.0
    if HALF * sigma + abs(grid.m) <= 1.0 + ROUNDING:  # as even a grid, from corner to corner
        return 1.0
    if sigma < ROUNDING:
        return 1.0 if abs(grid.m) <= 1.0 else 0.0
    return normal_cdf((1.0 - grid.m) / sigma) - normal_cdf((-1.0 - grid.m) / sigma)


def _weight(node: Node, axes: int) -> float:
    return 1.0 if text(node, "mode", "bilinear") == "nearest" else BETWEEN**axes


def _steepness(node: Node, x: State, sides: tuple[int, ...]) -> float:
    """E (dy/dg)^2, the mean over the axes: the difference of two pixels, 2e of it, over half the map's width."""
    if text(node, "mode", "bilinear") == "nearest":
        return 0.0
    return 2.0 * x.e * BETWEEN ** (len(sides) - 1) * sum((side / 2.0) ** 2 for side in sides) / len(sides)


def sample(node: Node, xs: tuple[State, ...], scene: Scene) -> State:
    """Values of a map (xs[0]) at the places xs[1]."""
    sides, x, grid = _sides(node, scene), xs[0], xs[1]
    axes = len(sides)
    inside, left = _inside(node, grid) ** axes, _weight(node, axes)
    samples = max(x.u - x.e, 0.0)  # what differs between samples, alike at all pixels
    steep = axes * _steepness(node, x, sides)

    def moved(distance: float) -> float:
        """What places so far apart differ by, of what differs between pixels."""
        return min(steep * distance, left * x.e) if steep > 0.0 else (left * x.e if distance > 0.0 else 0.0)

    q = inside * (max(x.q - x.e, 0.0) + left * x.e)
    d = inside * (samples + left * max(x.d - samples, 0.0) + moved(grid.d))
    e = inside * moved(grid.e)
    return state(q, inside * x.m, min(d, q), e, min(max(d + e, d, e), q), noise=x.noise + x.own, own=x.own, like=xs)


def sample_back(node: Node, xs: tuple[State, ...], y: State, g: Grad, scene: Scene) -> tuple[Grad, ...]:
    """To the map: all that its pixels were read for; what places share adds up where they read the same pixels."""
    sides, x, grid = _sides(node, scene), xs[0], xs[1]
    pixels, places = float(math.prod(sides)), float(math.prod(node.shape[2:] if node.shape is not None else (1,)))
    inside = _inside(node, grid) ** len(sides)
    ratio, shared = inside * places / pixels, max(min(g.t, g.p), 0.0)
    sigma = math.sqrt(grid.e)
    reached = math.prod(min(float(side), REACH + WHOLE * sigma * side / 2.0) for side in sides)
    apart = (g.p - shared) * ratio * _weight(node, len(sides))
    together = shared * ratio * ratio * pixels / reached
    channels = float(node.shape[1]) if node.shape is not None and len(node.shape) > 1 else 1.0
    places_back = channels * g.p * inside * _steepness(node, x, sides)
    return (
        Grad(bounded(apart + together), apart / pixels + shared * ratio * ratio, g.noise + x.noise),
        Grad(bounded(places_back), 0.0, g.noise + x.noise),
    )


OPS: Mapping[str, Op] = {"sample": Op(sample, sample_back)}
