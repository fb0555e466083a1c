"""Which initialisation schemes suit a layer.

``acceptable`` returns the set of schemes that are right for a layer, given what consumes its output; a
weight is as expected when it follows any of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from initlint.facts import Layer
from initlint.theory import activations
from initlint.theory.conventions import (
    attention_schemes,
    embedding_schemes,
    gain_schemes,
    recurrent_schemes,
    scale_schemes,
    surroundings,
)
from initlint.theory.formulas import (
    RELU_LIKE,
    SELU,
    SIGMOID_LIKE,
    SMOOTH,
    TANH_LIKE,
    LayerSpec,
    Scheme,
    he,
    lecun,
    orthogonal,
    pair,
    self_consistent,
    siren,
    unique,
    xavier,
)

__all__ = ["LayerSpec", "Scheme", "acceptable", "nearest", "textbook"]


def nearest(schemes: Iterable[Scheme], var: float, mean: float = 0.0) -> Scheme | None:
    """The scheme whose second moment is nearest in ratio; zeros only match zeros."""
    second, best, least = var + mean * mean, None, math.inf
    for scheme in schemes:
        target = scheme.var + scheme.mean * scheme.mean
        if target > 0 and second > 0:
            distance = abs(math.log(second / target))
        else:
            distance = 0.0 if target == second else math.inf
        if distance < least:
            best, least = scheme, distance
    return best


#: Kinds whose schemes do not go by the activation that follows.
_BY_KIND = frozenset({"norm", "scale", "embedding", "recurrent", "attention"})


def acceptable(layer: Layer | LayerSpec, depth: int | None = None, *, zeros: bool = False) -> tuple[Scheme, ...]:
    """The schemes that suit a layer, the textbook one first. Empty when its fans are not known.

    Before an activation: the schemes derived for it. Before a norm any scale is right, so all usual ones
    are returned. A residual branch, a head or an embedding has further conventions (N(0, 0.02)).

    Args:
        layer: a paired layer; a ``LayerSpec`` adds the shape of its weight (orthogonal schemes of convolutions
            need it).
        depth: number of residual branches of the model, for the schemes scaled by it.
        zeros: also all-zero weights where they are a convention; without it every variance is positive,
            except for the gains of norms.
    """
    spec = layer if isinstance(layer, LayerSpec) else LayerSpec.from_layer(layer, depth=depth)
    found = _suitable(spec)
    if zeros or spec.kind in ("norm", "scale"):
        return found
    return tuple(scheme for scheme in found if scheme.var > 0)


@functools.lru_cache(maxsize=256)  # a model has few kinds of layers, and each is asked about by its row and by rules
def _suitable(spec: LayerSpec) -> tuple[Scheme, ...]:
    if spec.kind in ("norm", "scale"):
        return gain_schemes(spec) if spec.kind == "norm" else scale_schemes()
    if spec.kind == "embedding":
        return embedding_schemes(spec)
    if spec.kind == "recurrent":
        return recurrent_schemes(spec)
    if spec.kind == "attention":
        return attention_schemes(spec)
    if not spec.fan_in or not spec.fan_out:
        return ()
    return unique((*_by_fans(spec), *surroundings(spec)))


def textbook(layer: Layer | LayerSpec) -> tuple[Scheme, ...]:
    """The acceptable schemes without those that only convention allows (N(0, 0.02), PyTorch's default ...).

    What to compare with, and to write, when a weight follows nothing that suits it.
    """
    spec = layer if isinstance(layer, LayerSpec) else LayerSpec.from_layer(layer)
    if spec.kind in _BY_KIND or not spec.fan_in or not spec.fan_out:
        return acceptable(spec)
    return unique(_by_fans(spec))


def _by_fans(spec: LayerSpec) -> tuple[Scheme, ...]:
    interior = spec.interior
    return (*(_core(interior) if interior is not None else ()), *_core(spec))


def _core(spec: LayerSpec) -> tuple[Scheme, ...]:
    activation = spec.activation
    if activation is not None:
        activation = activations.canonical(activation)[0]
    if spec.consumer == "norm":
        return (*he(spec, "relu", {}), *lecun(spec), *xavier(spec), *orthogonal(spec, math.sqrt(2.0), 1.0))
    if activation == "sin":
        return siren(spec)
    if activation == "selu":
        return (*lecun(spec, SELU, frozenset({"selu"})), *orthogonal(spec, 1.0))
    if activation in RELU_LIKE and activation is not None:
        return _rectifier(spec, activation)
    if activation in TANH_LIKE and activation is not None:
        return _saturating(spec, activation)
    if activation in SIGMOID_LIKE:
        wide = xavier(spec, 4.0, "xavier(gain=4)", "Glorot's gain scaled by 1 / sigmoid'(0)", SIGMOID_LIKE)
        return (*xavier(spec), *lecun(spec), *wide, *orthogonal(spec, 1.0))
    if activation == "identity" or (activation is None and spec.consumer is not None):
        return (*lecun(spec), *xavier(spec), *he(spec, "relu", {}), *orthogonal(spec, 1.0, math.sqrt(2.0)))
    if activation is None:
        return (*he(spec, "relu", {}), *lecun(spec), *xavier(spec), *orthogonal(spec, math.sqrt(2.0), 1.0))
    consistent = self_consistent(spec, activation) if activations.known(activation) else ()
    return (*consistent, *lecun(spec), *xavier(spec), *he(spec, "relu", {}), *orthogonal(spec, 1.0, math.sqrt(2.0)))


def _rectifier(spec: LayerSpec, activation: str) -> tuple[Scheme, ...]:
    found = he(spec, activation, spec.args)
    if activation in SMOOTH or activation not in ("relu", "leaky_relu", "prelu", "rrelu", "relu6", "threshold"):
        found = (*found, *self_consistent(spec, activation))
    return (*found, *orthogonal(spec, math.sqrt(2.0)))


def _saturating(spec: LayerSpec, activation: str) -> tuple[Scheme, ...]:
    five_thirds = xavier(spec, 5.0 / 3.0, "xavier(gain=5/3)", "torch.nn.init.calculate_gain('tanh')", TANH_LIKE)
    kaiming = pair(
        spec, "kaiming(tanh)", 25.0 / 9.0, "fan_in", "torch.nn.init.calculate_gain('tanh')", TANH_LIKE, ("tanh", None)
    )
    return (
        *xavier(spec),
        *lecun(spec),
        *five_thirds,
        *kaiming,
        *self_consistent(spec, activation),
        *orthogonal(spec, 1.0, 5.0 / 3.0, activations.gain(activation, spec.args)),
    )
