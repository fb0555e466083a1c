"""Operators of weights without values (meta), from the statistics of what those weights are meant to hold.

With independent entries of mean m and second moment s, a map of effective fans F and B has ``gain = F s``,
``back = B s``, row sums of mean ``F m`` and second moment ``F (s - m^2) + (F m)^2`` (THEORY section 1). Weights
read from a checkpoint have exact row energies and row sums, which are used where the layout allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from initlint.facts import Node, Operator, ParameterFacts, TensorStats
from initlint.probe.operators import nominal_operator

#: As for orthogonal live weights: float32 rounding leaves 1e-6, bfloat16 1e-2, a random matrix is of order 1.
_ORTHOGONAL = 2e-2


def fill(nodes: Sequence[Node], parameters: Sequence[ParameterFacts]) -> tuple[Node, ...]:
    """The nodes with the moments that their parameters' statistics give; without statistics an operator is unknown."""
    known = {name: p.stats for p in parameters for name in (p.name, *p.aliases)}
    return tuple(_filled(node, known) for node in nodes)


def _filled(node: Node, known: Mapping[str, TensorStats | None]) -> Node:
    if node.op in ("parameter", "constant"):
        return _valued(node, known)
    if node.operator is None or not node.attrs.get("nominal"):
        return node
    weight = known.get(node.parameters.get("weight", ""))
    if weight is None or not weight.count or node.attrs.get("expr"):
        return replace(node, operator=None)  # the weight's own moments say nothing of an expression of it
    bias = known.get(node.parameters.get("bias", ""))
    return replace(node, operator=_operator(node, node.operator, weight, bias))


def _valued(node: Node, known: Mapping[str, TensorStats | None]) -> Node:
    """A parameter that is read as a signal, as it is or shifted by a constant."""
    names = list(node.parameters.values())
    stats = known.get(names[0]) if len(names) == 1 else None
    expression = node.attrs.get("expr")
    offset = node.attrs.get("offset")
    if "second" in node.attrs or stats is None or (expression and not isinstance(offset, (int, float))):
        return node
    shift = float(offset) if isinstance(offset, (int, float)) else 0.0
    mean = stats.mean + shift
    attrs: dict[str, Any] = {**node.attrs, "mean": mean, "second": stats.var + mean * mean}
    return replace(node, attrs=attrs)


def _operator(node: Node, fans: Operator, weight: TensorStats, bias: TensorStats | None) -> Operator:
    found = nominal_operator(fans, weight.second, weight.mean)
    exact = weight.rows is not None and not weight.sampled and node.op == "linear"
    if exact and weight.rows is not None and node.attrs.get("layout") == "out_in" and not node.attrs.get("rows"):
        rows = weight.rows
        spread = rows.energy_var / rows.energy_mean**2 if rows.energy_mean > 0 else 0.0
        found = replace(found, total_mean=rows.total_mean, total_second=rows.total_second, energy_spread=spread)
    if bias is not None:
        found = replace(found, bias_mean=bias.mean, bias_second=bias.second)
    residual = weight.gram_residual
    orthogonal = residual is not None and residual <= _ORTHOGONAL and node.op == "linear"
    return replace(found, orthogonal=orthogonal, total_bias=found.total_mean * found.bias_mean)
