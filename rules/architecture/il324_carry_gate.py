"""IL324: a gate that mixes a signal with its transform was biased away from the signal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.carry import carry_gates
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

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
        found = carry_gates(context)
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
