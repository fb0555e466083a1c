"""IL324: a gate that mixes a signal with its transform was biased away from the signal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.odds import sigmoid
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import source

# Srivastava et al. 2015 start with transform biases of -1 to -4, so that the carry is open. A constant of the other
# sign and of at least 1 leaves less than 0.27 of the signal at each layer.
_AGAINST = 1.0
# At 0.27 of the signal for each layer five layers leave 1e-3: from there on the literature reports failed training.
_DEEP = 5


class CarryGate(Rule):
    """The bias of a highway gate closes the path that carries the signal.

    ## What it does
    Finds gates g that mix a signal x with something else, g * h(x) + (1 - g) * x in either form, and whose bias was set
    to a constant that turns the weight of x below 0.27. It is a warning from five such layers on, else a note.

    ## Why is this bad?
    The bias of such a gate exists to let the signal through at the start. With the sign of the other convention (the
    gate carries, or the gate transforms) each layer passes a quarter of its input, and depth works as in a plain
    net.

    ## Example
    ```python
    nn.init.constant_(self.transform.bias, 2.0)  # t * h + (1 - t) * x
    ```

    ## Use instead
    ```python
    nn.init.constant_(self.transform.bias, -2.0)
    ```

    ## Known problems
    None known.

    ## References
    - Srivastava, Greff and Schmidhuber 2015, section 2.2, arXiv:1505.00387
    """

    code = "IL324"
    name = "carry-gate"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Srivastava, Greff and Schmidhuber 2015, section 2.2, arXiv:1505.00387",)

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        if facts.loaded:
            return
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
        for group in by_cause(p for p, _ in found.values()).values():
            first, kept = found[group[0].name]
            value = first.stats.mean if first.stats else 0.0
            yield self.finding(
                context,
                f"`{first.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f" is {value:g}: the gate passes {kept:.2g} of the signal that it mixes with its transform",
                parameters=[p.name for p in group],
                severity=Severity.WARNING if len(group) >= _DEEP else Severity.NOTE,
                site=site_of(first),
                expected={"bias": -value},
                actual={"bias": value, "carried": kept},
                effect=f"{len(group)} such layers pass {kept ** len(group):.2g} of the signal",
                fix=f"nn.init.constant_(bias, {-value:g})",
                topic="bias",
            )

    @bad
    def transform_open() -> Any:
        return _highway(2.0)

    @good
    def carry_open() -> Any:
        return _highway(-2.0)


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


def _highway(value: float) -> Any:
    import torch
    from torch import nn

    class Highway(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.change, self.gate = nn.Linear(16, 16), nn.Linear(16, 16)
            nn.init.constant_(self.gate.bias, value)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gate = torch.sigmoid(self.gate(x))
            return gate * torch.relu(self.change(x)) + (1 - gate) * x

    return nn.Sequential(*[Highway() for _ in range(6)], nn.Linear(16, 4))
