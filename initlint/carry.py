"""Gates that mix a layer's input with a transform of it, and whose bias keeps the input out (highway layers)."""

from __future__ import annotations

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.odds import sigmoid
from initlint.rule import Context
from initlint.signal import Nominal
from initlint.signal.verdict import harmed
from initlint.wiring import source

# Srivastava et al. 2015 start with transform biases of -1 to -4, so that the carry is open. A constant of the other
# sign and of at least 1 leaves less than 0.27 of the signal at each layer.
_AGAINST = 1.0


def carry_gates(context: Context) -> dict[str, tuple[ParameterFacts, float]]:
    """Biases that the code set against the signal, with the share of it that their gates pass, by name."""
    facts = context.facts
    found: dict[str, tuple[ParameterFacts, float]] = {}
    for node in facts.nodes:
        if node.op != "add" or len(node.inputs) != 2:
            continue
        for one, other in (node.inputs, node.inputs[::-1]):
            mixed = _mixture(facts, one, other)
            bias = _constant(context, mixed[0]) if mixed is not None else None
            if mixed is None or bias is None or bias.stats is None:
                continue
            toward = bias.stats.mean if mixed[1] else -bias.stats.mean
            if toward <= -_AGAINST:
                found[bias.name] = (bias, sigmoid(toward))
    return found


def shut_by_gates(context: Context) -> bool:
    """Whether the depth verdict goes once gates that are biased against the signal let it pass: they are the cause."""
    gates = carry_gates(context)
    changes = {name: Nominal(-bias.stats.mean, 0.0) for name, (bias, _) in gates.items() if bias.stats}
    if not changes:
        return False
    return harmed(context.effect(changes), context.signal, context.settings.optimizer) is not None


def _mixture(facts: ModelFacts, one: int, other: int) -> tuple[Node, bool] | None:
    """(gate, whether it multiplies the signal) for g * a + (1 - g) * b, where one of a, b is the layer's own input.

    ``one`` is the product with g itself.
    """
    first, second = facts.nodes[one], facts.nodes[other]
    if first.op != "mul" or second.op != "mul":
        return None
    for gate, a in (first.inputs, first.inputs[::-1]):
        for rest, b in (second.inputs, second.inputs[::-1]):
            if facts.nodes[gate].attrs.get("fn") == "sigmoid" and _complement(facts, rest) == gate:
                signal = source(facts, facts.nodes[gate].inputs[0])
                read = set(signal.inputs) if signal.op in ("linear", "conv") else set()
                if a in read or b in read:
                    return facts.nodes[gate], a in read
    return None


def _complement(facts: ModelFacts, index: int) -> int | None:
    """g, where the node is 1 - g."""
    node = facts.nodes[index]
    if node.op != "shift" or node.attrs.get("value") != 1.0:
        return None
    below = facts.nodes[node.inputs[0]]
    return below.inputs[0] if below.op == "scale" and below.attrs.get("factor") == -1.0 else None


def _constant(context: Context, gate: Node) -> ParameterFacts | None:
    """The bias of the layer that a gate reads, where the code set it to one number."""
    facts = context.facts
    node = source(facts, gate.inputs[0])
    bias = context.parameter(node.parameters.get("bias", "")) if node.op in ("linear", "conv") else None
    if bias is None or bias.stats is None or bias.last is None or bias.last.origin == "torch":
        return None
    return bias if bias.stats.minimum == bias.stats.maximum else None
