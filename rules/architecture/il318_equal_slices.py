"""IL318: the experts, heads or members that one stacked tensor holds start equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of


class EqualSlices(Rule):
    """One random matrix was expanded, repeated or copied along the leading axis of a stacked weight.

    ## What it does
    Finds weights of three or more axes that hold one matrix for each expert, head or member, and of which several
    slices are equal bit for bit.

    ## Why is this bad?
    Equal experts give equal outputs: the gate that chooses between them gets no gradient, and where nothing else tells
    them apart they stay equal. `expand`, `repeat` and a draw outside the loop copy values, not distributions.

    ## Example
    ```python
    self.w = nn.Parameter(torch.randn(1, d, h).repeat(n_experts, 1, 1))
    ```

    ## Use instead
    ```python
    self.w = nn.Parameter(torch.randn(n_experts, d, h))
    ```

    ## Known problems
    Experts made from one trained matrix (sparse upcycling) look the same when the weights are not loaded from a file.

    ## References
    - Shazeer et al. 2017, arXiv:1701.06538 (experts differ by their initial values)
    - Lee et al. 2015, arXiv:1511.06314 (ensembles: diversity comes from initial values)
    """

    code = "IL318"
    name = "equal-slices"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Shazeer et al. 2017, arXiv:1701.06538", "Lee et al. 2015, arXiv:1511.06314")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        stacked = {layer.weight for layer in context.facts.layers if layer.stack > 1}
        suspects = [p for p in context.facts.parameters if p.name in stacked and _copies(p)]
        for group in by_cause(suspects).values():
            first = group[0]
            copies = _copies(first)
            yield self.finding(
                context,
                f"{copies + 1} of the {first.shape[0]} slices of `{first.name}`"
                + (f" (and {len(group) - 1} more tensors)" if len(group) > 1 else "")
                + " start equal: one matrix was copied, not drawn for each",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"distinct_slices": first.shape[0]},
                actual={"distinct_slices": first.shape[0] - copies},
                effect="equal slices give equal outputs: what chooses between them gets no gradient",
                fix=f"draw all {first.shape[0]} slices: torch.randn({', '.join(map(str, first.shape))}) * std",
                topic="symmetry",
            )

    @bad
    def one_matrix_repeated() -> Any:
        return _mixture(repeated=True)

    @good
    def a_matrix_each() -> Any:
        return _mixture(repeated=False)


def _copies(parameter: ParameterFacts) -> int:
    """How many slices along the leading axis equal an earlier one and hold random values."""
    stats = parameter.stats
    if parameter.kind != "parameter" or not parameter.requires_grad or stats is None or stats.rows is None:
        return 0
    if len(parameter.shape) < 3 or stats.distinct is not None:
        return 0
    equal_zeros = max(0, stats.rows.zeros - 1)  # zero slices are a matter of their own
    return max(0, stats.rows.duplicates - equal_zeros)


def _mixture(repeated: bool) -> Any:
    import torch
    from torch import nn

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(16, 4)
            drawn = torch.randn(1 if repeated else 4, 16, 16) * 16**-0.5
            self.experts = nn.Parameter(drawn.repeat(4, 1, 1) if repeated else drawn)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mixed = torch.einsum("bd,edh->beh", x, self.experts)
            return (self.gate(x).softmax(-1).unsqueeze(-1) * mixed).sum(1)

    return Mixture(), (torch.randn(8, 16),)
