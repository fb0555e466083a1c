"""Attentions whose logits start too far apart: which they are, what makes them, and whether depth suffers by them."""

from __future__ import annotations

import math

from initlint.facts import Node, ParameterFacts
from initlint.rule import Context
from initlint.signal import Signal
from initlint.signal.spread import logit_spread
from initlint.upstream import writers

# THEORY 5.5: softmax over T Gaussian logits freezes at std sqrt(2 ln T); one speaks of it from 0.6 of that.
NOTE = 0.6
# Models are traced with short sequences; real ones are longer, and the critical spread grows (slowly) with length.
_FEWEST_KEYS = 64
#: Std of the logits between keys, and the one from which softmax is nearly one-hot.
Spread = tuple[float, float]


def hot(signal: Signal) -> dict[int, Spread]:
    """The attentions whose logits spread so far that softmax is nearly one-hot, or not far from it."""
    found: dict[int, Spread] = {}
    if signal.scene is None or signal.sweeps is None:
        return found
    for index, (spread, keys) in logit_spread(signal.scene, signal.sweeps[0].states).items():
        critical = math.sqrt(2 * math.log(max(keys, _FEWEST_KEYS)))
        if keys >= 2 and spread >= NOTE * critical:
            found[index] = (spread, critical)
    return found


def by_temperature(context: Context, span: str, threshold: float) -> tuple[int, ...]:
    """The attentions that a span of the trunk comes from: it is below the threshold with logits of std 1."""
    now = context.signal.spans.get(span)
    if now is None or now.value < threshold:
        return ()
    found = {index: spread for index, (spread, critical) in hot(context.signal).items() if spread > critical}
    if not found:
        return ()
    then = context.cooled(found).spans.get(span)
    # as it is: what was measured of the model as built says nothing of a changed one
    mended = then is not None and (then.raw < threshold or then.shrinks != now.shrinks)
    return tuple(found) if mended else ()


def projections(context: Context, index: int) -> list[ParameterFacts]:
    """The weights that make queries and keys."""
    node = context.facts.nodes[index]
    if node.op == "mha":
        names = [n for role, n in node.parameters.items() if role in ("in_proj", "q_proj", "k_proj")]
        return [p for name in names if (p := context.parameter(name)) is not None]
    found: list[ParameterFacts] = []
    for source in factors(context, index):
        found += [p for p in writers(context, source, roles=("weight",)) if p not in found]
    return found


def factors(context: Context, index: int) -> list[int]:
    """The nodes of queries and keys; none for ``mha``, which projects them itself."""
    nodes = context.facts.nodes
    node = nodes[index]
    if node.op == "mha":
        return []
    if node.op == "attention":
        return list(node.inputs[:2])
    made = product(nodes, node)
    return list(made.inputs) if made else []


def product(nodes: tuple[Node, ...], node: Node) -> Node | None:
    """The matmul whose products a softmax reads, through factors, masks and biases."""
    for _ in range(16):
        if node.op == "matmul" or not node.inputs:
            break
        node = nodes[node.inputs[0]]
    return node if node.op == "matmul" else None
