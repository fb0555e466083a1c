"""What the forward multiplies a weight by before it is used: equalised learning rates, standardised weights."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from initlint.facts import Layer, ModelFacts, ParameterFacts
from initlint.theory.schemes import Requested
from initlint.wiring import transparent

#: Factors of the second moment closer to 1 than this are padding and rounding in the count of inputs, no scaling.
_SAME = 1.5
#: A common mean that doubles the energy of what all inputs share.
_TWICE = 2.0
#: How torch makes weights whose scale is not that of the parameter.
_NORMED = ("weight_norm", "spectral_norm")
#: Functions that a weight is passed through to be positive (Agarwal et al. 2021, section 3: exp of N(4, 0.5); Popov et
#: al. 2019, section 3.1: features chosen by the softmax of U(0, 1)).
_POSITIVE = "exp|exp2|softplus|sigmoid|softmax"
#: Functions of whole matrices: the size of what they give is not that of their argument.
_OF_MATRICES = "linalg_matrix_exp|matrix_exp|linalg_qr|qr|linalg_inv|inverse|linalg_solve|linalg_cholesky|cholesky"
#: Functions whose values have a size of their own.
_BOUNDED = ("sin", "cos", "tanh", "sigmoid", "softsign", "erf", "hardtanh")
#: What only changes how numbers are stored.
_CASTS = "float|double|half|bfloat16|to|type|type_as|contiguous|clone"


def run_time_factor(facts: ModelFacts, layer: Layer, parameter: ParameterFacts) -> float | None:
    """The second moment of the weight as used over that of the parameter.

    ``None``: its scale cancels, or it is the argument of a function whose values are the weight (a logarithm of it).
    Karras et al. 2018, section 4.1: N(0, 1) parameters, times He's constant at run time.
    """
    for node in (facts.nodes[index] for index in layer.nodes if index < len(facts.nodes)):
        if "expr" not in node.attrs or node.parameters.get("weight") not in (parameter.name, *parameter.aliases):
            continue
        degree = node.attrs.get("weight_degree")
        if degree == 0 or (degree is None and _curved(str(node.attrs["expr"]), node.parameters["weight"])):
            return None
        stats, operator = parameter.stats, node.operator
        if degree != 1 or stats is None or operator is None or stats.second <= 0 or operator.gain <= 0:
            return 1.0
        factor = operator.gain / (operator.fan_in * stats.second)
        return factor if not 1 / _SAME < factor < _SAME else 1.0
    return 1.0


def factor_in_front(facts: ModelFacts, layer: Layer) -> float:
    """The second moment of the constant factors between a norm, or a bounded function, and the layer that reads it.

    What is before the factor is of a fixed size whatever the factor is meant for: the weights hold its inverse (Raffel
    et al. 2020, T5: hidden states over sqrt(d) in front of an output projection of N(0, 1); Rahimi and Recht 2007:
    sqrt(2 / D) times the cosines of D random features). 1 without a factor.
    """
    found = {_behind(facts, index) for index in layer.nodes if index < len(facts.nodes)}
    return found.pop() if len(found) == 1 else 1.0


def _behind(facts: ModelFacts, index: int) -> float:
    factor, node = 1.0, facts.nodes[index]
    while len(node.inputs) == 1:
        node = facts.nodes[node.inputs[0]]
        if node.op == "scale":
            factor *= float(str(node.attrs.get("factor", 1.0))) ** 2
        elif not transparent(node):
            break
    return factor if node.op == "norm" or node.attrs.get("fn") in _BOUNDED else 1.0


def mean_kept(facts: ModelFacts, layer: Layer, parameter: ParameterFacts) -> bool:
    """Whether a weight whose scale cancels is used with its mean (spectral norm; weight standardisation removes it).

    The squared sums of its rows are twice those of independent weights, or more.
    """
    for node in (facts.nodes[index] for index in layer.nodes if index < len(facts.nodes)):
        if node.operator is None or node.parameters.get("weight") not in (parameter.name, *parameter.aliases):
            continue
        cancels = parameter.origin in _NORMED if parameter.generated else node.attrs.get("weight_degree") == 0
        return cancels and node.operator.total_second > _TWICE * node.operator.gain
    return False


def _curved(expression: str, name: str) -> bool:
    """Whether the weight is a positive function of the parameter, or one of the whole matrix: what is drawn is its
    logarithm or the like (Lezcano-Casado and Martinez-Rubio 2019: exp of a skew-symmetric one)."""
    if re.search(rf"\b(?:{_OF_MATRICES})\([^()]*(?:\([^()]*)*{re.escape(name)}\b", expression):
        return True
    return re.search(rf"\b(?:{_POSITIVE})\((?:(?:{_CASTS})\()*{re.escape(name)}\b", expression) is not None


def as_used(asked: Requested | None, factor: float) -> Requested | None:
    """What an init call asked for, times the factor of the second moment."""
    if asked is None or factor == 1.0:
        return asked
    by = math.sqrt(factor)
    return replace(asked, mean=asked.mean * by, std=asked.std * by)
