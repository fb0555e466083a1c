"""IL328: the scheme for the recurrent matrix is written to the input matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of

# One step of time then takes a factor 10 of the second moment of the state, which THEORY 6.1 measures as harmless once
# over the whole depth of a net; here it is taken at every step.
_FORGETS = 0.1
#: What keeps a state: the identity (Le et al. 2015) and orthogonal matrices (Saxe et al. 2014).
_KEEPS = ("eye_", "orthogonal_")


class RecurrenceOnInput(Rule):
    """The identity or an orthogonal matrix goes to a recurrent layer's input matrix, and small noise to the other.

    ## What it does
    Finds recurrent layers of torch whose code gives the input-to-hidden matrix an identity or orthogonal scheme, and
    the hidden-to-hidden matrix a random draw so small that the state loses a factor 10 or more of its second moment at
    each step.

    ## Why is this bad?
    What carries the state from step to step is `weight_hh`. With small noise in it the layer forgets everything within
    one step and sees the last input alone; gradients do not reach earlier inputs. The identity in `weight_ih`, which is
    not even square in general, does nothing for memory.

    ## Example
    ```python
    nn.init.eye_(self.rnn.weight_ih_l0)
    nn.init.normal_(self.rnn.weight_hh_l0, std=0.001)
    ```

    ## Use instead
    ```python
    nn.init.eye_(self.rnn.weight_hh_l0)
    nn.init.normal_(self.rnn.weight_ih_l0, std=0.001)
    ```

    ## Known problems
    None known.

    ## References
    - Le, Jaitly and Hinton 2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units
    - https://github.com/pytorch/pytorch/issues/48144
    """

    code = "IL328"
    name = "recurrence-on-input-matrix"
    family = "architecture"
    severity = Severity.WARNING
    sources = (
        "Le, Jaitly and Hinton 2015, arXiv:1504.00941",
        "https://github.com/pytorch/pytorch/issues/48144",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        seen: set[str] = set()
        for node in context.facts.nodes if not context.facts.loaded else ():
            for into, hidden in _pairs(context, node):
                if hidden.name not in seen and _swapped(into, hidden):
                    seen.add(hidden.name)
                    yield self._report(context, into, hidden)

    def _report(self, context: Context, into: ParameterFacts, hidden: ParameterFacts) -> Outcome:
        kept = _kept(hidden)
        op = into.last.op if into.last is not None else "eye_"
        at, other = site_of(hidden), site_of(into)
        return self.finding(
            context,
            f"{op} is written to the input matrix `{into.name}`, and `{hidden.name}`, which carries the state, keeps"
            f" {kept:.2g} of its second moment at each step",
            parameters=[hidden.name, into.name],
            site=at,
            related=[Related(other.file, other.line, f"{op} on the input matrix")] if other and other != at else [],
            expected={"kept_at_each_step": 1.0},
            actual={"kept_at_each_step": kept},
            effect="the layer forgets within one step, and no gradient reaches earlier inputs",
            fix=f"nn.init.{op}(rnn.{hidden.local})",
            topic="convention",
        )

    @bad
    def identity_on_the_input() -> Any:
        return _recurrent(swapped=True)

    @good
    def identity_on_the_state() -> Any:
        return _recurrent(swapped=False)


def _pairs(context: Context, node: Node) -> Iterator[tuple[ParameterFacts, ParameterFacts]]:
    """Input and hidden matrices of a recurrent node, for each layer and direction."""
    if node.op != "recurrent":
        return
    for role, name in node.parameters.items():
        into = context.parameter(name) if role.startswith("weight_ih") else None
        hidden = context.parameter(node.parameters.get(role.replace("_ih", "_hh"), "")) if into is not None else None
        if into is not None and hidden is not None:
            yield into, hidden


def _swapped(into: ParameterFacts, hidden: ParameterFacts) -> bool:
    first, second = into.last, hidden.last
    if first is None or second is None or hidden.stats is None or not hidden.requires_grad:
        return False
    kept = first.op in _KEEPS and first.origin == "user"
    return kept and second.random and second.op not in _KEEPS and second.origin == "user" and _kept(hidden) < _FORGETS


def _kept(hidden: ParameterFacts) -> float:
    """The share of the state's second moment that one step hands on: the width times that of a weight."""
    return hidden.shape[1] * hidden.stats.second if hidden.stats is not None and len(hidden.shape) == 2 else 1.0


def _recurrent(swapped: bool) -> Any:
    import torch
    from torch import nn

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(12, 32, nonlinearity="relu", batch_first=True), nn.Linear(32, 4)
            into, hidden = (self.rnn.get_parameter(f"weight_{part}_l0") for part in ("ih", "hh"))
            nn.init.eye_(into if swapped else hidden)
            nn.init.normal_(hidden if swapped else into, std=0.001)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return Reader(), (torch.randn(4, 9, 12),)
