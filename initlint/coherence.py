"""How far the units of a net share one signal: weights with a mean, applied again and again (``theory.coherence``)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from initlint.facts import ModelFacts, Node
from initlint.theory.coherence import Coherence, scaled, through
from initlint.wiring import SCALED, TRANSPARENT, source

#: Functions of slope one at zero that keep the sign: what units share goes through them like the rest. (Behind a
#: rectifier units have a mean of their own, which the propagation knows.)
_ODD = frozenset({"identity", "tanh", "softsign", "hardtanh", "erf", "arctan"})
_GATES = frozenset({"sigmoid", "hardsigmoid"})
#: A gate of a sigmoid starts at one half.
_HALF = 0.5
#: From a candidate to the next step's hidden state an LSTM has two gates (input, output), a GRU as well (update,
#: reset). What its cell keeps of earlier steps is left out, so that this is a lower bound.
_PASSED = {"rnn_tanh": 1.0, "lstm": _HALF * _HALF, "gru": _HALF * _HALF}

#: Fan, mean and variance of a weight.
Drawn = tuple[float, float, float]


def coherence(facts: ModelFacts, weights: Mapping[str, Drawn]) -> dict[str, Coherence]:
    """For each of these weights the signal behind its last application, along the chain of them that grows most."""
    carried: dict[int, Coherence] = {}
    found: dict[str, Coherence] = {}
    for node in facts.nodes:
        known = [carried[i] for i in node.inputs if i in carried]
        before = max(known, key=lambda x: x.beyond, default=None)
        name = node.parameters.get("weight", "")
        after: Coherence | None = None
        if node.op in ("linear", "matmul") and name in weights and "expr" not in node.attrs:
            after = found[name] = through(before or Coherence(), *weights[name])
        elif node.op == "recurrent":
            after = _recurrent(node, carried, weights, found)
        elif before is not None:
            factor = _factor(facts, node)
            after = scaled(before, factor) if factor else None
        if after is not None:
            carried[node.index] = after
    return found


def _recurrent(
    node: Node, carried: Mapping[int, Coherence], weights: Mapping[str, Drawn], found: dict[str, Coherence]
) -> Coherence | None:
    """A packed layer applies its hidden matrix at each of its steps; a cell goes on from the state that it is given."""
    passed = _PASSED.get(str(node.attrs.get("cell")))
    steps = node.attrs.get("steps")
    last: Coherence | None = None
    for role, name in node.parameters.items():
        if not role.startswith("weight_hh") or name not in weights or passed is None:
            continue
        x = carried.get(node.inputs[1], Coherence()) if len(node.inputs) > 1 else Coherence()
        for _ in range(int(steps) if isinstance(steps, int) else 1):
            x = scaled(through(x, *weights[name]), passed)
        last = found[name] = x
    return last


def _factor(facts: ModelFacts, node: Node) -> float:
    """What an op multiplies a signal by, as far as it leaves its units apart; 0 where that is not known, or not so."""
    if node.op in TRANSPARENT or node.op in ("add", "sub", "stack"):
        return 1.0
    if node.op == "activation":
        return float(node.attrs.get("fn") in _ODD)
    if node.op == "scale":
        factor = node.attrs.get("factor")
        return float(factor) if isinstance(factor, (int, float)) else 0.0
    if node.op == "mul":
        return _HALF if any(_gate(facts, i) for i in node.inputs) else _gain(facts, node)
    return 0.0


def _gate(facts: ModelFacts, index: int) -> bool:
    """Whether a signal is a gate, or what a gate leaves (1 - z)."""
    node = source(facts, index, SCALED | {"shift"})
    return node.op == "activation" and node.attrs.get("fn") in _GATES


def _gain(facts: ModelFacts, node: Node) -> float:
    """Root mean square of the parameter that a signal is multiplied by."""
    for i in node.inputs:
        second = facts.nodes[i].attrs.get("second")
        if facts.nodes[i].op == "parameter" and isinstance(second, (int, float)):
            return math.sqrt(second)
    return 0.0
