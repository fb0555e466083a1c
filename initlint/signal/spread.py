"""How far attention logits spread between keys, and how much a net amplifies noise on its input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from initlint.facts import ModelFacts, Node
from initlint.signal.attention import attend, projected_logits
from initlint.signal.moments import Grad, State
from initlint.signal.scene import Scene, number

#: Variances of logits beyond this are masks that came through arithmetic, or an overflow that other rules report.
OVERFLOW = 1e12


def logit_spread(scene: Scene, states: Sequence[State]) -> dict[int, tuple[float, float]]:
    """For each attention the standard deviation of its logits between the keys of a query, and the number of keys."""
    found = {}
    for node in scene.nodes:
        spread = _logits(node, states)
        # masks of -inf that reach the logits by an op of their own overflow; how far keys spread is then not known
        if spread is not None and spread < OVERFLOW:
            keys = number(node, "keys" if node.op != "softmax" else "n", 1.0)
            found[node.index] = (math.sqrt(max(spread, 0.0)), keys)
    return found


def cooled(facts: ModelFacts, spreads: Mapping[int, float]) -> ModelFacts:
    """The facts with the logits of these attentions divided by so much; those that project by themselves stay."""
    nodes = list(facts.nodes)
    for index, spread in spreads.items():
        node = nodes[index]
        if node.op == "attention":
            scale = number(node, "scale", 1.0 / math.sqrt(max(number(node, "head_dim", 64.0), 1.0))) / spread
            nodes[index] = replace(node, attrs={**node.attrs, "scale": scale})
        elif node.op == "softmax":
            nodes[index] = replace(node, attrs={**node.attrs, "factor": 1.0 / spread})
    return replace(facts, nodes=tuple(nodes))


def _logits(node: Node, states: Sequence[State]) -> float | None:
    """Variance of attention logits between keys; ``None`` for anything else (a softmax over classes has no keys)."""
    sources = [states[i] for i in node.inputs]
    if any(x.undetermined for x in sources[:2]) or not sources:
        return None
    if node.op == "attention" and len(sources) >= 2:
        return attend(sources[0], sources[1], node).sigma2
    if node.op == "mha":
        return projected_logits(node, tuple(sources))
    return sources[0].e if node.op == "softmax" and sources[0].kind == "logits" else None


def sensitivity(scene: Scene, states: Sequence[State], grads: Sequence[Grad], first: int, last: int) -> float | None:
    """log10 of how much the net amplifies white noise on its input, relative to what it does to the signal itself.

    Noise of variance e^2 on n inputs gives |J|_F^2 e^2 in all at the output, and |J|_F^2 is the gradient energy at the
    input for a unit gradient at each output. Both are taken relative to the input-dependent second moments; 0 for
    a linear map, positive where different inputs are driven apart. ``None`` where no gradient arrives.
    """
    x, y, g, h = states[first], states[last], grads[first], grads[last]
    if min(x.d, y.d, g.p, h.p) <= 0 or x.undetermined or y.undetermined:
        return None
    here, there = g.p * scene.layout(first).elements, h.p * scene.layout(last).elements
    return math.log10(here / there) + math.log10(x.d) - math.log10(y.d)
