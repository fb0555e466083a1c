"""Initialisation schemes: the surface that rules and the layer table use.

``acceptable`` is the set of schemes that suit a layer, ``recognise`` names what a weight follows,
``requested`` and ``stated`` read the record, ``meant_for`` says for which activations a call is derived.
"""

from __future__ import annotations

from initlint.theory.formulas import (
    LINEAR_LIKE,
    RELU_LIKE,
    SIGMOID_LIKE,
    SMOOTH,
    TANH_LIKE,
    LayerSpec,
    Scheme,
)
from initlint.theory.recognise import Recognised, base_write, catalogue, describe, gain_meant, meant_for, recognise
from initlint.theory.record import stated
from initlint.theory.sampling import Requested, compatible
from initlint.theory.suitable import acceptable, nearest, textbook
from initlint.theory.torch_init import calculate_gain, kaiming_gain, requested

__all__ = [
    "LINEAR_LIKE",
    "RELU_LIKE",
    "SIGMOID_LIKE",
    "SMOOTH",
    "TANH_LIKE",
    "LayerSpec",
    "Recognised",
    "Requested",
    "Scheme",
    "acceptable",
    "base_write",
    "calculate_gain",
    "catalogue",
    "compatible",
    "describe",
    "gain_meant",
    "kaiming_gain",
    "meant_for",
    "nearest",
    "recognise",
    "requested",
    "stated",
    "textbook",
]
